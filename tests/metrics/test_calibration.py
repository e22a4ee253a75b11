from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from trocar.metrics.calibration import (
    ThresholdCurve,
    calibration,
    expected_calibration_error,
    fit_temperature,
    logit_histogram,
    reliability_bins,
    reliability_of_logits,
    scale_probability,
    threshold_curve,
)
from trocar.metrics.overlap import THRESHOLDS, best_threshold, counts, threshold_sweep


def draw(seed: int, shape: tuple[int, int] = (60, 80), *, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and a truth that is instrument with probability sigmoid(logit / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 3, shape)
    return logits, (rng.random(shape) < special.expit(logits / temperature)).astype(np.uint8)


# ------------------------------------------------------------------ reliability


def test_bins_agree_with_scikit_learn() -> None:
    logits, truth = draw(0)
    probability = special.expit(logits)
    probability[0, :4] = [0, 1, 1 / 15, 2 / 15]
    table = reliability_bins(probability, truth)
    true, mean = calibration_curve(truth.ravel(), probability.ravel(), n_bins=15)
    filled = table[:, 0] > 0
    np.testing.assert_allclose(table[filled, 2] / table[filled, 0], true, rtol=1e-12)
    np.testing.assert_allclose(table[filled, 1] / table[filled, 0], mean, rtol=1e-12)
    assert table[:, 0].sum() == truth.size


def test_error_by_hand() -> None:
    """Bins of a half: four pixels of 0.25, one of them true (no error); two of 0.75, both true (0.25 off)."""
    probability = np.array([[0.25, 0.25, 0.25, 0.25, 0.75, 0.75]])
    truth = np.array([[1, 0, 0, 0, 1, 1]], np.uint8)
    table = reliability_bins(probability, truth, bins=2)
    np.testing.assert_allclose(table, [[4, 1.0, 1], [2, 1.5, 2]])
    assert expected_calibration_error(table) == pytest.approx(2 / 6 * 0.25)
    assert expected_calibration_error(table, above_lowest=True) == pytest.approx(0.25)


def test_ignored_pixels_count_nowhere_and_any_class_is_instrument() -> None:
    logits, truth = draw(1)
    probability = special.expit(logits)
    marked = truth * np.uint8(3)
    marked[:30] = 255
    np.testing.assert_array_equal(reliability_bins(probability, marked), reliability_bins(probability[30:], truth[30:]))
    assert not reliability_bins(probability, np.full_like(truth, 255)).any()


def test_tables_of_frames_add_up_to_that_of_all_pixels() -> None:
    frames = [draw(seed) for seed in range(3)]
    together = reliability_bins(
        special.expit(np.concatenate([one for one, _ in frames])), np.concatenate([one for _, one in frames])
    )
    np.testing.assert_allclose(sum(reliability_bins(special.expit(x), t) for x, t in frames), together, rtol=1e-12)


@pytest.mark.parametrize("strange", [math.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(strange: float) -> None:
    probability = np.full((2, 2), 0.5)
    probability[0, 1] = strange
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability_bins(probability, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="do not broadcast"):
        reliability_bins(probability, np.zeros((2, 3), np.uint8))


def test_figures_of_summed_tables() -> None:
    table = reliability_bins(np.array([[0.25, 0.25, 0.75, 0.75]]), np.array([[1, 0, 1, 1]], np.uint8), bins=4)
    found = calibration(table)
    assert [one.pixels for one in found.bins] == [2, 0, 2, 0]  # closed above: 0.25 is in the lowest
    assert (found.bins[0].low, found.bins[0].high) == (0.0, 0.25)
    assert found.bins[2].probability == 0.75
    assert found.bins[2].true == 1.0
    assert math.isnan(found.bins[1].true)
    assert found.ece == pytest.approx(0.25)
    assert found.pixels == 4
    assert found.bins_after == ()
    assert math.isnan(found.temperature)
    assert math.isnan(found.ece_after)
    assert math.isnan(calibration(np.zeros((15, 3))).ece)
    both = calibration(table, table * [1, 1, 0], temperature=2.0)
    assert both.ece_after == pytest.approx(0.5)


# ------------------------------------------------------------------ temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_equals_a_fit_on_every_pixel(temperature: float) -> None:
    frames = [draw(seed, temperature=temperature) for seed in range(4)]
    histogram = sum(logit_histogram(x.astype(np.float32), t) for x, t in frames)
    logits, truth = (np.concatenate([frame[part].ravel() for frame in frames]) for part in (0, 1))
    slope = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(logits[:, None], truth).coef_[0, 0]
    assert fit_temperature(histogram) == pytest.approx(1 / slope, rel=1e-4)
    assert fit_temperature(histogram) == pytest.approx(temperature, rel=0.05)


def test_temperature_of_shares_and_ignored_pixels() -> None:
    """Against scipy on the pixels themselves, with soft targets and large logits."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 12, (50, 60)).astype(np.float32)
    share = np.clip(special.expit(logits / 3) + rng.normal(0, 0.2, logits.shape), 0, 1).astype(np.float32)
    share[:10] = 255

    def surprise(log_temperature: np.ndarray) -> float:
        scaled = logits[10:].astype(np.float64) / np.exp(log_temperature[0])
        return float(np.mean(np.logaddexp(0, scaled) - share[10:] * scaled))

    expected = math.exp(minimize(surprise, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14}).x[0])
    assert np.abs(logits[10:]).max() > 40
    assert fit_temperature(logit_histogram(logits, share)) == pytest.approx(expected, rel=1e-4)


def test_no_temperature_where_none_is_best() -> None:
    logits, truth = draw(2)
    apart = (logits > 0).astype(np.uint8)
    assert math.isnan(fit_temperature(logit_histogram(logits, apart)))  # ever smaller is better
    assert math.isnan(fit_temperature(logit_histogram(logits, 1 - apart)))  # ever larger
    assert math.isnan(fit_temperature(logit_histogram(logits, np.zeros_like(truth))))
    assert math.isnan(fit_temperature(logit_histogram(logits, np.full_like(truth, 255))))
    with pytest.raises(ValueError, match="NaN"):
        logit_histogram(np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_reliability_of_a_histogram_is_that_of_the_pixels(temperature: float) -> None:
    logits, truth = draw(3, (200, 200), temperature=1.7)
    exact = reliability_bins(special.expit(logits / temperature), truth)
    table = reliability_of_logits(logit_histogram(logits.astype(np.float32), truth), temperature)
    np.testing.assert_allclose(table.sum(axis=0), exact.sum(axis=0), rtol=1e-4)
    assert expected_calibration_error(table) == pytest.approx(expected_calibration_error(exact), abs=5e-4)


def test_scaling_mends_an_overconfident_network() -> None:
    logits, truth = draw(4, (200, 200), temperature=2.5)
    histogram = logit_histogram(logits, truth)
    before, after = (reliability_of_logits(histogram, t) for t in (1.0, fit_temperature(histogram)))
    assert expected_calibration_error(before) > 0.05
    assert expected_calibration_error(after) < 0.01


def test_a_mask_is_the_same_where_the_threshold_moves_along() -> None:
    probability = special.expit(draw(6)[0]).astype(np.float32)
    for temperature, threshold in ((0.3, 0.35), (2.7, 0.61)):
        scaled = scale_probability(probability, temperature)
        np.testing.assert_allclose(
            scaled, special.expit(special.logit(probability.astype(np.float64)) / temperature), rtol=1e-9
        )
        moved = scale_probability(np.float32(threshold), temperature)
        np.testing.assert_array_equal(scaled >= moved, probability >= threshold)
    np.testing.assert_allclose(scale_probability(np.array([0.0, 0.5, 1.0]), 1.9), [0, 0.5, 1])


# ------------------------------------------------------------------ threshold


def test_the_curve_is_the_mean_of_dice_at_each_threshold() -> None:
    frames = [draw(seed, (20, 30)) for seed in range(3)]
    frames.append((frames[0][0], np.zeros((20, 30), np.uint8)))  # no instrument: no Dice
    sweeps = [threshold_sweep(special.expit(x), t) for x, t in frames]
    curve = threshold_curve(iter(sweeps))
    assert curve.frames == 3
    for index in (0, 40, 90):
        by_hand = [counts(special.expit(x) >= THRESHOLDS[index], t == 1).dice for x, t in frames[:3]]
        assert curve.dice[index] == pytest.approx(np.mean(by_hand), abs=1e-12)
        assert curve.at(THRESHOLDS[index]) == pytest.approx(curve.dice[index])
    assert curve.best == pytest.approx(best_threshold(sweeps))
    assert curve.cost(curve.best[0]) == 0
    assert curve.cost(0.95) == pytest.approx(max(curve.dice) - curve.dice[-1])


def test_the_cost_of_a_threshold_by_hand() -> None:
    curve = ThresholdCurve((0.2, 0.4, 0.6), (0.7, 0.9, 0.8), frames=5)
    assert curve.best == (0.4, 0.9)
    assert curve.cost(0.6) == pytest.approx(0.1)
    assert curve.cost(0.3) == pytest.approx(0.1)  # halfway between 0.7 and 0.9
    assert math.isnan(curve.cost(0.1))


def test_a_curve_of_no_frame_is_undefined() -> None:
    curve = threshold_curve([np.full(len(THRESHOLDS), math.nan)])
    assert curve.frames == 0
    assert math.isnan(curve.best[1])
    assert math.isnan(curve.cost(0.5))
