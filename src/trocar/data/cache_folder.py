"""Where trocar keeps what it can make again, and by what it knows that a record's files have not changed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from trocar.data.records import Record

FRESH_SECONDS = 2  # a file changed so lately could change again within the clock's grain: not remembered


def cache_folder() -> Path:
    """Where trocar keeps what it can make again: TROCAR_CACHE, else `trocar` in the user's cache folder."""
    if os.environ.get("TROCAR_CACHE"):
        return Path(os.environ["TROCAR_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "trocar"
    if sys.platform == "darwin" and "XDG_CACHE_HOME" not in os.environ:
        return Path.home() / "Library" / "Caches" / "trocar"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trocar"


def state_of_files(record: Record) -> str | None:
    """Paths, sizes and times of change of a record's files; None where one is missing or was changed just now.

    Contents are not read: whoever changes a file and keeps its size changes its times, of which one (ctime) cannot be
    set back by hand.
    """
    try:
        states = [(str(path.absolute()), path.stat()) for path in record.files]
    except OSError:
        return None
    if not states or max(state.st_mtime for _, state in states) > time.time() - FRESH_SECONDS:
        return None
    return repr([(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states])
