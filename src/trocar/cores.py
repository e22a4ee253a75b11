"""How many cores there are to work with: fewer than the machine has where a process is kept to some of them."""

from __future__ import annotations

import os
import sys


def usable_cores() -> int:
    """Cores that this process may run on: `taskset`, batch systems and containers give it some of all."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
