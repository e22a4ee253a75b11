"""CVAT for images 1.1, and its segmentation mask 1.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled import SIZE, add_image, only_finding, reading, rectangle, refusal
from PIL import Image

from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.data.sources.cvat_masks import voc_colours

LABELS = "<label><name>shaft</name><type>any</type></label><label><name>tip</name></label>"
SHAPES = """
<polygon label="shaft" source="manual" occluded="0" points="4.00,4.00;12.00,4.00;12.00,10.00;4.00,10.00" z_order="1"
 group_id="5"></polygon>
<box label="tip" occluded="0" xtl="8.00" ytl="2.00" xbr="16.00" ybr="12.00" z_order="0"></box>
<mask label="tip" occluded="0" rle="1, 1, 1, 3" left="20" top="5" width="3" height="2" z_order="0" group_id="5"></mask>
<ellipse label="shaft" cx="24.00" cy="18.00" rx="5.00" ry="3.00" z_order="0"></ellipse>
<polyline label="tip" points="1,1;5,5"></polyline>
"""


def xml(shapes: str = SHAPES, image: str = 'name="p1/a.png" width="32" height="24"', head: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1</version><meta><task><labels>{LABELS}'
        f'</labels></task></meta><image id="0" {image}>{shapes}</image></annotations>'
    )


def make(root: Path, text: str | None = None) -> Path:
    add_image(root / "images/p1/a.png")
    (root / "annotations.xml").write_text(text or xml(), encoding="utf-8")
    return root


def test_every_kind_of_area(tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    assert (source.dataset, source.classes, source.findings) == ("cvat", ("background", "shaft", "tip"), ())
    (record,) = source.records
    assert (record.name, record.group) == ("p1/a", "p1")
    expected = np.zeros(SIZE, np.uint8)
    expected[rectangle(2, 8, 12, 16)] = 2
    expected[rectangle(4, 4, 10, 12)] = 1  # the higher z_order, although it comes first
    expected[5, 21] = expected[6, 20:23] = 2
    rows, columns = np.mgrid[:24, :32] + 0.5
    inside = ((columns - 24) / 5) ** 2 + ((rows - 18) / 3) ** 2 <= 1
    mask = record.read()[1]
    assert np.count_nonzero((mask > 0)[14:] ^ inside[14:]) <= 2
    expected[14:] = mask[14:]
    np.testing.assert_array_equal(mask, expected)
    assert record.instances is not None
    numbers = record.instances()
    assert numbers[5, 5] == numbers[6, 20] == 5  # one group: one instrument, of several labels
    assert len({int(numbers[2, 12]), int(numbers[18, 24]), 5, 0}) == 4
    assert any("1 polyline" in note for note in source.notes)


def test_a_turned_box_is_turned_clockwise(tmp_path: Path) -> None:
    box = '<box label="tip" xtl="6" ytl="8" xbr="26" ybr="16" rotation="90"/>'
    (record,) = open_source(make(tmp_path, xml(box))).records
    np.testing.assert_array_equal(record.mask() > 0, rectangle(2, 12, 22, 20))
    (record,) = open_source(make(tmp_path, xml(box.replace("90", "45")))).records
    mask = record.mask() > 0
    assert mask[18, 22]
    assert not mask[6, 22]


def test_subsets_are_sides(tmp_path: Path) -> None:
    add_image(tmp_path / "images/train/a.png")
    add_image(tmp_path / "images/val/b.png")
    images = [
        f'<image id="0" name="{n}.png" subset="{s}" width="32" height="24"/>' for n, s in (("a", "train"), ("b", "val"))
    ]
    text = f"<annotations><meta><job><labels>{LABELS}</labels></job></meta>{''.join(images)}</annotations>"
    (tmp_path / "annotations.xml").write_text(text)
    source = open_source(tmp_path)
    assert source.official == {"train": ("a",), "val": ("b",)}
    assert not source.records[0].mask().any()


BOMB = '<!DOCTYPE lolz [<!ENTITY a "xx"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (xml("&b;", head=BOMB), "declares a document type or entities"),
        (xml(head='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "declares a document type"),
        (xml(head='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "declares a document type"),
        (xml()[:-20], "no XML"),
        (xml().replace("<image", "<track").replace("</image", "</track"), "CVAT for video"),
        ("<annotations></annotations>", "lists no images"),
        (xml("&undefined;"), "no XML"),
    ],
)
def test_xml_that_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(make(tmp_path, text)).what


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ('<polygon label="tip" points="1,2;3,4"/>', "2 points"),
        ('<polygon label="tip" points="1,2;3;4,5"/>', "not a list of x and y"),
        ('<polygon label="tip"/>', "no 'points'"),
        ('<polygon points="1,2;3,4;5,6"/>', "no 'label'"),
        ('<mask label="tip" rle="x" left="0" top="0" width="1" height="1"/>', "a mask is not as the format has it"),
        ('<mask label="tip" rle="99999999999999999999" left="0" top="0" width="1" height="1"/>', "a mask is not"),
        ('<box label="tip" xtl="1" ytl="nan" xbr="4" ybr="5"/>', "is no finite number"),
        ('<ellipse label="tip" cx="1" cy="1" rx="inf" ry="5"/>', "is no finite number"),
    ],
)
def test_shapes_nobody_can_use(tmp_path: Path, shape: str, words: str) -> None:
    assert words in only_finding(make(tmp_path, xml(shape))).what


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ('<mask label="tip" rle="0, 7" left="0" top="0" width="3" height="2"/>', "beyond its end"),
        ('<mask label="tip" rle="0, 6" left="30" top="0" width="3" height="2"/>', "does not fit"),
        ('<mask label="tip" rle="0, 1" left="0" top="0" width="99999999" height="99999999"/>', "does not fit"),
        ('<polygon label="tip" points="0,0;1e9,0;1e9,1e9"/>', "far outside"),
    ],
)
def test_shapes_that_do_not_fit_are_told_when_read(tmp_path: Path, shape: str, words: str) -> None:
    assert words in reading(make(tmp_path, xml(shape))).what


def test_images_missing(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "images/p1/a.png").unlink()
    assert "the image p1/a.png is missing" in only_finding(tmp_path).what


def test_what_is_not_cvat(tmp_path: Path) -> None:
    add_image(tmp_path / "a.png")
    assert "no CVAT labels here" in refusal(tmp_path, "cvat").what
    assert "no segmentation masks of CVAT here" in refusal(tmp_path, "cvat-masks").what


# ------------------------------------------------------------------ segmentation mask 1.1

MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nshaft:250,50,83::\ntip:61,245,61::\nignore:1,2,3::\n"


def make_masks(root: Path, *, colour: tuple[int, int, int] = (61, 245, 61), labelmap: str = MAP) -> Path:
    add_image(root / "JPEGImages/p1/a.png")
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[2:5, 3:9], mask[10:12, 3:9], mask[20] = (250, 50, 83), colour, (1, 2, 3)
    write_png(root / "SegmentationClass/p1/a.png", mask)
    (root / "labelmap.txt").write_text(labelmap)
    return root


def test_voc_colours_are_the_published_ones() -> None:
    """The first and last of the devkit's table."""
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {index: tuple(voc_colours()[index].tolist()) for index in expected} == expected
    assert tuple(voc_colours()[255].tolist()) == (224, 224, 192)


def test_coloured_masks_of_classes_and_instruments(tmp_path: Path) -> None:
    make_masks(tmp_path)
    objects = np.zeros((*SIZE, 3), np.uint8)
    objects[2:5, 3:9], objects[10:12, 3:9] = voc_colours()[2], voc_colours()[1]
    write_png(tmp_path / "SegmentationObject/p1/a.png", objects)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("p1/a\n")
    source = open_source(tmp_path)
    assert (source.dataset, source.classes, source.findings) == ("cvat-masks", ("background", "shaft", "tip"), ())
    assert source.official is None
    (record,) = source.records
    mask = record.read()[1]
    assert (mask[3, 4], mask[11, 4], mask[20, 0], mask[0, 0]) == (1, 2, 255, 0)
    assert record.instances is not None
    numbers = record.instances()
    assert (numbers[3, 4], numbers[11, 4], numbers[0, 0]) == (2, 1, 0)


def test_palette_masks_and_instruments_in_other_colours(tmp_path: Path) -> None:
    make_masks(tmp_path)
    path = tmp_path / "SegmentationClass/p1/a.png"
    with Image.open(path) as coloured:
        palette = coloured.quantize(4)
    palette.save(path)
    objects = np.zeros((*SIZE, 3), np.uint8)
    objects[2:5, 3:9], objects[10:12, 3:9] = (9, 9, 9), (3, 3, 3)
    write_png(tmp_path / "SegmentationObject/p1/a.png", objects)
    (record,) = open_source(tmp_path).records
    assert record.mask()[11, 4] == 2
    assert record.instances is not None
    assert (record.instances()[3, 4], record.instances()[11, 4]) == (2, 1)


def test_colours_nobody_named(tmp_path: Path) -> None:
    error = reading(make_masks(tmp_path, colour=(61, 245, 60)))
    assert "#3df53c" in error.what
    assert f"{12 / (24 * 32):.2%}" in error.what


@pytest.mark.parametrize(
    ("labelmap", "words"),
    [
        ("shaft\n", "a line of the label map is not"),
        ("shaft:1,2::\n", "a line of the label map is not"),
        ("shaft:1,2,300::\n", "is no colour"),
        ("a:1,2,3::\nb:1,2,3::\n", "two labels have one colour"),
        ("background:0,0,0::\n", "name no class"),
        ("a:1,2,3::\n :1,2,4::\n", "a class has no name"),
    ],
)
def test_wrong_label_maps(tmp_path: Path, labelmap: str, words: str) -> None:
    assert words in refusal(make_masks(tmp_path, labelmap=labelmap)).what


def test_an_export_without_images(tmp_path: Path) -> None:
    make_masks(tmp_path)
    (tmp_path / "JPEGImages").rename(tmp_path / "elsewhere")
    error = refusal(tmp_path)
    assert "the masks have no images" in error.what
    assert "Save images" in str(error.mend)
