"""Overlap of a predicted mask with the true one, and the choice of a threshold by it.

Everything here is a ratio of counts of pixels: found, falsely found, missed, rightly not predicted. It covers one image
at one size; averaging, intervals and what a report says of frames without instrument are elsewhere. Undefined is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, MaskArray

BoolArray: TypeAlias = NDArray[np.bool_]

THRESHOLDS: tuple[float, ...] = tuple(percent / 100 for percent in range(5, 96))  # 0.05, 0.06 ... 0.95


@dataclass(frozen=True)
class Counts:
    """Pixels of one class in one image (or, added up, in many), and the ratios that follow from them."""

    found: int  # predicted and true
    false: int  # predicted, not true
    missed: int  # true, not predicted
    ignored: int = 0  # left out, as the truth says 255 there
    rejected: int = 0  # neither predicted nor true

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.found + other.found,
            self.false + other.false,
            self.missed + other.missed,
            self.ignored + other.ignored,
            self.rejected + other.rejected,
        )

    @property
    def predicted(self) -> int:
        """Pixels predicted as this class, ignored ones not among them."""
        return self.found + self.false

    @property
    def true(self) -> int:
        """Pixels that are this class in truth."""
        return self.found + self.missed

    @property
    def dice(self) -> float:
        """2 |P and T| / (|P| + |T|), 0 to 1; NaN where both are empty."""
        return _ratio(2 * self.found, self.predicted + self.true)

    @property
    def jaccard(self) -> float:
        """|P and T| / |P or T|, 0 to 1; NaN where both are empty."""
        return _ratio(self.found, self.found + self.false + self.missed)

    @property
    def precision(self) -> float:
        """Share of the predicted pixels that are true, 0 to 1; NaN where nothing is predicted."""
        return _ratio(self.found, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the true pixels that are predicted, 0 to 1; NaN where nothing is true."""
        return _ratio(self.found, self.true)

    @property
    def specificity(self) -> float:
        """Share of the pixels that are not true that are not predicted, 0 to 1; NaN where every pixel is true."""
        return _ratio(self.rejected, self.rejected + self.false)

    @property
    def accuracy(self) -> float:
        """Share of all counted pixels that are right, 0 to 1; NaN where every pixel is ignored."""
        right = self.found + self.rejected
        return _ratio(right, right + self.false + self.missed)


def counts(pred: BoolArray, target: BoolArray, ignore: BoolArray | None = None) -> Counts:
    """Count one class. Pixels where `ignore` is True count nowhere, whatever was predicted there.

    Shapes: pred, target, ignore (H, W), True = the class, at the image's own size.
    """
    _same_shape(pred, target)
    _all_bool(pred, target)
    if ignore is not None:
        _same_shape(ignore, target)
        _all_bool(ignore)
        pred, target = pred & ~ignore, target & ~ignore
    found = int(np.count_nonzero(pred & target))
    false = int(np.count_nonzero(pred)) - found
    missed = int(np.count_nonzero(target)) - found
    ignored = 0 if ignore is None else int(np.count_nonzero(ignore))
    return Counts(found, false, missed, ignored, rejected=target.size - ignored - found - false - missed)


@dataclass(frozen=True, eq=False)
class JointCounts:
    """How many pixels of one image have each pair of predicted and true value: counts of every class follow.

    Pixels that the target marks 255 are left out of all but `ignored`. A prediction of 255 is no class: on a counted
    pixel it is a miss of the true class and false nowhere.
    """

    table: NDArray[np.int64]  # (256, 256): predicted value, true value

    def of_class(self, index: int) -> Counts:
        """One class against all else."""
        known = self.table[:, :IGNORE]
        found = int(known[index, index])
        return self._counts(found, int(known[index].sum()) - found, int(known[:, index].sum()) - found)

    @property
    def instrument(self) -> Counts:
        """Any class but the background, as one."""
        found = int(self.table[1:IGNORE, 1:IGNORE].sum())
        false = int(self.table[1:IGNORE, 0].sum())
        return self._counts(found, false, int(self.table[:, 1:IGNORE].sum()) - found)

    def _counts(self, found: int, false: int, missed: int) -> Counts:
        ignored = int(self.table[:, IGNORE].sum())
        return Counts(found, false, missed, ignored, int(self.table.sum()) - ignored - found - false - missed)


