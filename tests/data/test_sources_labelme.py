from __future__ import annotations

import base64
import copy
import io
from pathlib import Path

import numpy as np
import pytest
from labelled import SIZE, add_image, add_json, only_finding, reading, rectangle, refusal
from PIL import Image, ImageDraw

from trocar.data.sources import open_source


def png(mask: np.ndarray) -> str:
    """As `labelme.utils.img_arr_to_b64`."""
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points: list, kind: str | None = "polygon", **more: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


SHAPES = [
    shape("shaft", [[4, 4], [12, 4], [12, 10], [4, 10]], None, group_id=1),
    shape("shaft", [[20, 4], [30, 8]], "rectangle", group_id=1),
    shape("tip", [[0, 20], [3, 22]], "mask", mask=png(np.eye(3, 4))),
    shape("tip", [[20, 18], [20, 21]], "circle"),
    shape("note", [[1, 1]], "point"),
]


def document(*shapes: dict, image: str = "a.png") -> dict:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": 24,
        "imageWidth": 32,
    }


def make(root: Path, *shapes: dict, image: str = "a.png") -> Path:
    add_image(root / "p1/a.png")
    add_json(root / "p1/a.json", document(*shapes, image=image))
    return root


def test_every_kind_of_area(tmp_path: Path) -> None:
    make(tmp_path, *SHAPES)
    add_image(tmp_path / "p1/later.png")
    source = open_source(tmp_path)
    assert (source.dataset, source.classes, source.findings) == ("labelme", ("background", "shaft", "tip"), ())
    (record,) = source.records
    assert (record.name, record.group) == ("p1/a", "p1")
    expected = np.zeros(SIZE, np.uint8)
    expected[rectangle(4, 4, 10, 12) | rectangle(4, 20, 8, 30)] = 1
    expected[20:23, :4][np.eye(3, 4) > 0] = 2
    rows, columns = np.mgrid[:24, :32] + 0.5
    expected[(rows - 18) ** 2 + (columns - 20) ** 2 <= 9] = 2
    np.testing.assert_array_equal(record.read()[1], expected)
    assert record.instances is not None
    numbers = record.instances()
    assert {int(numbers[5, 5]), int(numbers[5, 25])} == {1}  # one label and group_id: one instance
    assert [numbers[20, 0], numbers[18, 20]] == [2, 3]
    assert any("1 point" in note for note in source.notes)
    assert any("1 images have no JSON file" in note for note in source.notes)


def test_labels_txt_gives_the_order_and_labelme_s_own_names(tmp_path: Path) -> None:
    make(tmp_path, shape("__ignore__", [[0, 0], [4, 4]], "rectangle"), shape("b", [[8, 8], [9, 9]], "rectangle"))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nc\nb\n")
    source = open_source(tmp_path)
    assert source.classes == ("background", "c", "b")
    mask = source.records[0].mask()
    assert (mask[0, 0], mask[8, 8], mask[20, 20]) == (255, 2, 0)


def test_a_polygon_is_labelme_s_within_its_outline(tmp_path: Path) -> None:
    """LabelMe paints the outline too: all of ours is in theirs, and theirs is nowhere more than a pixel away."""
    points = [[4.2, 3.1], [27.7, 6.6], [19.4, 21.3], [9.9, 17.2]]
    (record,) = open_source(make(tmp_path, shape("x", points))).records
    picture = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(picture).polygon([tuple(point) for point in points], outline=1, fill=1)
    theirs, ours = np.asarray(picture) > 0, record.mask() > 0
    assert np.count_nonzero(ours & ~theirs) <= 0.05 * np.count_nonzero(ours)
    assert 0.8 < np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs) < 1


@pytest.mark.parametrize("image", ["a.png", "..\\p1\\a.png", "../elsewhere/gone.png"])
def test_the_image_is_found_where_named_or_beside(tmp_path: Path, image: str) -> None:
    (record,) = open_source(make(tmp_path, *SHAPES, image=image)).records
    assert record.read()[0].shape == (24, 32, 3)


def test_an_image_that_is_nowhere(tmp_path: Path) -> None:
    make(tmp_path, *SHAPES)
    (tmp_path / "p1/a.png").rename(tmp_path / "p1/other.png")
    assert "a.png is missing" in only_finding(tmp_path).what


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (shape("x", [[1, 1], [2, 2]]), "2 points"),
        (shape("x", [[1, 1], [2, 2], [None, 3]]), "a shape is not as the format has it|finite"),
        (shape("x", [[1, 1]], "rectangle"), "a rectangle takes two points"),
        (shape("x", [[1, 1], [5, float("inf")]], "circle"), "a circle takes two points"),
        (shape("x", [[0, 0], [9, 9]], "mask", mask=png(np.eye(3, 4))), "does not fit its box"),
        (shape("x", [[30, 22], [33, 24]], "mask", mask=png(np.eye(3, 4))), "does not fit its box"),
        (shape("x", [[0, 0], [9, 9]], "mask", mask="?"), "cannot be decoded"),
        (shape("x", [[0, 0], [9, 9]], "mask", mask=None), "cannot be decoded"),
        (shape("x", [[0, 0], [9, 9]], "mask"), "no 'mask'"),
        (shape("x", [[0, 0], [1e300, 0], [0, 1e300]]), "far outside"),
    ],
)
def test_shapes_nobody_can_use(tmp_path: Path, wrong: dict, words: str) -> None:
    error = reading(make(tmp_path, wrong))
    assert any(word in error.what for word in words.split("|")), error


def test_a_wrong_file_is_one_finding_and_the_rest_is_listed(tmp_path: Path) -> None:
    make(tmp_path, *SHAPES)
    add_image(tmp_path / "p1/b.png")
    bad = copy.deepcopy(document(*SHAPES))
    del bad["shapes"][0]["label"]
    add_json(tmp_path / "p1/b.json", bad)
    (tmp_path / "p1/c.json").write_text('{"shapes": [')
    add_json(tmp_path / "p1/d.json", {"name": "settings of some other tool"})
    source = open_source(tmp_path)
    assert [record.name for record in source.records] == ["p1/a"]
    told = "\n".join(map(str, source.findings))
    assert "lacks its label" in told
    assert "no JSON" in told
    assert any("p1/d.json is JSON, but not of LabelMe" in note for note in source.notes)


def test_what_is_not_labelme(tmp_path: Path) -> None:
    add_image(tmp_path / "a.png")
    assert "no LabelMe labels here" in refusal(tmp_path, "labelme").what
    make(tmp_path, shape("x", [[1, 1]], "point"))
    assert "name no class" in refusal(tmp_path).what


def test_an_absurd_circle_is_refused(tmp_path: Path) -> None:
    make(tmp_path, shape("tip", [[1e200, 0], [0, 1]], "circle"))
    assert "absurdly far" in reading(tmp_path).what
