from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trocar.metrics.failure import DiceBound, dice_bound, disagreement, failure_finding, quality
from trocar.metrics.overlap import dice

NAN = math.nan


# ------------------------------------------------------------------ scores of one frame


def test_quality_by_hand() -> None:
    """Mask: 0.9 and 0.6; 2 x 1.5 / (2 pixels + 1.8)."""
    assert quality(np.array([[[0.9, 0.6], [0.3, 0.0]]]), 0.5) == pytest.approx(3.0 / 3.8)
    assert quality(np.array([[[1.0, 0.0], [1.0, 0.0]]]), 0.5) == 1.0
    assert math.isnan(quality(np.array([[[0.4, 0.2], [0.1, 0.4]]]), 0.5))


def test_quality_is_near_the_dice_expected_of_independent_pixels() -> None:
    """What its paper proves: drawn truths whose probabilities are right."""
    rng = np.random.default_rng(0)
    probability = rng.beta(0.3, 0.5, (30, 40))
    truths = rng.random((2000, 30, 40)) < probability
    expected = np.mean([dice(probability >= 0.45, truth) for truth in truths])
    assert quality(probability[None].astype(np.float32), 0.45) == pytest.approx(expected, abs=2e-3)


def test_several_classes_are_one_instrument() -> None:
    """Class probabilities of any instrument 0.9, 0.6, 0.5; the third pixel is background by argmax."""
    planes = np.array([[[0.1, 0.4, 0.5]], [[0.8, 0.05, 0.3]], [[0.1, 0.55, 0.2]]])
    assert quality(planes, None) == pytest.approx(2 * 1.5 / (2 + 2.0))


def test_disagreement_is_one_minus_mean_pairwise_dice() -> None:
    views = [np.array([[row]], float) for row in ([1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0])]
    assert disagreement(views, 0.5) == pytest.approx(1 - (4 / 5 + 2 / 3 + 2 / 4) / 3)
    assert disagreement([views[0], views[0]], 0.5) == 0
    empty = np.zeros((1, 1, 4))
    assert disagreement([empty, views[0]], 0.5) == 1
    assert math.isnan(disagreement([empty, empty], 0.5))


# ------------------------------------------------------------------ the bound


def test_the_bound_by_hand() -> None:
    """Nine frames, alpha 0.1: the ninth smallest of nine, here 0.6 / 0.1; 1 - 6 (1 - q) reaches 0.7 at q = 0.95."""
    qualities = [0.9] * 9
    scores = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.4]
    bound = dice_bound(qualities, scores)
    assert bound.factor == pytest.approx(6)
    assert bound.limit == pytest.approx(0.95)
    assert bound.lower(0.95) == pytest.approx(0.7)
    assert bound.lower(0.5) == 0
    assert math.isnan(bound.lower(NAN))
    assert bound.frames == 9
    assert "exchangeable with the 9 validation frames" in bound.in_words()
    assert dice_bound([0.9] * 19, [*scores, *scores[:8], 0.1, 0.4]).factor == pytest.approx(6)  # the 18th of 19


def test_too_few_frames_promise_nothing() -> None:
    bound = dice_bound([0.9] * 8 + [NAN] * 20, [0.9] * 28)
    assert math.isnan(bound.factor)
    assert math.isnan(bound.limit)
    assert math.isnan(bound.lower(0.9))
    assert "8 validation frames" in bound.in_words()
    assert "9 are needed for 90%" in bound.in_words()
    for alpha, need in ((0.1, 9), (0.05, 19), (0.2, 4), (1 / 3, 2)):
        assert not math.isnan(dice_bound([0.9] * need, [0.8] * need, alpha=alpha).factor)
        assert math.isnan(dice_bound([0.9] * (need - 1), [0.8] * (need - 1), alpha=alpha).factor)


