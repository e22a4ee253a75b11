"""What long work tells whoever watches it. Silent here; the command line's `console` shows it."""

from __future__ import annotations


class Watcher:
    """What a training tells whoever watches. This one is silent; the command line's shows progress."""

    def message(self, text: str) -> None:
        """One sentence worth knowing."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Records read and prepared so far."""

    def step(self, done: int, total: int, loss: float) -> None:
        """Optimiser steps done of all."""

    def epoch(self, row: dict[str, float]) -> None:
        """The row of log.csv of the epoch just done."""
