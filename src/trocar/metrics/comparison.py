"""Whether one result differs from another by more than chance: paired differences, sign flips, ranks under resampling.

Works on scores of the same frames, one number a frame and result; which score it is does not matter here. A difference
has a bootstrap interval (`intervals`) and a permutation test, both by group where groups are known. Several tests are
corrected after Holm. `jensen_check` needs no frames: it says whether a published pair of means can be one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trocar.metrics.intervals import Estimates, blocks_of, bootstrap, draw_weights

FloatArray: TypeAlias = NDArray[np.float64]

EXACT_UNITS = 14  # up to 2**14 sign patterns are all counted: more than the 10,000 that would be drawn
_CELLS_AT_ONCE = 2_000_000  # draws x units held in memory: some tens of MB


@dataclass(frozen=True)
class SignFlipTest:
    """How often a mean difference as large arises where it is chance which of two results is called the first."""

    p: float  # two-sided; NaN where there is nothing to test
    smallest: float  # with so many units no p can be smaller
    units: int  # groups, or frames, that differ at all
    of: Literal["groups", "frames"]  # what is flipped as a whole
    method: str  # in words


@dataclass(frozen=True)
class PairedDifference:
    """Two results on the frames where both are defined. Differences are first minus second."""

    first_mean: float
    second_mean: float
    difference: Estimates
    first_only: int  # frames defined in the first result only: left out
    second_only: int
    neither: int
    higher: int  # frames in which the first result's score is the higher one
    lower: int
    equal: int
    groups: int  # of the frames that count; 0 where groups are not known
    by_group: SignFlipTest | None  # None where no group has two frames, or there is but one group
    by_frame: SignFlipTest  # takes frames of one group for independent: its p is too small where they resemble


@dataclass(frozen=True)
class RankStability:
    """In which order results stand when the frames are drawn anew."""

    frames: int  # defined in every result
    resamples: int
    first: tuple[float, ...]  # share of resamples in which each result is the best
    orders: tuple[tuple[tuple[int, ...], float], ...]  # results from best to worst, and its share; most frequent first


@dataclass(frozen=True)
class JensenCheck:
    """Whether a mean Dice and a mean Jaccard can be of one set of images."""

    low: float  # mean Jaccard is at least this, and exactly this where all images are alike; rounding is allowed for
    high: float  # and at most this
    possible: bool
    at_low: bool  # equal to `low` within rounding: as of pooled pixels, or one computed from the other


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """First minus second, frame by frame, with intervals and tests. NaN in either leaves the frame out; it is counted.

    Shapes: first, second (N,), groups one name for each.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"scores are {a.shape} and {b.shape}; one number a frame of the same frames is expected")
    in_a, in_b = ~np.isnan(a), ~np.isnan(b)
    both = in_a & in_b
    differences = a[both] - b[both]
    names = None if groups is None else [name for name, kept in zip(groups, both, strict=True) if kept]
    count = len(set(names)) if names is not None else 0
    test = partial(sign_flip_test, differences, resamples=resamples, seed=seed)
    return PairedDifference(
        first_mean=float(a[both].mean()) if both.any() else math.nan,
        second_mean=float(b[both].mean()) if both.any() else math.nan,
        difference=bootstrap(differences, names, resamples=resamples, level=level, seed=seed),
        first_only=int((in_a & ~in_b).sum()),
        second_only=int((in_b & ~in_a).sum()),
        neither=int((~in_a & ~in_b).sum()),
        higher=int((differences > 0).sum()),
        lower=int((differences < 0).sum()),
        equal=int((differences == 0).sum()),
        groups=count,
        by_group=test(names) if 1 < count < len(differences) else None,
        by_frame=test(),
    )


def sign_flip_test(
    differences: ArrayLike, groups: Sequence[str] | None = None, *, resamples: int = 10_000, seed: int = 0
) -> SignFlipTest:
    """Permutation test of a mean paired difference, two-sided (Fisher 1935, The Design of Experiments, chapter 3).

    Were the two results alike, each difference could as well have the other sign. With groups all differences of one
    group flip together, since frames of one patient resemble each other (Winkler et al. 2015,
    doi:10.1016/j.neuroimage.2015.05.092). Up to 14 units every pattern of signs is counted, so p is exact; of more
    units patterns are drawn and the observed one is counted among them (Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585), so p is never 0. Frames weigh alike, however large their group.

    Shapes: differences (N,) without NaN, groups one name for each.
    """
    values = np.asarray(differences, np.float64)
    if np.isnan(values).any():
        raise ValueError("leave undefined differences out and count them")
    of: Literal["groups", "frames"] = "frames" if groups is None else "groups"
    scale = np.abs(values).sum()
    if groups is not None:
        codes = np.unique(np.asarray(groups), return_inverse=True)[1]
        values = np.bincount(codes, values).astype(np.float64) if len(values) else values
    sums = values[np.abs(values) > 1e-12 * scale]  # flipping what does not differ changes nothing
    if not len(values):
        return SignFlipTest(math.nan, math.nan, 0, of, "no test: no frame is defined in both")
    observed = abs(sums.sum()) - 1e-9 * scale  # equal sums may differ in their last digits
    if len(sums) <= EXACT_UNITS:
        signs = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        p = float(np.mean(np.abs((2 * signs - 1) @ sums) >= observed))
        method = f"sign flips of {len(sums)} {of}, all {2 ** len(sums)} patterns"
        return SignFlipTest(p, min(1.0, 2.0 ** (1 - len(sums))), len(sums), of, method)
    as_large = _count_as_large(sums, observed, resamples, np.random.default_rng(seed))
    method = f"sign flips of {len(sums)} {of}, {resamples} patterns drawn (seed {seed})"
    return SignFlipTest((as_large + 1) / (resamples + 1), 1 / (resamples + 1), len(sums), of, method)


