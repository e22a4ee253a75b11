from __future__ import annotations

import gc
import math
import weakref

import cv2
import numpy as np
import pytest

from trocar.metrics.overlap import counts
from trocar.metrics.stability import Stability

SHAPE = (120, 160)


def texture(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.dstack([cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)] * 3)


def box(top: int, left: int, height: int, width: int, value: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top : top + height, left : left + width] = value
    return mask


EMPTY, TOOL = np.zeros(SHAPE, np.uint8), box(40, 60, 30, 20)


def watch(masks: list[np.ndarray], images: list[np.ndarray] | None = None) -> Stability:
    """A video of these masks, by default over a picture in which nothing moves."""
    stability = Stability()
    for mask, image in zip(masks, images or [texture()] * len(masks), strict=True):
        stability.add(image, mask)
    return stability


# ------------------------------------------------------------------ pictures that move by a known shift


@pytest.mark.parametrize("shift", [(0, 0), (0, 4), (-3, 0), (5, -7)])
@pytest.mark.parametrize("scale", [1, 5])  # 1: flow at the frame's size; 5: at four fifths of it
def test_a_mask_that_moves_with_the_picture_is_steady_and_one_that_stays_is_not(shift, scale: int) -> None:
    large, (down, right) = texture(shape=(150 * scale, 200 * scale)), np.multiply(shift, scale)
    height, width = 120 * scale, 160 * scale
    tool = box(40 * scale, 60 * scale, 30 * scale, 20 * scale, shape=(height, width))
    top, left = 15 * scale, 20 * scale
    first, second = (
        large[top - i * down : top - i * down + height, left - i * right : left - i * right + width] for i in (0, 1)
    )
    moved = np.roll(tool, (down, right), (0, 1))

    following = Stability()
    assert following.add(first, tool) is None
    step = following.add(second, moved)
    assert step is not None
    assert step.warped_iou == following.warped_iou == pytest.approx(1, abs=0.01)
    assert step.followed > 0.8

    staying = Stability()
    staying.add(first, tool)
    staying.add(second, tool)
    # The mask before, warped, lies where the moved one would: the figure is the overlap with that.
    assert staying.warped_iou == pytest.approx(counts(moved == 1, tool == 1).jaccard, abs=0.01)


def test_a_known_shift_by_hand() -> None:
    large = texture(shape=(130, 180))
    stability = watch([TOOL] * 3, [large[:120, 10 - 5 * i : 170 - 5 * i] for i in range(3)])  # 5 px to the right
    assert stability.warped_iou == pytest.approx(15 / 25, abs=0.01)  # of a tool 20 px wide
    assert (stability.pairs, stability.triples) == (2, 1)
    assert stability.flicker_rate == 0  # the mask lags behind ever further, but nothing comes back


def test_a_tool_that_moves_over_still_tissue_is_steady_and_what_it_uncovers_does_not_count() -> None:
    shape = (360, 480)
    tissue, tool, first = texture(1, shape), texture(2, shape), box(120, 150, 120, 80, shape=shape)
    masks = [np.roll(first, 8 * frame, axis=1) for frame in range(4)]
    images = [
        np.where(mask[..., None] == 1, np.roll(tool, 8 * frame, axis=1), tissue) for frame, mask in enumerate(masks)
    ]
    moving = watch(masks, images)
    assert moving.warped_iou > 0.95  # the flow is smooth over the outline, so not even this is 1
    assert moving.flicker_rate < 0.01
    # One that stays behind misses the 8 columns in front; those behind it are tissue that was hidden, and do not count.
    assert watch([first] * 2, images[:2]).warped_iou == pytest.approx(72 / 80, abs=0.02)


def test_flicker_is_followed_along_the_motion() -> None:
    large = texture(shape=(130, 220))
    images = [large[:120, 50 - 6 * i : 210 - 6 * i] for i in range(5)]
    masks = [np.roll(TOOL, 6 * i, axis=1) for i in range(5)]
    assert watch(masks, images).flicker_rate == pytest.approx(0, abs=0.01)
    masks[2] = EMPTY
    stability = watch(masks, images)
    # Triples: it goes (0), it was there before and after (1), it comes back (0).
    assert stability.flicker_rate == pytest.approx(1 / 3, abs=0.01)
    assert stability.warped_iou == pytest.approx(2 / 4, abs=0.01)


# ------------------------------------------------------------------ flicker made by hand, over a still picture


@pytest.mark.parametrize(
    ("shown", "iou", "flicker"),
    [
        ("1111", 1, 0),
        ("1010", 0, 1),
        ("1101", 1 / 3, 1 / 2),  # triples: goes, comes back
        ("0111", 2 / 3, 0),  # appears and stays
        ("1100", 1 / 2, 0),  # leaves; the last pair has no instrument
        ("0010", 0, 1 / 2),  # triples: appears; flashes up
        ("1", math.nan, math.nan),
        ("11", 1, math.nan),
        ("0000", math.nan, math.nan),
    ],
)
def test_a_tool_that_comes_and_goes(shown: str, iou: float, flicker: float) -> None:
    stability = watch([TOOL if one == "1" else EMPTY for one in shown])
    assert stability.warped_iou == pytest.approx(iou, nan_ok=True)
    assert stability.flicker_rate == pytest.approx(flicker, nan_ok=True)


def test_an_outline_that_trembles_by_hand() -> None:
    wide = box(40, 60, 30, 25)  # 5 columns more
    stability = watch([TOOL, wide, TOOL, wide])
    assert stability.warped_iou == pytest.approx(20 / 25)
    assert stability.flicker_rate == pytest.approx(5 / 25)


def test_what_counts_is_not_how_large_the_frame_is() -> None:
    small = watch([box(50, 70, 5, 4), box(50, 70, 5, 5), box(50, 70, 5, 4)])
    assert small.flicker_rate == pytest.approx(5 / 25)
    assert small.warped_iou == pytest.approx(4 / 5)


def test_classes_that_swap_flicker_though_the_instrument_is_steady() -> None:
    shaft, tip = box(40, 60, 10, 20, 1), box(50, 60, 10, 20, 2)
    swapped = box(40, 60, 10, 20, 2) + box(50, 60, 10, 20, 2)
    stability = watch([shaft + tip, swapped, shaft + tip])
    assert stability.flicker_rate == pytest.approx(1 / 2)
    assert stability.warped_iou == pytest.approx((0 + 200 / 400) / 2)  # mean over both classes
    joined = watch([(mask != 0).astype(np.uint8) for mask in (shaft + tip, swapped, shaft + tip)])
    assert (joined.flicker_rate, joined.warped_iou) == (0, 1)


# ------------------------------------------------------------------ what counts nowhere


def test_ignored_pixels_count_nowhere() -> None:
    blind = np.where(np.arange(160) < 70, 255, 0).astype(np.uint8)  # the left half of the tool
    left = box(40, 60, 30, 10)
    steady = [mask | blind for mask in (TOOL, TOOL - left, TOOL)]
    assert (watch(steady).warped_iou, watch(steady).flicker_rate) == (1, 0)
    one = watch([TOOL, (TOOL - left) | blind, TOOL])  # ignored in one frame alone
    assert (one.warped_iou, one.flicker_rate) == (1, 0)
    assert math.isnan(watch([left | blind, left | blind]).warped_iou)


def test_over_a_cut_nothing_is_compared() -> None:
    stability = Stability()
    steps = [
        stability.add(texture(scene), TOOL if shown else EMPTY)
        for scene, shown in ((1, True), (1, True), (2, False), (2, True), (2, True))
    ]
    assert stability.cuts == 1
    cut = steps[2]
    assert cut is not None
    assert cut.followed < 0.5
    assert math.isnan(cut.warped_iou)
    assert math.isnan(cut.flicker_rate)
    assert stability.pairs == 3
    assert stability.warped_iou == pytest.approx(2 / 3)  # before the cut 1; after it the tool appears, and stays
    assert (stability.triples, stability.flicker_rate) == (1, 0)


def test_it_holds_the_last_frame_alone_and_no_buffer_of_the_caller() -> None:
    stability = Stability()
    image, mask = texture(), TOOL.copy()
    stability.add(image, mask)
    references = weakref.ref(image), weakref.ref(mask)
    image[:], mask[:] = 0, 0  # a decoder that uses its buffer again
    step = stability.add(texture(), TOOL)
    assert step is not None
    assert step.warped_iou == 1
    del image, mask
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    sizes = []
    for _ in range(6):
        stability.add(texture(), TOOL)
        sizes.append(sum(value.nbytes for value in vars(stability).values() if isinstance(value, np.ndarray)))
        assert not [value for value in vars(stability).values() if isinstance(value, (list, tuple, dict))]
    assert len(set(sizes)) == 1


def test_what_makes_no_sense_is_refused() -> None:
    stability = Stability()
    with pytest.raises(ValueError, match="agree"):
        stability.add(texture(), EMPTY[:60])
    with pytest.raises(ValueError, match="12 px"):
        stability.add(texture()[:11, :50], EMPTY[:11, :50])
    with pytest.raises(ValueError, match="uint8"):
        stability.add(texture(), EMPTY == 0)
    stability.add(texture(), EMPTY)
    with pytest.raises(ValueError, match="one size"):
        stability.add(texture()[:60], EMPTY[:60])
