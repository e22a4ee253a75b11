from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import distance
from sklearn import metrics as sklearn_metrics

from trocar.metrics.overlap import (
    THRESHOLDS,
    Counts,
    accuracy,
    best_threshold,
    class_counts,
    counts,
    dice,
    instrument_counts,
    jaccard,
    joint_counts,
    precision,
    recall,
    specificity,
    threshold_sweep,
)

ALL = (dice, jaccard, precision, recall, specificity, accuracy)
OF_THE_INSTRUMENT = (dice, jaccard, precision, recall)
EMPTY, FULL = np.zeros((4, 5), bool), np.ones((4, 5), bool)
SHAPE = (7, 9)
masks = hnp.arrays(np.bool_, SHAPE)
labels = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 255]))


def drawn_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    pred, target = np.random.default_rng(seed).random((2, 16, 24)) < 0.3
    return pred, target


def test_a_case_worked_by_hand() -> None:
    target = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
    pred = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], bool)  # 2 found, 1 false, 2 missed
    assert dice(pred, target) == 4 / 7
    assert jaccard(pred, target) == 2 / 5
    assert precision(pred, target) == 2 / 3
    assert recall(pred, target) == 1 / 2
    assert specificity(pred, target) == 3 / 4
    assert accuracy(pred, target) == 5 / 8


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scipy_and_scikit_learn(seed: int) -> None:
    pred, target = drawn_pair(seed)
    p, t = pred.ravel(), target.ravel()
    assert dice(pred, target) == pytest.approx(1 - distance.dice(p, t), rel=1e-12)
    assert jaccard(pred, target) == pytest.approx(1 - distance.jaccard(p, t), rel=1e-12)
    assert dice(pred, target) == pytest.approx(sklearn_metrics.f1_score(t, p), rel=1e-12)
    assert jaccard(pred, target) == pytest.approx(sklearn_metrics.jaccard_score(t, p), rel=1e-12)
    assert precision(pred, target) == pytest.approx(sklearn_metrics.precision_score(t, p), rel=1e-12)
    assert recall(pred, target) == pytest.approx(sklearn_metrics.recall_score(t, p), rel=1e-12)
    assert specificity(pred, target) == pytest.approx(sklearn_metrics.recall_score(t, p, pos_label=0), rel=1e-12)
    assert accuracy(pred, target) == pytest.approx(sklearn_metrics.accuracy_score(t, p), rel=1e-12)


def test_dice_of_two_empty_masks_is_nan() -> None:
    assert all(math.isnan(metric(EMPTY, EMPTY)) for metric in OF_THE_INSTRUMENT)
    assert specificity(EMPTY, EMPTY) == accuracy(EMPTY, EMPTY) == 1


def test_one_empty_mask_scores_zero_and_leaves_its_own_ratio_undefined() -> None:
    assert dice(FULL, EMPTY) == jaccard(FULL, EMPTY) == precision(FULL, EMPTY) == 0
    assert math.isnan(recall(FULL, EMPTY))
    assert dice(EMPTY, FULL) == jaccard(EMPTY, FULL) == recall(EMPTY, FULL) == 0
    assert math.isnan(precision(EMPTY, FULL))
    assert specificity(FULL, EMPTY) == accuracy(FULL, EMPTY) == accuracy(EMPTY, FULL) == 0
    assert math.isnan(specificity(EMPTY, FULL))


def test_where_every_pixel_is_ignored_nothing_is_defined() -> None:
    nothing = counts(FULL, EMPTY, FULL)
    for name in ("dice", "jaccard", "precision", "recall", "specificity", "accuracy"):
        assert math.isnan(getattr(nothing, name))


@pytest.mark.parametrize("metric", ALL)
def test_shapes_that_would_broadcast_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="do not broadcast"):
        metric(FULL[:1], FULL)


@pytest.mark.parametrize("metric", ALL)
def test_masks_of_numbers_are_refused(metric) -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        metric(FULL.astype(np.uint8) * 255, FULL)


