"""Knowing when a mask is bad without knowing the truth: a quality score, how well it finds bad frames, and a bound.

The score of a frame comes from its probabilities alone; a second one from how much the masks of mirrored inputs
differ. Both are judged against the truth by AUROC and by risk and coverage. The bound is conformal: from validation
frames it says what Dice a score promises, in how many frames of a hundred, and under which assumption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trocar.metrics.overlap import BoolArray, dice
from trocar.metrics.presence import auroc

BAD_DICE = 0.7
ALPHA = 0.1
CURVE_POINTS = 101

_SMALLEST_DOUBT = 1e-6  # a quality of exactly 1 is taken as 1 - 1e-6


# ------------------------------------------------------------------ scores of one frame


def quality(probabilities: NDArray[Any], threshold: float | NDArray[Any] | None) -> float:
    """How good the mask that follows from these probabilities is likely to be: soft Dice confidence, 0 to 1.

    2 sum(p over the mask) / (pixels of the mask + sum(p)): the Dice that would be expected if every p were right and
    pixels were independent, nearly (Borges, Pacheco and Silva 2024, arXiv:2402.10665). An overconfident network makes
    it too high: it orders frames, and `dice_bound` says what it is worth. NaN where the mask is empty: that nothing is
    there cannot be told from that all of it was missed.

    Several classes: p is that of any instrument, the mask that of any instrument.

    Shapes: probabilities (C, h, w), C = 1 where there are two classes; without padding. threshold: one, or (h, w).
    """
    foreground, mask = _foreground(probabilities, threshold)
    found = np.count_nonzero(mask)
    if not found:
        return math.nan
    return float(2 * foreground[mask].sum(dtype=np.float64) / (found + foreground.sum(dtype=np.float64)))


def disagreement(views: Sequence[NDArray[Any]], threshold: float | None) -> float:
    """1 minus the mean Dice between the masks of several views of one frame, over all pairs; 0 to 1.

    Roy et al. 2019 (arXiv:1811.09800) for samples of a network; here for mirrored inputs, mirrored back. A pair of
    empty masks agrees about nothing and is left out; NaN where every pair is.

    Shapes: each of views (C, h, w), as in `quality`.
    """
    masks = [_foreground(view, threshold)[1] for view in views]
    pairs = [dice(one, other) for one, other in combinations(masks, 2)]
    defined = [value for value in pairs if not math.isnan(value)]
    return 1 - sum(defined) / len(defined) if defined else math.nan


def _foreground(probabilities: NDArray[Any], threshold: float | NDArray[Any] | None) -> tuple[NDArray[Any], BoolArray]:
    """Shapes: (C, h, w) -> probability of any instrument (h, w), mask of any instrument (h, w)."""
    if threshold is None:
        return 1 - probabilities[0], probabilities.argmax(axis=0) != 0
    return probabilities[0], probabilities[0] >= threshold


# ------------------------------------------------------------------ a bound from validation frames


@dataclass(frozen=True)
class DiceBound:
    """What a quality promises: Dice is at least 1 - factor (1 - quality), in all but a share `alpha` of the frames.

    NaN throughout where there were too few validation frames to promise anything.
    """

    factor: float
    alpha: float
    frames: int  # validation frames it rests on: those in which something was found
    bad_dice: float = BAD_DICE

    @property
    def limit(self) -> float:
        """The quality from which the bound is `bad_dice` or more; frames below it are to be looked at.

        0: every frame passes. Above 1: none does.
        """
        if math.isnan(self.factor):
            return math.nan
        if self.factor * _SMALLEST_DOUBT > 1 - self.bad_dice:
            return math.nextafter(1, 2)
        return max(0.0, 1 - (1 - self.bad_dice) / self.factor) if self.factor else 0.0

    def lower(self, quality: float) -> float:
        """The least Dice that a frame of this quality is promised; 0 or more, NaN for NaN."""
        least = 1 - self.factor * max(1 - quality, _SMALLEST_DOUBT) if not math.isnan(quality) else math.nan
        return least if math.isnan(least) else max(0.0, least)

    def in_words(self) -> str:
        """What is promised, under which assumption; or why nothing is."""
        if math.isnan(self.factor):
            need = _fewest_frames(self.alpha)
            return (
                f"none: {self.frames} validation frames in which something was found are too few, {need} are needed "
                f"for {1 - self.alpha:.0%}"
            )
        return (
            f"of the frames in which something is found, at most {self.alpha:.0%} both pass the limit and have a Dice "
            f"under {self.bad_dice:g} (or show no instrument), on average over draws of the validation frames. It "
            f"holds if new frames are exchangeable with the {self.frames} validation frames: the same mix of "
            "procedures, cameras and scenes, in random order. Frames of a new procedure are not; and epoch and "
            "threshold were chosen with the same validation frames, which flatters it a little"
        )


def dice_bound(quality: ArrayLike, dice: ArrayLike, *, alpha: float = ALPHA, bad_dice: float = BAD_DICE) -> DiceBound:
    """Split conformal lower bound on Dice, with its finite-sample correction.

    The score of a frame is (1 - Dice) / (1 - quality), how many times worse it was than it seemed: residuals
    normalised by a guess of their size (Lei et al. 2018, arXiv:1604.04173). `factor` is the
    ceil((n + 1)(1 - alpha))-th smallest of n. For a further frame exchangeable with these, P(Dice < bound) <= alpha;
    it follows that P(quality >= limit and Dice < bad_dice) <= alpha.

    Frames without a quality (nothing found) are left out: whether something is found is seen without the truth, so
    those with something remain exchangeable. A frame with a quality and without a Dice shows no instrument: what was
    found is false, and its Dice counts as 0. `factor` is NaN where n is too small (9 are needed for alpha 0.1).

    Shapes: quality (N,), dice (N,), NaN where undefined.
    """
    scores, values = _with_score(quality, dice)
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)  # 30 x 0.9 must not become 28
    factor = math.nan
    if rank <= len(scores):
        times_worse = (1 - values) / np.maximum(1 - scores, _SMALLEST_DOUBT)
        factor = float(np.sort(times_worse)[rank - 1])
    return DiceBound(factor, alpha, len(scores), bad_dice)


def _fewest_frames(alpha: float) -> int:
    return math.ceil(1 / alpha - 1 - 1e-9)


def _with_score(quality: ArrayLike, dice: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quality and Dice of the frames in which something was found; false alarms have a Dice of 0."""
    scores, values = np.asarray(quality, np.float64), np.asarray(dice, np.float64)
    if scores.shape != values.shape:
        raise ValueError(f"{len(scores)} qualities but {len(values)} Dice")
    scored = ~np.isnan(scores)
    return scores[scored], np.nan_to_num(values[scored], nan=0.0)


