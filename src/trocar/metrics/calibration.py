"""Whether a probability of 0.8 is right eight times in ten, what temperature mends it, and what a threshold costs.

Counts of single frames add up to those of a data set, so nothing here grows with the number of frames. Two classes
only: the probability is that of the instrument. Temperature scaling is for reading probabilities. It never moves a
mask: the threshold stays where it was chosen, in probabilities as the network gives them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, MaskArray
from trocar.metrics.overlap import THRESHOLDS, best_threshold

FloatArray: TypeAlias = NDArray[np.float64]

BINS = 15  # as Guo et al. 2017
LOGIT_BINS = 10_000
LOGIT_RANGE = 50.0  # the outermost bins hold what lies beyond
TEMPERATURES = (0.05, 20.0)


# ------------------------------------------------------------------ reliability


@dataclass(frozen=True)
class ReliabilityBin:
    """The pixels whose probability p lies in low < p <= high (the lowest bin holds 0 too)."""

    low: float
    high: float
    pixels: float
    probability: float  # their mean; NaN where there are none
    true: float  # share of them that is instrument; NaN where there are none


@dataclass(frozen=True)
class Calibration:
    """Reliability of the probabilities of one side, as they come and after temperature scaling. Undefined is NaN."""

    bins: tuple[ReliabilityBin, ...]
    pixels: float
    ece: float
    ece_above_lowest: float  # the lowest bin left out: in nearly every frame it holds most pixels, all background
    temperature: float  # NaN: none is known
    bins_after: tuple[ReliabilityBin, ...]  # empty where no temperature is known
    ece_after: float
    ece_above_lowest_after: float


def reliability_bins(probability: NDArray[Any], truth: MaskArray, bins: int = BINS) -> FloatArray:
    """Count, sum of probability and count of true pixels, by bin of probability; tables of several frames add up.

    Bins are of equal width, closed above (Guo et al. 2017, arXiv:1706.04599). Pixels of 255 are left out. Raises
    `ValueError` for what is no probability.

    Shapes: probability (H, W), 0 to 1; truth (H, W), uint8, 0 background, 255 ignore, else instrument -> (bins, 3).
    """
    if probability.shape != truth.shape:
        raise ValueError(f"probability is {probability.shape} but truth is {truth.shape}; metrics do not broadcast")
    counted = truth != IGNORE
    values, target = probability[counted], truth[counted] != 0
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN fails too
        raise ValueError("probabilities lie from 0 to 1")
    return _table(values, target.astype(np.float64), np.ones(len(values)), bins)


def _table(probability: NDArray[Any], true: FloatArray, count: FloatArray, bins: int) -> FloatArray:
    """Shapes: probability, true, count (N,) -> (bins, 3)."""
    index = np.clip(np.ceil(probability * bins).astype(np.intp) - 1, 0, bins - 1)
    return np.stack(
        [np.bincount(index, weights=weights, minlength=bins) for weights in (count, probability * count, true)], axis=1
    )


def expected_calibration_error(table: FloatArray, *, above_lowest: bool = False) -> float:
    """Mean over pixels of |mean probability - share that is true| of their bin, 0 to 1; NaN without pixels.

    Guo et al. 2017, arXiv:1706.04599, here of the instrument's probability and not of the winning class's.
    `above_lowest` leaves the pixels of the lowest bin out.

    Shapes: table (bins, 3) of `reliability_bins`.
    """
    count, probability, true = table[1 if above_lowest else 0 :].T
    return float(np.abs(probability - true).sum() / count.sum()) if count.sum() else math.nan


def calibration(table: FloatArray, after: FloatArray | None = None, temperature: float = math.nan) -> Calibration:
    """The figures of summed reliability tables: of the probabilities as they come, and of the scaled ones.

    Shapes: table, after (bins, 3) of `reliability_bins` or `reliability_of_logits`.
    """
    scaled = np.zeros((0, 3)) if after is None else after
    return Calibration(
        bins=_bins(table),
        pixels=float(table[:, 0].sum()),
        ece=expected_calibration_error(table),
        ece_above_lowest=expected_calibration_error(table, above_lowest=True),
        temperature=float(temperature),
        bins_after=_bins(scaled),
        ece_after=expected_calibration_error(scaled),
        ece_above_lowest_after=expected_calibration_error(scaled, above_lowest=True),
    )


def _bins(table: FloatArray) -> tuple[ReliabilityBin, ...]:
    edges = np.linspace(0, 1, len(table) + 1).tolist()
    return tuple(
        ReliabilityBin(low, high, count, total / count if count else math.nan, true / count if count else math.nan)
        for (low, high), (count, total, true) in zip(pairwise(edges), table.tolist(), strict=True)
    )


# ------------------------------------------------------------------ temperature


def logit_histogram(logits: NDArray[np.float32], target: NDArray[Any], bins: int = LOGIT_BINS) -> FloatArray:
    """Pixels by logit and truth, and the sum of their logits; histograms of several frames add up.

    From it a temperature is fitted, and reliability at any temperature follows, without the logits themselves: 320 kB
    for any number of frames. A bin is 0.01 wide and knows its mean logit.

    Shapes: logits (h, w); target (h, w), class indices (0 background) or float shares of the instrument, 255 ignore
    -> (2, bins, 2): background and instrument; count and sum of logits.
    """
    if logits.shape != target.shape:
        raise ValueError(f"logits are {logits.shape} but target is {target.shape}; metrics do not broadcast")
    counted = target != IGNORE
    values = logits[counted].astype(np.float64)
    if np.isnan(values).any():
        raise ValueError("logits hold NaN")
    kept = target[counted]
    share = kept.astype(np.float64) if np.issubdtype(kept.dtype, np.floating) else (kept != 0).astype(np.float64)
    place = (np.clip(values, -LOGIT_RANGE, LOGIT_RANGE) + LOGIT_RANGE) * (bins / (2 * LOGIT_RANGE))
    index = np.minimum(place.astype(np.intp), bins - 1)
    return np.stack(
        [
            np.stack([np.bincount(index, weights=w, minlength=bins) for w in (weight, weight * values)], axis=1)
            for weight in (1 - share, share)
        ],
        dtype=np.float64,  # of no pixels, bincount makes integers
    )


def fit_temperature(histogram: FloatArray) -> float:
    """The T for which sigmoid(logit / T) has the least negative log-likelihood. Guo et al. 2017, arXiv:1706.04599.

    One number: the order of the pixels, and with it every mask, stays. Above 1 the network was too sure, below 1 not
    sure enough. NaN where background or instrument is absent, and where no T from 0.05 to 20 is best: logits that
    tell all pixels apart want ever smaller ones, logits that tell nothing ever larger ones.

    Shapes: histogram (2, bins, 2) of `logit_histogram`.
    """
    from scipy.optimize import minimize_scalar  # a third of a second that predicting need not wait for

    count, logit = _counts_and_means(histogram)
    if not count.sum(axis=1).all():
        return math.nan

    def likelihood(log_temperature: float) -> float:  # convex in 1 / T, so it has one minimum in log T too
        background, instrument = logit * math.exp(-log_temperature)
        surprise = count[0] * np.logaddexp(0, background) + count[1] * np.logaddexp(0, -instrument)
        return float(surprise.sum() / count.sum())

    low, high = map(math.log, TEMPERATURES)
    best = float(minimize_scalar(likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    return math.exp(best) if low + 1e-3 < best < high - 1e-3 else math.nan


def reliability_of_logits(histogram: FloatArray, temperature: float = 1.0, bins: int = BINS) -> FloatArray:
    """What `reliability_bins` would count of sigmoid(logit / temperature), from a histogram of the logits.

    Shapes: histogram (2, logit bins, 2) of `logit_histogram` -> (bins, 3).
    """
    count, logit = _counts_and_means(histogram)
    probability = np.exp(-np.logaddexp(0, -logit / temperature))
    true = np.stack([np.zeros_like(count[0]), count[1]])
    return _table(probability.ravel(), true.ravel(), count.ravel(), bins)


def scale_probability(probability: NDArray[Any], temperature: float) -> FloatArray:
    """sigmoid(logit(p) / T): the calibrated probability, for reading.

    It rises with p: a mask stays the same where its threshold is scaled along (`scale_probability` of it). What a
    model stores as its threshold is not scaled.

    Shapes: any, 0 to 1 -> the same.
    """
    values = np.asarray(probability, np.float64)
    yes, no = values ** (1 / temperature), (1 - values) ** (1 / temperature)
    return np.asarray(yes / (yes + no), np.float64)


def _counts_and_means(histogram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shapes: (2, bins, 2) -> count (2, bins), mean logit (2, bins), 0 where there is none."""
    count, total = histogram[..., 0], histogram[..., 1]
    return count, np.divide(total, count, out=np.zeros_like(total), where=count > 0)


