"""What a report says in sentences, and how it prints a number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trocar.metrics.summary import worst_first
from trocar.plain import many

if TYPE_CHECKING:
    from trocar.evaluation import Evaluation

UNDEFINED = "\N{EN DASH}"  # in the page


def verdict(evaluation: Evaluation) -> str:
    """The result in one paragraph, with its interval and what the interval does not cover."""
    summary = evaluation.summary
    dice, empty = summary.scores["dice"], summary.empty
    if not dice.n:
        return f"None of the {summary.frames} frames has a Dice: {empty.count} show no instrument."
    groups, folds = len({row.group for row in evaluation.rows}), len(summary.folds)
    where = f"{side_in_words(evaluation.side)}{f', {folds} folds pooled' if folds > 1 else ''}"
    sentences = [
        f"Mean Dice per image {dice.mean.value:.3f} ({dice.level:.0%} interval {dice.mean.low:.3f} to "
        f"{dice.mean.high:.3f}) over {many(dice.n, 'frame')} with instruments, {many(groups, 'group')}, {where}.",
        *_limits_of_the_interval(evaluation),
        f"Half of the frames reach {dice.median.value:.3f}; the lowest twentieth at most {dice.p5.value:.3f}.",
    ]
    if empty.count:
        sentences.append(
            f"{many(empty.count, 'further frame')} without instrument: something was falsely found in "
            f"{empty.falsely_positive or 'none'}."
        )
    worst = worst_first(evaluation.rows)[0]
    sentences.append(f"The worst frame is {worst.record} with {worst.dice:.3f}.")
    return " ".join(sentences)


def _limits_of_the_interval(evaluation: Evaluation) -> list[str]:
    groups = {row.group for row in evaluation.rows if not math.isnan(row.dice)}
    if len(groups) == 1:
        return ["All of them are of one group, so the interval says nothing about other patients."]
    if len(groups) == evaluation.summary.scores["dice"].n:
        return ["No two of them share a group: if their patients are in truth not known, the interval is too narrow."]
    return []


def figure(value: float | None, digits: int = 3) -> str:
    """A number as the page shows it; undefined is a dash."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.{digits}f}"


def share(value: float) -> str:
    """A share of 1 in per cent; undefined is a dash."""
    return UNDEFINED if math.isnan(value) else f"{value:.2%}"


def side_in_words(side: str) -> str:
    """A side of the split for a reader."""
    return {"test": "test side", "train": "training side", "val": "validation side"}.get(side, side)