@given(masks, masks)
def test_properties_of_any_two_masks(pred: np.ndarray, target: np.ndarray) -> None:
    d, j = dice(pred, target), jaccard(pred, target)
    assert math.isnan(d) == math.isnan(j) == (not pred.any() and not target.any())
    if not math.isnan(d):
        assert 0 <= j <= d <= 1
        assert j == pytest.approx(d / (2 - d), rel=1e-12)
        assert d == dice(target, pred)
        assert j == jaccard(target, pred)
        assert (d == 1) == bool((pred == target).all())
    assert precision(pred, target) == pytest.approx(recall(target, pred), nan_ok=True)
    assert specificity(pred, target) == pytest.approx(recall(~pred, ~target), nan_ok=True)
    assert accuracy(pred, target) == accuracy(target, pred) == accuracy(~pred, ~target)


@given(masks, masks, masks)
def test_turning_all_of_them_changes_no_count(pred: np.ndarray, target: np.ndarray, ignore: np.ndarray) -> None:
    for turn in (np.flipud, np.fliplr, np.rot90, np.transpose):
        assert counts(turn(pred), turn(target), turn(ignore)) == counts(pred, target, ignore)


@given(masks, masks)
def test_overlap_with_a_mask_eroded_further_never_rises(mask: np.ndarray, around: np.ndarray) -> None:
    mask = mask | ndimage.binary_dilation(around)  # something that is not gone after one step
    eroded = [mask]
    while eroded[-1].any():
        eroded.append(ndimage.binary_erosion(eroded[-1]))
    for metric in (dice, jaccard, recall, accuracy):
        scores = [metric(one, mask) for one in eroded if mask.any()]
        assert scores == sorted(scores, reverse=True)


@given(masks, masks, masks, masks)
def test_ignored_pixels_count_nowhere(pred, other, target, ignore) -> None:
    changed = np.where(ignore, other, pred)
    assert counts(pred, target, ignore) == counts(changed, target, ignore)
    kept = ~ignore
    flat = counts(pred[kept][None], target[kept][None])  # as if the ignored pixels were not there
    assert counts(pred, target, ignore) == Counts(flat.found, flat.false, flat.missed, int(ignore.sum()), flat.rejected)


@given(labels, labels)
def test_class_counts_agree_with_a_confusion_matrix(pred: np.ndarray, target: np.ndarray) -> None:
    kept = target != 255
    matrix = sklearn_metrics.confusion_matrix(
        np.append(target[kept], [0, 1, 2, 255]), np.append(pred[kept], [0, 1, 2, 255]), labels=[0, 1, 2, 255]
    )
    matrix = matrix - np.eye(4, dtype=int)  # the appended ones only keep scikit-learn from refusing empty input
    for index, result in enumerate(class_counts(pred, target, 3)):
        assert result.found == matrix[index, index]
        assert result.false == matrix[:, index].sum() - matrix[index, index]
        assert result.missed == matrix[index].sum() - matrix[index, index]
        assert result.ignored == (~kept).sum()
        assert result.rejected == np.delete(np.delete(matrix, index, 0), index, 1).sum()


def test_instrument_counts_join_the_classes() -> None:
    target = np.array([[0, 1, 2, 255, 0]], np.uint8)
    pred = np.array([[2, 2, 1, 1, 0]], np.uint8)
    assert instrument_counts(pred, target) == Counts(found=2, false=1, missed=0, ignored=1, rejected=1)


def test_counts_add_up_to_the_pooled_score() -> None:
    a, b = drawn_pair(1), drawn_pair(2)
    pooled = counts(*a) + counts(*b)
    assert pooled == counts(np.hstack([a[0], b[0]]), np.hstack([a[1], b[1]]))


# ------------------------------------------------------------------ thresholds


