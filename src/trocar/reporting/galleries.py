"""The frames a report shows in pictures: worst, middle and best, and what was found where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trocar.evaluation import Evaluation
from trocar.metrics.frames import FrameScores
from trocar.metrics.summary import worst_first
from trocar.reporting.panels import panels
from trocar.reporting.pictures import Panel

WORST_SHOWN, MEDIAN_SHOWN, BEST_SHOWN, EMPTY_SHOWN = 8, 3, 3, 4  # frames with pictures


@dataclass(frozen=True)
class ShownFrame:
    """One frame with its pictures."""

    row: FrameScores
    id: str  # where it stands in the page
    panels: list[Panel]


@dataclass(frozen=True)
class Gallery:
    """Frames shown under one heading."""

    title: str
    frames: list[ShownFrame]


def draw_galleries(evaluation: Evaluation, thresholds: Sequence[float]) -> list[Gallery]:
    """Pictures of the worst, middle and best frames, and of frames where something was found that is not there."""
    chosen = _choose(evaluation.rows)
    wanted = [row for rows in chosen.values() for row in rows]
    drawn = {
        _key(view.row): panels(view, () if view.row.empty_truth else thresholds) for view in evaluation.views(wanted)
    }
    ids = {_key(row): f"frame-{number}" for number, row in enumerate(wanted, 1)}
    return [
        Gallery(title, [ShownFrame(row, ids[_key(row)], drawn[_key(row)]) for row in rows])
        for title, rows in chosen.items()
        if rows
    ]


def places(galleries: Sequence[Gallery]) -> dict[tuple[str | None, str], str]:
    """Id of the pictures of each frame that has some, by fold and record."""
    return {_key(frame.row): frame.id for gallery in galleries for frame in gallery.frames}


def _choose(rows: Sequence[FrameScores]) -> dict[str, list[FrameScores]]:
    ranked = worst_first(rows)
    worst, rest = ranked[:WORST_SHOWN], ranked[WORST_SHOWN:]
    middle = max(0, len(ranked) // 2 - MEDIAN_SHOWN // 2 - len(worst))
    median = rest[middle : middle + MEDIAN_SHOWN]
    best = rest[max(middle + MEDIAN_SHOWN, len(rest) - BEST_SHOWN) :][::-1]
    false = sorted((row for row in rows if row.empty_truth), key=lambda row: -row.predicted_pixels)
    return {
        "Worst frames": worst,
        "Frames around the median": median,
        "Best frames": best,
        "Frames without instrument, most falsely found first": false[:EMPTY_SHOWN],
    }


def _key(row: FrameScores) -> tuple[str | None, str]:
    return row.fold, row.record
