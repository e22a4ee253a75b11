"""How `trocar convert` and `trocar convert-keras` speak on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trocar.console import tell

if TYPE_CHECKING:
    from trocar.data.convert import Conversion


def show_converted(made: Conversion) -> None:
    """How much was written and where, and what a user should know."""
    for note in made.notes:
        tell(note)
    images = ", ".join(f"{count} {how}" for how, count in made.images.items())
    text = f"{made.records} records, {made.areas} areas, images {images}: {made.to} in {made.out}"
    tell(text)


def show_conversion(model: Path, notes: Sequence[str]) -> None:
    """Where the model is, and what was concluded rather than read."""
    for note in notes:
        tell(note)
    tell(f"model: {model}")
