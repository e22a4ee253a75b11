from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from trocar.metrics.frames import FrameScores, mean_of_defined, score_frame
from trocar.metrics.intervals import bootstrap
from trocar.metrics.overlap import counts
from trocar.metrics.summary import summarise, worst_first


def frame(record: str, pred: int, found: int, true: int, *, group: str = "g", **more) -> FrameScores:
    """A frame of 10x10 with so many predicted, rightly predicted and true pixels."""
    p, t = np.zeros(100, np.uint8), np.zeros(100, np.uint8)
    t[:true] = 1
    p[:found] = 1
    p[true : true + pred - found] = 1
    return score_frame(p.reshape(10, 10), t.reshape(10, 10), record=record, group=group, **more)


def test_a_frame_worked_by_hand() -> None:
    row = frame("a", pred=3, found=2, true=4, threshold=0.4, fold="f")
    assert (row.dice, row.jaccard, row.precision, row.recall) == (4 / 7, 2 / 5, 2 / 3, 1 / 2)
    assert (row.truth_pixels, row.predicted_pixels, row.height, row.width) == (4, 3, 10, 10)
    assert (row.empty_truth, row.fold, row.threshold) == (False, "f", 0.4)
    assert math.isnan(row.cross_entropy)
    assert math.isnan(row.false_share)


@pytest.mark.parametrize("predicted", [0, 7])
def test_a_frame_without_instrument_has_no_score_whatever_was_predicted(predicted: int) -> None:
    row = frame("a", pred=predicted, found=0, true=0)
    assert row.empty_truth
    assert all(math.isnan(value) for value in (row.dice, row.jaccard, row.precision, row.recall))
    assert row.false_share == predicted / 100


def test_a_frame_of_ignored_pixels_only_is_empty_and_has_no_share() -> None:
    row = score_frame(np.ones((2, 2), np.uint8), np.full((2, 2), 255, np.uint8), record="a", group="g")
    assert row.empty_truth
    assert row.ignored_pixels == 4
    assert math.isnan(row.false_share)


def test_classes_are_scored_where_the_truth_has_them() -> None:
    truth = np.array([[1, 1, 0, 255]], np.uint8)
    pred = np.array([[1, 2, 0, 2]], np.uint8)
    row = score_frame(pred, truth, record="a", group="g", classes=("shaft", "tip"))
    assert row.class_dice["shaft"] == 2 / 3
    assert math.isnan(row.class_dice["tip"])
    assert row.mean_class_dice == (2 / 3 + 0) / 2  # the tip is found where there is none: 0 in the frame's mean
    assert row.dice == 1


def test_the_columns_of_the_table_begin_as_agreed() -> None:
    assert [field.name for field in fields(FrameScores)][:4] == ["record", "group", "fold", "dice"]


def test_the_summary_is_over_frames_with_instruments() -> None:
    rows = [frame("a", 3, 2, 4), frame("b", 4, 4, 4), frame("c", 0, 0, 0), frame("d", 5, 0, 0), frame("e", 0, 0, 3)]
    result = summarise(rows)
    dice = result.scores["dice"]
    assert dice.mean.value == pytest.approx((4 / 7 + 1 + 0) / 3)
    assert (dice.n, dice.undefined, result.frames) == (3, 2, 5)
    assert (result.scores["precision"].n, result.scores["precision"].undefined) == (2, 3)  # e predicts nothing
    assert (result.empty.count, result.empty.falsely_positive, result.empty.records) == (2, 1, ("d",))
    assert result.empty.false_share.mean.value == pytest.approx(0.05 / 2)
    assert "cross_entropy" not in result.scores


def test_intervals_are_those_of_the_groups() -> None:
    rows = [frame(f"{g}{i}", 4, 1 + g, 4, group=f"g{g}") for g in range(4) for i in range(5)]
    expected = bootstrap([row.dice for row in rows], [row.group for row in rows])
    assert summarise(rows).scores["dice"] == expected
    assert "4 groups" in expected.method


def test_groups_stand_weakest_first_and_undefined_ones_last() -> None:
    rows = [
        *(frame(f"none{i}", 0, 0, 0, group="none") for i in range(2)),
        *(frame(f"good{i}", 4, 4, 4, group="good") for i in range(2)),
        *(frame(f"weak{i}", 4, 1, 4, group="weak") for i in range(3)),
    ]
    groups = summarise(rows).groups
    assert [(part.name, part.frames, part.empty) for part in groups] == [("weak", 3, 0), ("good", 2, 0), ("none", 2, 2)]
    assert groups[0].dice.mean.value == 0.25
    assert math.isnan(groups[2].dice.mean.value)


def test_where_every_frame_is_a_group_of_its_own_there_is_no_table_of_groups() -> None:
    assert summarise([frame(str(i), 4, 3, 4, group=str(i)) for i in range(3)]).groups == ()


def test_folds_are_summed_up_apart() -> None:
    rows = [frame("a", 4, 4, 4, fold="x"), frame("b", 4, 2, 4, fold="y"), frame("c", 4, 4, 4, fold="y")]
    assert [(part.name, part.dice.mean.value) for part in summarise(rows).folds] == [("x", 1.0), ("y", 0.75)]
    assert summarise([frame("a", 4, 4, 4)]).folds == ()


def test_missing_predictions_are_listed() -> None:
    assert summarise([frame("a", 0, 0, 4, missing=True), frame("b", 4, 4, 4)]).missing == ("a",)


def test_the_worst_come_first_and_of_equal_ones_the_larger_instrument() -> None:
    rows = [frame("good", 4, 4, 4), frame("small", 0, 0, 2), frame("empty", 0, 0, 0), frame("large", 0, 0, 9)]
    assert [row.record for row in worst_first(rows)] == ["large", "small", "good"]


def test_nothing_at_all_is_summed_up_as_nothing() -> None:
    result = summarise([])
    assert result.frames == result.empty.count == 0
    assert math.isnan(result.scores["dice"].mean.value)


def test_the_mean_of_nothing_is_nan() -> None:
    assert math.isnan(mean_of_defined([math.nan]))
    assert mean_of_defined([math.nan, 1, 2]) == 1.5


def test_pooled_counts_differ_from_the_mean_over_frames() -> None:
    small, large = frame("a", 1, 1, 1), frame("b", 50, 25, 50)
    mean = summarise([small, large]).scores["dice"].mean.value
    pooled = (
        counts(np.ones((1, 1), bool), np.ones((1, 1), bool))
        + counts(np.arange(100)[None] < 50, (np.arange(100)[None] >= 25) & (np.arange(100)[None] < 75))
    ).dice
    assert mean == 0.75
    assert pooled == pytest.approx(52 / 102)
