from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trocar.metrics import comparison
from trocar.metrics.comparison import holm, jensen_check, paired_difference, rank_stability, sign_flip_test
from trocar.metrics.intervals import bootstrap

RNG = np.random.default_rng(0)
SCORES = RNG.beta(8, 2, 60)
OTHER = np.clip(SCORES + RNG.normal(-0.02, 0.05, 60), 0, 1)
GROUPS = [f"OP{i // 6}" for i in range(60)]


def mean_difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(x - y, axis=axis)


# ------------------------------------------------------------------ sign flips


@pytest.mark.parametrize("size", [2, 5, 9, 12])
def test_few_frames_give_the_exact_p_of_scipy(size: int) -> None:
    a, b = SCORES[:size], OTHER[:size]
    oracle = stats.permutation_test(
        (a, b), mean_difference, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    test = sign_flip_test(a - b)
    assert test.p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert test.smallest == pytest.approx(min(1, 2 / 2**size))
    assert test.of == "frames"


def test_many_frames_give_the_p_of_scipys_draws() -> None:
    a, b = SCORES[:40], (OTHER + 0.012)[:40]
    oracle = stats.permutation_test(
        (a, b), mean_difference, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=3
    )
    test = sign_flip_test(a - b)
    assert 0.02 < oracle.pvalue < 0.98  # else any p would do
    assert test.p == pytest.approx(oracle.pvalue, abs=0.015)
    assert "10000 patterns drawn" in test.method


def test_groups_flip_as_a_whole_by_enumeration() -> None:
    differences = np.array([0.3, 0.1, -0.2, 0.4, 0.25, -0.05, 0.02])
    groups = ["a", "a", "b", "c", "c", "c", "d"]
    sums = {name: sum(d for d, g in zip(differences, groups, strict=True) if g == name) for name in "abcd"}
    observed = abs(differences.sum())
    patterns = list(itertools.product((1, -1), repeat=4))
    totals = [abs(sum(sign * sums[name] for sign, name in zip(signs, "abcd", strict=True))) for signs in patterns]
    expected = sum(total >= observed - 1e-12 for total in totals) / len(patterns)
    test = sign_flip_test(differences, groups)
    assert test.p == pytest.approx(expected)
    assert (test.units, test.of, test.smallest) == (4, "groups", 1 / 8)


def test_all_of_one_sign_reach_the_smallest_p() -> None:
    test = sign_flip_test([0.1, 0.2, 0.3, 0.05, 0.4], ["a", "a", "b", "c", "c"])
    assert test.p == test.smallest == 0.25
    assert sign_flip_test(np.full(100, 0.1)).p == pytest.approx(1 / 10_001)  # drawn: the observed one counts


def test_nothing_that_differs_is_nothing_found() -> None:
    assert sign_flip_test(np.zeros(30)).p == 1
    assert sign_flip_test([0.0, 0.0, 0.1]).units == 1
    nothing = sign_flip_test([])
    assert math.isnan(nothing.p)
    assert nothing.units == 0


def test_undefined_differences_are_refused() -> None:
    with pytest.raises(ValueError, match="undefined"):
        sign_flip_test([0.1, math.nan])


def test_a_true_null_is_rejected_as_often_as_said() -> None:
    rng = np.random.default_rng(5)
    ps = [sign_flip_test(rng.normal(0, 1, 10)).p for _ in range(400)]
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_resembling_frames_fool_the_test_by_frames_not_that_by_groups() -> None:
    rng = np.random.default_rng(6)
    groups = [f"g{i // 20}" for i in range(160)]
    by_group, by_frame = [], []
    for _ in range(60):  # no true difference, but each group has its own
        differences = np.repeat(rng.normal(0, 1, 8), 20) + rng.normal(0, 0.1, 160)
        by_group.append(sign_flip_test(differences, groups).p)
        by_frame.append(sign_flip_test(differences, resamples=300).p)
    assert np.mean(np.array(by_group) < 0.05) < 0.2
    assert np.mean(np.array(by_frame) < 0.05) > 0.5


def test_memory_for_draws_does_not_change_the_p(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = SCORES - OTHER - 0.015
    whole = sign_flip_test(differences).p
    monkeypatch.setattr(comparison, "_CELLS_AT_ONCE", 60 * 700)
    assert sign_flip_test(differences).p == pytest.approx(whole, abs=0.015)


# ------------------------------------------------------------------ paired differences


def test_the_difference_is_the_bootstrap_of_differences() -> None:
    paired = paired_difference(SCORES, OTHER, GROUPS, resamples=500)
    assert paired.difference == bootstrap(SCORES - OTHER, GROUPS, resamples=500)
    assert paired.first_mean - paired.second_mean == pytest.approx(paired.difference.mean.value)
    assert paired.higher + paired.lower + paired.equal == 60
    assert paired.groups == 10


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_turning_the_pair_turns_the_signs_and_nothing_else(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    groups = [f"g{i % 3}" for i in range(len(a))]
    there = paired_difference(a, b, groups, resamples=200)
    back = paired_difference(b, a, groups, resamples=200)
    assert there.difference.mean.value == pytest.approx(-back.difference.mean.value)
    assert (there.higher, there.lower, there.equal) == (back.lower, back.higher, back.equal)
    assert there.by_frame.p == back.by_frame.p
    assert (there.by_group is None) == (back.by_group is None)
    if there.by_group is not None and back.by_group is not None:
        assert there.by_group.p == back.by_group.p


def test_the_order_of_frames_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(60)
    there = paired_difference(SCORES, OTHER, GROUPS, resamples=2000)
    shuffled = paired_difference(SCORES[order], OTHER[order], [GROUPS[i] for i in order], resamples=2000)
    assert shuffled.difference.mean.value == pytest.approx(there.difference.mean.value)
    assert shuffled.by_group.p == there.by_group.p
    assert shuffled.difference.mean.low == pytest.approx(there.difference.mean.low, abs=0.004)


def test_frames_undefined_in_one_are_left_out_and_counted() -> None:
    a = [0.5, math.nan, 0.7, math.nan, 0.9, 0.8]
    b = [0.4, 0.3, math.nan, math.nan, 0.6, math.nan]
    paired = paired_difference(a, b, ["x", "x", "y", "y", "y", "y"], resamples=100)
    assert (paired.difference.n, paired.first_only, paired.second_only, paired.neither) == (2, 2, 1, 1)
    assert paired.difference.mean.value == pytest.approx(0.2)
    assert paired.by_group is None  # two groups of one frame each: frames are what is flipped
    empty = paired_difference([math.nan], [0.5])
    assert empty.difference.n == 0
    assert math.isnan(empty.by_frame.p)


def test_scores_must_be_of_the_same_frames() -> None:
    with pytest.raises(ValueError, match="same frames"):
        paired_difference([0.1, 0.2], [0.3])


# ------------------------------------------------------------------ several tests


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    with_nan = holm([0.01, math.nan, 0.02])
    assert with_nan[0] == pytest.approx(0.02)
    assert math.isnan(with_nan[1])
    assert with_nan[2] == pytest.approx(0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_is_its_definition_in_any_order(ps: list[float], random) -> None:
    ranked = np.sort(ps)
    expected = np.minimum(1, np.maximum.accumulate(ranked * np.arange(len(ps), 0, -1)))
    assert np.sort(holm(ps)) == pytest.approx(expected)
    places = list(range(len(ps)))
    random.shuffle(places)
    assert holm([ps[place] for place in places]) == [holm(ps)[place] for place in places]


# ------------------------------------------------------------------ ranks


def test_first_place_is_as_often_as_by_drawing_oneself() -> None:
    table = np.stack([SCORES, OTHER + 0.02, SCORES[::-1]])
    ranks = rank_stability(table, resamples=4000)
    rng = np.random.default_rng(9)
    drawn = rng.integers(0, 60, (4000, 60))
    best = table[:, drawn].mean(axis=2).argmax(axis=0)
    for result in range(3):
        assert ranks.first[result] == pytest.approx(np.mean(best == result), abs=0.04)
    assert sum(share for _, share in ranks.orders) == pytest.approx(1)
    assert sum(ranks.first) == pytest.approx(1)


def test_a_result_ahead_in_every_frame_is_always_first() -> None:
    ranks = rank_stability(np.stack([SCORES, SCORES + 0.01, SCORES - 0.01]), GROUPS, resamples=200)
    assert ranks.first == (0.0, 1.0, 0.0)
    assert ranks.orders == (((1, 0, 2), 1.0),)
    lower = rank_stability(np.stack([SCORES, SCORES + 0.01]), GROUPS, higher_is_better=False, resamples=200)
    assert lower.first == (1.0, 0.0)


def test_identical_results_share_first_place() -> None:
    ranks = rank_stability(np.stack([SCORES, SCORES, SCORES - 0.1]), GROUPS, resamples=2000)
    assert ranks.first[0] == pytest.approx(0.5, abs=0.05)
    assert ranks.first[2] == 0


def test_groups_make_ranks_as_unsure_as_groups_differ() -> None:
    rng = np.random.default_rng(2)
    difference = np.repeat(rng.normal(0.1, 0.3, 10), 6)  # of one group all frames alike
    table = np.stack([SCORES, SCORES + difference + max(0, 0.05 - difference.mean())])
    naive, clustered = rank_stability(table), rank_stability(table, GROUPS)
    assert clustered.first[1] < naive.first[1]


def test_ranks_leave_out_frames_undefined_in_any() -> None:
    table = np.array([[0.5, math.nan, 0.6, 0.2], [0.4, 0.9, 0.5, math.nan]])
    ranks = rank_stability(table, resamples=50)
    assert (ranks.frames, ranks.first) == (2, (1.0, 0.0))
    assert rank_stability([[math.nan], [0.5]]).frames == 0


# ------------------------------------------------------------------ Jensen


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_means_of_real_images_are_always_possible(dices: list[float]) -> None:
    dice = np.array(dices)
    check = jensen_check(min(1.0, dice.mean()), min(1.0, float((dice / (2 - dice)).mean())))
    assert check.possible


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 4))
def test_rounded_means_of_images_stay_possible(low: float, share: float, decimals: int) -> None:
    dice, jaccard = low * share + (1 - share), low / (2 - low) * share + (1 - share)  # images of two kinds
    half = 0.5 * 10**-decimals
    check = jensen_check(round(dice, decimals), round(jaccard, decimals), dice_rounding=half, jaccard_rounding=half)
    assert check.possible


@pytest.mark.parametrize(
    ("dice", "jaccard", "possible"),
    [
        (0.8, 0.8 / 1.2, True),  # all images alike
        (0.8, 0.8, True),  # some perfect, the others missed
        (0.8, 0.66, False),
        (0.8, 0.81, False),
        (0.9013, 0.8234, True),
        (0.0, 0.0, True),
        (1.0, 1.0, True),
        (1.0, 0.9, False),
    ],
)
def test_jensen_by_hand(dice: float, jaccard: float, possible: bool) -> None:
    assert jensen_check(dice, jaccard).possible is possible


def test_rounding_widens_and_the_lower_bound_is_marked() -> None:
    assert not jensen_check(0.80, 0.66).possible
    assert jensen_check(0.80, 0.66, dice_rounding=0.005, jaccard_rounding=0.005).possible
    assert jensen_check(0.9, 0.818, dice_rounding=0.0005, jaccard_rounding=0.0005).at_low  # 0.9 / 1.1 = 0.8182
    assert not jensen_check(0.9, 0.83, dice_rounding=0.0005, jaccard_rounding=0.0005).at_low
    assert jensen_check(0.8, 0.7).low == pytest.approx(0.8 / 1.2)
    with pytest.raises(ValueError, match="jaccard is 82"):
        jensen_check(0.9, 82.34)
