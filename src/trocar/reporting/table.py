"""The per-image table: all of it as CSV, and what a page shows of it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from trocar.metrics.frames import PIXELS, FrameScores, Ruler
from trocar.metrics.summary import worst_first
from trocar.metrics.traits import TRAITS
from trocar.reporting.words import UNDEFINED, figure

ROWS_SHOWN = 2_000  # in the page, about 1 MB; per_image.csv has all

SCORE_NAMES = {  # {tolerance} and {unit} are those of the ruler: `score_names`
    "dice": "Dice",
    "jaccard": "Jaccard",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "nsd": "Normalised surface Dice at {tolerance}",
    "hd95": "Hausdorff distance, 95th percentile, {unit}",
    "hausdorff": "Hausdorff distance, {unit}",
    "average_distance": "Average surface distance, {unit}",
    "boundary_iou": "Boundary IoU",
    "centreline_dice": "clDice",
    "panoptic_quality": "Panoptic quality of instances",
    "detection_f1": "Detection F1 of instances",
    "instance_dice": "Dice, mean over instances",
    "instance_nsd": "Normalised surface Dice at {tolerance}, mean over instances",
    "cross_entropy": "Cross-entropy, nats per pixel",
    "mean_class_dice": "Dice, mean over classes",
    "mean_class_jaccard": "Jaccard, mean over classes",
}
DISTANCES = ("hd95", "hausdorff", "average_distance")  # low is good
SHOWN_SCORES = {  # of a frame in the page, with a heading short enough for a column
    "dice": "Dice",
    "jaccard": "Jaccard",
    "precision": "Precision",
    "recall": "Recall",
    "nsd": "NSD",
    "hd95": "HD95, {unit}",
    "boundary_iou": "Boundary IoU",
    "centreline_dice": "clDice",
    "panoptic_quality": "Panoptic quality",
    "mean_class_dice": "Dice over classes",
    "cross_entropy": "Cross-entropy",
    "quality": "Expected Dice",
}
PREFIXES = {"class_dice": "dice", "traits": "trait"}  # of the columns that a mapping becomes


def score_names(ruler: Ruler) -> dict[str, str]:
    """What each score is called in full."""
    return {key: _measured(name, ruler) for key, name in SCORE_NAMES.items()}


def distance_digits(ruler: Ruler) -> int:
    """Of a distance as it is shown."""
    return 1 if ruler.unit == "px" else 2


def _measured(name: str, ruler: Ruler) -> str:
    return name.format(tolerance=ruler, unit=ruler.unit)


@dataclass(frozen=True)
class Column:
    """A column of the table in the page."""

    title: str
    numeric: bool
    hint: str = ""  # its definition


@dataclass(frozen=True)
class TableRow:
    """A frame in the page: its cells as text, and the place of its pictures in the page, if it has any."""

    cells: tuple[str, ...]
    pictures: str | None


@dataclass(frozen=True)
class FrameTable:
    """The table in the page: worst frame first, those without instrument last."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    sorted_by: int  # index of the column of Dice


def frame_table(
    rows: Sequence[FrameScores], pictures: Mapping[tuple[str | None, str], str], ruler: Ruler = PIXELS
) -> FrameTable:
    """The frames as the page lists them; `pictures` maps (fold, record) to the id of the frame's pictures.

    Columns that no frame fills are left out. Of more than `ROWS_SHOWN` frames the worst are kept.
    """
    ranked = [*worst_first(rows), *(row for row in rows if row.empty_truth)][:ROWS_SHOWN]
    folds = any(row.fold is not None for row in rows)
    scores = [key for key in SHOWN_SCORES if any(not math.isnan(getattr(row, key)) for row in ranked)]
    traits = [key for key in TRAITS if any(not math.isnan(row.traits.get(key, math.nan)) for row in ranked)]
    names = score_names(ruler)
    words = ("Record", "Group", *(["Fold"] if folds else []))
    columns = [
        *(Column(title, numeric=False) for title in words),
        *(Column(_measured(SHOWN_SCORES[key], ruler), numeric=True, hint=names.get(key, "")) for key in scores),
        Column("True pixels", numeric=True),
        Column("Predicted pixels", numeric=True),
        *(Column(_trait_heading(key), numeric=True, hint=TRAITS[key].definition) for key in traits),
    ]
    cells = [
        (
            row.record,
            row.group,
            *([row.fold or ""] if folds else []),
            *(figure(getattr(row, key), distance_digits(ruler) if key in DISTANCES else 3) for key in scores),
            str(row.truth_pixels),
            str(row.predicted_pixels),
            *(_trait(row, key) for key in traits),
        )
        for row in ranked
    ]
    listed = [TableRow(own, pictures.get((row.fold, row.record))) for own, row in zip(cells, ranked, strict=True)]
    return FrameTable(tuple(columns), tuple(listed), sorted_by=len(words))


def per_image_csv(rows: Sequence[FrameScores]) -> str:
    """The per-image table: one line a frame, undefined values blank.

    What a row holds by name follows at the end, a column each: Dice of classes as `dice_NAME`, traits as `trait_NAME`.
    """
    names = [field.name for field in fields(FrameScores)]
    named = {
        name: list(dict.fromkeys(key for row in rows for key in getattr(row, name)))
        for name in names
        if any(isinstance(getattr(row, name), Mapping) for row in rows[:1])
    }
    plain = [name for name in names if name not in {*named, *PREFIXES}]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extra = [(name, key) for name in named for key in named[name]]
    writer.writerow([*plain, *(f"{PREFIXES.get(name, name)}_{key}" for name, key in extra)])
    for row in rows:
        values = [getattr(row, name) for name in plain] + [getattr(row, name).get(key) for name, key in extra]
        writer.writerow([_cell(value) for value in values])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return int(value) if isinstance(value, bool) else value


def _trait_heading(key: str) -> str:
    trait = TRAITS[key]
    return f"{trait.heading}, {trait.unit.split()[0]}" if trait.unit.startswith("%") else trait.heading


def _trait(row: FrameScores, key: str) -> str:
    value = row.traits.get(key, math.nan) * TRAITS[key].scale
    if math.isnan(value):
        return UNDEFINED
    if key in ("touches_border", "instruments_touch"):
        return "1" if value else "0"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