def _count_as_large(sums: FloatArray, observed: float, resamples: int, rng: np.random.Generator) -> int:
    """How many random patterns of signs give a sum that is at least as far from 0. Shapes: sums (U,)."""
    step, found = max(1, _CELLS_AT_ONCE // len(sums)), 0
    width = -(-len(sums) // 8)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        bits = np.unpackbits(rng.integers(0, 256, (rows, width), np.uint8), axis=1, count=len(sums))
        found += int(np.count_nonzero(np.abs(2 * (bits @ sums) - sums.sum()) >= observed))
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm 1979, jstor:4615733), in the order given. NaN stays and counts not.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than one before it.
    """
    tested = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = highest
    return corrected


def rank_stability(
    scores: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    higher_is_better: bool = True,
    resamples: int = 10_000,
    seed: int = 0,
) -> RankStability:
    """Rank results by their mean score in resamples of the frames, drawn as `bootstrap` draws them.

    All results are judged on the same drawn frames (Wiesenfarth et al. 2021, doi:10.1038/s41598-021-82017-6). Frames
    undefined in any are left out. Equal means share a place by lot, so that identical results split it evenly.

    Shapes: scores (K, N), one row a result.
    """
    table = np.asarray(scores, np.float64)
    kept = np.asarray(~np.isnan(table).any(axis=0))
    names = None if groups is None else [name for name, both in zip(groups, kept, strict=True) if both]
    if not kept.any():
        return RankStability(0, 0, (math.nan,) * len(table), ())
    columns = np.ascontiguousarray(table[:, kept].T)
    rng = np.random.default_rng(seed)
    orders = []
    for weights in draw_weights(blocks_of(names, len(columns)), len(columns), resamples, rng):
        means = weights.astype(np.float64) @ columns / weights.sum(axis=1, keepdims=True)
        keys = np.round(-means if higher_is_better else means, 12)
        orders.append(np.lexsort((rng.random(keys.shape), keys), axis=1))
    drawn, times = np.unique(np.concatenate(orders), axis=0, return_counts=True)
    shares = times / resamples
    listed = sorted(
        ((tuple(map(int, order)), float(share)) for order, share in zip(drawn, shares, strict=True)),
        key=lambda one: (-one[1], one[0]),
    )
    first = tuple(float(shares[drawn[:, 0] == result].sum()) for result in range(len(table)))
    return RankStability(len(columns), resamples, first, tuple(listed))


def jensen_check(
    dice: float, jaccard: float, *, dice_rounding: float = 0.0, jaccard_rounding: float = 0.0
) -> JensenCheck:
    """Whether mean Dice and mean Jaccard can be of one set of images, each given to within its rounding.

    In every image J = D / (2 - D), which is convex and runs from (0, 0) to (1, 1). So the mean of J is at least
    m / (2 - m), where m is the mean of D (Jensen 1906, doi:10.1007/BF02418571), and at most m. The same holds of means
    over batches, groups or classes. A pair outside is not of the same images taken in the same way, or is misprinted.
    `rounding` is half a unit of the last decimal given: 0.00005 for 0.9013. Raises ValueError outside 0 to 1.
    """
    for name, value in (("dice", dice), ("jaccard", jaccard)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; expected 0 to 1")
    slack = 1e-12  # 0.9 - 0.05 is not 0.85 to the last bit
    least, most = max(0.0, dice - dice_rounding), min(1.0, dice + dice_rounding)
    low, high = jaccard - jaccard_rounding - slack, jaccard + jaccard_rounding + slack
    return JensenCheck(
        low=least / (2 - least),
        high=most,
        possible=least / (2 - least) <= high and low <= most,
        at_low=least / (2 - least) <= high and low <= most / (2 - most),
    )
