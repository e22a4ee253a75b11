from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from trocar.errors import UserError
from trocar.inference.postprocess import MOST_INSTANCES, Area, Cleanup, Instance, clean, instances
from trocar.inference.predictor import Predictor

CLASSES = ("background", "shaft", "tip")
CORNERS = np.ones((3, 3))  # 8 neighbours


def drawn(*rows: str) -> NDArray[np.uint8]:
    return np.array([[0 if pixel == "." else int(pixel) for pixel in row] for row in rows], np.uint8)


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Blobs and noise of two classes; some touch the edge."""
    seed = draw(st.integers(0, 2**32 - 1))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    share = draw(st.sampled_from([0.1, 0.4, 0.6, 0.9]))
    rng = np.random.default_rng(seed)
    return np.asarray((rng.random((height, width)) < share) * rng.integers(1, 3, (height, width)), np.uint8)


# ------------------------------------------------------------------ areas


@pytest.mark.parametrize(
    ("text", "pixels"), [("200", 200), ("200px", 200), ("0.5%", 5), ("100%", 1000), (" 12.5 ", 12.5), ("0", 0)]
)
def test_an_area_is_pixels_or_a_share_of_the_frame(text: str, pixels: float) -> None:
    assert Area.parse(text).pixels((20, 50)) == pytest.approx(pixels)


@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "inf", "101%", "1%%", "5 cm"])
def test_what_is_no_area_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no area"):
        Area.parse(text)


def test_an_area_of_one_class_stands_before_that_of_all() -> None:
    cleanup = Cleanup.parse(CLASSES, ["tip=5", "100", "0.2%"], ["tip=30"])
    assert cleanup.min_area == {1: Area(0.2, of_frame=True), 2: Area(5)}
    assert cleanup.fill_holes == {2: Area(30)}
    assert cleanup.in_words(CLASSES) == (
        "pieces of shaft under 0.2% dropped, pieces of tip under 5 px dropped, holes in tip of up to 30 px filled"
    )


@pytest.mark.parametrize("text", ["grasper=5", "background=5"])
def test_a_class_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="knows no class") as caught:
        Cleanup.parse(CLASSES, [text])
    assert "shaft, tip" in str(caught.value)


def test_nothing_asked_for_is_nothing() -> None:
    assert not Cleanup.parse(CLASSES)
    assert Cleanup.parse(CLASSES, [], ["0"])


# ------------------------------------------------------------------ pieces


def test_small_pieces_become_background_class_by_class() -> None:
    mask = drawn("11....2", "1...2..", ".......", "111..22")
    expected = drawn("11.....", "1......", ".......", "111..22")
    np.testing.assert_array_equal(clean(mask, Cleanup({1: Area(3), 2: Area(2)})), expected)
    np.testing.assert_array_equal(clean(mask, Cleanup({1: Area(4)})), drawn("......2", "....2..", ".......", ".....22"))


def test_pieces_hang_together_by_their_corners() -> None:
    mask = drawn("1..", ".1.", "..1")
    np.testing.assert_array_equal(clean(mask, Cleanup({1: Area(3)})), mask)
    assert not clean(mask, Cleanup({1: Area(3.5)})).any()


@settings(deadline=None, max_examples=60)
@given(masks(), st.integers(0, 30))
def test_pieces_are_those_of_scipy(mask: NDArray[np.uint8], least: int) -> None:
    expected = mask.copy()
    for index in (1, 2):
        labels, count = ndimage.label(mask == index, CORNERS)
        for piece in range(1, count + 1):
            if (labels == piece).sum() < least:
                expected[labels == piece] = 0
    np.testing.assert_array_equal(clean(mask, Cleanup({1: Area(least), 2: Area(least)})), expected)


# ------------------------------------------------------------------ holes


def test_small_holes_are_filled_and_open_ones_left() -> None:
    mask = drawn(
        "1111.111",
        "1.11.1.1",
        "11111111",
        "1..1....",
        "11111111",
    )
    expected = drawn(
        "1111.111",
        "1111.111",
        "11111111",
        "1..1....",
        "11111111",
    )
    np.testing.assert_array_equal(clean(mask, Cleanup(fill_holes={1: Area(1)})), expected)
    expected[3, 1:3] = 1
    np.testing.assert_array_equal(clean(mask, Cleanup(fill_holes={1: Area(2)})), expected)


def test_a_hole_takes_the_class_that_most_of_its_rim_has() -> None:
    mask = drawn("1122", "1..2", "2222")
    np.testing.assert_array_equal(
        clean(mask, Cleanup(fill_holes={1: Area(9), 2: Area(9)})), drawn("1122", "1222", "2222")
    )
    np.testing.assert_array_equal(clean(mask, Cleanup(fill_holes={1: Area(9)})), mask)
    tie = drawn("12", "..", "12")  # open at both sides
    np.testing.assert_array_equal(clean(tie, Cleanup(fill_holes={1: Area(9)})), tie)
    even = drawn(".2.", "1.2", ".1.")
    assert clean(even, Cleanup(fill_holes={1: Area(9), 2: Area(9)}))[1, 1] == 1


def test_what_is_dropped_inside_an_instrument_is_filled_again() -> None:
    mask = drawn("11111", "12221", "12.21", "12221", "11111")
    cleanup = Cleanup.parse(CLASSES, ["tip=10"], ["9"])
    np.testing.assert_array_equal(clean(mask, cleanup), np.ones((5, 5), np.uint8))


@settings(deadline=None, max_examples=60)
@given(masks())
def test_all_holes_filled_are_those_of_scipy(mask: NDArray[np.uint8]) -> None:
    binary = np.asarray(mask > 0, np.uint8)
    filled = clean(binary, Cleanup(fill_holes={1: Area(100, of_frame=True)}))
    np.testing.assert_array_equal(filled == 1, ndimage.binary_fill_holes(binary))


@settings(deadline=None, max_examples=60)
@given(masks(), st.integers(0, 20))
def test_small_holes_filled_are_those_of_scipy(mask: NDArray[np.uint8], most: int) -> None:
    binary = mask > 0
    expected = binary.copy()
    labels, _ = ndimage.label(ndimage.binary_fill_holes(binary) & ~binary)
    for piece in range(1, labels.max() + 1):
        if (labels == piece).sum() <= most:
            expected[labels == piece] = True
    np.testing.assert_array_equal(clean(binary.astype(np.uint8), Cleanup(fill_holes={1: Area(most)})) == 1, expected)


def test_a_mask_is_never_changed_in_place() -> None:
    mask = drawn("111.", "1.1.", "1112", "....")
    before = mask.copy()
    clean(mask, Cleanup.parse(CLASSES, ["5"], ["5"]))
    np.testing.assert_array_equal(mask, before)
    assert clean(mask, Cleanup.parse(CLASSES, ["1"], ["0"])) is mask


# ------------------------------------------------------------------ in the Predictor


def test_a_predictor_cleans_the_mask_and_leaves_the_probabilities(by_brightness: Predictor) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[10:40, 10:50] = 255
    image[20:22, 20:22] = 0  # a hole
    image[50:52, 80:83] = 255  # a speck
    plain = by_brightness(image)
    tidy = Predictor(by_brightness.engine, by_brightness.card, cleanup=Cleanup({1: Area(7)}, {1: Area(4)}))
    found = tidy(image)
    expected = plain.mask.copy()
    expected[20:22, 20:22], expected[50:52, 80:83] = 1, 0
    np.testing.assert_array_equal(found.mask, expected)
    np.testing.assert_array_equal(found.probabilities, plain.probabilities)
    assert plain.mask.sum() == 30 * 40 - 4 + 6


def test_a_mask_cleaned_away_has_no_quality(by_brightness: Predictor) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[5:8, 5:8] = 255
    tidy = Predictor(by_brightness.engine, by_brightness.card, cleanup=Cleanup({1: Area(10)}))
    assert np.isnan(tidy(image).quality)


# ------------------------------------------------------------------ instances


def test_instances_are_numbered_class_by_class_the_largest_first() -> None:
    ids, found = instances(drawn("1..22.", "...22.", "11...2", "1....."), 3)
    np.testing.assert_array_equal(ids, drawn("2..33.", "...33.", "11...3", "1....."))
    assert ids.dtype == np.uint8
    assert found == [
        Instance(1, 1, 3, (0, 2, 2, 2)),
        Instance(2, 1, 1, (0, 0, 1, 1)),
        Instance(3, 2, 5, (3, 0, 3, 3)),
    ]


@settings(deadline=None, max_examples=60)
@given(masks())
def test_instances_are_the_pieces_of_scipy(mask: NDArray[np.uint8]) -> None:
    ids, found = instances(mask, 3)
    assert [one.id for one in found] == list(range(1, len(found) + 1))
    np.testing.assert_array_equal(ids == 0, mask == 0)
    areas = []
    for index in (1, 2):
        labels, count = ndimage.label(mask == index, CORNERS)
        areas += sorted(np.bincount(labels.ravel())[1:].tolist(), reverse=True)
        pairs = {(int(label), int(number)) for label, number in zip(labels.ravel(), ids.ravel(), strict=True) if label}
        assert len(pairs) == count  # each piece has one number
        assert len({number for _, number in pairs}) == count  # and each number one piece
    assert [one.area for one in found] == areas
    for one in found:
        rows, columns = ndimage.find_objects(ids.astype(int), max_label=one.id)[one.id - 1]
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        assert one.box == box
        assert set(np.unique(mask[ids == one.id])) == {one.class_index}


def test_many_instances_take_sixteen_bits_and_too_many_are_refused() -> None:
    dots = np.zeros((60, 60), np.uint8)
    dots[::2, ::2] = 1
    ids, found = instances(dots, 2)
    assert (ids.dtype, ids.max(), len(found)) == (np.uint16, 900, 900)
    assert len({one.id for one in found}) == 900
    many = np.zeros((520, 520), np.uint8)
    many[::2, ::2] = 1
    assert (many > 0).sum() > MOST_INSTANCES
    with pytest.raises(UserError, match="pieces"):
        instances(many, 2)


def test_an_empty_mask_has_no_instances() -> None:
    ids, found = instances(np.zeros((4, 5), np.uint8), 3)
    assert not ids.any()
    assert found == []
