from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trocar.metrics import intervals
from trocar.metrics.intervals import bootstrap

SCORES = np.random.default_rng(0).beta(8, 2, 120)


def test_values_are_those_of_numpy() -> None:
    estimates = bootstrap(SCORES)
    assert estimates.mean.value == pytest.approx(SCORES.mean(), rel=1e-12)
    assert estimates.median.value == pytest.approx(np.median(SCORES), rel=1e-12)
    assert estimates.p5.value == pytest.approx(np.percentile(SCORES, 5), rel=1e-12)
    assert (estimates.n, estimates.undefined) == (120, 0)


def test_weights_give_the_statistics_of_the_repeated_sample() -> None:
    rng = np.random.default_rng(1)
    ordered = np.sort(rng.random(23))
    weights = rng.integers(0, 4, (50, 23))
    mean, median, p5 = intervals._statistics(ordered, weights)
    for row, drawn in enumerate(np.repeat(ordered, times) for times in weights):
        assert mean[row] == pytest.approx(drawn.mean(), rel=1e-12)
        assert median[row] == pytest.approx(np.median(drawn), rel=1e-12)
        assert p5[row] == pytest.approx(np.percentile(drawn, 5), rel=1e-12)


@pytest.mark.parametrize(("name", "statistic"), [("mean", np.mean), ("median", np.median)])
def test_interval_of_frames_is_that_of_scipy(name: str, statistic) -> None:
    ours = getattr(bootstrap(SCORES), name)
    oracle = stats.bootstrap((SCORES,), statistic, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert ours.low == pytest.approx(oracle.low, abs=0.003)
    assert ours.high == pytest.approx(oracle.high, abs=0.003)


def test_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(2).normal(0, 1, 400)
    mean = bootstrap(values).mean
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean.low == pytest.approx(values.mean() - half, abs=0.01)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.01)


def test_the_seed_fixes_the_interval_and_nothing_else_does() -> None:
    np.random.seed(3)  # noqa: NPY002 - the global state must not matter
    first = bootstrap(SCORES, seed=7)
    np.random.seed(4)  # noqa: NPY002
    assert bootstrap(SCORES, seed=7) == first
    assert bootstrap(SCORES, seed=8) != first
    assert bootstrap(SCORES[::-1], seed=7).mean == first.mean  # frames have no order


def test_intervals_do_not_depend_on_how_many_resamples_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"g{i % 7}" for i in range(120)]
    whole = bootstrap(SCORES, groups).mean
    monkeypatch.setattr(intervals, "_CELLS_AT_ONCE", 1000 * 120)
    pieces = bootstrap(SCORES, groups).mean
    assert (pieces.low, pieces.high) == (pytest.approx(whole.low, abs=0.003), pytest.approx(whole.high, abs=0.003))


def clustered_scores() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(5)
    level = rng.normal(0.8, 0.1, 12)
    groups = [f"patient {g}" for g in range(12) for _ in range(30)]
    return np.repeat(level, 30) + rng.normal(0, 0.01, 360), groups


def test_groups_make_the_interval_as_wide_as_the_groups_differ() -> None:
    values, groups = clustered_scores()
    naive, clustered = bootstrap(values).mean, bootstrap(values, groups).mean
    assert clustered.high - clustered.low > 4 * (naive.high - naive.low)
    means = values.reshape(12, 30).mean(axis=1)  # frames of a group hardly differ: the interval is that of 12 means
    expected = bootstrap(means).mean
    assert clustered.low == pytest.approx(expected.low, abs=0.005)
    assert clustered.high == pytest.approx(expected.high, abs=0.005)


def test_groups_of_unequal_size_keep_their_weight() -> None:
    values = np.array([0.0] * 90 + [1.0] * 10)
    estimates = bootstrap(values, ["big"] * 90 + ["small"] * 10)
    assert estimates.mean.value == pytest.approx(0.1)
    assert estimates.mean.low == 0.0  # both draws the big group
    assert estimates.mean.high == 1.0  # both draws the small one, in a quarter of the resamples


def test_the_method_says_what_was_resampled() -> None:
    values, groups = clustered_scores()
    assert "of 12 groups, then of the frames within each" in bootstrap(values, groups).method
    assert "rough" in bootstrap(values[:90], groups[:90]).method
    assert "one group" in bootstrap(values[:30], groups[:30]).method
    assert "each a group of its own" in bootstrap(values, [str(i) for i in range(360)]).method
    assert "groups are not known" in bootstrap(values).method


@pytest.mark.parametrize("groups", [["a"] * 30, [str(i) for i in range(30)]])
def test_one_group_or_a_group_a_frame_resamples_frames(groups: list[str]) -> None:
    estimates, frames = bootstrap(SCORES[:30], groups), bootstrap(SCORES[:30])
    assert (estimates.mean, estimates.median, estimates.p5) == (frames.mean, frames.median, frames.p5)


def test_undefined_scores_are_left_out_and_counted() -> None:
    values = np.array([0.5, math.nan, 0.7, math.nan])
    estimates = bootstrap(values, ["a", "b", "a", "b"])
    assert (estimates.n, estimates.undefined) == (2, 2)
    assert estimates.mean == bootstrap([0.5, 0.7]).mean
    assert "one group" in estimates.method  # group b has no defined score


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_defined_gives_nan(values: list[float]) -> None:
    estimates = bootstrap(values, ["a"] * len(values))
    assert math.isnan(estimates.mean.value)
    assert math.isnan(estimates.p5.low)
    assert (estimates.n, estimates.undefined) == (0, len(values))
    assert "no interval" in estimates.method


def test_one_score_has_no_spread() -> None:
    assert bootstrap([0.4]).p5 == intervals.Interval(0.4, 0.4, 0.4)


def test_groups_must_match_the_values() -> None:
    with pytest.raises(ValueError, match="3 values but 2 groups"):
        bootstrap([1, 2, 3], ["a", "b"])