def brute_force(probability: np.ndarray, truth: np.ndarray, thresholds) -> list[float]:
    return [counts(probability >= t, truth != 0, truth == 255).dice for t in thresholds]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_sweep_equals_thresholding_one_by_one(dtype: type) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((40, 50)).astype(dtype)
    on_the_edge = np.array(THRESHOLDS, dtype)  # the values where >= and > part
    probability[:2] = rng.choice(on_the_edge, (2, 50))
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (40, 50))
    np.testing.assert_array_equal(threshold_sweep(probability, truth), brute_force(probability, truth, THRESHOLDS))


def test_the_sweep_of_bytes_equals_thresholding_the_share_of_255() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    truth = rng.choice(np.array([0, 1, 255], np.uint8), (40, 50))
    thresholds = (*THRESHOLDS, 1.0)
    np.testing.assert_array_equal(
        threshold_sweep(levels, truth, thresholds), brute_force(levels / 255, truth, thresholds)
    )


@given(hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32)), labels)
def test_the_sweep_equals_thresholding_for_any_probabilities(probability: np.ndarray, truth: np.ndarray) -> None:
    expected = brute_force(probability, truth, THRESHOLDS)
    if not np.isin(truth, [1, 2]).any():
        expected = [math.nan] * len(THRESHOLDS)
    np.testing.assert_array_equal(threshold_sweep(probability, truth), expected)


def test_a_frame_without_instrument_tells_no_threshold() -> None:
    empty = threshold_sweep(np.full((3, 3), 0.9), np.zeros((3, 3), np.uint8), (0.2, 0.5))
    assert np.isnan(empty).all()
    assert best_threshold([empty, np.array([0.7, 0.6])], (0.2, 0.5)) == (0.2, 0.7)
    threshold, mean = best_threshold([empty], (0.2, 0.5))
    assert threshold == 0.5
    assert math.isnan(mean)
    assert best_threshold([])[0] == 0.5


def test_the_best_threshold_has_the_highest_mean() -> None:
    sweeps = [np.array([0.1, 0.9, 0.3]), np.array([0.5, 0.5, 1.0])]
    threshold, mean = best_threshold(sweeps, (0.3, 0.4, 0.5))
    assert threshold == 0.4
    assert mean == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("sweep", "expected"), [([0.8, 0.8, 0.8], 0.45), ([0.8, 0.1, 0.8], 0.3), ([0.1, 0.8, 0.8], 0.45)]
)
def test_of_equal_thresholds_the_one_nearest_a_half_wins(sweep: list[float], expected: float) -> None:
    assert best_threshold([np.array(sweep)], (0.3, 0.45, 0.75))[0] == expected


def test_at_equal_distance_from_a_half_the_lower_wins() -> None:
    assert best_threshold([np.array([0.8, 0.8])], (0.4, 0.6))[0] == 0.4


def test_probabilities_of_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        threshold_sweep(np.array([[math.nan, 1.0]]), np.array([[1, 1]], np.uint8))
    with pytest.raises(ValueError, match="rise"):
        threshold_sweep(np.ones((1, 1)), np.ones((1, 1), np.uint8), (0.5, 0.4))


def test_joint_counts_are_those_of_every_pair_of_values() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 2, 255], np.uint8)
    for _ in range(20):
        pred, truth = (rng.choice(values, (17, 23), p=[0.6, 0.2, 0.15, 0.05]) for _ in range(2))
        pred[:4] = truth[:4] = 0  # a margin that is background in both
        joint = joint_counts(pred, truth)
        assert joint.table.sum() == pred.size
        for one in values:
            for other in values:
                assert joint.table[one, other] == np.count_nonzero((pred == one) & (truth == other))
        for index in (0, 1, 2):
            assert joint.of_class(index) == counts(pred == index, truth == index, truth == 255)
        assert joint.instrument == counts((pred != 0) & (pred != 255), truth != 0, truth == 255)


def test_counts_stay_exact_beyond_what_a_float32_counts() -> None:
    ones = np.ones((4097, 4099), np.uint8)  # more than 2**24
    assert joint_counts(ones, ones).instrument.found == 4097 * 4099


def test_counts_ask_for_class_indices() -> None:
    with pytest.raises(ValueError, match="uint8"):
        joint_counts(np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
