"""From the scores of single frames to the figures of an evaluation: one convention, applied in one place.

The convention, `per-image`, is that of `frames`. Means are over frames with an instrument; each has an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trocar.metrics.frames import INSTANCE_SCORES, SCORES, FrameScores
from trocar.metrics.intervals import Estimates, bootstrap

PARTS_RESAMPLES = 2_000  # for the many rows of per-group tables; headline figures take the default


@dataclass(frozen=True)
class EmptyFrames:
    """Frames whose truth holds no instrument, and what was found in them all the same."""

    count: int
    falsely_positive: int  # of them, frames with any predicted pixel
    false_share: Estimates  # share of the frame's pixels; over all these frames, clean ones count 0
    records: tuple[str, ...]  # the falsely positive ones, largest false area first


@dataclass(frozen=True)
class Part:
    """Scores of one group or one fold."""

    name: str
    frames: int
    empty: int
    dice: Estimates
    jaccard: Estimates


@dataclass(frozen=True)
class Summary:
    """All figures of one evaluation."""

    frames: int
    missing: tuple[str, ...]  # records without a prediction, scored as empty ones
    scores: Mapping[str, Estimates]  # dice, jaccard, precision, recall; of models cross_entropy
    classes: Mapping[str, Estimates]  # Dice of each class, where several are scored; and their mean
    empty: EmptyFrames
    groups: tuple[Part, ...]  # lowest mean Dice first; none where every frame is a group of its own
    folds: tuple[Part, ...]


def summarise(rows: Sequence[FrameScores]) -> Summary:
    """The figures of a table of frames. Intervals resample groups, then frames, where there are several groups."""
    names = [row.group for row in rows]

    def over_frames(values: Callable[[FrameScores], float]) -> Estimates:
        return bootstrap([values(row) for row in rows], names)

    scores = {key: over_frames(lambda row, key=key: getattr(row, key)) for key in _scored(rows)}  # type: ignore[misc]
    classes = dict.fromkeys(name for row in rows for name in row.class_dice)
    by_class = {
        name: over_frames(lambda row, name=name: row.class_dice.get(name, math.nan))  # type: ignore[misc]
        for name in classes
    }
    alone = len(set(names)) == len(rows) > 1  # a group a frame: the rows themselves say it all
    return Summary(
        frames=len(rows),
        missing=tuple(row.record for row in rows if row.missing),
        scores=scores,
        classes=by_class,
        empty=_empty_frames(rows),
        groups=() if alone else tuple(sorted(_parts(rows, lambda row: row.group), key=_worst_first)),
        folds=tuple(_parts([row for row in rows if row.fold is not None], lambda row: str(row.fold))),
    )


def worst_first(rows: Sequence[FrameScores]) -> list[FrameScores]:
    """Rows with a Dice, lowest first; of equal ones the larger instrument first."""
    scored = [row for row in rows if not math.isnan(row.dice)]
    return sorted(scored, key=lambda row: (row.dice, -row.truth_pixels, row.record))


def _scored(rows: Sequence[FrameScores]) -> list[str]:
    optional = [
        key
        for key in ("centreline_dice", *INSTANCE_SCORES, "cross_entropy", "mean_class_dice", "mean_class_jaccard")
        if any(not math.isnan(getattr(row, key)) for row in rows)
    ]
    return [*SCORES, *optional]


def _parts(rows: Sequence[FrameScores], part_of: Callable[[FrameScores], str]) -> list[Part]:
    members: dict[str, list[FrameScores]] = {}
    for row in rows:
        members.setdefault(part_of(row), []).append(row)
    return [
        Part(
            name,
            len(own),
            sum(row.empty_truth for row in own),
            bootstrap([row.dice for row in own], [row.group for row in own], resamples=PARTS_RESAMPLES),
            bootstrap([row.jaccard for row in own], [row.group for row in own], resamples=PARTS_RESAMPLES),
        )
        for name, own in members.items()
    ]


def _worst_first(part: Part) -> tuple[bool, float]:
    mean = part.dice.mean.value
    return math.isnan(mean), mean


def _empty_frames(rows: Sequence[FrameScores]) -> EmptyFrames:
    empty = [row for row in rows if row.empty_truth]
    false = sorted((row for row in empty if row.predicted_pixels), key=lambda row: -row.false_share)
    return EmptyFrames(
        count=len(empty),
        falsely_positive=len(false),
        false_share=bootstrap([row.false_share for row in empty], [row.group for row in empty]),
        records=tuple(row.record for row in false),
    )
