"""What `trocar models` shows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from trocar.console import figure, out, tell
from trocar.inventory import ModelEntry
from trocar.sizes import shown_size


def show_models(entries: Sequence[ModelEntry]) -> None:
    """A row for each model; then the licences of their weights, and what is wrong with the damaged ones."""
    if not entries:
        out.print("no models")
        return
    table = Table(box=None, pad_edge=False)
    shipped_width = max((len(entry.name) for entry in entries if entry.shipped), default=0)
    table.add_column("model", min_width=shipped_width, overflow="fold")
    for column in ("finds", "network\nsize", "runs on"):
        table.add_column(column, overflow="fold")
    for column in ("validation\nDice", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(*_row(entry))
    out.print(table)
    for entry in entries:
        if entry.licence:  # too long for a column
            tell(f"licence: {entry.name}: {entry.licence}")
    for entry in entries:
        if entry.problem is not None:
            tell(f"damaged: {entry.name}: {entry.problem}")


def _row(entry: ModelEntry) -> tuple[str, ...]:
    name = f"{entry.name}\n(default)" if entry.default else entry.name
    if entry.card is None:
        return name, "damaged", "", "", "", f"{entry.size_mb:.1f}"
    scores = entry.card.scores.get("val")
    return (
        name,
        ", ".join(entry.card.classes[1:]),
        shown_size(entry.card.preprocess.size_hw),
        "\n".join(("torch", *entry.card.exports)),
        figure(None if scores is None else scores.dice),
        f"{entry.size_mb:.1f}",
    )
