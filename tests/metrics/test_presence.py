from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from trocar.metrics.presence import auroc, sensitivity_at_specificity

frames = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30)
SPECIFICITIES = (0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


def split(rows: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in rows], [positive for _, positive in rows]


@given(frames)
def test_agrees_with_scikit_learn(rows) -> None:
    scores, positives = split(rows)
    if len(set(positives)) < 2:
        assert math.isnan(auroc(scores, positives))
        assert math.isnan(sensitivity_at_specificity(scores, positives, 0.9))
        return
    assert auroc(scores, positives) == pytest.approx(sklearn_metrics.roc_auc_score(positives, scores), rel=1e-12)
    false_rate, found_rate, _ = sklearn_metrics.roc_curve(positives, scores, drop_intermediate=False)
    for specificity in SPECIFICITIES:
        expected = found_rate[1 - false_rate >= specificity - 1e-12].max()
        assert sensitivity_at_specificity(scores, positives, specificity) == pytest.approx(expected, rel=1e-12)


def test_agrees_with_scikit_learn_on_many_frames() -> None:
    rng = np.random.default_rng(0)
    positives = rng.random(3000) < 0.8
    scores = np.round(rng.normal(positives, 1), 2)  # ties
    assert auroc(scores, positives) == pytest.approx(sklearn_metrics.roc_auc_score(positives, scores), rel=1e-12)


def test_by_hand() -> None:
    scores, positives = [0.9, 0.8, 0.8, 0.3, 0.1], [True, False, True, True, False]
    # Of 6 pairs: 0.9 wins 2, 0.8 ties one and wins one, 0.3 loses one and wins one.
    assert auroc(scores, positives) == 4.5 / 6
    assert sensitivity_at_specificity(scores, positives, 1) == 1 / 3
    assert sensitivity_at_specificity(scores, positives, 0.5) == 1  # a threshold of 0.3
    assert sensitivity_at_specificity(scores, positives, 0) == 1


def test_fifty_five_of_a_hundred_frames_are_that_share() -> None:
    for passed_over in range(1, 100):  # 0.55 x 100 > 55 in floating point, and 0.29 x 100 < 29
        scores, positives = [*range(100), passed_over - 0.5], [False] * 100 + [True]
        assert sensitivity_at_specificity(scores, positives, passed_over / 100) == 1
        assert sensitivity_at_specificity(scores, positives, passed_over / 100 + 0.001) == 0


@given(frames)
def test_properties(rows) -> None:
    scores, positives = split(rows)
    area = auroc(scores, positives)
    if math.isnan(area):
        return
    assert 0 <= area <= 1
    assert auroc([-score for score in scores], positives) == pytest.approx(1 - area)
    assert auroc(scores, [not positive for positive in positives]) == pytest.approx(1 - area)
    assert auroc([math.exp(score) for score in scores], positives) == area  # only the order counts
    sensitivities = [sensitivity_at_specificity(scores, positives, one) for one in SPECIFICITIES]
    assert sensitivities == sorted(sensitivities, reverse=True)
    assert sensitivities[0] == 1


def test_scores_that_are_all_alike_are_blind() -> None:
    assert auroc([0.5] * 4, [True, False, True, False]) == 0.5
    assert sensitivity_at_specificity([0.5] * 4, [True, False, True, False], 0.5) == 0


@pytest.mark.parametrize("positives", [[], [True, True], [False, False]])
def test_without_frames_of_both_kinds_nothing_is_defined(positives: list[bool]) -> None:
    scores = [0.5] * len(positives)
    assert math.isnan(auroc(scores, positives))
    assert math.isnan(sensitivity_at_specificity(scores, positives, 0.5))


def test_what_makes_no_sense_is_refused() -> None:
    for metric in (auroc, lambda scores, positives: sensitivity_at_specificity(scores, positives, 0.9)):
        with pytest.raises(ValueError, match="one of each"):
            metric([1.0, 2.0], [True])
        with pytest.raises(ValueError, match="booleans"):
            metric([1.0, 2.0], [1, 0])
        with pytest.raises(ValueError, match="NaN"):
            metric([1.0, math.nan], [True, False])
    for specificity in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="specificity"):
            sensitivity_at_specificity([1.0, 0.0], [True, False], specificity)
