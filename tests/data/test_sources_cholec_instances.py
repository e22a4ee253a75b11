from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

SQUARE = [[4.0, 3.0], [10.0, 3.0], [10.0, 8.0], [4.0, 8.0]]


def shape(label: str, points: Any, group_id: Any = 1) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": group_id,
        "description": "",
        "shape_type": "polygon",
        "flags": None,
    }


def annotate(
    root: Path, video: str, frame: str, shapes: list[dict[str, Any]], size_hw: tuple[int, int] = (24, 40)
) -> None:
    """An image, grey by its number, and its annotation with the keys of the published files."""
    height, width = size_hw
    folder = root / video
    write_png(folder / f"img_dir/{frame}.png", np.full((height, width, 3), int(frame[-3:]) % 251, np.uint8))
    tree = {
        "version": "1.0.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"img_dir/{frame}.png",
        "imageHeight": height,
        "imageWidth": width,
    }
    path = folder / f"ann_dir/{frame}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))


def make(root: Path) -> None:
    annotate(root, "train/VID12_seg8k", "seg8k_video12_015750", [shape("hook", SQUARE)])
    annotate(root, "train/VID12_t50_full", "t50_VID12_000002", [])
    annotate(root, "val/VID03_t80_sparse", "t80_VID03_000030", [shape("grasper", SQUARE)])
    annotate(
        root,
        "test/VID110_t50_sparse",
        "t50_VID110_000060",
        [shape("snare", SQUARE), shape("snare", [[20, 2], [30, 9], [20, 9]], 2)],
    )


def test_polygons_with_their_outline(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("cholec-instances", ("background", "instrument"))
    record = next(record for record in source.records if record.group == "VID110")
    image, mask = pickle.loads(pickle.dumps(record)).read()
    assert image[0, 0].tolist() == [60, 60, 60]
    expected = Image.new("L", (40, 24))
    for points in (SQUARE, [[20, 2], [30, 9], [20, 9]]):
        ImageDraw.Draw(expected).polygon([(x, y) for x, y in points], fill=1, outline=1)
    assert mask[3:9, 4:11].all()  # corners included
    assert mask.sum() - mask[:, 20:].sum() == 6 * 7
    assert np.count_nonzero(mask != np.asarray(expected)) <= 8  # two rasterisers differ along the slope alone
    types = open_source(tmp_path, DataSettings(target="types"))
    assert types.classes[1:] == ("grasper", "hook", "irrigator", "clipper", "bipolar", "scissors", "snare")
    assert {record.group: int(record.mask().max()) for record in types.records if record.mask().any()} == {
        "VID03": 1,
        "VID12": 2,
        "VID110": 7,
    }


def test_contours_of_any_solid_mask_give_it_back(tmp_path: Path) -> None:
    """As the annotations were made: outer contours of masks. Several polygons may make one instrument."""
    rng = np.random.default_rng(0)
    for number in range(10):
        blobs = (cv2.GaussianBlur(rng.random((60, 80)).astype(np.float32), (0, 0), 4) > 0.51).astype(np.uint8)
        contours, _ = cv2.findContours(blobs, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        polygons = [contour[:, 0].astype(float).tolist() for contour in contours if len(contour) > 2]
        kept = np.zeros_like(blobs)  # without holes and without what is too thin for a polygon
        for contour in contours:
            if len(contour) > 2:
                cv2.drawContours(kept, [contour], -1, 1, cv2.FILLED)
        annotate(
            tmp_path, "VID01_seg8k", f"seg8k_video01_{number:06d}", [shape("grasper", p) for p in polygons], (60, 80)
        )
        record = open_source(tmp_path).records[-1]
        np.testing.assert_array_equal(record.mask(), kept)
        assert record.instances is not None
        np.testing.assert_array_equal(record.instances(), kept)


def test_instances_are_label_and_group_id_and_the_later_lies_above(tmp_path: Path) -> None:
    second = [[8, 3], [20, 3], [20, 8], [8, 8]]
    far = [[30, 15], [35, 15], [35, 20], [30, 20]]
    shapes = [shape("grasper", SQUARE, 1), shape("hook", second, 1), shape("grasper", far, 1)]
    annotate(tmp_path, "VID01_seg8k", "seg8k_video01_000001", shapes)
    record = open_source(tmp_path, DataSettings(target="types")).records[0]
    expected = np.zeros((24, 40), np.uint8)
    expected[3:9, 4:11] = 1
    expected[3:9, 8:21] = 2
    expected[15:21, 30:36] = 1  # the second polygon of the first instrument
    np.testing.assert_array_equal(record.mask(), expected)
    assert record.instances is not None
    np.testing.assert_array_equal(record.instances(), expected)


def test_groups_are_videos_and_sides_are_folders(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert {group: len(records) for group, records in source.groups.items()} == {"VID03": 1, "VID12": 2, "VID110": 1}
    assert source.official is not None
    assert {side: len(names) for side, names in source.official.items()} == {"train": 2, "val": 1, "test": 1}
    assert [record.frame for record in source.groups["VID12"]] == [15750, 2]
    assert open_source(tmp_path / "train").official is None


def test_no_shapes_is_no_instrument_and_missing_images_are_findings(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "val/VID03_t80_sparse/img_dir/t80_VID03_000030.png").unlink()
    source = open_source(tmp_path)
    assert "the mask has no image" in source.findings[0].what
    empty = next(record for record in source.records if record.name.endswith("t50_VID12_000002"))
    assert not empty.read()[1].any()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([shape("spoon", SQUARE)], "names the instrument 'spoon'"),
        ([shape("hook", [[1, 2], [3]])], "no pair of coordinates"),
        ([shape("hook", [[1, 2], [3, float("nan")]])], "no pair of coordinates"),
        ([shape("hook", [[1, 2], [3, 1e300]])], "no pair of coordinates"),
        ([shape("hook", [[1, 2], [3, "4"]])], "no pair of coordinates"),
        ([shape("hook", [])], "no polygon"),
        ([shape("hook", SQUARE) | {"shape_type": "circle"}], "no polygon"),
        ([shape("hook", SQUARE, None)], "group_id is None"),
        (["hook"], "names the instrument 'hook'"),
        ("hook", "no list of shapes"),
    ],
)
def test_wrong_annotations(tmp_path: Path, shapes: Any, words: str) -> None:
    annotate(tmp_path, "VID01_seg8k", "seg8k_video01_000001", shapes)
    record = open_source(tmp_path).records[0]
    with pytest.raises(UserError, match=words):
        record.mask()


@pytest.mark.parametrize("size", [(0, 40), (70000, 70000), (None, 40), (True, 40)])
def test_wrong_sizes_and_wrong_json(tmp_path: Path, size: tuple[Any, Any]) -> None:
    annotate(tmp_path, "VID01_seg8k", "seg8k_video01_000001", [shape("hook", SQUARE)])
    path = tmp_path / "VID01_seg8k/ann_dir/seg8k_video01_000001.json"
    tree = json.loads(path.read_text()) | {"imageHeight": size[0], "imageWidth": size[1]}
    record = open_source(tmp_path).records[0]
    for text, words in ((json.dumps(tree), "image's size"), ("{", "cannot read"), ("[" * 200_000, "cannot read")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            record.mask()