def joint_counts(pred: MaskArray, target: MaskArray) -> JointCounts:
    """Count all pairs of values in one pass over what of the image is not background in both.

    Shapes: pred, target (H, W), uint8 class indices.
    """
    _same_shape(pred, target)
    if pred.dtype != np.uint8 or target.dtype != np.uint8:
        raise ValueError(f"class indices are uint8, not {pred.dtype} and {target.dtype}")
    left, top, width, height = cv2.boundingRect(pred | target)
    table = np.zeros((256, 256), np.int64)
    step = max(1, _EXACT_PIXELS // max(width, 1))
    for row in range(top, top + height, step):
        window = np.s_[row : min(row + step, top + height), left : left + width]
        planes = [np.ascontiguousarray(mask[window]) for mask in (pred, target)]
        table += cv2.calcHist(planes, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    table[0, 0] += pred.size - width * height
    return JointCounts(table)


_EXACT_PIXELS = 2**24  # OpenCV gives its counts as float32


def class_counts(pred: MaskArray, target: MaskArray, class_count: int) -> list[Counts]:
    """Counts of every class index from 0 (background), pixels that the target marks 255 left out.

    A prediction of 255 is no class: on a counted pixel it is a miss of the true class and false nowhere.

    Shapes: pred, target (H, W), uint8 class indices.
    """
    joint = joint_counts(pred, target)
    return [joint.of_class(index) for index in range(class_count)]


def instrument_counts(pred: MaskArray, target: MaskArray) -> Counts:
    """Counts of any class but the background, as one. Shapes: pred, target (H, W), uint8 class indices."""
    return joint_counts(pred, target).instrument


def dice(pred: BoolArray, target: BoolArray) -> float:
    """Overlap of two masks: 2 |P and T| / (|P| + |T|), from 0 to 1.

    Dice 1945, doi:10.2307/1932409. Two empty masks give NaN, not 1: nothing was there to
    find, so the report counts those images on their own line and leaves them out of the mean.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).dice


def jaccard(pred: BoolArray, target: BoolArray) -> float:
    """Intersection over union: |P and T| / |P or T|, from 0 to 1; equals D / (2 - D) of Dice D in every image.

    Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x. Two empty masks give NaN, as for `dice`. The mean over
    images is not D / (2 - D) of the mean Dice.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).jaccard


def precision(pred: BoolArray, target: BoolArray) -> float:
    """Share of the predicted pixels that are true, from 0 to 1; NaN for an empty prediction.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).precision


def recall(pred: BoolArray, target: BoolArray) -> float:
    """Share of the true pixels that are predicted, from 0 to 1; NaN for an empty truth.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).recall


def specificity(pred: BoolArray, target: BoolArray) -> float:
    """Share of the pixels that are not true that are not predicted, from 0 to 1; NaN where every pixel is true.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).specificity


def accuracy(pred: BoolArray, target: BoolArray) -> float:
    """Share of the pixels that are right, instrument and background alike, from 0 to 1.

    Shapes: pred, target (H, W), True = instrument, at the image's own size.
    """
    return counts(pred, target).accuracy


def threshold_sweep(
    probability: NDArray[Any], truth: MaskArray, thresholds: Sequence[float] = THRESHOLDS
) -> NDArray[np.float64]:
    """Dice of `probability >= threshold` at every threshold, in one pass over the pixels.

    Equal to thresholding and calling `dice` at each: thresholds are compared in the probabilities' own precision, as
    `array >= number` does; uint8 stands for probability / 255. A truth without instrument gives NaN throughout, also
    where something is predicted: no threshold improves the Dice of such a frame, and reports hold it apart.

    Shapes: probability (H, W), float or uint8; truth (H, W), uint8, 0 background, 255 ignore, else instrument;
    thresholds (T,), rising -> (T,).
    """
    _same_shape(probability, truth)
    if np.any(np.diff(thresholds) <= 0):
        raise ValueError("thresholds must rise")
    counted = truth != IGNORE
    values, target = probability[counted], truth[counted] != 0
    if not target.any():
        return np.full(len(thresholds), math.nan)
    true_at = _at_or_above(values[target], thresholds)
    false_at = _at_or_above(values[~target], thresholds)
    return 2 * true_at / (true_at + false_at + np.count_nonzero(target))


def best_threshold(
    sweeps: Sequence[NDArray[np.float64]], thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """The threshold of the highest mean Dice over images, and that mean.

    `sweeps` holds what `threshold_sweep` gave for each image; images of NaN (no instrument) are left out. Of equally
    good thresholds the one nearest 0.5 wins, then the lower. Without any image that counts: (0.5, NaN).

    Shapes: sweeps N x (T,), thresholds (T,).
    """
    table = np.asarray(sweeps, np.float64).reshape(len(sweeps), len(thresholds))
    table = table[~np.isnan(table).any(axis=1)]
    if not len(table):
        return 0.5, math.nan
    means = table.mean(axis=0)
    as_good = np.flatnonzero(means >= means.max() - 1e-12).tolist()  # sums of equal Dice may differ in the last bit
    index = min(as_good, key=lambda i: (round(abs(thresholds[i] - 0.5), 9), thresholds[i]))
    return float(thresholds[index]), float(means[index])


def _at_or_above(values: NDArray[Any], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """How many values are >= each threshold. Shapes: values (P,), thresholds (T,) -> (T,)."""
    if values.dtype == np.uint8:
        levels = np.bincount(values, minlength=256)
        return np.array([levels[np.arange(256) / 255 >= threshold].sum() for threshold in thresholds], np.int64)
    if np.isnan(values).any():
        raise ValueError("probabilities hold NaN")
    passed = np.searchsorted(np.asarray(thresholds, values.dtype), values, side="right")  # thresholds <= value
    histogram = np.bincount(passed, minlength=len(thresholds) + 1)
    return histogram[::-1].cumsum()[::-1][1:].astype(np.int64)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _same_shape(pred: NDArray[Any], target: NDArray[Any]) -> None:
    if pred.shape != target.shape:
        raise ValueError(f"pred is {pred.shape} but target is {target.shape}; metrics do not broadcast")


def _all_bool(*masks: NDArray[Any]) -> None:
    for mask in masks:
        if mask.dtype != np.bool_:
            raise ValueError(f"a mask of {mask.dtype} is ambiguous (0/1? 0/255? 255 ignored?); give booleans")
