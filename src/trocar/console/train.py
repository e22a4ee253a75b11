"""How `trocar train` speaks on the terminal, when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from trocar.console import figure, out

if TYPE_CHECKING:
    from trocar.training import RunResult


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
            figure(card.threshold),
            figure(card.scores["train"].dice),
            figure(card.scores["val"].dice),
            str(result.model),
        )
    out.print(table)