# ------------------------------------------------------------------ how well bad frames are found


@dataclass(frozen=True)
class FailureFinding:
    """How well a score finds bad frames: Dice under `bad_dice`, or something found where no instrument is.

    Of the frames in which something was found; the others have no score and are counted. Undefined is NaN.
    """

    bad_dice: float
    frames: int  # with a score
    bad: int  # of them
    without_score: int  # nothing was found in them
    auroc: float  # that a bad frame has a lower score than a good one; NaN where all are bad, or none
    risk_coverage: tuple[tuple[float, float], ...]  # coverage, rising, and mean of 1 - Dice of the best scored
    aurc: float  # area under it
    aurc_random: float  # of a score that knows nothing: the mean risk
    aurc_best: float  # of a score that knows the Dice
    limits: tuple[float, ...]  # scores under which frames are marked; several where several models were judged
    marked: int
    bad_marked: int
    bad_passed_share: float  # frames that are bad and not marked, of those with a limit
    below_promise_share: float  # frames whose Dice is under what was promised, of those with a promise


def failure_finding(
    score: ArrayLike,
    dice: ArrayLike,
    *,
    limit: ArrayLike = math.nan,
    promised: ArrayLike = math.nan,
    bad_dice: float = BAD_DICE,
) -> FailureFinding:
    """Judge a score (high is good: `quality`, or 1 - `disagreement`) by the Dice that the frames really have.

    `limit` and `promised` are `DiceBound.limit` and `DiceBound.lower(quality)`: one for all frames, or one a frame
    where several models are judged together; NaN where there is none.

    Risk-coverage curve and its area: Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019,
    arXiv:1805.08206. Risk is 1 - Dice, a false alarm's 1. Of frames with equal scores each has their mean risk. The
    curve is thinned to 101 points; the area is the mean over every number of frames kept.

    Shapes: score (N,), dice (N,), NaN where undefined; limit and promised () or (N,).
    """
    scores, values = _with_score(score, dice)
    limits, promises = (_of_scored(score, per_frame) for per_frame in (limit, promised))
    bad = values < bad_dice
    marked = scores < limits  # nothing is where the limit is NaN
    curve = _risks(scores, 1 - values)
    return FailureFinding(
        bad_dice=bad_dice,
        frames=len(scores),
        bad=int(bad.sum()),
        without_score=len(np.asarray(score)) - len(scores),
        auroc=auroc(-scores, bad),
        risk_coverage=_thinned(curve),
        aurc=_mean(curve),
        aurc_random=_mean(1 - values),
        aurc_best=_mean(_risks(values, 1 - values)),
        limits=tuple(np.unique(limits[~np.isnan(limits)]).tolist()),
        marked=int(marked.sum()),
        bad_marked=int((marked & bad).sum()),
        bad_passed_share=_mean((bad & ~marked)[~np.isnan(limits)]),
        below_promise_share=_mean((values < promises)[~np.isnan(promises)]),
    )


def _of_scored(score: ArrayLike, per_frame: ArrayLike) -> NDArray[np.float64]:
    """One value for each frame that has a score."""
    scores = np.asarray(score, np.float64)
    return np.broadcast_to(np.asarray(per_frame, np.float64), scores.shape)[~np.isnan(scores)]


def _risks(scores: NDArray[np.float64], risk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean risk of the k frames of the highest scores. Shapes: (N,), (N,) -> (N,), k = 1 to N."""
    _, tied, count = np.unique(-scores, return_inverse=True, return_counts=True)  # 0 is the highest score
    shared = np.bincount(tied, weights=risk, minlength=len(count)) / count
    return np.repeat(shared, count).cumsum() / np.arange(1, len(scores) + 1)


def _thinned(curve: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    if not len(curve):
        return ()
    chosen = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return tuple((float(index + 1) / len(curve), float(curve[index])) for index in chosen)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan
