from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from trocar.metrics.boundary import boundary_distances
from trocar.metrics.instances import InstanceCounts, connected_instances, match_instances
from trocar.metrics.overlap import counts, dice, jaccard

SHAPE = (5, 8)
EMPTY = np.zeros(SHAPE, np.uint8)
instances = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
masks = hnp.arrays(np.bool_, SHAPE)


def scene(seed: int, shape: tuple[int, int] = (40, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Four tools, and a prediction of them that is moved, renumbered, and one instance short or too many."""
    rng = np.random.default_rng(seed)
    target = np.zeros(shape, np.uint8)
    for number in range(1, 5):
        top, left = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 16)
        target[top : top + rng.integers(4, 12), left : left + rng.integers(6, 16)] = number
    moved = np.roll(target, rng.integers(-2, 3, 2), (0, 1))
    renumbered = np.array([0, 9, 4, 200, rng.choice([0, 3])], np.uint8)
    pred = renumbered[moved]
    pred[:5, :7] = 77
    return pred, target


def best_by_brute_force(pred: np.ndarray, target: np.ndarray, iou: float) -> tuple[float, int]:
    """Highest summed IoU over every way to match, and of how many pairs it is."""
    true = [number for number in np.unique(target) if number]
    predicted = [number for number in np.unique(pred) if number]
    overlap = {
        (t, p): score for t, p in itertools.product(true, predicted) if (score := jaccard(pred == p, target == t)) > iou
    }
    best = (0.0, 0)
    for partners in itertools.permutations([*predicted, *[None] * len(true)], len(true)):
        scores = [overlap.get(pair) for pair in zip(true, partners, strict=True)]
        matched = [score for score in scores if score is not None]
        best = max(best, (sum(matched), len(matched)))
    return best


# ------------------------------------------------------------------ brute force and other implementations


@pytest.mark.parametrize("iou", [0, 0.2, 0.5])
@settings(max_examples=40, deadline=None)
@given(pred=instances, target=instances)
def test_no_other_matching_has_a_higher_summed_iou(iou: float, pred: np.ndarray, target: np.ndarray) -> None:
    scores = match_instances(pred, target, iou=iou)
    summed, pairs = best_by_brute_force(pred, target, iou)
    assert scores.summed_iou == pytest.approx(summed, rel=1e-12)
    if iou == 0.5:
        assert scores.found == pairs
    assert scores.found + scores.missed == len(set(np.unique(target)) - {0})
    assert scores.found + scores.false == len(set(np.unique(pred)) - {0})


def test_the_matching_is_not_the_greedy_one() -> None:
    # Predicted 1 overlaps both tools, the first best; predicted 2 overlaps only that one.
    target = np.array([[1] * 10 + [2] * 6], np.uint8)
    pred = np.array([[2] * 4 + [1] * 11 + [0]], np.uint8)
    scores = match_instances(pred, target, iou=0)
    assert [(match.pred, match.target) for match in scores.matches] == [(2, 1), (1, 2)]
    assert scores.summed_iou == pytest.approx(4 / 10 + 5 / 12)
    assert scores.summed_iou > jaccard(pred == 1, target == 1) == 6 / 15


@pytest.mark.filterwarnings("ignore")  # MONAI warns of its own calls
@pytest.mark.parametrize("seed", range(8))
def test_panoptic_quality_agrees_with_monai(seed: int) -> None:
    import torch
    from monai.metrics import compute_panoptic_quality  # takes long to import

    pred, target = scene(seed)
    scores = match_instances(pred, target)
    tensors = [torch.from_numpy(np.unique(array, return_inverse=True)[1]) for array in (pred, target)]  # consecutive
    for name, ours in (
        ("pq", scores.panoptic_quality),
        ("sq", scores.segmentation_quality if scores.found else 0),  # undefined is 0 there
        ("rq", scores.recognition_quality),
    ):
        assert ours == pytest.approx(float(compute_panoptic_quality(*tensors, metric_name=name)), abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ignored", [False, True])
def test_each_match_is_scored_as_its_two_masks_are(seed: int, *, ignored: bool) -> None:
    pred, target = scene(seed)
    ignore = np.zeros(pred.shape, bool)
    ignore[:, 20:24] = ignored
    scores = match_instances(pred, target, ignore, iou=0.1)
    assert scores.matches
    pairs = [(pred == match.pred, target == match.target) for match in scores.matches]
    for match, pair in zip(scores.matches, pairs, strict=True):
        assert (match.iou, match.dice) == pytest.approx((counts(*pair, ignore).jaccard, counts(*pair, ignore).dice))
    true = len(pairs) + scores.missed
    assert scores.dice == pytest.approx(sum(match.dice for match in scores.matches) / true)
    for tolerance in (0, 2):
        expected = sum(boundary_distances(*pair, ignore).surface_dice(tolerance) for pair in pairs) / true
        assert scores.nsd(tolerance) == pytest.approx(expected)


# ------------------------------------------------------------------ by hand


def three_tools() -> tuple[np.ndarray, np.ndarray]:
    """Of three true tools one is found whole, one to 6 of 10 pixels and one not at all; one is invented."""
    target = np.zeros((8, 20), np.uint8)
    target[0, :10], target[2, :10], target[4, :10] = 1, 2, 3
    pred = np.zeros((8, 20), np.uint8)
    pred[0, :10], pred[2, :6], pred[6, :5] = 30, 10, 20
    return pred, target


def test_three_tools_by_hand() -> None:
    scores = match_instances(*three_tools())
    assert (scores.found, scores.false, scores.missed) == (2, 1, 1)
    assert [(match.target, match.pred) for match in scores.matches] == [(1, 30), (2, 10)]
    assert scores.segmentation_quality == (1 + 0.6) / 2
    assert scores.detection_f1 == scores.recognition_quality == 2 / 3
    assert scores.panoptic_quality == pytest.approx(0.8 * 2 / 3)
    assert scores.dice == (1 + 12 / 16 + 0) / 3
    assert scores.nsd(0) < scores.nsd(4) == (1 + 1 + 0) / 3


def test_a_pair_at_the_very_threshold_is_not_matched() -> None:
    pred, target = three_tools()
    assert match_instances(pred, target, iou=0.6).found == 1
    assert match_instances(pred, target, iou=0.59).found == 2


def test_one_piece_over_two_tools_finds_at_most_one() -> None:
    target = np.array([[1, 1, 1, 1, 2, 2]], np.uint8)
    joined = match_instances(np.ones((1, 6), np.uint8), target)
    assert (joined.found, joined.false, joined.missed) == (1, 0, 1)
    assert joined.panoptic_quality == pytest.approx(4 / 6 / 1.5)
    assert dice(np.ones((1, 6), bool), target > 0) == 1  # the mask alone is perfect


def test_counts_of_images_add_up() -> None:
    pairs = [scene(seed) for seed in range(4)]
    single = [match_instances(*pair) for pair in pairs]
    pooled = sum(single, start=InstanceCounts(0, 0, 0, 0.0))
    # As one image: each scene's numbers by themselves, side by side.
    wide = [
        np.hstack([np.where(pair[side] > 0, pair[side] + np.int32(300 * i), 0) for i, pair in enumerate(pairs)])
        for side in (0, 1)
    ]
    together = match_instances(*wide)
    assert (pooled.found, pooled.false, pooled.missed) == (together.found, together.false, together.missed)
    assert pooled.panoptic_quality == pytest.approx(together.panoptic_quality)
    assert pooled.panoptic_quality != pytest.approx(np.mean([one.panoptic_quality for one in single]))


TABLE = [  # predicted, true -> found, false, missed, F1 and PQ, SQ, Dice and NSD
    (0, 0, (0, 0, 0), math.nan, math.nan, math.nan),
    (1, 0, (0, 1, 0), 0, math.nan, math.nan),
    (0, 1, (0, 0, 1), 0, math.nan, 0),
    (1, 1, (1, 0, 0), 1, 1, 1),
]


@pytest.mark.parametrize(("predicted", "true", "expected", "quality", "segmentation", "overlap"), TABLE)
def test_every_empty_case(predicted, true, expected, quality: float, segmentation: float, overlap: float) -> None:
    pred, target = EMPTY.copy(), EMPTY.copy()
    pred[1:4, 1:5], target[1:4, 1:5] = predicted, true
    scores = match_instances(pred, target)
    assert (scores.found, scores.false, scores.missed) == expected
    for value in (scores.detection_f1, scores.recognition_quality, scores.panoptic_quality):
        assert value == pytest.approx(quality, abs=0, nan_ok=True)
    assert scores.segmentation_quality == pytest.approx(segmentation, abs=0, nan_ok=True)
    for value in (scores.dice, scores.nsd(1)):
        assert value == pytest.approx(overlap, abs=0, nan_ok=True)


# ------------------------------------------------------------------ ignored pixels


@settings(max_examples=60, deadline=None)
@given(instances, instances, masks)
def test_matches_and_misses_are_those_of_the_known_pixels(pred, target, ignore) -> None:
    kept = ~ignore
    scores = match_instances(pred, target, ignore)
    known = match_instances(np.where(kept, pred, 0), np.where(kept, target, 0))
    assert scores.matches == known.matches
    assert scores.missed == known.missed
    assert scores.false <= known.false  # mostly ignored ones are forgiven


def test_a_false_instance_that_is_mostly_ignored_is_forgiven_and_a_found_one_still_counts() -> None:
    pred, target = np.zeros((4, 12), np.uint8), np.zeros((4, 12), np.uint8)
    ignore = np.arange(12) < np.array([[5], [6], [7], [12]])
    pred[0, :10], pred[1, :10] = 1, 2  # 5 of 10 pixels ignored, 6 of 10
    pred[2, :10], target[2, 7:10] = 3, 1  # 7 of 10 ignored, and right where something is known
    pred[3, :10], target[3, :10] = 4, 5  # wholly ignored
    scores = match_instances(pred, target, np.broadcast_to(ignore, pred.shape))
    assert (scores.found, scores.false, scores.missed) == (1, 1, 0)


def test_a_pair_without_known_contour_has_no_nsd() -> None:
    target = np.zeros((20, 30), np.uint8)
    target[2:8, 2:8], target[2:8, 12:18] = 1, 2
    first = target == 1
    ring = ndimage.binary_dilation(first) ^ ndimage.binary_erosion(first)
    pred = np.where(target == 1, target, 0)
    scores = match_instances(pred, target, ring)
    assert (scores.found, scores.missed) == (1, 1)
    assert scores.nsd(1) == 0  # of the missed one alone
    assert math.isnan(match_instances(pred, pred, ring).nsd(1))


# ------------------------------------------------------------------ properties


@settings(max_examples=60, deadline=None)
@given(instances, instances)
def test_properties_of_any_two(pred: np.ndarray, target: np.ndarray) -> None:
    scores = match_instances(pred, target)
    swapped = match_instances(target, pred)
    assert (scores.found, scores.false, scores.missed) == (swapped.found, swapped.missed, swapped.false)
    assert scores.panoptic_quality == pytest.approx(swapped.panoptic_quality, nan_ok=True)
    if scores.found:
        assert 0.5 < scores.segmentation_quality <= 1
        assert scores.panoptic_quality == pytest.approx(scores.recognition_quality * scores.segmentation_quality)
    for value in (scores.panoptic_quality, scores.detection_f1, scores.dice, scores.nsd(1)):
        assert math.isnan(value) or 0 <= value <= 1
    for match in scores.matches:
        assert match.iou == pytest.approx(match.dice / (2 - match.dice))
    found = [match_instances(pred, target, iou=threshold).found for threshold in (0.5, 0.7, 0.9)]
    assert found == sorted(found, reverse=True)


@settings(max_examples=30, deadline=None)
@given(instances, instances)
def test_turning_both_changes_nothing(pred: np.ndarray, target: np.ndarray) -> None:
    scores = match_instances(pred, target)
    for turn in (np.flipud, np.fliplr, np.rot90, np.transpose):
        turned = match_instances(turn(pred), turn(target))
        assert turned.matches == scores.matches
        assert (turned.false, turned.missed) == (scores.false, scores.missed)
        assert turned.nsd(1) == pytest.approx(scores.nsd(1), rel=1e-12, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(instances, instances, st.permutations(range(1, 4)))
def test_numbers_mean_nothing(pred: np.ndarray, target: np.ndarray, order: list[int]) -> None:
    scores = match_instances(pred, target)
    large = np.array([0, *(1_000_000 * number for number in order)])[pred]  # sorted, not looked up in a table
    renumbered = match_instances(large, target)
    assert (renumbered.found, renumbered.false, renumbered.missed) == (scores.found, scores.false, scores.missed)
    assert renumbered.summed_iou == pytest.approx(scores.summed_iou)


# ------------------------------------------------------------------ connected pieces


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(0, 4))
def test_pieces_agree_with_scipy(mask: np.ndarray, min_pixels: int) -> None:
    ours = connected_instances(mask, min_pixels)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = Counter(labels[labels > 0].tolist())
    expected = np.where(np.isin(labels, [label for label, size in sizes.items() if size >= min_pixels]), labels, 0)
    pairs = set(zip(ours.ravel().tolist(), expected.ravel().tolist(), strict=True)) - {(0, 0)}
    assert len(pairs) == len({mine for mine, _ in pairs} - {0}) == len({theirs for _, theirs in pairs} - {0})
    assert {mine for mine, _ in pairs} == set(range(1, len(pairs) + 1))


def test_the_parts_of_an_instrument_are_one_piece_and_ignored_pixels_none() -> None:
    mask = np.array([[1, 2, 0, 3, 255, 255, 0, 0, 1]], np.uint8)
    np.testing.assert_array_equal(connected_instances(mask), [[1, 1, 0, 2, 0, 0, 0, 0, 3]])
    np.testing.assert_array_equal(connected_instances(mask == 1), [[1, 0, 0, 0, 0, 0, 0, 0, 2]])
    assert connected_instances(mask, min_pixels=3).max() == 0


# ------------------------------------------------------------------ refusals


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="do not broadcast"):
        match_instances(EMPTY[:1], EMPTY)
    with pytest.raises(ValueError, match="do not broadcast"):
        match_instances(EMPTY, EMPTY, EMPTY[:1] > 0)
    with pytest.raises(ValueError, match="ambiguous"):
        match_instances(EMPTY, EMPTY, EMPTY)
    for wrong in (EMPTY > 0, EMPTY.astype(float)):
        with pytest.raises(ValueError, match="whole numbers"):
            match_instances(wrong, EMPTY)
    with pytest.raises(ValueError, match="above 0"):
        match_instances(EMPTY, EMPTY.astype(int) - 1)
    for iou in (-0.1, 1, math.nan):
        with pytest.raises(ValueError, match="IoU"):
            match_instances(EMPTY, EMPTY, iou=iou)
    with pytest.raises(ValueError, match="booleans or uint8"):
        connected_instances(EMPTY.astype(np.int32))
