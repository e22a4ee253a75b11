"""How `trocar fetch` speaks: the sets it knows, and what it fetched and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trocar.console import tell
from trocar.data.fetching.lock import lock_path

if TYPE_CHECKING:
    from trocar.data.fetching import Fetched, KnownSet

_TRUST = {
    "first": "trusted on first sight: there was nothing to compare it with. It is recorded, and compared next time",
    "compared": "the same archive as on {day}",
    "unchanged": "already there and as it was fetched on {day}; nothing was downloaded",
}


def show_known(sets: Sequence[KnownSet]) -> None:
    """One line a set."""
    for one in sets:
        how = f"downloads {one.about_mb} MB" if one.url else "by hand"
        tell(f"{one.name:20}{how:20}{one.page}")
    tell("`trocar fetch SET` downloads it, or says how to get it and how it is to lie on disk")


def show_fetched(fetched: Fetched) -> None:
    """What is in the folder, how far it is to be trusted, and what to do next."""
    sides = ", ".join(f"{side} {count}" for side, count in fetched.official.items())
    lines = [
        f"{fetched.records} records ({sides}) in {fetched.out}",
        f"archive: {fetched.lock.size} bytes, SHA-256 {fetched.lock.sha256}",
        _TRUST[fetched.trust].format(day=fetched.lock.fetched),
        f"lock file: {lock_path(fetched.out)}",
        *fetched.notes,
        f"next: trocar check {fetched.out}",
    ]
    for line in lines:
        tell(line)