# ------------------------------------------------------------------ threshold


@dataclass(frozen=True)
class ThresholdCurve:
    """Mean Dice over the frames of one side at every threshold; NaN throughout where no frame counts."""

    thresholds: tuple[float, ...]  # rising
    dice: tuple[float, ...]
    frames: int  # with an instrument: others have no Dice

    @property
    def best(self) -> tuple[float, float]:
        """The threshold of the highest mean Dice, chosen as `best_threshold` does, and that mean."""
        return best_threshold([np.asarray(self.dice)], self.thresholds)

    def at(self, threshold: float) -> float:
        """Mean Dice at a threshold, linear between two of the curve; NaN outside it."""
        return float(np.interp(threshold, self.thresholds, self.dice, left=math.nan, right=math.nan))

    def cost(self, threshold: float) -> float:
        """How much mean Dice is lost by this threshold against the best one of this very side; 0 or more."""
        return self.best[1] - self.at(threshold)


def threshold_curve(sweeps: Iterable[NDArray[np.float64]], thresholds: Sequence[float] = THRESHOLDS) -> ThresholdCurve:
    """The mean over frames of what `threshold_sweep` gave for each; frames of NaN (no instrument) are left out.

    Shapes: sweeps N x (T,), thresholds (T,).
    """
    total, frames = np.zeros(len(thresholds)), 0
    for sweep in sweeps:
        if not np.isnan(sweep).any():
            total, frames = total + sweep, frames + 1
    mean = total / frames if frames else np.full(len(thresholds), math.nan)
    return ThresholdCurve(tuple(thresholds), tuple(mean.tolist()), frames)
