"""The search for near-duplicates among many perceptual hashes: seconds, and how they grow with the number of hashes.

    taskset -c 0,1 python benchmarks/duplicates.py [most hashes, default 1000000]

Hashes are drawn evenly, and one in a hundred gets a neighbour that differs in 1 to 6 bits: each of these must be found,
which is checked. The second table is a hard case, videos: hashes that wander from frame to frame, so that each has many
neighbours. No part of the search uses more than one core. Memory is the growth of the process's peak.
"""

from __future__ import annotations

import math
import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray

from trocar.data.checks.duplicates import NEAR_BITS, close_pairs

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)


def drawn(count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint64], int]:
    """Hashes drawn evenly with planted neighbours, all different, and how many were planted."""
    hashes = rng.integers(0, 2**64, count - count // 100, dtype=np.uint64)
    near = hashes[: count // 100].copy()
    for i in range(len(near)):
        for bit in rng.choice(64, rng.integers(1, NEAR_BITS + 1), replace=False):
            near[i] ^= np.uint64(1) << np.uint64(bit)
    return np.unique(np.concatenate([hashes, near])), len(near)


def videos(count: int, rng: np.random.Generator, frames: int = 1000) -> NDArray[np.uint64]:
    """Hashes of videos of 1000 frames each, in which from frame to frame one bit changes, half of the time."""
    starts = rng.integers(0, 2**64, max(1, count // frames), dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (len(starts), frames), dtype=np.uint64)
    flips[rng.random(flips.shape) < 0.5] = 0
    return np.unique(np.bitwise_xor.accumulate(flips, axis=1) ^ starts[:, None])


def peak_mib() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, hashes: NDArray[np.uint64], planted: int, before: tuple[int, float] | None) -> tuple[int, float]:
    """Search once and print a row; returns the number of hashes and the seconds."""
    base, clock, processor = peak_mib(), time.perf_counter(), time.process_time()
    pairs = close_pairs(hashes)
    seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    assert len(pairs) >= planted, f"{planted - len(pairs)} planted pairs were missed"
    growth = ""
    if before and before[1] > 0:
        growth = f"n^{math.log(busy / before[1]) / math.log(len(hashes) / before[0]):.2f}"
    row = (f"{len(hashes):>9,}", f"{seconds:8.2f}", f"{busy:8.2f}", f"{growth:>7}", f"{len(pairs):>10,}")
    print(f"{name:7} | " + " | ".join(row) + f" | {peak_mib() - base:6.0f}")
    return len(hashes), busy


def main() -> None:
    """Both tables."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(0)
    print("hashes  |         n |  seconds | proc. s. |  growth |      pairs | MiB more")
    before = None
    for count in (size for size in SIZES if size <= most):
        hashes, planted = drawn(count, rng)
        before = measure("drawn", hashes, planted, before)
    before = None
    for count in (size for size in SIZES if size <= min(most, 300_000)):
        before = measure("videos", videos(count, rng), 0, before)


if __name__ == "__main__":
    main()
