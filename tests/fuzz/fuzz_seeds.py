"""Valid inputs of every kind, small, as the readers' own tests make them: what the fuzz run spoils."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_TESTS = Path(__file__).resolve().parents[1]
for _folder in (_TESTS, _TESTS / "data"):  # run as a script, pytest has not put them there
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))

import labelled
import test_fetch
import test_sources_cadis
import test_sources_cholec_instances
import test_sources_cholecseg8k
import test_sources_coco
import test_sources_cvat
import test_sources_endovis15 as endovis15
import test_sources_endovis17 as endovis17
import test_sources_endovis18
import test_sources_folder as plain
import test_sources_label_studio as label_studio
import test_sources_labelme as labelme
import test_sources_layouts as layouts
import test_sources_robust_mis
import test_sources_sar_rarp50 as sar_rarp50
import test_sources_videos
import test_sources_yolo

import fakes
from trocar.config import Recipe, SplitSettings
from trocar.data.files import write_jpeg, write_png
from trocar.data.sources import open_source
from trocar.data.splits import make_split, write_split

Make = Callable[[Path], object]


# ------------------------------------------------------------------ layouts


def _endovis15_robotic(root: Path) -> None:
    """Three codecs: pictures as they are, of JPEG, and with B-frames."""
    for number, (codec, pixels) in enumerate((("ffv1", "yuv444p"), ("mjpeg", "yuvj420p"), ("libx264", "yuv420p")), 1):
        folder = root / f"robotic/Dataset{number}"
        endovis15.write_video(folder / "Video.avi", endovis15.numbered_frames(5), codec, pixels)
        masks = [endovis15.PARTS[endovis15.bar(index)] for index in range(5)]
        if number == 1:
            for side in ("Left", "Right"):
                endovis15.write_video(folder / f"{side}_Instrument_Segmentation.avi", masks, codec, pixels)
        else:
            endovis15.write_video(folder / "Segmentation.avi", masks, codec, pixels)


def _endovis17(root: Path) -> None:
    """The camera's picture, which is read as it is: whole frames would take longer to decode than all else."""
    endovis17.make_training(root / "train", frames=(0,))
    endovis17.make_test(root / "test")
    for path in root.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        write_png(path, np.ascontiguousarray(pixels[28:1052, 320:1600]))


def _kvasir(root: Path) -> None:
    layouts.make_kvasir(root)
    for path in sorted((root / "images").iterdir()):
        write_jpeg(path.with_suffix(".jpg"), np.asarray(Image.open(path)))
        path.unlink()


def _folder_with_classes(root: Path) -> None:
    plain.make(root, {"p1/a": plain.shape_mask(), "p2/b": plain.shape_mask(3)})
    plain.make(root, {"p1/a": plain.shape_mask()}, images="unused", folder="instances")
    (root / "classes.json").write_text('{"background": 0, "shaft": 1, "ignore": 7}')


