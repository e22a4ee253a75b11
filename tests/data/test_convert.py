"""Every format there and back through `open_source`, and what the formats' own programs make of it."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as pycoco
from pycocotools.coco import COCO
from typer.testing import CliRunner

from trocar.cli import app
from trocar.config import DataSettings
from trocar.data.convert import FORMATS, convert
from trocar.data.files import read_image, write_png
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.errors import UserError, UserErrors

CLASSES = ("background", "shaft", "tip")
WAYS = [*((to, False) for to in FORMATS), ("coco", True), ("labelme", True), ("cvat", True)]
EXACT = [(to, polygons) for to, polygons in WAYS if to != "yolo"]  # YOLO has no numbers of instruments


def scene(seed: int, speckles: bool = True, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    """Rods with holes and islands in two classes, ignored pixels, instruments; one piece nobody told apart."""
    rng = np.random.default_rng(seed)
    mask, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for number in (1, 2, 3):
        rod = np.zeros(size, np.uint8)
        (x0, x1), (y0, y1) = rng.integers(0, size[1], 2).tolist(), rng.integers(0, size[0], 2).tolist()
        cv2.line(rod, (x0, y0), (x1, y1), 1, int(rng.integers(1, 9)))
        cv2.circle(rod, (x1, y1), int(rng.integers(2, 7)), 2, 2)
        mask[rod > 0], instances[rod > 0] = rod[rod > 0], number
    speckle = (rng.random(size) < 0.02) & speckles
    mask[speckle], instances[speckle] = 1, 0
    mask[:3], instances[:3] = 255, 0
    return mask, instances


def make(root: Path, *, frames: int = 3, instances: bool = True, empty: bool = True, speckles: bool = True) -> Path:
    for number in range(frames):
        mask, numbers = scene(number, speckles)
        if empty and number == frames - 1:
            mask[:], numbers[:] = 0, 0
        name = f"patient {number % 2}/{number:02d}.png"
        write_png(root / "images" / name, np.random.default_rng(number).integers(0, 256, (40, 56, 3), dtype=np.uint8))
        write_png(root / "masks" / name, mask)
        if instances:
            write_png(root / "instances" / name, numbers)
    (root / "classes.json").write_text(json.dumps({name: index for index, name in enumerate(CLASSES)}))
    return root


def official(source: Source) -> Source:
    """With lists for the first two records; the third is on none."""
    names = [record.name for record in source.records]
    return dataclasses.replace(source, official={"train": (names[0],), "test": (names[1],)})


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize(("to", "polygons"), WAYS)
def test_every_format_gives_back_the_same_records(tmp_path: Path, to: str, polygons: bool) -> None:
    source = open_source(make(tmp_path / "data", frames=4))
    made = convert(source, to, tmp_path / "out", polygons=polygons)
    back = open_source(tmp_path / "out")
    assert (back.dataset, back.findings) == ("folder" if to == "png" else to, ())
    assert back.classes == source.classes
    assert [(r.name, r.group) for r in back.records] == [(r.name, r.group) for r in source.records]
    for before, after in zip(source.records, back.records, strict=True):
        np.testing.assert_array_equal(after.read()[0], before.image())
        np.testing.assert_array_equal(after.read()[1], before.mask())
        if (to, polygons) in EXACT:
            np.testing.assert_array_equal(after.instances(), before.instances())
    assert (made.records, made.images, made.notes) == (4, {"copied": 4}, ())
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(("to", "polygons"), WAYS)
def test_nobody_tells_instruments_apart_afterwards_where_nobody_did_before(
    tmp_path: Path, to: str, polygons: bool
) -> None:
    source = open_source(make(tmp_path / "data", instances=False))
    convert(source, to, tmp_path / "out", polygons=polygons)
    for before, after in zip(source.records, open_source(tmp_path / "out").records, strict=True):
        assert after.instances is None
        np.testing.assert_array_equal(after.mask(), before.mask())


def test_yolo_keeps_instruments_of_one_class_apart(tmp_path: Path) -> None:
    make(tmp_path / "data")
    for path in (tmp_path / "data/masks").rglob("*.png"):
        instances = cv2.imread(str(path).replace("masks", "instances"), cv2.IMREAD_UNCHANGED)
        write_png(path, (instances > 0).astype(np.uint8))
    (tmp_path / "data/classes.json").write_text('{"background": 0, "tool": 1}')
    source = open_source(tmp_path / "data")
    convert(source, "yolo", tmp_path / "out")
    for before, after in zip(source.records, open_source(tmp_path / "out").records, strict=True):
        kept = np.unique(before.instances(), return_inverse=True)[1].reshape(before.instances().shape)
        np.testing.assert_array_equal(after.instances(), kept)


@pytest.mark.parametrize("to", ["coco", "cvat", "cvat-masks", "yolo"])
def test_official_lists_come_back(tmp_path: Path, to: str) -> None:
    source = official(open_source(make(tmp_path / "data")))
    convert(source, to, tmp_path / "out")
    back = open_source(tmp_path / "out")
    assert back.official == source.official
    assert len(back) == 3


@pytest.mark.parametrize("to", ["labelme", "label-studio", "png"])
def test_formats_without_lists_say_so(tmp_path: Path, to: str) -> None:
    made = convert(official(open_source(make(tmp_path / "data"))), to, tmp_path / "out")
    assert any("no place for the official split" in note for note in made.notes)


def test_groups_that_are_not_the_first_folder_become_it(tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "data"))
    groups = {"patient 0/00": "rigid/OP1", "patient 0/02": "patient 0/02", "patient 1/01": "patient 1"}
    records = tuple(dataclasses.replace(record, group=groups[record.name]) for record in source.records)
    made = convert(dataclasses.replace(source, records=records), "coco", tmp_path / "out")
    assert any("1 records were renamed after their groups" in note for note in made.notes)
    names = {record.name: record.group for record in open_source(tmp_path / "out").records}
    assert names == {"rigid-OP1/patient 0/00": "rigid-OP1", "patient 0/02": "patient 0", "patient 1/01": "patient 1"}


# ------------------------------------------------------------------ images


def test_images_are_copied_as_they_are_or_linked(tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "data"))
    convert(source, "coco", tmp_path / "copied")
    made = convert(source, "coco", tmp_path / "linked", link=True)
    assert made.images == {"linked": 3}
    for before, copied, linked in zip(
        source.records, open_source(tmp_path / "copied").records, open_source(tmp_path / "linked").records, strict=True
    ):
        assert copied.files[0].read_bytes() == before.files[0].read_bytes()
        assert linked.files[0].samefile(before.files[0])
        assert not copied.files[0].samefile(before.files[0])


def test_images_that_other_programs_would_see_otherwise_are_written_anew(tmp_path: Path) -> None:
    make(tmp_path / "data", frames=1, empty=False)
    path = tmp_path / "data/images/patient 0/00.png"
    upright = read_image(path)
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    source = open_source(tmp_path / "data")
    cropped = dataclasses.replace(source.records[0], name="video/1", group="video", image=partial(np.copy, upright))
    both = dataclasses.replace(source, records=(*source.records, cropped))
    assert convert(both, "png", tmp_path / "out").images == {"written anew": 2}
    for record in open_source(tmp_path / "out").records:
        with Image.open(record.files[0]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), upright)


# ------------------------------------------------------------------ what the formats' own programs make of it


def difference(root: Path, masks: dict[str, np.ndarray]) -> float:
    """Share of the pixels of either mask that are in one only, over all classes and records."""
    wrong = total = 0
    for record in open_source(root).records:
        theirs, ours = masks[record.name], record.mask()
        wrong += int(np.count_nonzero(theirs != ours))
        total += int(np.count_nonzero(ours | theirs))
    return wrong / total


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_sees_the_same_masks(tmp_path: Path, polygons: bool, capsys: pytest.CaptureFixture[str]) -> None:
    convert(open_source(make(tmp_path / "data")), "coco", tmp_path / "out", polygons=polygons)
    coco = COCO(str(tmp_path / "out/annotations/instances_default.json"))
    masks = {}
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            rle = coco.annToRLE(annotation)
            assert pycoco.area(rle) == annotation["area"]
            assert pycoco.toBbox(rle).tolist() == annotation["bbox"]
            mask[_decoded(rle)] = annotation["category_id"]
        masks[image["file_name"].removesuffix(".png")] = mask
    assert difference(tmp_path / "out", masks) == 0


def _decoded(rle: dict) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2.4
        return pycoco.decode(rle) > 0


def test_labelme_s_own_painting_differs_by_less_than_a_percent(tmp_path: Path) -> None:
    """`shape_to_mask` of labelme: PIL, outline and inside; only cuts to holes may show."""
    convert(open_source(make(tmp_path / "data")), "labelme", tmp_path / "out", polygons=True)
    index_of = {"__ignore__": 255, "shaft": 1, "tip": 2}
    masks = {}
    for path in (tmp_path / "out").rglob("*.json"):
        document = json.loads(path.read_text())
        mask = np.zeros((document["imageHeight"], document["imageWidth"]), np.uint8)
        for shape in document["shapes"]:
            picture = Image.new("L", mask.shape[::-1])
            ImageDraw.Draw(picture).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
            mask[np.asarray(picture) > 0] = index_of[shape["label"]]
        masks[path.relative_to(tmp_path / "out").with_suffix("").as_posix()] = mask
    assert difference(tmp_path / "out", masks) < 0.01


def test_ultralytics_painting_differs_by_the_cuts_between_parts(tmp_path: Path) -> None:
    """`polygon2mask` of Ultralytics: cv2.fillPoly of whole pixels. These rods cut each other to pieces."""
    convert(open_source(make(tmp_path / "data", speckles=False)), "yolo", tmp_path / "out")
    names = yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"]
    assert names == {0: "shaft", 1: "tip", 2: "ignore"}
    masks = {}
    for path in (tmp_path / "out/labels").rglob("*.txt"):
        mask = np.zeros((40, 56), np.uint8)
        for line in path.read_text().splitlines():
            number, *ring = line.split()
            points = (np.array(ring, float).reshape(-1, 2) * (56, 40)).astype(np.int32)
            cv2.fillPoly(mask, [points], [1, 2, 255][int(number)])
        masks[path.relative_to(tmp_path / "out/labels").with_suffix("").as_posix()] = mask
    assert difference(tmp_path / "out", masks) < 0.1


# ------------------------------------------------------------------ refusals


def refuse(source: Source, out: Path, to: str = "coco", **options: bool) -> UserError:
    before = sorted(out.parent.iterdir())
    with pytest.raises(UserError) as caught:
        convert(source, to, out, **options)
    assert sorted(out.parent.iterdir()) == before  # nothing is left behind
    return caught.value


def test_every_bad_record_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    make(tmp_path / "data")
    write_png(tmp_path / "data/masks/patient 0/00.png", np.zeros((5, 5), np.uint8))
    (tmp_path / "data/images/patient 1/01.png").write_bytes(b"no image")
    error = refuse(open_source(tmp_path / "data"), tmp_path / "out")
    assert isinstance(error, UserErrors)
    assert len(error.errors) == 2
    assert "mask is 5x5 but its image is 56x40" in str(error)


def test_findings_are_told_first(tmp_path: Path) -> None:
    make(tmp_path / "data")
    (tmp_path / "data/masks/patient 0/00.png").unlink()
    assert "has no mask" in str(refuse(open_source(tmp_path / "data"), tmp_path / "out"))


def test_instances_of_another_size(tmp_path: Path) -> None:
    make(tmp_path / "data")
    write_png(tmp_path / "data/instances/patient 0/00.png", np.zeros((5, 5), np.uint8))
    assert "instance mask is 5x5" in str(refuse(open_source(tmp_path / "data"), tmp_path / "out"))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "data"))
    assert "holds something" in refuse(source, tmp_path / "data").what
    (tmp_path / "file").write_text("")
    assert "holds something" in refuse(source, tmp_path / "file").what
    with pytest.raises(UserError, match="cannot copy the image"):
        convert(source, "coco", tmp_path / "file" / "out")
    (tmp_path / "empty").mkdir()
    convert(source, "coco", tmp_path / "empty")
    assert len(open_source(tmp_path / "empty")) == 3


def test_a_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(open_source(make(tmp_path / "data")), "coco", tmp_path / "out", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["Background", "ignore", "__ignore__", "#x", "a\nb", " a"])
def test_names_of_classes_that_mean_something_else(tmp_path: Path, name: str) -> None:
    source = dataclasses.replace(open_source(make(tmp_path / "data")), classes=("background", name, "tip"))
    assert "would take for something else" in refuse(source, tmp_path / "out").what


def test_names_given_twice_by_groups(tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "data"))
    one = source.records[0]
    records = tuple(
        dataclasses.replace(one, name=name, group=group) for name, group in (("a/b/1", "a/b"), ("a-b/1", "a-b"))
    )
    assert "given twice" in refuse(dataclasses.replace(source, records=records), tmp_path / "out").what


def test_options_that_do_not_apply(tmp_path: Path) -> None:
    source = open_source(make(tmp_path / "data"))
    assert "no choice of polygons" in refuse(source, tmp_path / "out", "yolo", polygons=True).what
    empty = dataclasses.replace(source, records=())
    assert "no record to convert" in refuse(empty, tmp_path / "out").what


# ------------------------------------------------------------------ the verb, and mutated files


def test_the_verb(tmp_path: Path) -> None:
    make(tmp_path / "data")
    arguments = ["convert", str(tmp_path / "data"), "--to", "cvat", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["records"], document["to"], document["images"]) == (3, "cvat", {"copied": 3})
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "holds something" in again.stderr
    shutil.rmtree(tmp_path / "out")
    plain = CliRunner().invoke(app, [*arguments, "--polygons", "--link"])
    assert plain.exit_code == 0
    assert "3 records" in plain.stdout
    assert "3 linked" in plain.stdout


WORDS = (
    b"null -1 1e999 NaN 99999999999999999999 {} [] true 0 [[[]]] \xff \x00 ../../x /etc/passwd 1e18 -0.5 &b; : , # \n "
    b'"\\ud800" <!DOCTYPE_a[<!ENTITY_b_"c">]> 2147483648 *a'
).split(b" ")
PARTS = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]{0,40}"|null|\[[^\[\]]{0,40}\]')


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        found = list(PARTS.finditer(bytes(changed)))
        way = rng.randrange(5)
        if way == 0:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif way == 1:
            del changed[place : place + rng.randint(1, 40)]
        elif way == 2:
            changed[place:place] = rng.choice(WORDS)
        elif way == 3 and found:
            part = rng.choice(found)
            changed[part.start() : part.end()] = rng.choice(WORDS)
        else:
            changed[place:] = changed[rng.randrange(len(changed) + 1) :][:200]
    return bytes(changed)


@pytest.mark.parametrize(("to", "polygons"), WAYS)
def test_mutated_labels_end_in_the_error_form(tmp_path: Path, to: str, polygons: bool) -> None:
    out = tmp_path / "out"
    convert(open_source(make(tmp_path / "data", frames=2, empty=False)), to, out, polygons=polygons)
    labels = sorted(
        path for path in out.rglob("*") if path.is_file() and not {"images", "JPEGImages"} & set(path.parts)
    )
    labels = [path for path in labels if to != "labelme" or path.suffix != ".png"]
    rng = random.Random(f"{to}{polygons}")
    told = 0
    for _ in range(15):
        path = rng.choice(labels)
        good = path.read_bytes()
        path.write_bytes(mutated(good, rng))
        told += _complaints(out, "folder" if to == "png" else to)
        path.write_bytes(good)
    assert told >= 4  # most of them cannot be read any more
    assert _complaints(out, "auto") == 0


def _complaints(root: Path, kind: str) -> bool:
    """Whether anything was said; anything else than a `UserError` gets out."""
    try:
        source = open_source(root, DataSettings(kind=kind))
    except UserError as error:
        return bool(str(error))
    said = bool(source.findings)
    for record in source.records:
        said |= _complains(record.read)
        said |= record.instances is not None and _complains(record.instances)
    return said


def _complains(read: Callable[[], object]) -> bool:
    try:
        read()
    except UserError as error:
        str(error).encode()
        if error.where is None:
            raise AssertionError(f"does not say where: {error}") from None
        return True
    return False
