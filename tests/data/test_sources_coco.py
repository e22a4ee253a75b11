from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from labelled import SIZE, add_image, add_json, only_finding, reading, rectangle, refusal
from pycocotools import mask as pycoco

from trocar.config import DataSettings
from trocar.data.sources import open_source

SQUARE = [10, 5, 20, 5, 20, 15, 10, 15]  # rows 5..14, columns 10..19
RLE = {"size": [24, 32], "counts": [24 * 2 + 1, 4, 24 * 30 - 5]}  # column 2, rows 1..4

DOCUMENT = {
    "images": [
        {"id": 8, "file_name": "p2/b.png", "height": 24, "width": 32},
        {"id": 3, "file_name": "p1/a.png", "height": 24, "width": 32},
    ],
    "categories": [{"id": 7, "name": "tip"}, {"id": 2, "name": "shaft"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 7, "segmentation": [SQUARE], "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 2, "segmentation": RLE, "iscrowd": 1},
        {
            "id": 3,
            "image_id": 3,
            "category_id": 2,
            "segmentation": [[0, 20, 5, 20, 5, 24, 0, 24], [30, 0, 32, 0, 32, 2]],
        },
    ],
}


def make(root: Path, document: dict | None = None, place: str = "annotations/instances_default.json") -> Path:
    for image in DOCUMENT["images"]:
        add_image(root / "images" / image["file_name"])
    add_json(root / place, document or DOCUMENT)
    return root


def changed(**annotation: object) -> dict:
    """One image, one annotation, altered."""
    document = copy.deepcopy(DOCUMENT)
    document["images"] = document["images"][1:]
    document["annotations"] = [document["annotations"][0] | annotation]
    return document


@pytest.mark.parametrize(
    "place", ["annotations/instances_default.json", "labels.json", "images/_annotations.coco.json"]
)
def test_polygons_run_lengths_and_crowds(tmp_path: Path, place: str) -> None:
    source = open_source(make(tmp_path, place=place))
    assert (source.dataset, source.findings, source.official) == ("coco", (), None)
    assert source.classes == ("background", "shaft", "tip")  # in order of the ids
    assert [(record.name, record.group) for record in source.records] == [("p1/a", "p1"), ("p2/b", "p2")]
    assert any("1 annotations are crowds" in note for note in source.notes)
    first, second = (pickle.loads(pickle.dumps(record)) for record in source.records)
    expected = np.zeros(SIZE, np.uint8)
    expected[rectangle(5, 10, 15, 20)] = 2
    expected[rectangle(1, 2, 5, 3) | rectangle(20, 0, 24, 5)] = 1
    corner = first.mask()[:2, 30:]
    expected[:2, 30:] = corner  # a triangle: its pixels are pycocotools' business
    assert corner.any()
    np.testing.assert_array_equal(first.read()[1], expected)
    numbers = first.instances()
    assert numbers[10, 15] == 1
    assert numbers[3, 2] == 0
    assert numbers[22, 2] == numbers[0, 31] == 2
    assert not second.mask().any()


def test_a_slanted_polygon_is_pycocotools_mask(tmp_path: Path) -> None:
    points = [3.3, 2.7, 28.4, 9.1, 17.7, 22.2, 6.1, 15.5]
    (record,) = open_source(make(tmp_path, changed(segmentation=[points]))).records
    rle = pycoco.merge(pycoco.frPyObjects([points], *SIZE))
    assert np.count_nonzero(record.mask()) == pycoco.area(rle)
    np.testing.assert_array_equal(record.mask() > 0, _decoded(rle))


def _decoded(rle: dict) -> np.ndarray:
    """Even and odd runs down the columns, from the area of every prefix: without the decoder that is tested."""
    mask = np.zeros(SIZE, bool)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            pixel = pycoco.encode(np.asfortranarray(rectangle(row, column, row + 1, column + 1), dtype=np.uint8))
            mask[row, column] = pycoco.area(pycoco.merge([rle, pixel], intersect=True)) > 0
    return mask


def test_files_of_sides_give_the_official_split(tmp_path: Path) -> None:
    make(tmp_path, changed(), "annotations/instances_train2017.json")
    other = copy.deepcopy(DOCUMENT)
    other["images"], other["annotations"] = other["images"][:1], []
    add_json(tmp_path / "annotations/instances_val2017.json", other)
    assert open_source(tmp_path).official == {"train": ("p1/a",), "val": ("p2/b",)}


def test_roboflow_keeps_labels_beside_the_images_of_a_side(tmp_path: Path) -> None:
    for side, index in (("train", 1), ("valid", 0)):
        image = DOCUMENT["images"][index]
        add_image(tmp_path / side / image["file_name"])
        add_json(tmp_path / side / "_annotations.coco.json", DOCUMENT | {"images": [image], "annotations": []})
    assert open_source(tmp_path).official == {"train": ("p1/a",), "val": ("p2/b",)}


def test_one_name_on_two_sides_is_a_problem(tmp_path: Path) -> None:
    for side in ("train", "val"):
        add_image(tmp_path / side / "a.png")
        images = [DOCUMENT["images"][0] | {"file_name": "a.png"}]
        add_json(tmp_path / side / "_annotations.coco.json", DOCUMENT | {"images": images, "annotations": []})
    assert "2 labelled images would all be record a" in only_finding(tmp_path).what


def test_categories_of_background_and_ignore(tmp_path: Path) -> None:
    document = changed()
    document["categories"] = [{"id": 0, "name": "Background"}, {"id": 7, "name": "ignore"}, {"id": 9, "name": "tool"}]
    source = open_source(make(tmp_path, document))
    assert source.classes == ("Background", "tool")
    np.testing.assert_array_equal(source.records[0].mask(), rectangle(5, 10, 15, 20) * np.uint8(255))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 5}, "category_id 5 is none of the file's categories"),
        ({"segmentation": []}, "a box but no outline"),
        ({"segmentation": None}, "a box but no outline"),
        ({"segmentation": [[1, 2, 3, 4]]}, "2 points"),
        ({"segmentation": [[1, 2, "x", 4, 5, 6]]}, "not a list of x and y"),
        ({"category_id": {}}, "an annotation is not as the format has it"),
        ({"image_id": 99}, "1 annotations belong to no image"),
    ],
)
def test_annotations_nobody_can_use_are_findings(tmp_path: Path, change: dict, words: str) -> None:
    assert words in only_finding(make(tmp_path, changed(**change))).what


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmentation": {"size": [24, 32], "counts": [24 * 32, 1]}}, "covers 769 pixels"),
        ({"segmentation": {"size": [32, 24], "counts": [24 * 32]}}, "has size"),
        ({"segmentation": {"counts": "not counts"}}, "damaged"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "far outside"),
    ],
)
def test_masks_that_do_not_fit_are_told_when_read(tmp_path: Path, change: dict, words: str) -> None:
    assert words in reading(make(tmp_path, changed(**change))).what


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_name": "gone.png"}, "the image gone.png is missing"),
        ({"file_name": "../../../../etc/passwd.png"}, "outside of"),
        ({"file_name": "/etc/passwd.png"}, "outside of"),
        ({"file_name": "p1/a.txt"}, "no ending of an image"),
        ({"file_name": ""}, "no name"),
        ({"file_name": "a\0.png"}, "no name"),
        ({"file_name": "x" * 5000 + ".png"}, "is missing"),
        ({"width": 10**9}, "size of the image"),
        ({"height": None}, "size of the image"),
    ],
)
def test_images_nobody_can_use_are_findings(tmp_path: Path, change: dict, words: str) -> None:
    document = changed()
    document["images"][0] |= change
    assert words in only_finding(make(tmp_path, document)).what


