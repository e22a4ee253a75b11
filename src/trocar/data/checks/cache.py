"""What earlier checks found out, so that data that has not changed is not read again.

One SQLite file in the user's cache folder, which several processes may use at once; every entry is written whole or
not at all. A key covers how a record is read (its reader with all settings), its files' paths, sizes and times of
change, and the version of trocar: whatever differs is read anew. The file may be deleted at any time, and a damaged
one is: nothing but time is lost.
"""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from trocar import __version__
from trocar.data.cache_folder import cache_folder, state_of_files
from trocar.data.checks.facts import Facts, facts_from_json
from trocar.data.records import Record

FORMAT = 2  # of the texts that are kept
MOST_BYTES = 2 << 30  # of the file, about a million records: beyond it, it is begun anew

_SECONDS_BETWEEN_WRITES = 2.0

T = TypeVar("T")


def key_of(record: Record) -> str | None:
    """What a record's facts depend on, as a hash; None where they cannot be remembered.

    That is where a file is missing or was changed just now, or where a reader cannot be named.
    """
    try:
        # pickled to be hashed, never to be loaded: a reader is named by its function and all it is called with
        reader = pickle.dumps((record.name, record.image, record.mask, record.instances), protocol=4)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    files = state_of_files(record)
    if files is None:
        return None
    return hashlib.blake2b(repr((FORMAT, __version__, files)).encode() + reader, digest_size=16).hexdigest()


class Cache:
    """Texts by key. Without a file it knows nothing and keeps nothing. Used from one thread."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._connection = None if path is None else self._connect(path)
        self._new: list[tuple[str, str]] = []
        self._written = time.monotonic()

    @property
    def keeps(self) -> bool:
        """Whether there is a file: without one, keys need not be made."""
        return self._connection is not None

    def facts(self, key: str | None) -> Facts | None:
        """What is remembered of a record."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return facts_from_json(text)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None  # damaged: it is read anew

    def text(self, key: str | None) -> str | None:
        """What is remembered under a key."""
        if key is None:
            return None
        row = self._use(lambda db: db.execute("SELECT value FROM remembered WHERE key = ?", (key,)).fetchone())
        return row[0] if row and isinstance(row[0], str) else None

    def remember(self, key: str | None, text: str) -> None:
        """Keep a text. It is on disk within seconds: a check that is stopped need not begin from the start."""
        if key is None or self._connection is None:
            return
        self._new.append((key, text))
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write what is new, in one short step: other processes may be waiting to do the same."""
        new, self._new = self._new, []
        self._use(lambda db: _write(db, new))
        self._written = time.monotonic()

    def close(self) -> None:
        """Write what is new and let the file go."""
        self.flush()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, path: Path) -> sqlite3.Connection | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > MOST_BYTES:
                path.unlink()
            return _prepared(path)
        except sqlite3.Error as error:
            if not _damaged(error):
                return None
        except OSError:
            return None
        with suppress(OSError, sqlite3.Error):
            path.unlink()
            return _prepared(path)
        return None

    def _use(self, use: Callable[[sqlite3.Connection], T]) -> T | None:
        """Use the file; where that fails (locked for long, disk full, damaged) go on without it."""
        if self._connection is None or self._path is None:
            return None
        try:
            return use(self._connection)
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
            if _damaged(error):
                with suppress(OSError):
                    self._path.unlink()
            return None


@contextmanager
def open_cache(folder: Path | None = None) -> Iterator[Cache]:
    """The cache in a folder, by default the user's. One that cannot be opened is an empty one that keeps nothing."""
    cache = Cache((folder or cache_folder()) / "check.sqlite")
    try:
        yield cache
    finally:
        cache.close()


def _prepared(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # what a power cut takes can be made again
        connection.execute("CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, value TEXT)")
        connection.execute("SELECT value FROM remembered LIMIT 1").fetchone()
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write(connection: sqlite3.Connection, rows: Sequence[tuple[str, str]]) -> None:
    with connection:  # one transaction
        connection.executemany("INSERT OR REPLACE INTO remembered VALUES (?, ?)", rows)


def _damaged(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, rather than a lock, a full disk or a missing permission."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
