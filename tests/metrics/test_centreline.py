from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import skeletonize

from trocar.metrics.centreline import centreline_dice
from trocar.metrics.overlap import dice

SHAPE = (9, 12)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
masks = hnp.arrays(np.bool_, SHAPE)


def needle(width: int, columns: slice = slice(5, 85), shape: tuple[int, int] = (60, 100)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[30 - width // 2 : 30 - width // 2 + width, columns] = True
    return mask


def tools(seed: int) -> np.ndarray:
    """Lines of several widths, some of which leave the image."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((80, 110), np.uint8)
    for _ in range(3):
        ends = rng.integers(-10, 110, (2, 2)).tolist()
        cv2.line(mask, *ends, 1, int(rng.integers(1, 12)))
    return mask.astype(bool)


def of_the_authors(pred: np.ndarray, target: np.ndarray) -> float:
    """The published formula on whole images; scikit-image does the thinning there too."""
    with np.errstate(invalid="ignore"):
        lines = skeletonize(pred), skeletonize(target)
        topology_precision = np.sum(lines[0] * target) / np.sum(lines[0])
        topology_sensitivity = np.sum(lines[1] * pred) / np.sum(lines[1])
        return float(2 * topology_precision * topology_sensitivity / (topology_precision + topology_sensitivity))


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_the_authors(seed: int) -> None:
    target = tools(seed)
    pred = np.roll(target, 2, axis=0) & (np.arange(110) > 20) | tools(seed + 100)
    assert centreline_dice(pred, target) == pytest.approx(of_the_authors(pred, target), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_agrees_with_the_authors_on_any_masks(pred: np.ndarray, target: np.ndarray) -> None:
    if pred.any() and target.any():
        expected = of_the_authors(pred, target)
        assert centreline_dice(pred, target) == pytest.approx(0 if math.isnan(expected) else expected, rel=1e-12)


def test_half_a_needle_by_hand() -> None:
    # One pixel wide, a mask is its own centre line: 40 of 80 found, all that is predicted is right.
    assert centreline_dice(needle(1, slice(5, 45)), needle(1)) == 2 * 1 * 0.5 / 1.5
    # Too thick a prediction around the right line is forgiven, as its centre line is right.
    assert centreline_dice(needle(7), needle(1)) > 0.98  # thinning bends the ends
    assert dice(needle(7), needle(1)) == 0.25


def test_a_lost_needle_costs_more_than_in_dice_where_a_shaft_is_found() -> None:
    shaft = np.zeros((60, 100), bool)
    shaft[2:22, 10:95] = True
    both = shaft | needle(2)
    assert dice(shaft, both) > 0.95
    assert centreline_dice(shaft, both) < 0.75


def test_every_empty_case() -> None:
    assert math.isnan(centreline_dice(EMPTY, EMPTY))
    assert centreline_dice(FULL, EMPTY) == centreline_dice(EMPTY, FULL) == 0
    apart = np.arange(12) < 5
    assert centreline_dice(FULL & apart, FULL & ~apart) == 0
    assert math.isnan(centreline_dice(FULL, FULL, FULL))


@settings(max_examples=60, deadline=None)
@given(masks, masks, masks, masks)
def test_what_is_predicted_on_ignored_pixels_changes_nothing(pred, other, target, ignore) -> None:
    one, two = (centreline_dice(mask, target, ignore) for mask in (pred, np.where(ignore, other, pred)))
    assert one == pytest.approx(two, abs=0, nan_ok=True)


def test_the_centre_lines_are_of_what_is_left_of_the_ignored_pixels() -> None:
    ignore = np.zeros((60, 100), bool)
    ignore[:, 40:60] = True
    target = needle(1)
    pred = needle(1) & (np.arange(100) < 50)  # 35 of the 60 known pixels of line
    assert centreline_dice(pred, target, ignore) == pytest.approx(2 * 35 / 60 / (1 + 35 / 60))


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_properties_of_any_two_masks(pred: np.ndarray, target: np.ndarray) -> None:
    score = centreline_dice(pred, target)
    assert score == pytest.approx(centreline_dice(target, pred), abs=0, nan_ok=True)
    assert math.isnan(score) == (not pred.any() and not target.any())
    if not math.isnan(score):
        assert 0 <= score <= 1
    if target.any():
        assert centreline_dice(target, target) == 1


@pytest.mark.parametrize("seed", range(5))
def test_turning_the_pair_changes_little(seed: int) -> None:
    pred, target = ndimage.binary_dilation(tools(seed), iterations=2), tools(seed)
    pred[:, 40:50] = False
    expected = centreline_dice(pred, target)
    for turn in (np.flipud, np.fliplr, np.rot90):
        assert centreline_dice(turn(pred), turn(target)) == pytest.approx(expected, abs=0.05)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="do not broadcast"):
        centreline_dice(FULL[:1], FULL)
    with pytest.raises(ValueError, match="do not broadcast"):
        centreline_dice(FULL, FULL, FULL[:1])
    with pytest.raises(ValueError, match="ambiguous"):
        centreline_dice(FULL.astype(np.uint8), FULL)
    with pytest.raises(ValueError, match="ambiguous"):
        centreline_dice(FULL, FULL, FULL.astype(np.uint8))


@given(st.integers(1, 2**9 - 1))
@settings(max_examples=80, deadline=None)
def test_no_mask_is_without_a_centre_line(bits: int) -> None:
    mask = np.array([bits >> place & 1 for place in range(9)], bool).reshape(3, 3)
    assert centreline_dice(mask, mask) == 1
