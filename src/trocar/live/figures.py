"""What is counted while a feed runs: how old frames are when they are shown, how many, and how many came too late.

The memory does not grow with the time that it runs.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

RECENT = 250  # frames of the figures that show how it goes now: ten seconds at 25 a second

_FINEST_MS = 0.1
_STEP = 1.01  # width of a bin of the histogram: percentiles of the whole run are at most 1 % too high
_BINS = 1700  # the last begins at 0.1 ms * 1.01^1699: more than half an hour


class LatencyHistogram:
    """Counts latencies in bins of 1 % width, and gives percentiles of all of them."""

    def __init__(self) -> None:
        self.count = 0
        self._bins = np.zeros(_BINS, np.int64)

    def add(self, latency_ms: float) -> None:
        """Count one."""
        place = math.ceil(math.log(max(latency_ms, _FINEST_MS) / _FINEST_MS) / math.log(_STEP))
        self._bins[min(place, _BINS - 1)] += 1
        self.count += 1

    def percentile(self, share: float) -> float:
        """The latency in ms that this share (0 to 1) of all does not exceed, at most 1 % too high; NaN without any."""
        if not self.count:
            return math.nan
        place = int(np.searchsorted(self._bins.cumsum(), max(1, math.ceil(share * self.count))))
        return float(_FINEST_MS * _STEP**place)


class Figures:
    """What was shown, how old, and how fast. Safe to read from other threads.

    The latency of a frame is its age when it is shown: from its arrival (a camera's own delay cannot be seen) to the
    finished overlay, handed to who looks on.
    """

    def __init__(self, late_ms: float) -> None:
        self.late_ms = late_ms
        self._lock = threading.Lock()
        self._all = LatencyHistogram()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)  # when it was shown, latency in ms
        self._late = 0

    def shown(self, arrived_at: float, now: float | None = None) -> float:
        """Count a frame that is shown now; its latency in ms."""
        now = time.monotonic() if now is None else now
        latency_ms = 1000 * (now - arrived_at)
        with self._lock:
            self._all.add(latency_ms)
            self._recent.append((now, latency_ms))
            self._late += latency_ms > self.late_ms
        return latency_ms

    @property
    def count(self) -> int:
        """Frames shown."""
        return self._all.count

    @property
    def late(self) -> int:
        """Frames that were older than `late_ms` when they were shown."""
        return self._late

    def latency_ms(self) -> dict[str, float]:
        """p50, p95 and p99 over everything."""
        with self._lock:
            return {name: round(self._all.percentile(share), 2) for name, share in PERCENTILES.items()}

    def recent_latency_ms(self) -> dict[str, float]:
        """p50, p95 and p99 of the last frames, and that of the very last."""
        with self._lock:
            values = [latency for _, latency in self._recent]
        last = values[-1] if values else math.nan
        return {name: round(_exact(values, share), 2) for name, share in PERCENTILES.items()} | {"last": round(last, 2)}

    def recent_rate(self) -> float:
        """Frames a second over the last frames; NaN before there are two."""
        with self._lock:
            if len(self._recent) < 2:
                return math.nan
            took = self._recent[-1][0] - self._recent[0][0]
            return round((len(self._recent) - 1) / took, 2) if took > 0 else math.nan


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _exact(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf")) if values else math.nan