def test_rank_does_not_slip_by_rounding() -> None:
    """30 x 0.9 is 27.000000000000004 in floating point for some orders of arithmetic: the 27th, not the 28th."""
    for n in range(9, 200):
        dice_values = 1 - np.arange(1, n + 1) / 1000
        rank = -(-(n + 1) * 9 // 10)
        assert dice_bound([0.9] * n, dice_values).factor == pytest.approx(rank / 1000 / 0.1), n


def test_a_false_alarm_has_a_dice_of_zero() -> None:
    assert dice_bound([0.8] * 9, [0.9] * 8 + [NAN]).factor == pytest.approx(1 / 0.2)


def test_the_ends_of_the_limit() -> None:
    assert dice_bound([1.0] * 9, [1.0] * 9).limit == 0
    sure = dice_bound([1.0] * 9, [0.5] * 9)  # wholly sure and half wrong: no quality is enough
    assert sure.limit > 1
    assert sure.lower(1.0) < 0.7
    assert DiceBound(0.2, 0.1, 50).limit == 0  # even a quality of 0 is promised 0.8


def test_the_limit_is_where_the_bound_reaches_bad() -> None:
    for factor in (0.31, 1.0, 4.0, 33.0):
        bound = DiceBound(factor, 0.1, 50)
        assert bound.lower(bound.limit + 1e-9) >= 0.7 - 1e-9
        assert bound.lower(bound.limit - 1e-3) < 0.7


@pytest.mark.parametrize("n", [9, 25, 40])
def test_the_promise_holds_for_exchangeable_frames(n: int) -> None:
    """Overconfident drawn models, many draws of validation and one new frame each: at most 10 % fall below."""
    rng = np.random.default_rng(n)
    below = passed = 0
    draws = 4000
    for _ in range(draws):
        hard = rng.beta(1, 6, n + 1)
        true = np.where(rng.random(n + 1) < 0.05, NAN, 1 - hard * rng.uniform(0.5, 2.5, n + 1).clip(0, 1 / hard))
        scores = np.where(rng.random(n + 1) < 0.05, NAN, 1 - hard * 0.5)
        scores[n] = 1 - hard[n] * 0.5  # a frame in which something was found
        bound = dice_bound(scores[:n], true[:n])
        if math.isnan(bound.factor):
            continue  # promises nothing
        reached = 0.0 if math.isnan(true[n]) else true[n]
        below += reached < bound.lower(scores[n]) - 1e-12
        passed += scores[n] >= bound.limit and reached < 0.7
    slack = 3 * math.sqrt(0.1 * 0.9 / draws)
    assert below / draws <= 0.1 + slack
    assert passed <= below
    if n > 9:
        assert below / draws > 0.05  # and not by promising nothing


# ------------------------------------------------------------------ finding failures


def test_auroc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    dices = rng.beta(6, 1.5, 300)
    scores = np.round(dices + rng.normal(0, 0.15, 300), 2)  # with ties
    found = failure_finding(scores, dices)
    assert found.auroc == pytest.approx(roc_auc_score(dices < 0.7, -scores), abs=1e-12)
    assert found.bad == np.count_nonzero(dices < 0.7)
    assert math.isnan(failure_finding([0.5, 0.6], [0.9, 0.8]).auroc)
    assert math.isnan(failure_finding([0.5, 0.6], [0.2, 0.3]).auroc)


def test_risk_and_coverage_by_hand() -> None:
    """Best scored first: risks 0.1, 0.3, 0.2; means 0.1, 0.2, 0.2."""
    found = failure_finding([0.8, 0.9, 0.5, NAN], [0.7, 0.9, 0.8, 0.0])
    np.testing.assert_allclose(found.risk_coverage, [(1 / 3, 0.1), (2 / 3, 0.2), (1, 0.2)])
    assert found.aurc == pytest.approx(0.5 / 3)
    assert found.aurc_random == pytest.approx(0.2)
    assert found.aurc_best == pytest.approx((0.1 + 0.15 + 0.2) / 3)
    assert (found.frames, found.without_score) == (3, 1)


def test_equal_scores_share_their_risk_whatever_their_order() -> None:
    """The mean over all orders of the tied frames, by brute force."""
    rng = np.random.default_rng(2)
    scores, dices = np.array([0.9, 0.8, 0.8, 0.8, 0.3, 0.3]), rng.random(6)
    areas = []
    for _ in range(4000):
        order = np.lexsort((rng.random(6), -scores))
        areas.append(np.mean((1 - dices)[order].cumsum() / np.arange(1, 7)))
    assert failure_finding(scores, dices).aurc == pytest.approx(np.mean(areas), abs=4e-3)
    blind = failure_finding(np.full(6, 0.5), dices)
    assert blind.aurc == pytest.approx(blind.aurc_random)


def test_the_best_order_is_never_beaten() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        found = failure_finding(rng.random(20), rng.random(20))
        assert found.aurc_best <= found.aurc + 1e-12


def test_marked_frames_and_broken_promises() -> None:
    scores, dices = [0.9, 0.6, 0.5, 0.95, NAN], [0.8, 0.9, 0.3, NAN, 0.0]
    found = failure_finding(scores, dices, limit=0.7, promised=[0.85, 0.5, 0.0, 0.1, NAN])
    assert (found.frames, found.bad, found.without_score) == (4, 2, 1)
    assert (found.marked, found.bad_marked) == (2, 1)
    assert found.bad_passed_share == pytest.approx(1 / 4)  # the false alarm of quality 0.95
    assert found.below_promise_share == pytest.approx(2 / 4)
    assert found.limits == (0.7,)


def test_each_model_has_its_own_limit() -> None:
    found = failure_finding([0.8, 0.8, 0.8], [0.1, 0.1, 0.1], limit=[0.7, 0.9, NAN])
    assert found.limits == (0.7, 0.9)
    assert found.marked == 1
    assert found.bad_passed_share == pytest.approx(1 / 2)


def test_without_frames_or_limit_all_is_undefined() -> None:
    found = failure_finding([NAN, NAN], [0.5, NAN])
    assert (found.frames, found.without_score, found.marked) == (0, 2, 0)
    assert found.risk_coverage == ()
    for value in (found.auroc, found.aurc, found.aurc_random, found.bad_passed_share, found.below_promise_share):
        assert math.isnan(value)
    with pytest.raises(ValueError, match="2 qualities but 1 Dice"):
        failure_finding([0.1, 0.2], [0.5])


def test_a_long_curve_is_thinned_and_its_area_is_not() -> None:
    rng = np.random.default_rng(4)
    scores, dices = rng.random(5000), rng.random(5000)
    found = failure_finding(scores, dices)
    assert len(found.risk_coverage) == 101
    assert found.risk_coverage[-1] == pytest.approx((1, np.mean(1 - dices)))
    order = np.argsort(-scores)
    assert found.aurc == pytest.approx(np.mean((1 - dices)[order].cumsum() / np.arange(1, 5001)))
