"""The report of an evaluation: one HTML page that needs nothing else, and the same numbers as JSON and CSV.

Worst frames come first, frames without instruments stand on their own line, undefined figures are dashes (HTML),
null (JSON) or blank (CSV) and are counted.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from trocar import __version__
from trocar.data.files import atomic_write_text
from trocar.evaluation import Evaluation
from trocar.metrics.summary import FrameScores, worst_first
from trocar.reporting.figures import curve_svgs, histogram_svg, strip_svg
from trocar.reporting.panels import Panel, panels

WORST_SHOWN, MEDIAN_SHOWN, BEST_SHOWN, EMPTY_SHOWN = 8, 3, 3, 4  # frames with pictures
UNDEFINED = "\N{EN DASH}"  # in the page
ROWS_SHOWN = 300  # of the per-image table in the page; per_image.csv has all

SCORE_NAMES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "precision": "Precision",
    "recall": "Recall",
    "cross_entropy": "Cross-entropy, nats per pixel",
    "mean_class_dice": "Dice, mean over classes",
    "mean_class_jaccard": "Jaccard, mean over classes",
}


@dataclass(frozen=True)
class ShownFrame:
    """One frame with its pictures."""

    row: FrameScores
    panels: list[Panel]


@dataclass(frozen=True)
class Gallery:
    """Frames shown under one heading."""

    title: str
    frames: list[ShownFrame]


def write_report(
    evaluation: Evaluation,
    out: Path,
    *,
    pictures: bool = True,
    panel_thresholds: Sequence[float] = (0.3, 0.5, 0.99),
) -> Path:
    """Write report.html, report.json and per_image.csv into `out`; returns the path of the page.

    `pictures` embeds frames (of patients, as the page then says), predicted once more for it; without them the page
    holds figures and names only. Raises `UserError` where `out` cannot be written to.
    """
    tree = {"verdict": verdict(evaluation), **evaluation.as_dict()}
    atomic_write_text(out / "report.json", json.dumps(_null_for_nan(tree), indent=1, ensure_ascii=False) + "\n")
    atomic_write_text(out / "per_image.csv", per_image_csv(evaluation.rows))
    galleries = _galleries(evaluation, panel_thresholds) if pictures else []
    atomic_write_text(out / "report.html", _page(evaluation, galleries))
    return out / "report.html"


def verdict(evaluation: Evaluation) -> str:
    """The result in one paragraph, with its interval."""
    summary = evaluation.summary
    dice, empty = summary.scores["dice"], summary.empty
    if not dice.n:
        return f"None of the {summary.frames} frames has a Dice: {empty.count} show no instrument."
    groups, folds = len({row.group for row in evaluation.rows}), len(summary.folds)
    where = f"{_side_in_words(evaluation.side)}{f', {folds} folds pooled' if folds > 1 else ''}"
    sentences = [
        f"Mean Dice per image {dice.mean.value:.3f} ({dice.level:.0%} interval {dice.mean.low:.3f} to "
        f"{dice.mean.high:.3f}) over {_many(dice.n, 'frame')} with instruments, {_many(groups, 'group')}, {where}.",
        f"Half of the frames reach {dice.median.value:.3f}; the lowest twentieth at most {dice.p5.value:.3f}.",
    ]
    if empty.count:
        sentences.append(
            f"{_many(empty.count, 'further frame')} without instrument: something was falsely found in "
            f"{empty.falsely_positive or 'none'}."
        )
    worst = worst_first(evaluation.rows)[0]
    sentences.append(f"The worst frame is {worst.record} with {worst.dice:.3f}.")
    return " ".join(sentences)


def per_image_csv(rows: Sequence[FrameScores]) -> str:
    """The per-image table: one line a frame, undefined values blank, Dice of classes as `dice_NAME` at the end."""
    names = [field.name for field in fields(FrameScores) if field.name != "class_dice"]
    classes = list(dict.fromkeys(name for row in rows for name in row.class_dice))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"dice_{name}" for name in classes)])
    for row in rows:
        values = [getattr(row, name) for name in names] + [row.class_dice.get(name) for name in classes]
        writer.writerow([_cell(value) for value in values])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return int(value) if isinstance(value, bool) else value


def _null_for_nan(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _null_for_nan(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_null_for_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree  # JSON has no infinity either


def _galleries(evaluation: Evaluation, thresholds: Sequence[float]) -> list[Gallery]:
    """Pictures of the worst, middle and best frames, and of frames where something was found that is not there."""
    ranked = worst_first(evaluation.rows)
    worst, rest = ranked[:WORST_SHOWN], ranked[WORST_SHOWN:]
    middle = max(0, len(ranked) // 2 - MEDIAN_SHOWN // 2 - len(worst))
    median = rest[middle : middle + MEDIAN_SHOWN]
    best = rest[max(middle + MEDIAN_SHOWN, len(rest) - BEST_SHOWN) :][::-1]
    false = sorted((row for row in evaluation.rows if row.empty_truth), key=lambda row: -row.predicted_pixels)
    chosen = {
        "Worst frames": worst,
        "Frames around the median": median,
        "Best frames": best,
        "Frames without instrument, most falsely found first": false[:EMPTY_SHOWN],
    }
    wanted = [row for rows in chosen.values() for row in rows]
    drawn = {
        _key(view.row): panels(view, () if view.row.empty_truth else thresholds) for view in evaluation.views(wanted)
    }
    return [
        Gallery(title, [ShownFrame(row, drawn[_key(row)]) for row in rows]) for title, rows in chosen.items() if rows
    ]


def _key(row: FrameScores) -> tuple[str | None, str]:
    return row.fold, row.record


def _page(evaluation: Evaluation, galleries: Sequence[Gallery]) -> str:
    summary = evaluation.summary
    by_group: dict[str, list[float]] = {}
    for row in evaluation.rows:
        by_group.setdefault(row.group, []).append(row.dice)
    figures = []
    if summary.scores["dice"].n:
        figures = [histogram_svg([row.dice for row in evaluation.rows], "Dice")]
        figures += [strip_svg(by_group, "Dice")] if summary.groups else []
    rows = [*worst_first(evaluation.rows), *(row for row in evaluation.rows if row.empty_truth)]
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=_title(evaluation),
            folds_are_groups=_folds_are_groups(evaluation.rows),
            verdict=verdict(evaluation),
            evaluation=evaluation,
            summary=summary,
            score_names=SCORE_NAMES,
            figures=figures,
            galleries=galleries,
            curves={fold: curve_svgs(log) for fold, log in evaluation.curves.items() if log},
            rows=rows[:ROWS_SHOWN],
            version=__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
    )


def _title(evaluation: Evaluation) -> str:
    cards = [part.card for part in evaluation.parts if part.card is not None]
    if not cards:
        return evaluation.protocol["predictions"]
    if len(cards) == 1:
        return cards[0].name
    return f"{', '.join(sorted({card.provenance.recipe for card in cards}))}, {len(cards)} folds"


def _folds_are_groups(rows: Sequence[FrameScores]) -> bool:
    """Whether each fold scores one group: two tables would then say the same."""
    pairs = {(row.fold, row.group) for row in rows}
    return len(pairs) == len({fold for fold, _ in pairs}) == len({group for _, group in pairs})


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trocar.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    environment.filters["share"] = lambda value: UNDEFINED if math.isnan(value) else f"{value:.2%}"
    environment.filters["side"] = _side_in_words
    return environment


def _figure(value: float | None, digits: int = 3) -> str:
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _side_in_words(side: str) -> str:
    return {"test": "test side", "train": "training side", "val": "validation side"}.get(side, side)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
