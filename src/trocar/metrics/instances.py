"""Whether each instrument is found by itself: matching, panoptic quality, detection F1, Dice and NSD of each one.

Instances are index arrays: 0 background, any other number one instrument; numbers of prediction and truth need not
agree. For models that predict no instances, `connected_instances` takes the connected pieces of a mask for them: two
instruments that touch are then one, and one that another crosses is two. Covers one image, whose counts add up;
averaging and what a report says of it are elsewhere. Undefined is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trocar.data.records import IGNORE, MaskArray
from trocar.metrics.boundary import Distances, Edge, boundary_distances
from trocar.metrics.overlap import BoolArray, _all_bool, _same_shape

InstanceArray: TypeAlias = NDArray[np.integer[Any]]  # (H, W), 0 background, each instrument a number above 0

_IGNORED_SHARE = 0.5  # a false instance of which more than this is ignored does not count (panopticapi's rule)
_COUNTABLE = 1 << 16  # numbers below this are looked up in a table; higher ones, as of colours, are sorted


@dataclass(frozen=True)
class InstanceCounts:
    """Instances of one image (or, added up, of many), and the ratios that follow from them."""

    found: int  # matched pairs
    false: int  # predicted, matched with none
    missed: int  # true, matched with none
    summed_iou: float  # of the matched pairs

    def __add__(self, other: InstanceCounts) -> InstanceCounts:
        return InstanceCounts(
            self.found + other.found,
            self.false + other.false,
            self.missed + other.missed,
            self.summed_iou + other.summed_iou,
        )

    @property
    def detection_f1(self) -> float:
        """2 found / (2 found + false + missed), 0 to 1; NaN where there is no instance at all."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else math.nan

    @property
    def recognition_quality(self) -> float:
        """RQ, the first factor of panoptic quality: another name of the detection F1."""
        return self.detection_f1

    @property
    def segmentation_quality(self) -> float:
        """SQ, the second factor: mean IoU of the matched pairs, 0 to 1; NaN where none is matched."""
        return self.summed_iou / self.found if self.found else math.nan

    @property
    def panoptic_quality(self) -> float:
        """PQ = RQ x SQ (Kirillov et al. 2019, arXiv:1801.00868), 0 to 1; NaN where there is no instance at all."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.summed_iou / total if total else math.nan


class Match(NamedTuple):
    """A true instance and the predicted one that was matched with it."""

    pred: int  # its number in the prediction
    target: int  # its number in the truth
    iou: float
    dice: float


@dataclass(frozen=True, eq=False)
class InstanceScores(InstanceCounts):
    """How the instances of one image were found. Keeps the arrays it was made of, for `nsd`: hold it no longer."""

    matches: tuple[Match, ...]  # by the number of the true instance, rising
    _arrays: tuple[InstanceArray, InstanceArray, BoolArray | None] = field(repr=False)

    @property
    def dice(self) -> float:
        """Mean Dice over the true instances, missed ones 0; NaN where there is none. False ones do not count here."""
        return self._over_true([match.dice for match in self.matches])

    def nsd(self, tolerance: float, spacing: tuple[float, float] | None = None, edge: Edge = "closed") -> float:
        """Mean normalised surface Dice over the true instances at a tolerance, missed ones 0.

        In px, or in mm where `spacing` says how high and wide a pixel is.

        NaN where there is none. A pair of which no known contour is left beside ignored pixels is left out.
        """
        scores = [distances.surface_dice(tolerance) for distances in self._distances(spacing, edge)]
        return self._over_true([score for score in scores if not math.isnan(score)])

    def _over_true(self, scores: list[float]) -> float:
        total = len(scores) + self.missed
        return sum(scores) / total if total else math.nan

    def _distances(self, spacing: tuple[float, float] | None, edge: Edge) -> list[Distances]:
        pred, target, ignore = self._arrays
        return [
            boundary_distances(pred == match.pred, target == match.target, ignore, spacing=spacing, edge=edge)
            for match in self.matches
        ]


def match_instances(
    pred: InstanceArray, target: InstanceArray, ignore: BoolArray | None = None, *, iou: float = 0.5
) -> InstanceScores:
    """Match each true instance with at most one predicted one, where their IoU is above `iou`.

    Of all ways to do so it is the one of the highest summed IoU (Hungarian method, Kuhn 1955,
    doi:10.1002/nav.3800020109). From 0.5 up there is only one way; 0 matches whatever overlaps. Panoptic quality as
    published takes 0.5, the default.

    Pixels where `ignore` is True belong to no instance, and instances that lie on them alone do not count. As in the
    authors' code, neither does an unmatched prediction more than half of which is ignored.

    Shapes: pred, target (H, W) numbers of instances, 0 background; ignore (H, W).
    """
    if not 0 <= iou < 1:
        raise ValueError(f"an IoU of {iou}; it must be from 0 to below 1")
    _check(pred, target, ignore)
    table = _joint_counts(pred, target, ignore)
    true, predicted = table.known.sum(axis=1), table.known.sum(axis=0)
    found = table.known[1:, 1:]
    summed = true[1:, None] + predicted[None, 1:]
    quality = np.divide(found, summed - found, out=np.zeros(found.shape), where=found > 0)
    allowed = np.where(quality > iou, quality, 0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    kept = allowed[rows, columns] > 0
    rows, columns = rows[kept], columns[kept]
    mostly_ignored = table.ignored > _IGNORED_SHARE * (predicted + table.ignored)
    unmatched = (predicted > 0) & ~mostly_ignored
    unmatched[0] = False
    unmatched[columns + 1] = False
    matches = tuple(
        Match(
            pred=int(table.pred[column + 1]),
            target=int(table.target[row + 1]),
            iou=float(quality[row, column]),
            dice=float(2 * found[row, column] / summed[row, column]),
        )
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    )
    return InstanceScores(
        found=len(matches),
        false=int(np.count_nonzero(unmatched)),
        missed=int(np.count_nonzero(true[1:])) - len(matches),
        summed_iou=math.fsum(match.iou for match in matches),
        matches=matches,
        _arrays=(pred, target, ignore),
    )


def connected_instances(mask: BoolArray | MaskArray, min_pixels: int = 1) -> NDArray[np.int32]:
    """Number the connected pieces of a mask from 1, leaving out those of fewer than `min_pixels` pixels.

    Pixels that touch by a corner are connected. Of class indices, any class but the background is instrument, so that
    an instrument's parts make one piece, and 255 is none; for the pieces of one class give `mask == index`.

    Shapes: mask (H, W), True = instrument, or uint8 class indices -> (H, W), 0 background.
    """
    if mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask of {mask.dtype}; give booleans or uint8 class indices")
    instrument = mask if mask.dtype == np.bool_ else (mask != 0) & (mask != IGNORE)
    pieces, numbers, figures, _ = cv2.connectedComponentsWithStats(instrument.view(np.uint8), connectivity=8)
    large = figures[:, cv2.CC_STAT_AREA] >= min_pixels
    large[0] = False
    renumbered = np.zeros(pieces, np.int32)
    renumbered[large] = np.arange(1, np.count_nonzero(large) + 1)
    instances: NDArray[np.int32] = renumbered[numbers]
    return instances


class _Joint(NamedTuple):
    """Pixels by true and predicted instance. Row and column 0 are the background."""

    known: NDArray[np.int64]  # (T + 1, P + 1)
    ignored: NDArray[np.int64]  # (P + 1,) of a predicted instance, on ignored pixels
    target: NDArray[np.int64]  # (T + 1,) numbers in the truth
    pred: NDArray[np.int64]  # (P + 1,) numbers in the prediction


def _joint_counts(pred: InstanceArray, target: InstanceArray, ignore: BoolArray | None) -> _Joint:
    """One histogram over pairs of numbers, of the pixels where either has an instance."""
    places = np.flatnonzero((pred != 0) | (target != 0))
    of_pred, pred_numbers = consecutive(pred.ravel()[places])
    of_target, target_numbers = consecutive(target.ravel()[places])
    width = len(pred_numbers)

    def histogram(pixels: NDArray[np.bool_] | slice) -> NDArray[np.int64]:
        pairs = of_target[pixels] * width + of_pred[pixels]
        return np.bincount(pairs, minlength=len(target_numbers) * width).reshape(-1, width)

    if ignore is None:
        return _Joint(histogram(slice(None)), np.zeros(width, np.int64), target_numbers, pred_numbers)
    unknown = ignore.ravel()[places]
    return _Joint(histogram(~unknown), histogram(unknown).sum(axis=0), target_numbers, pred_numbers)


def consecutive(values: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values as places in the rising list of those that occur, and that list, which begins with 0."""
    if values.max(initial=0) < _COUNTABLE:  # many times faster than sorting
        occurring = np.bincount(values.astype(np.intp), minlength=1) > 0
        occurring[0] = True
        return (np.cumsum(occurring) - 1)[values], np.flatnonzero(occurring)
    numbers, places = np.unique(np.append(values, 0), return_inverse=True)
    return places[:-1], numbers.astype(np.int64)


def _check(pred: InstanceArray, target: InstanceArray, ignore: BoolArray | None) -> None:
    _same_shape(pred, target)
    for array in (pred, target):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"instances of {array.dtype}; give whole numbers, 0 for background")
        if np.issubdtype(array.dtype, np.signedinteger) and array.size and array.min() < 0:
            raise ValueError(f"an instance is numbered {array.min()}; numbers must be above 0, background 0")
    if ignore is not None:
        _same_shape(ignore, target)
        _all_bool(ignore)
