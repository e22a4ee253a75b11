from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled import SIZE, add_image, only_finding, reading, rectangle, refusal
from PIL import Image

from trocar.data.sources import open_source

YAML = "path: ../datasets/elsewhere\ntrain: images\nval: images\nnames: {0: shaft, 1: tip}\n"
SQUARE = "0 0.125 0.125 0.375 0.125 0.375 0.5 0.125 0.5"  # rows 3..11, columns 4..11


def make(root: Path, lines: str = SQUARE, yaml: str = YAML) -> Path:
    add_image(root / "images/p1/a.png")
    (root / "labels/p1").mkdir(parents=True, exist_ok=True)
    (root / "labels/p1/a.txt").write_text(lines)
    (root / "data.yaml").write_text(yaml)
    return root


def test_polygons(tmp_path: Path) -> None:
    make(tmp_path, SQUARE + "\n\n1 0.5 0.5 1 0.5 1 1 0.5 1\n")
    add_image(tmp_path / "images/p2/empty.png")
    source = open_source(tmp_path)
    assert (source.dataset, source.classes, source.findings) == ("yolo", ("background", "shaft", "tip"), ())
    assert source.official is None  # one folder for both sides says nothing
    first, second = source.records
    assert (first.name, first.group, second.name) == ("p1/a", "p1", "p2/empty")
    expected = np.zeros(SIZE, np.uint8)
    expected[rectangle(3, 4, 12, 12)] = 1
    expected[rectangle(12, 16, 24, 32)] = 2
    np.testing.assert_array_equal(first.read()[1], expected)
    assert first.instances is not None
    np.testing.assert_array_equal(first.instances(), expected)
    assert not second.read()[1].any()
    assert any("1 images have no file of labels" in note for note in source.notes)


def test_a_polygon_is_opencv_s_within_its_outline(tmp_path: Path) -> None:
    points = np.array([[4.2, 3.1], [27.7, 6.6], [19.4, 21.3], [9.9, 17.2]])
    numbers = " ".join(map(str, (points / (32, 24)).ravel()))
    (record,) = open_source(make(tmp_path, f"1 {numbers}")).records
    theirs = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(theirs, [points.astype(np.int32)], 1)
    ours = record.mask() > 0
    assert 0.8 < np.count_nonzero(ours & (theirs > 0)) / np.count_nonzero(ours | (theirs > 0)) < 1


def test_relative_coordinates_are_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    make(tmp_path)
    turned = Image.open(tmp_path / "images/p1/a.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images/p1/a.jpg", exif=exif)
    (tmp_path / "images/p1/a.png").unlink()
    (record,) = open_source(tmp_path).records
    image, mask = record.read()
    assert image.shape[:2] == mask.shape == (32, 24)
    np.testing.assert_array_equal(mask > 0, rectangle(4, 3, 16, 9, (32, 24)))


@pytest.mark.parametrize("prefix", ["", "../"])
def test_sides_in_folders_of_their_own(tmp_path: Path, prefix: str) -> None:
    """`prefix` as Roboflow writes it."""
    for side, name in (("train", "a"), ("valid", "b")):
        add_image(tmp_path / side / "images" / f"{name}.png")
        (tmp_path / side / "labels").mkdir()
        (tmp_path / side / "labels" / f"{name}.txt").write_text(SQUARE)
    (tmp_path / "data.yaml").write_text(f"train: {prefix}train/images\nval: {prefix}valid/images\nnames: [tool]\n")
    source = open_source(tmp_path)
    assert source.official == {"train": ("a",), "val": ("b",)}
    assert all(record.mask().any() for record in source.records)


def test_sides_as_lists(tmp_path: Path) -> None:
    make(tmp_path, yaml="train: train.txt\ntest: [test.txt]\nnames: [shaft]\n")
    add_image(tmp_path / "images/b.png")
    (tmp_path / "train.txt").write_text("./images/p1/a.png\n")
    (tmp_path / "test.txt").write_text("images/b.png\n/etc/passwd.png\nimages/gone.png\n")
    source = open_source(tmp_path)
    assert source.official == {"train": ("p1/a",), "test": ("b",)}
    told = "\n".join(map(str, source.findings))
    assert "outside of" in told
    assert "images/gone.png is missing" in told


def test_one_name_on_two_sides_is_a_problem(tmp_path: Path) -> None:
    for side in ("train", "val"):
        add_image(tmp_path / "images" / side / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [tool]\n")
    assert "several images would all be record a" in only_finding(tmp_path).what


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("7 0 0 1 0 1 1", "class 7 is not among the names"),
        ("0 0.5 0.5 0.2 0.2", "the line is a box"),
        ("0 0 0 1 0 1 1 0.5", "an x without a y"),
        ("0 0 0 1 1", "the line is a box"),
        ("0 0 0", "1 points"),
        ("0 0 0 nan 0 1 1", "no finite"),
        ("0 0 0 640 0 640 480", "where sides of the image are 1"),
        ("x 0 0 1 0 1 1", "a line of labels is not as the format has it"),
        ("0 0 0 1,5 0 1 1", "a line of labels is not as the format has it"),
    ],
)
def test_lines_nobody_can_use(tmp_path: Path, line: str, words: str) -> None:
    error = reading(make(tmp_path, f"{SQUARE}\n{line}\n"))
    assert words in error.what
    assert "line 2" in str(error.where)


BOMB = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images\nnames: {", "no YAML"),
        ("names: 3\n", "needs `names`"),
        (f"{BOMB}names: [*c]\ntrain: images\n", "needs `names`"),
        (f"{BOMB}names: [x]\ntrain: [*c]\n", "something other than folders"),
        ("names: {x: tool}\ntrain: images\n", "names is not as the format has it"),
        ("names: [x]\n", "hold no images"),
        ('names: ["\\ud800"]\ntrain: images\n', "is no text|no YAML"),
        ("names: [background]\ntrain: images\n", "name no class"),
        ("names: !!python/object:os.system [x]\n", "no YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, yaml: str, words: str) -> None:
    what = refusal(make(tmp_path, yaml=yaml)).what
    assert any(word in what for word in words.split("|")), what


@pytest.mark.parametrize("place", ["gone", "/etc", "../..", "x" * 5000])
def test_sides_that_are_nowhere(tmp_path: Path, place: str) -> None:
    assert "there is no" in only_finding(make(tmp_path, yaml=f"names: [tool]\ntrain: {place}\n")).what


def test_what_is_not_yolo(tmp_path: Path) -> None:
    add_image(tmp_path / "a.png")
    assert "no YOLO labels here" in refusal(tmp_path, "yolo").what
