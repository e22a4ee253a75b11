from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import BRUSHED, MASK2RLE, add_image, add_json, only_finding, reading, rectangle, refusal

from trocar.data.sources import open_source

SIZE = (5, 7)
BRUSH = list(bytes.fromhex(MASK2RLE))


def region(kind: str = "brushlabels", label: str = "tool", **value: object) -> dict:
    return {
        "id": "x",
        "type": kind,
        "from_name": "tag",
        "to_name": "image",
        "original_width": 7,
        "original_height": 5,
        "image_rotation": 0,
        "value": value | {kind: [label]},
    }


def brush(label: str = "tool", **more: object) -> dict:
    return region(label=label, format="rle", rle=BRUSH) | more


def task(*results: dict, image: str = "/data/upload/1/0a1b2c3d-a.png", **annotation: object) -> dict:
    return {"id": 4, "data": {"image": image}, "annotations": [{"id": 1, "result": list(results)} | annotation]}


def make(root: Path, *tasks: dict) -> Path:
    add_image(root / "images/p1/a.png", SIZE)
    add_json(root / "project-1.json", list(tasks))
    return root


def test_brush_and_polygon(tmp_path: Path) -> None:
    polygon = region("polygonlabels", "wire", points=[[0, 0], [100 * 2 / 7, 0], [100 * 2 / 7, 20], [0, 20]])
    source = open_source(make(tmp_path, task(brush(), polygon, {"type": "choices", "value": {"choices": ["good"]}})))
    assert (source.dataset, source.classes, source.findings) == ("label-studio", ("background", "tool", "wire"), ())
    (record,) = source.records
    assert (record.name, record.group) == ("p1/a", "p1")
    expected = BRUSHED.astype(np.uint8)
    expected[rectangle(0, 0, 1, 2, SIZE)] = 2
    np.testing.assert_array_equal(record.read()[1], expected)
    assert record.instances is not None
    np.testing.assert_array_equal(record.instances(), expected)
    assert any("1 choices" in note for note in source.notes)


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/0a1b2c3d-a.png",
        "/data/local-files/?d=images/p1/a.png",
        "/data/local-files/?d=images%5Cp1%5Ca.png",
        "s3://bucket/p1/a.png",
        "https://host.example/some%20where/a.png?token=1",
    ],
)
def test_images_are_found_by_name(tmp_path: Path, image: str) -> None:
    (record,) = open_source(make(tmp_path, task(brush(), image=image))).records
    assert record.name == "p1/a"


def test_two_images_of_one_name(tmp_path: Path) -> None:
    add_image(tmp_path / "images/p2/a.png", SIZE)
    make(tmp_path, task(brush()))
    assert "2 images are called a.png" in only_finding(tmp_path).what
    make(tmp_path, task(brush(), image="/data/local-files/?d=images/p2/a.png"))
    assert [record.name for record in open_source(tmp_path).records] == ["p2/a"]


def test_which_annotation_counts(tmp_path: Path) -> None:
    several = task(brush("first"), ground_truth=True)
    several["annotations"].append({"id": 2, "result": [brush("second")]})
    waiting = {"id": 5, "data": {"image": "b.png"}, "annotations": []}
    skipped = task(brush("third"), was_cancelled=True)
    source = open_source(make(tmp_path, several, waiting, skipped))
    assert source.classes == ("background", "first")
    assert any("2 of 3 tasks are not annotated" in note for note in source.notes)
    assert any("1 tasks have several annotations" in note for note in source.notes)
    del several["annotations"][0]["ground_truth"]
    assert open_source(make(tmp_path, several)).classes == ("background", "second")


def test_an_annotation_without_regions_shows_no_instrument(tmp_path: Path) -> None:
    add_image(tmp_path / "images/b.png", SIZE)
    source = open_source(make(tmp_path, task(brush()), task(image="b.png")))
    assert [bool(record.mask().any()) for record in source.records] == [False, True]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (region("rectanglelabels", x=1, y=1, width=5, height=5), "a box or an ellipse"),
        (brush(image_rotation=90), "was turned in Label Studio"),
        (brush(original_width=0), "size of the image"),
        (region(format="base64", rle=BRUSH), "stored as base64"),
        (region(format="rle", rle=[1, 2, 300]), "a task is not as the format has it"),
        (region(format="rle", rle="abc"), "not a list of bytes"),
        (region("polygonlabels", points=[[1, 1], [2, 2]]), "2 points"),
        (brush() | {"value": {"format": "rle", "rle": BRUSH, "brushlabels": ["tool", "wire"]}}, "a task is not"),
    ],
)
def test_regions_nobody_can_use(tmp_path: Path, wrong: dict, words: str) -> None:
    good = task(brush())
    add_image(tmp_path / "b.png", SIZE)
    assert words in only_finding(make(tmp_path, good, task(wrong, image="b.png") | {"id": 9})).what


def test_a_brush_of_another_image_is_told_when_read(tmp_path: Path) -> None:
    wrong = brush(original_width=8)
    assert "covers 35 pixels, the image has 40" in reading(make(tmp_path, task(wrong))).what


def test_images_missing_and_other_exports(tmp_path: Path) -> None:
    make(tmp_path, task(brush(), image="gone.png"))
    assert "gone.png is missing" in only_finding(tmp_path).what
    make(tmp_path, task(brush(), image="a.txt"))
    assert "names no image" in only_finding(tmp_path).what
    add_json(tmp_path / "project-1.json", {"annotations": 1, "data": 2, "result": 3})
    assert "the export is not as the format has it" in refusal(tmp_path).what
    (tmp_path / "project-1.json").write_text("{}")
    assert "no Label Studio labels here" in refusal(tmp_path, "label-studio").what
