"""How far a mean over frames would move with other patients: bootstrap intervals.

Frames of one patient resemble each other, so resampling frames alone gives intervals that are too narrow. Where
groups are known they are resampled first, then frames within each drawn group. Covers mean, median and 5th percentile
of scores, one a frame; says in words what it did. It compares no two models and tests no hypothesis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]

_CELLS_AT_ONCE = 500_000  # resamples x frames held in memory: some MB, which a processor's cache holds


@dataclass(frozen=True)
class Interval:
    """A statistic of the sample, and the bounds between which it fell in the stated share of resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Mean, median and 5th percentile of scores, each with its interval; NaN throughout where nothing is defined."""

    mean: Interval
    median: Interval
    p5: Interval
    n: int  # scores that count
    undefined: int  # NaN, left out
    level: float  # share of resamples between low and high
    method: str  # in words, for the report


def bootstrap(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimates:
    """Percentile bootstrap (Efron 1979, doi:10.1214/aos/1176344552) of mean, median and 5th percentile.

    With more than one group, and groups of more than one frame, groups are drawn with replacement and then frames
    within each (Davison and Hinkley 1997, section 3.8); else frames are. A resample weighs every frame it holds alike,
    as the sample does. Percentiles interpolate linearly, as `numpy.percentile`. NaN values are left out and counted.

    Shapes: values (N,), groups one name for each.
    """
    all_values = np.asarray(values, np.float64)
    if groups is not None and len(groups) != len(all_values):
        raise ValueError(f"{len(all_values)} values but {len(groups)} groups")
    defined = ~np.isnan(all_values)
    kept = all_values[defined]
    names = None if groups is None else [name for name, counts in zip(groups, defined, strict=True) if counts]
    order = np.argsort(kept, kind="stable")
    ordered = kept[order]
    blocks = blocks_of(None if names is None else [names[place] for place in order], len(kept))
    if not len(kept):
        drawn = np.full((3, 1), math.nan)
        whole = drawn[:, 0]
    else:
        whole = _statistics(ordered, np.ones((1, len(kept)), np.int64))[:, 0]
        chunks = draw_weights(blocks, len(kept), resamples, np.random.default_rng(seed))
        drawn = np.concatenate([_statistics(ordered, weights) for weights in chunks], axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=1)
    mean, median, p5 = (Interval(*map(float, triple)) for triple in zip(whole, low, high, strict=True))
    method = _in_words(len(kept), names, len(blocks) > 1, resamples, level, seed)
    return Estimates(mean, median, p5, len(kept), int((~defined).sum()), level, method)


def blocks_of(groups: Sequence[str] | None, frames: int) -> list[NDArray[np.int64]]:
    """Places of the frames of each group, where groups are to be drawn first; else all frames as one block."""
    if groups is None or not 1 < len(set(groups)) < frames:
        return [np.arange(frames)]
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    return [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]


def draw_weights(
    blocks: Sequence[NDArray[np.int64]], size: int, resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """How often each frame is in each resample, some resamples at a time. Yields (resamples, size)."""
    step = max(1, _CELLS_AT_ONCE // size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        times = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=rows)
        cells = []
        for block, drawn in zip(blocks, times.T, strict=True):
            # a group drawn m times gives m times its number of frames, each draw uniform over its frames
            row = np.repeat(np.arange(rows) * size, drawn * len(block))
            cells.append(row + block[rng.integers(0, len(block), len(row), np.int32)])
        yield np.bincount(np.concatenate(cells), minlength=rows * size).reshape(rows, size)


def _statistics(ordered: FloatArray, weights: NDArray[np.int64]) -> FloatArray:
    """Mean, median and 5th percentile of a sample in which value i stands weights[:, i] times.

    Shapes: ordered (N,) rising, weights (R, N) -> (3, R).
    """
    upto = weights.cumsum(axis=1, dtype=np.int32)
    totals = upto[:, -1].astype(np.int64)
    mean = weights.astype(np.float64) @ ordered / totals
    return np.stack([mean, _quantile(ordered, upto, totals, 0.5), _quantile(ordered, upto, totals, 0.05)])


def _quantile(ordered: FloatArray, upto: NDArray[np.int32], totals: NDArray[np.int64], share: float) -> FloatArray:
    position = (totals - 1) * share
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, totals - 1)
    low = ordered[np.count_nonzero(upto <= below[:, None].astype(np.int32), axis=1)]
    high = ordered[np.count_nonzero(upto <= above[:, None].astype(np.int32), axis=1)]
    result: FloatArray = low + (high - low) * (position - below)
    return result


def _in_words(
    frames: int, names: Sequence[str] | None, clustered: bool, resamples: int, level: float, seed: int
) -> str:
    start = f"{level:.0%} percentile bootstrap, {resamples} resamples (seed {seed})"
    if not frames:
        return "no interval: no frame has a defined score"
    if names is None:
        return f"{start} of {frames} frames; groups are not known"
    count = len(set(names))
    if clustered:
        rough = "; with so few groups it is rough" if count < 10 else ""
        return f"{start} of {count} groups, then of the frames within each{rough}"
    if count == 1:
        return f"{start} of {frames} frames of one group: it says nothing about other groups"
    return f"{start} of {frames} frames, each a group of its own"
