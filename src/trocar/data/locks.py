"""Locks between processes, which end with the process that holds them: flock on a small file.

Where there is none (Windows, some network disks) every lock is granted. Whoever uses them must be right without: they
keep processes from doing the same work twice, or from taking away what another uses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Lock:
    """One file that is locked, shared or for one alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, *, shared: bool, wait: bool) -> bool:
        """Whether it was granted; with `wait` it always is, at last. Raises `OSError` where there is no such folder."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if sys.platform == "win32":
            return True
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a disk that knows no locks
            return True
        return True

    def is_still_there(self) -> bool:
        """Whether the file that is locked is the one at its path, and not one that was taken away."""
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let it go; nothing happens where it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
