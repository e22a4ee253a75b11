"""How the command line speaks: progress on stderr, results on stdout (tables for people, or one JSON document).

Here is what all verbs share; how each of them shows its results is a module of its name.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trocar.errors import UserError
from trocar.plain import without_nan
from trocar.progress import Watcher

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def escape_what_cannot_be_printed() -> None:
    """Print names that the terminal's encoding lacks, or that are no text, with escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(error: UserError, *, as_json: bool) -> None:
    """The error form: `error:`, `where:`, `mend:` on stderr; with `as_json` also as the one document on stdout."""
    if as_json:
        print_json({"error": error.as_dict()})
    for line in _forms(error):
        sys.stderr.write(line + "\n")


def print_json(document: Any) -> None:
    """One JSON document on stdout; NaN and infinities, which JSON lacks, become null.

    Letters stay as they are where stdout can say them, else they become JSON's own escapes.
    """
    plain = without_nan(document)
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=1, allow_nan=False)
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """One line on stderr: what one wants to know before the work is done."""
    tell(text, err)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; call what it yields with (done, total)."""
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Bars(Watcher):
    """Shows long work: a bar for each kind of preparing, one for the steps of a training, a line for each epoch."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bar = _bar()
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        say(text)

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


def tell(text: str, to: Console = out) -> None:
    """One line on stdout, however long, as it is: a path can be copied."""
    to.print(text, markup=False, soft_wrap=True)


def show_files(paths: Sequence[Path]) -> None:
    """One path a line."""
    for path in paths:
        tell(str(path))


def figure(value: float | None) -> str:
    """Three digits; a dash for what is undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """One digit after the point; a dash for what is undefined."""
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
