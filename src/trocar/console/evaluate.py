"""How `trocar evaluate` speaks on the terminal, and `trocar demo`, which ends in an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from trocar.console import figure, out, tell

if TYPE_CHECKING:
    from trocar.demo import DemoResult
    from trocar.evaluation import Evaluation


def show_evaluation(evaluation: Evaluation, report: Path, card: Path | None = None) -> None:
    """Verdict, warnings, figures with intervals, the worst frames, the place of the report, the model with its card."""
    from trocar.reporting.words import verdict

    out.print(verdict(evaluation), markup=False)
    for warning in evaluation.warnings:
        tell(f"warning: {warning}")
    table = Table(box=None, pad_edge=False)
    for column in ("", "mean, with its interval", "median", "5th percentile", "frames"):
        table.add_column(column, no_wrap=True)
    for name, estimates in evaluation.summary.scores.items():
        mean = estimates.mean
        table.add_row(
            name.replace("_", " "),
            f"{figure(mean.value)}  ({figure(mean.low)} to {figure(mean.high)})",
            figure(estimates.median.value),
            figure(estimates.p5.value),
            str(estimates.n),
        )
    out.print(table)
    tell(f"report: {report}")
    if card is not None:
        tell(f"on the card of {card}")


def show_demo(result: DemoResult) -> None:
    """Figures and places of everything the demo made."""
    show_evaluation(result.evaluation, result.report)
    for what, path in result.paths().items():
        tell(f"{what}: {path}")