def _folder_of_colours(root: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    plain.make(root, {"a": colours[plain.shape_mask()], "b": colours[plain.shape_mask(2)]})
    (root / "classes.json").write_text('{"background": [0, 0, 0], "shaft": [255, 0, 0]}')


def _folder_of_other_formats(root: Path) -> None:
    for stem, suffix in (("a", ".tif"), ("b", ".webp"), ("c", ".bmp"), ("d", ".jpg")):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(plain.noise()).save(root / f"images/{stem}{suffix}")
        write_png(root / f"masks/{stem}.png", plain.shape_mask() * 255)
    palette = Image.fromarray(plain.shape_mask()).convert("P")
    palette.save(root / "masks/a.png")
    Image.fromarray(plain.shape_mask() * 255).save(root / "masks/b.tif")
    (root / "masks/b.png").unlink()


def _sar_rarp50(root: Path) -> None:
    sar_rarp50.make_video(root / "train1/video_01", seconds=1)
    sar_rarp50.make_video(root / "test/video_41", seconds=1, rgb=True)


def _labelme(root: Path) -> None:
    labelme.make(root, *labelme.SHAPES)
    (root / "labels.txt").write_text("shaft\ntip\n")


def _label_studio(root: Path) -> None:
    polygon = label_studio.region("polygonlabels", "wire", points=[[0, 0], [28, 0], [28, 20], [0, 20]])
    label_studio.make(root, label_studio.task(label_studio.brush(), polygon))


def _cvat_masks(root: Path) -> None:
    test_sources_cvat.make_masks(root)
    objects = np.zeros((*labelled.SIZE, 3), np.uint8)
    objects[2:5, 3:9] = (128, 0, 0)
    write_png(root / "SegmentationObject/p1/a.png", objects)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("p1/a\n")


def _yolo(root: Path) -> None:
    test_sources_yolo.make(root)
    labelled.add_image(root / "images/p2/b.png")
    (root / "val.txt").write_text("images/p2/b.png\n")
    (root / "data.yaml").write_text("train: images/p1\nval: val.txt\nnames: {0: shaft, 1: tip}\n")


LAYOUTS: dict[str, Make] = {  # what comes before a slash is the layout's name
    "folder": layouts.make_plain,
    "folder/classes": _folder_with_classes,
    "folder/colours": _folder_of_colours,
    "folder/formats": _folder_of_other_formats,
    "drawn": layouts.make_drawn,
    "videos": test_sources_videos.make,
    "kvasir-instrument": _kvasir,
    "endovis15": lambda root: endovis15.make_rigid(root / "rigid", frames=1),
    "endovis15/robotic": _endovis15_robotic,
    "endovis17": _endovis17,
    "endovis18": test_sources_endovis18.make,
    "robust-mis": test_sources_robust_mis.make,
    "cholecseg8k": test_sources_cholecseg8k.make,
    "cholec-instances": test_sources_cholec_instances.make,
    "sar-rarp50": _sar_rarp50,
    "cadis": test_sources_cadis.make,
    "coco": test_sources_coco.make,
    "labelme": _labelme,
    "cvat": test_sources_cvat.make,
    "cvat-masks": _cvat_masks,
    "label-studio": _label_studio,
    "yolo": _yolo,
}

# ------------------------------------------------------------------ other files


def _archive(root: Path) -> None:
    (root / "set.zip").write_bytes(test_fetch.published())


def _split(root: Path) -> None:
    """A set, with lists of it in every form that an audit reads."""
    data = root / "data"
    plain.make(data, {f"p{group}/{frame}": plain.shape_mask(frame) for group in range(4) for frame in range(2)})
    source = open_source(data)
    write_split(make_split(source, SplitSettings(strategy="k-fold", folds=2)), root / "split.yaml")
    names = [record.name for record in source.records]
    sides = {"train": names[:4], "val": names[4:6], "test": names[6:]}
    (root / "sides.json").write_text(json.dumps(sides))
    rows = [f"{name},{side}" for side, some in sides.items() for name in some]
    (root / "sides.csv").write_text("\n".join(["record,side", *rows]))
    (root / "lists").mkdir()
    for side, some in sides.items():
        (root / f"lists/{side}.txt").write_text("\n".join(some))


def _recipe(root: Path) -> None:
    (root / "recipe.yaml").write_text(Recipe().to_yaml())


def _model(root: Path) -> None:
    source = fakes.make_source()
    fakes.write_fold_run(root / "run", source)


def _reports(root: Path) -> None:
    random_numbers = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = root / name
        folder.mkdir()
        with (folder / "per_image.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["record", "group", "fold", "dice", "jaccard", "height", "truth_pixels"])
            for number in range(12):
                value = round(float(random_numbers.random()), 4)
                cells = [value, value / (2 - value), 48, 100 + number]
                writer.writerow([f"OP{number // 4}/{number:03d}", f"OP{number // 4}", "", *cells])
        told = {"warnings": ["w"], "summary": {"dice": {"mean": 0.5}}, "dataset": "drawn", "model": "m"}
        (folder / "report.json").write_text(json.dumps(told))


def _images(root: Path) -> None:
    noise = plain.noise()
    for suffix in (".png", ".jpg", ".tif", ".webp", ".bmp"):
        Image.fromarray(noise).save(root / f"colour{suffix}")
        Image.fromarray(noise[..., 0]).save(root / f"grey{suffix}")
    Image.fromarray(noise).quantize(8).save(root / "palette.png", transparency=1)
    Image.fromarray(np.dstack([noise, noise[..., :1]])).save(root / "alpha.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(root / "deep.png")
    Image.fromarray(noise).save(root / "progressive.jpg", progressive=True)
    Image.fromarray(noise).convert("CMYK").save(root / "cmyk.jpg")
    _, packed = cv2.imencode(".tif", noise, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    (root / "lzw.tif").write_bytes(packed.tobytes())


OTHERS: dict[str, Make] = {
    "archive": _archive,
    "split": _split,
    "recipe": _recipe,
    "model": _model,
    "reports": _reports,
    "images": _images,
}

# ------------------------------------------------------------------ a folder as data

Tree = dict[str, bytes]


def build(folder: Path) -> None:
    """Write every valid input below the folder."""
    for name, make in (LAYOUTS | OTHERS).items():
        root = folder / name.replace("/", "+")
        root.mkdir(parents=True)
        make(root)


def read_tree(root: Path) -> Tree:
    """Path and content of every file."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_tree(tree: Tree, root: Path) -> None:
    """The files below a new folder."""
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
