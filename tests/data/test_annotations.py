"""Outlines and run lengths, against pycocotools, brute force, and bytes that Label Studio's own encoder made."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from labelled import BRUSHED, MASK2RLE
from PIL import Image, ImageDraw
from pycocotools import mask as pycoco

from trocar.data.annotations import raster
from trocar.data.annotations.rings import Ring, join, joined, trace
from trocar.data.annotations.shapes import NO_INSTANCE, Shape, paint_instances, paint_mask, pieces, size_hw
from trocar.errors import UserError

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(np.bool_, size))


def bar(size: tuple[int, int] = (24, 32)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[3:9, 5:20] = True
    return mask


def winding_fill(rings: list[Ring], size: tuple[int, int]) -> np.ndarray:
    """Even-odd by brute force: how many edges lie to the left of each pixel's centre."""
    inside = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            crossed = 0
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 > row + 0.5) != (y1 > row + 0.5):
                        crossed += x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0) < column + 0.5
            inside[row, column] = crossed % 2
    return inside


# ------------------------------------------------------------------ outlines


@settings(max_examples=150, deadline=None)
@given(MASKS, st.sampled_from([0.0, 0.25]))
def test_outlines_give_back_their_mask(mask: np.ndarray, inset: float) -> None:
    regions = trace(mask, inset=inset)
    every = [ring for region in regions for ring in (region.outer, *region.holes)]
    np.testing.assert_array_equal(winding_fill(every, mask.shape), mask)
    if regions:
        np.testing.assert_array_equal(raster.fill([joined(region) for region in regions], mask.shape), mask)
        np.testing.assert_array_equal(raster.fill([join(every)], mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_regions_are_the_components_by_sides_and_their_holes(mask: np.ndarray) -> None:
    regions = trace(mask)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    assert len(regions) == count - 1
    sizes = [np.count_nonzero(winding_fill([region.outer, *region.holes], mask.shape)) for region in regions]
    assert sizes == sorted(np.bincount(labels.ravel())[1:].tolist(), reverse=True)
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    assert sum(len(region.holes) for region in regions) == cv2.connectedComponents(outside, connectivity=8)[0] - 2


def test_a_ring_has_a_vertex_at_each_corner_and_nowhere_else() -> None:
    (region,) = trace(bar())
    np.testing.assert_array_equal(region.outer, [[5, 3], [20, 3], [20, 9], [5, 9]])
    (inside,) = trace(bar(), inset=0.25)
    np.testing.assert_array_equal(inside.outer, [[5.25, 3.25], [19.75, 3.25], [19.75, 8.75], [5.25, 8.75]])


def pil_fill(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """As LabelMe's `shape_to_mask`."""
    picture = Image.new("L", (size[1], size[0]))
    ImageDraw.Draw(picture).polygon([(x, y) for x, y in ring.tolist()], outline=1, fill=1)
    return np.asarray(picture) > 0


def opencv_fill(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """As Ultralytics' `polygon2mask`."""
    painted = np.zeros(size, np.uint8)
    cv2.fillPoly(painted, [ring.astype(np.int32)], 1)
    return painted > 0


@pytest.mark.parametrize("paint", [pil_fill, opencv_fill])
def test_a_quarter_pixel_inside_the_painters_of_outlines_come_out_right_too(paint) -> None:
    """On a rod with a hole: exact with the inset, a row and a column too large without."""
    mask = bar()
    mask[5:7, 8:12] = False
    with_inset = paint(joined(trace(mask, inset=0.25)[0]), mask.shape)
    np.testing.assert_array_equal(with_inset, mask)
    without = paint(joined(trace(mask)[0]), mask.shape)
    assert np.count_nonzero(without & ~mask) > 15


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([1, 2, 3, 4], "2 points"),
        ([1, 2, 3], "not a list of x and y"),
        ([[1, 2], [3, "x"], [4, 5]], "not a list of x and y"),
        ([1, 2, 3, 4, 5, float("nan")], "no finite"),
        ({"a": 1}, "not a list"),
        (None, "not a list|no finite|points"),
    ],
)
def test_what_is_no_outline(points: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        raster.as_ring(points)


def test_outlines_that_would_take_all_memory_are_refused() -> None:
    with pytest.raises(UserError, match="far outside the image"):
        raster.fill([raster.as_ring([0, 0, 1e12, 0, 5, 5])], (24, 32))
    zigzag = np.stack([np.tile([0, 8000], 2000), np.arange(4000)], axis=1)
    with pytest.raises(UserError, match="pixels long"):
        raster.fill([raster.as_ring(zigzag)], (8000, 8000))


# ------------------------------------------------------------------ run lengths


def pycoco_decode(rle: dict) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools 2.0.11 under numpy 2.4
        return pycoco.decode(rle) > 0


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_run_lengths_come_back_bit_equal(mask: np.ndarray) -> None:
    coco = raster.to_coco_rle(mask)
    np.testing.assert_array_equal(raster.from_coco_rle(coco, mask.shape), mask)
    np.testing.assert_array_equal(pycoco_decode(coco), mask)
    np.testing.assert_array_equal(raster.from_brush_rle(bytes(raster.to_brush_rle(mask)), mask.shape), mask)
    if mask.any():
        cvat = raster.to_cvat_rle(mask)
        runs = [int(run) for run in cvat["rle"].split(",")]
        box = (cvat["left"], cvat["top"], cvat["width"], cvat["height"])
        np.testing.assert_array_equal(raster.from_cvat_rle(runs, box, mask.shape), mask)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40))
def test_compressed_counts_of_any_length_are_pycocotools(runs: list[int]) -> None:
    size = [sum(runs), 1]
    made = pycoco.frPyObjects({"size": size, "counts": runs}, *size)
    assert raster._coco_counts(made["counts"].decode()).tolist() == runs


def test_cvat_runs_worked_by_hand() -> None:
    """Rows inside the box, background first."""
    mask = np.zeros((4, 6), bool)
    mask[1, 2], mask[2, 1:4] = True, True
    assert raster.to_cvat_rle(mask) == {"rle": "1, 1, 1, 3", "left": 1, "top": 1, "width": 3, "height": 2}


def test_a_brush_region_of_label_studios_encoder() -> None:
    np.testing.assert_array_equal(raster.from_brush_rle(bytes.fromhex(MASK2RLE), (5, 7)), BRUSHED)
    assert bytes(raster.to_brush_rle(BRUSHED)).hex() == MASK2RLE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 8), st.binary(min_size=8, max_size=8)), max_size=12
    )
)
def test_brush_packets_of_every_kind(packets: list[tuple[bool, int, int, bytes]]) -> None:
    """The browser also writes runs of different values; decoded against thi.ng/rle-pack's own way, value by value."""
    values: list[int] = []
    bits = ""
    for repeated, which, length, data in packets:
        words = [data[0]] * length if repeated else list(data[:length])
        bits += f"{int(repeated)}{which:02b}{length - 1:0{(3, 4, 8, 16)[which]}b}"
        bits += "".join(f"{word:08b}" for word in (words[:1] if repeated else words))
        values += words
    rest = -len(values) % 4 + (0 if values else 4)
    bits += f"100{rest - 1:03b}{0:08b}" if rest else ""
    values += [0] * rest
    text = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}{bits}"
    text += "0" * (-len(text) % 8)
    packed = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    np.testing.assert_array_equal(raster.from_brush_rle(packed, (1, len(values) // 4))[0], np.array(values[3::4]) > 0)


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [24, 32], "counts": [700, 69]}, "covers 769 pixels, where there are 768 pixels"),
        ({"size": [24, 32], "counts": [700]}, "covers 700 pixels"),
        ({"size": [24, 32], "counts": [800, -32]}, "below 0 or beyond"),
        ({"size": [24, 32], "counts": [2**70, 1]}, "beyond|whole numbers"),
        ({"size": [24, 32], "counts": [0.5, 767.5]}, "whole numbers"),
        ({"size": [24, 32], "counts": [[1], [2, 3]]}, "whole numbers"),
        ({"size": [24, 32], "counts": None}, "whole numbers"),
        ({"size": [24, 31], "counts": "abc"}, "has size"),
        ({"size": [24, 32], "counts": ""}, "damaged"),
        ({"size": [24, 32], "counts": "\x7f\x00é"}, "damaged"),
        ({"size": [24, 32], "counts": "ooooooooooooo0"}, "absurd"),
        ({"size": [24, 32], "counts": "PPPPP0"}, "covers|beyond"),
    ],
)
def test_wrong_run_lengths_of_coco(rle: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        raster.from_coco_rle(rle, (24, 32))


@pytest.mark.parametrize(
    ("runs", "box", "words"),
    [
        ([0, 5, 2], (0, 0, 2, 3), "covers 7"),
        ([6], (30, 0, 3, 2), "does not fit"),
        ([6], (-1, 0, 3, 2), "does not fit"),
        ([0], (0, 0, 0, 0), "does not fit"),
        ([10**18, 10**18], (0, 0, 3, 2), "beyond"),
    ],
)
def test_wrong_run_lengths_of_cvat(runs: list[int], box: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        raster.from_cvat_rle(np.array(runs), box, (24, 32))


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        ("", "empty"),
        ("ffffffff391bfe23", "covers 1.07374e"),
        (MASK2RLE[:-8], "ends before"),
        (MASK2RLE[:8] + "ff" + MASK2RLE[10:], "bits a value"),
        (MASK2RLE[:14] + "ff" * 30, "longer than|ends before"),
    ],
)
def test_wrong_brush_regions(packed: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        raster.from_brush_rle(bytes.fromhex(packed), (5, 7))


# ------------------------------------------------------------------ painting


def everywhere(size: tuple[int, int]) -> np.ndarray:
    return np.ones(size, bool)


def first_row(size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[0] = True
    return mask


def test_the_later_area_is_on_top_and_instances_are_numbered_as_they_come() -> None:
    shapes = [Shape(1, everywhere, "a"), Shape(2, first_row, "a"), Shape(255, first_row)]
    assert paint_mask(shapes, (2, 1), "here").tolist() == [[255], [1]]
    assert paint_instances(shapes[:2], (2, 1), "here").tolist() == [[1], [1]]
    assert paint_instances(shapes, (2, 1), "here").tolist() == [[0], [1]]
    kept = [Shape(1, everywhere, 1), Shape(1, first_row)]
    assert paint_instances(kept, (2, 1), "here").tolist() == [[2], [1]]
    assert paint_instances([Shape(1, everywhere, NO_INSTANCE)], (2, 1), "here").tolist() == [[0], [0]]


def test_more_instances_and_areas_than_a_picture_has() -> None:
    with pytest.raises(UserError, match="256 instruments"):
        paint_instances([Shape(1, first_row)] * 256, (2, 2), "here")
    with pytest.raises(UserError, match="200 areas in one image"):
        paint_mask([Shape(1, first_row)] * 200, (8000, 8000), "here")


@pytest.mark.parametrize("side", [0, -3, 1.5, "x", None, True, float("inf"), float("nan"), 2**27, [], {}])
def test_sizes_no_picture_has(side: object) -> None:
    with pytest.raises(UserError, match="size of the image"):
        size_hw(side, 10, "here")
    with pytest.raises(UserError, match="size of the image"):
        size_hw(10, side, "here")
    assert size_hw("480", 640.0, "here") == (480, 640)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255])),
    arrays(np.uint8, (6, 7), elements=st.integers(0, 3)),
)
def test_pieces_make_up_the_masks_they_come_from(mask: np.ndarray, instances: np.ndarray) -> None:
    found = pieces(mask, instances)
    rebuilt, numbers = np.zeros_like(mask), np.zeros_like(mask)
    for piece in found:
        assert not rebuilt[piece.pixels].any()
        rebuilt[piece.pixels], numbers[piece.pixels] = piece.index, piece.instance
    np.testing.assert_array_equal(rebuilt, mask)
    np.testing.assert_array_equal(numbers, np.where(np.isin(mask, [1, 2]), instances, 0))
    assert len({(piece.index, piece.instance) for piece in found}) == len(found)
    assert [piece.instance for piece in pieces(mask, None)] == [0] * len(np.unique(mask[mask > 0]))
