"""How the command line speaks: progress on stderr, results on stdout (tables for people, or one JSON document)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from trocar.errors import UserError
from trocar.plain import without_nan
from trocar.progress import Watcher

if TYPE_CHECKING:
    from trocar.data.checks import CheckReport
    from trocar.data.convert import Conversion
    from trocar.demo import DemoResult
    from trocar.evaluation import Evaluation
    from trocar.inference.predict import PredictionSummary
    from trocar.training import RunResult

FINDINGS_SHOWN = 5  # of each kind in the terminal

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def print_error(error: UserError, *, as_json: bool) -> None:
    """The error form: `error:`, `where:`, `mend:` on stderr; with `as_json` also as the one document on stdout."""
    if as_json:
        print_json({"error": error.as_dict()})
    for line in _forms(error):
        sys.stderr.write(line + "\n")


def print_json(document: Any) -> None:
    """One JSON document on stdout; NaN and infinities, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(without_nan(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; call what it yields with (done, total)."""
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingProgress(Watcher):
    """Progress of a training: a bar for preparing, one for the steps with time left, a line for each epoch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingProgress:
        self._bar = _bar()
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        err.print(text, markup=False, soft_wrap=True)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Advance the bar of this kind of frames."""
        self._update(what, done, total)

    def step(self, done: int, total: int, loss: float) -> None:
        """Advance the bar of the steps."""
        self._update("training", done, total, f"training, loss {loss:.3f}")

    def epoch(self, row: dict[str, float]) -> None:
        """Print the figures of an epoch."""
        self.message(
            f"epoch {row['epoch']:3d}  train loss {row['train_loss']:.4f} Dice {row['train_dice']:.4f}  "
            f"validation loss {row['val_loss']:.4f} Dice {row['val_dice']:.4f}  {row['seconds']:.0f} s"
        )

    def _update(self, key: str, done: int, total: int, text: str | None = None) -> None:
        if self._bar is None:
            return
        if key not in self._tasks or (done <= 1 and self._bar.tasks[self._tasks[key]].completed > 1):
            self._tasks[key] = self._bar.add_task(key, total=total)  # a further fold begins anew
        self._bar.update(self._tasks[key], completed=done, total=total, description=text or key)
        if done == total:
            self._bar.update(self._tasks[key], visible=False)


# ------------------------------------------------------------------ results


def show_check(report: CheckReport, page: Path | None = None) -> None:
    """A table of the sources, one of what was found, then the findings: of many of one kind the first few."""
    for source in report.sources:
        table = _facts(f"{source.dataset}, {source.root}")
        table.add_row("records", f"{source.records}, {source.read} without an error, in {len(source.groups)} groups")
        table.add_row("sizes", _some([f"{size} ({count})" for size, count in source.sizes.items()]))
        table.add_row("masks", source.mask_encoding)
        table.add_row("classes", ", ".join(f"{name} {_percent(source.class_shares[name])}" for name in source.classes))
        table.add_row("empty masks", f"{source.empty_masks} (no fault: they are judged on a line of their own)")
        if source.ignored_share:
            table.add_row("ignored", f"{_percent(source.ignored_share)} of the pixels are labelled 255")
        if source.official:
            table.add_row("official split", ", ".join(f"{side} {count}" for side, count in source.official.items()))
        if source.surrounds:
            table.add_row("black surround", f"{source.surrounds} frames")
        if source.near_in_groups:
            text = (
                f"{source.near_in_groups} records nearly equal to another of their group, as neighbours in a video are"
            )
            table.add_row("alike", text)
        for note in source.notes:
            table.add_row("note", note)
        out.print(table)
    if report.findings:
        out.print(_table_of_kinds(report))
    for found in report.by_kind.values():
        for finding in found[:FINDINGS_SHOWN]:
            out.print(str(finding), markup=False, soft_wrap=True)
        if len(found) > FINDINGS_SHOWN:
            more = f"  and {len(found) - FINDINGS_SHOWN} more of this kind: --json lists all, --out shows them"
            out.print(more, markup=False, soft_wrap=True)
    if report.remembered:
        out.print(f"{report.remembered} records have not changed since they were last checked, and were not read again")
    out.print(f"errors: {len(report.errors)}, warnings: {len(report.warnings)}")
    if page is not None:
        out.print(f"page: {page}", markup=False, soft_wrap=True)


def _table_of_kinds(report: CheckReport) -> Table:
    from trocar.data.checks import KINDS

    table = Table(box=None, pad_edge=False)
    for column in ("", "found", "records", "what it means"):
        table.add_column(column, justify="right" if column in ("found", "records") else "left")
    for name, found in report.by_kind.items():
        kind = KINDS[name]
        records = len({place for finding in found for place in finding.at})
        table.add_row(f"{kind.severity}: {kind.title}", str(len(found)), str(records or ""), kind.meaning)
    return table


def show_training(results: Sequence[RunResult]) -> None:
    """One line a run: scores, threshold, place."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "best epoch", "threshold", "train Dice", "validation Dice", "model"):
        table.add_column(column, overflow="fold")
    for result in results:
        card = result.card
        table.add_row(
            str(result.run),
            f"{card.provenance.best_epoch} of {card.provenance.epochs}",
            _figure(card.threshold),
            _figure(card.scores["train"].dice),
            _figure(card.scores["val"].dice),
            str(result.model),
        )
    out.print(table)


def show_files(paths: Sequence[Path]) -> None:
    """One path a line."""
    for path in paths:
        out.print(str(path), markup=False, soft_wrap=True)


def show_conversion(model: Path, notes: Sequence[str]) -> None:
    """Where the model is, and what was concluded rather than read."""
    for note in notes:
        out.print(note, markup=False, soft_wrap=True)
    out.print(f"model: {model}", markup=False, soft_wrap=True)


def show_converted(made: Conversion) -> None:
    """How much was written and where, and what a user should know."""
    for note in made.notes:
        out.print(note, markup=False, soft_wrap=True)
    images = ", ".join(f"{count} {how}" for how, count in made.images.items())
    text = f"{made.records} records, {made.areas} areas, images {images}: {made.to} in {made.out}"
    out.print(text, markup=False, soft_wrap=True)


def show_evaluation(evaluation: Evaluation, report: Path) -> None:
    """Verdict, warnings, figures with intervals, the worst frames, the place of the report."""
    from trocar.reporting.words import verdict

    out.print(verdict(evaluation), markup=False)
    for warning in evaluation.warnings:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("", "mean, with its interval", "median", "5th percentile", "frames"):
        table.add_column(column, no_wrap=True)
    for name, estimates in evaluation.summary.scores.items():
        mean = estimates.mean
        table.add_row(
            name.replace("_", " "),
            f"{_figure(mean.value)}  ({_figure(mean.low)} to {_figure(mean.high)})",
            _figure(estimates.median.value),
            _figure(estimates.p5.value),
            str(estimates.n),
        )
    out.print(table)
    out.print(f"report: {report}", markup=False, soft_wrap=True)


def show_predictions(summary: PredictionSummary, folder: Path) -> None:
    """How many inputs, and where their masks are."""
    frames = sum(one.frames for one in summary.predictions)
    videos = sum(one.kind == "video" for one in summary.predictions)
    out.print(f"{len(summary.predictions) - videos} images and {videos} videos, {frames} frames")
    if summary.quality_limit is not None:
        _show_quality(summary, frames)
    for one in summary.predictions:
        if one.lost_frames or one.damaged_frames or not one.complete:
            end = "" if one.complete else "; it cannot be read to its end"
            text = f"warning: {one.file}: {one.lost_frames} frames lost, {one.damaged_frames} damaged{end}"
            out.print(text, markup=False, soft_wrap=True)
    for what in ("masks", "overlays", "probabilities"):
        if (folder / what).is_dir():
            out.print(f"{what}: {folder / what}", markup=False, soft_wrap=True)


def _show_quality(summary: PredictionSummary, frames: int) -> None:
    """How many frames are to be looked at, how many have no quality, and what that promises."""
    videos = [one for one in summary.predictions if one.kind == "video"]
    images = [one for one in summary.predictions if one.kind == "image"]
    marked = sum(one.look_at is True for one in images) + sum(len(one.frames_to_look_at) for one in videos)
    unknown = sum(one.quality is None for one in images) + sum(one.frame_quality.count(None) for one in videos)
    text = f"{marked} of {frames} frames to look at (quality under {summary.quality_limit:.3f}; see predictions.json)"
    empty = f"; {unknown} in which nothing was found have no quality" if unknown else ""
    out.print(text + empty, markup=False, soft_wrap=True)
    out.print(f"the limit promises: {summary.quality_promise}", markup=False, soft_wrap=True)


def show_demo(result: DemoResult) -> None:
    """Figures and places of everything the demo made."""
    show_evaluation(result.evaluation, result.report)
    for what, path in result.paths().items():
        out.print(f"{what}: {path}", markup=False, soft_wrap=True)


def _facts(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _some(texts: Sequence[str], most: int = 6) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,  # a log file gets the lines, not the bars
    )


def _forms(error: UserError) -> list[str]:
    errors = getattr(error, "errors", [error])
    return [f"error: {single}" for single in errors]
