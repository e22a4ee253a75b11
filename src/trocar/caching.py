"""What trocar keeps in the user's cache folder: listed, and taken away. All of it can be made again.

Two kinds: sets of prepared frames (`data.store`), and what `trocar check` found out (`data.checks.cache`).
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trocar.data.cache_folder import cache_folder
from trocar.data.store import remove_set, stored_sets

CHECKS = "check.sqlite"  # and what SQLite writes beside it
_DAY = 24 * 3600


@dataclass(frozen=True)
class Entry:
    """One thing that is kept. `used` is when it was last used, in seconds since 1970; 0 where that is not known."""

    kind: str  # `prepared frames` or `checks`
    about: str
    paths: tuple[Path, ...]
    bytes: int
    used: float
    rows: int | None = None  # prepared frames

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        used = datetime.fromtimestamp(self.used, UTC).isoformat(timespec="seconds") if self.used else None
        return {
            "kind": self.kind,
            "about": self.about,
            "paths": [str(path) for path in self.paths],
            "bytes": self.bytes,
            "used": used,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Cache:
    """The folder, what is in it and its size, and after clearing what was taken away or is in use."""

    folder: Path
    entries: tuple[Entry, ...]
    free: int | None  # bytes left on that disk
    removed: tuple[Entry, ...] = ()
    in_use: tuple[Entry, ...] = ()  # that should have gone

    @property
    def bytes(self) -> int:
        """Size of all entries together."""
        return sum(entry.bytes for entry in self.entries)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "folder": str(self.folder),
            "bytes": self.bytes,
            "free": self.free,
            "entries": [entry.to_dict() for entry in self.entries],
            "removed": [entry.to_dict() for entry in self.removed],
            "in_use": [entry.to_dict() for entry in self.in_use],
        }


def cache(folder: Path | None = None) -> Cache:
    """What is kept in the user's cache folder (or another): prepared frames, the set used last first, then checks."""
    folder = folder or cache_folder()
    entries = [
        Entry("prepared frames", one.about, (one.folder,), one.bytes, one.used, one.rows)
        for one in stored_sets(folder / "prepared")
    ]
    checks = tuple(sorted(folder.glob(f"{CHECKS}*")))
    if checks:
        states = [path.stat() for path in checks]
        size, used = sum(state.st_size for state in states), max(state.st_mtime for state in states)
        entries.append(
            Entry("checks", "what `trocar check` and `trocar split` found out of frames", checks, size, used)
        )
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
    return Cache(folder, tuple(entries), free)


def clear_cache(older_than_days: float | None = None, folder: Path | None = None) -> Cache:
    """Take away what was not used for so many days, or all; what a training has open stays, and is named."""
    before = cache(folder)
    limit = time.time() - older_than_days * _DAY if older_than_days is not None else None
    removed: list[Entry] = []
    in_use: list[Entry] = []
    for entry in before.entries:
        if limit is not None and entry.used > limit:
            continue
        (removed if _remove(entry) else in_use).append(entry)
    after = cache(before.folder)
    return Cache(after.folder, after.entries, after.free, tuple(removed), tuple(in_use))


def _remove(entry: Entry) -> bool:
    if entry.kind == "prepared frames":
        return all(remove_set(path) for path in entry.paths)
    try:
        for path in entry.paths:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