def test_no_way_out_of_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = changed()
    document["images"][0] |= {"file_name": "../elsewhere/a.png"}
    add_image(tmp_path / "elsewhere/a.png")
    add_json(tmp_path / "data/labels.json", document)
    monkeypatch.chdir(tmp_path / "data")
    assert "is missing" in only_finding(Path()).what


def test_a_wrong_size_is_told_when_read(tmp_path: Path) -> None:
    document = changed()
    document["images"][0] |= {"width": 40}
    assert "mask is 40x24 but its image is 32x24" in reading(make(tmp_path, document)).what


def test_what_is_not_coco(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"images": [], "annotations": 3, "categories": []}')
    assert "each a list of objects" in refusal(tmp_path).what
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": [')
    assert "no JSON" in refusal(tmp_path).what
    (tmp_path / "x.json").write_text("[" * 100_000 + '"images" "annotations" "categories"')
    assert "no JSON" in refusal(tmp_path).what
    (tmp_path / "x.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}')
    assert "surrogates not allowed" in refusal(tmp_path).what
    (tmp_path / "x.json").write_text("{}")
    assert "no COCO labels here" in refusal(tmp_path, "coco").what


def test_exclude_settles_a_finding(tmp_path: Path) -> None:
    make(tmp_path, changed(category_id=5))
    source = open_source(tmp_path, DataSettings(exclude=("p1/a",)))
    assert (source.findings, len(source)) == ((), 0)
