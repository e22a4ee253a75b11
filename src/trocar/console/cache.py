"""How `trocar cache` speaks: what is kept, and what was taken away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from trocar.console import out, tell

if TYPE_CHECKING:
    from trocar.caching import Cache, Entry


def show_cache(cache: Cache) -> None:
    """What is kept, a line each, and the size of all."""
    tell(f"folder: {cache.folder}")
    if cache.entries:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("kind", "size", "frames", "used", "about"):
            table.add_column(heading, justify="right" if heading in ("size", "frames") else "left", overflow="fold")
        for entry in cache.entries:
            rows = "" if entry.rows is None else f"{entry.rows:,}"
            table.add_row(entry.kind, _size(entry.bytes), rows, _ago(entry.used), entry.about)
        out.print(table)
    free = "" if cache.free is None else f"; {_size(cache.free)} free on that disk"
    tell(f"in all: {_size(cache.bytes)}{free}")


def show_cleared(cache: Cache) -> None:
    """What was taken away, what could not be, and what is left."""
    _list("removed", cache.removed)
    _list("left, as it is in use or may not be removed", cache.in_use)
    if not cache.removed and not cache.in_use:
        out.print("nothing to remove")
    tell(f"left: {_size(cache.bytes)} in {cache.folder}")


def _list(what: str, entries: Sequence[Entry]) -> None:
    for entry in entries:
        tell(f"{what}: {entry.kind}, {entry.about}, {_size(entry.bytes)}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _ago(used: float) -> str:
    days = (time.time() - used) / (24 * 3600)
    if not used:
        return "not known"
    return "today" if days < 1 else f"{days:.0f} days ago"
