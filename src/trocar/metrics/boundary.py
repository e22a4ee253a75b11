"""How far the outline of a predicted mask lies from the true one: NSD, Hausdorff, average distance, boundary IoU.

Contours follow DeepMind's surface-distance (Nikolov et al. 2018, arXiv:1809.04430): an element of contour lies on each
corner between four pixels that are not all alike, and weighs as long as the line that runs through it. Distances go
from element to element, exactly. One class in one image; averaging and what a report says of it are elsewhere.

Where a mask reaches the edge of the image, `edge="closed"`, the default, takes the edge for contour: as
surface-distance does, so that figures compare, and a prediction that ends one pixel short of the edge is one pixel off.
`edge="open"` counts only contour that can be seen: where both masks leave the frame nothing is matched for free, but
one that ends a pixel short is off by as much as half the instrument's width. `docs/metrics.md` has the rules in full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.metrics.overlap import BoolArray, _all_bool, _same_shape, counts

FloatArray: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]
Indices: TypeAlias = NDArray[np.intp]
Edge: TypeAlias = Literal["closed", "open"]
Box: TypeAlias = tuple[int, int, int, int]  # top, left, bottom, right; the last two not included

BOUNDARY_SHARE = 0.02  # of the image's diagonal: the width of the band of boundary IoU (Cheng et al. 2021)
_HAIR = 1e-9  # share of a tolerance: 3 pixels of 0.1 mm are within 0.3 mm, though 3 x 0.1 > 0.3 in floating point


@dataclass(frozen=True, eq=False)
class Distances:
    """Distance of each contour element to the other contour, and its length, in px (mm where a spacing was given).

    Nearest first; infinite where there is no other contour. The figures that follow are NaN where they are undefined.
    """

    pred: FloatArray  # (P,) from elements of the prediction to the truth
    pred_lengths: FloatArray
    target: FloatArray  # (T,) from elements of the truth to the prediction
    target_lengths: FloatArray

    def surface_dice(self, tolerance: float) -> float:
        """Normalised surface Dice (NSD): share of both contours no further than this from the other, 0 to 1.

        NaN where neither mask has a contour; 0 where one has none.
        """
        if not (tolerance >= 0 and math.isfinite(tolerance)):
            raise ValueError(f"a tolerance of {tolerance}; it must be finite and not below 0")
        within = tolerance * (1 + _HAIR)
        near = sum(
            float(lengths[: np.searchsorted(distances, within, side="right")].sum())
            for distances, lengths in self._directions
        )
        total = sum(float(lengths.sum()) for _, lengths in self._directions)
        return near / total if total else math.nan

    def hausdorff(self, percent: float = 100) -> float:
        """The larger of the two directed distances within which this share of the contour's length lies.

        100 is the Hausdorff distance, 95 is HD95. No percentile is interpolated. NaN where either mask has no contour.
        """
        if not 0 < percent <= 100:
            raise ValueError(f"a percentile of {percent}; it must be above 0 and not above 100")
        return self._defined(max(_percentile(*pair, percent) for pair in self._counted) if self._counted else math.nan)

    @property
    def average(self) -> float:
        """Average symmetric surface distance: mean over the length of both contours. NaN where either is missing."""
        total = sum(float(lengths.sum()) for _, lengths in self._counted)
        return self._defined(sum(float(far @ lengths) for far, lengths in self._counted) / total if total else math.nan)

    @property
    def _directions(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        return (self.pred, self.pred_lengths), (self.target, self.target_lengths)

    @property
    def _counted(self) -> list[tuple[FloatArray, FloatArray]]:
        return [(distances, lengths) for distances, lengths in self._directions if len(distances)]

    @staticmethod
    def _defined(value: float) -> float:
        return value if math.isfinite(value) else math.nan


def boundary_distances(
    pred: BoolArray,
    target: BoolArray,
    ignore: BoolArray | None = None,
    *,
    spacing: tuple[float, float] | None = None,
    edge: Edge = "closed",
) -> Distances:
    """Distances between the contours of two masks, from which NSD, Hausdorff and average distance follow.

    `spacing` is the height and width of a pixel in mm. Pixels where `ignore` is True belong to neither mask, and
    contour that touches them counts for nothing, as nobody knows where it runs. It can still be what the other contour
    is near to: the true one lies no nearer.

    Shapes: pred, target, ignore (H, W), True = the class, at the image's own size.
    """
    _check(pred, target, ignore)
    if spacing is not None and not all(side > 0 and math.isfinite(side) for side in spacing):
        raise ValueError(f"a spacing of {spacing}; height and width of a pixel in mm must be above 0")
    masks = (pred, target) if ignore is None else (pred & ~ignore, target & ~ignore)
    box = _box_of(*masks)
    height, width = (1.0, 1.0) if spacing is None else spacing
    unknown = None if ignore is None else _corners(_cut(ignore, box))
    contours = [_Contour.of(mask, box, unknown, (height, width), edge) for mask in masks]
    (of_pred, of_target), ratio = contours, height / width
    far_pred, lengths_pred = of_pred.sorted_by(of_target, ratio, width)
    far_target, lengths_target = of_target.sorted_by(of_pred, ratio, width)
    return Distances(far_pred, lengths_pred, far_target, lengths_target)


def boundary_iou(
    pred: BoolArray,
    target: BoolArray,
    ignore: BoolArray | None = None,
    *,
    width_px: int | None = None,
    edge: Edge = "closed",
) -> float:
    """Intersection over union of the inner rims of two masks, 0 to 1 (Cheng et al. 2021, arXiv:2103.16562).

    A rim is what of a mask lies within `width_px` of a pixel outside it, counted as a king walks, as in the authors'
    code; by default 2 % of the image's diagonal, rounded, at least 1. What is ignored is in no rim and makes none.
    NaN where both masks are empty.

    Shapes: pred, target, ignore (H, W), True = the class, at the image's own size.
    """
    whole = counts(pred, target, ignore)
    if not whole.predicted + whole.true:
        return math.nan
    reach = max(1, round(BOUNDARY_SHARE * math.hypot(*target.shape))) if width_px is None else width_px
    if reach < 1:
        raise ValueError(f"a rim of {reach} px; it must be at least 1")
    left, top, across, down = cv2.boundingRect((pred | target).view(np.uint8))
    # What lies further from both masks than the rim is wide makes no rim.
    window = np.s_[max(top - reach, 0) : top + down + reach, max(left - reach, 0) : left + across + reach]
    unknown = None if ignore is None else ignore[window]
    rims = [_rim(mask[window], unknown, reach, edge) for mask in (pred, target)]
    return counts(rims[0], rims[1], unknown).jaccard


@dataclass(frozen=True, eq=False)
class _Contour:
    """Elements of one contour on the grid of corners of the window both masks are cut to."""

    rows: Indices  # rising
    columns: Indices  # rising within a row
    lengths: FloatArray  # 0: what is ignored touches it

    @classmethod
    def of(cls, mask: BoolArray, box: Box, unknown: Bytes | None, spacing: tuple[float, float], edge: Edge) -> _Contour:
        codes = _corners(_cut(mask, box))
        if edge == "open":
            _clear_edge(codes, box, mask.shape)
        grid = codes - np.uint8(1) < np.uint8(14)  # 0 wraps round to 255: neither no pixel nor all four
        rows, columns = np.divmod(np.flatnonzero(grid), grid.shape[1])
        lengths = _lengths(*spacing)[codes[rows, columns]]
        if unknown is not None:
            lengths[unknown[rows, columns] != 0] = 0
        return cls(rows, columns, lengths)

    def sorted_by(self, other: _Contour, ratio: float, width: float) -> tuple[FloatArray, FloatArray]:
        """Distances to another contour, rising, and lengths in that order; elements that count for nothing are out."""
        counted = self.lengths > 0
        rows, columns, lengths = self.rows[counted], self.columns[counted], self.lengths[counted]
        if not len(rows) or not len(other.rows):
            return np.full(len(rows), math.inf), lengths
        distances = width * _nearest(rows, columns, other.rows, other.columns, ratio)
        order = np.argsort(distances)
        return distances[order], lengths[order]


def nearest_pixel(mask: BoolArray, other: BoolArray) -> FloatArray:
    """Distance of each pixel of a mask to the nearest pixel of another, exact, in px; infinite where there is none.

    Shapes: mask, other (H, W) -> (P,), in the order of `numpy.nonzero(mask)`.
    """
    width = mask.shape[1]
    (rows, columns), (other_rows, other_columns) = (np.divmod(np.flatnonzero(one), width) for one in (mask, other))
    if not len(rows) or not len(other_rows):
        return np.full(len(rows), math.inf)
    return _nearest(rows, columns, other_rows, other_columns, 1.0)


def _nearest(rows: Indices, columns: Indices, other_rows: Indices, other_columns: Indices, ratio: float) -> FloatArray:
    """Distance of points to the nearest of others, in widths of a cell that is `ratio` times as high.

    The others' rows rise, and within a row their columns.

    Looks in each point's own row first, then in the rows 1, 2, ... above and below, until none can be nearer: as much
    work as the distances are long, where a distance transform pays for every pixel. Squares are whole numbers where
    ratio is 1, so nothing is rounded before the root.

    Shapes: rows, columns (P,), others (Q,) -> (P,).
    """
    lowest, rightmost = (
        max(int(ends[0].max()), int(ends[1].max())) for ends in ((rows, other_rows), (columns, other_columns))
    )
    # Rows are laid end to end so far apart that what a search finds in another row is further than anything can be.
    apart = math.ceil(2 * (math.hypot(ratio * lowest, rightmost) + rightmost + 1))
    places = np.concatenate(([-apart * (lowest + 2)], other_rows * apart + other_columns, [2 * apart * (lowest + 2)]))

    def squares_in_row(points: Indices) -> FloatArray:
        after = places.searchsorted(points)
        aside = np.minimum(places[after] - points, points - places[after - 1])
        return np.square(aside, dtype=np.float64)

    points = rows * apart + columns
    best, active = squares_in_row(points), np.arange(len(points))
    for step in range(1, lowest + 1):
        further = (step * ratio) ** 2
        active = active[best[active] > further]
        if not len(active):
            break
        here = points[active]
        found = squares_in_row(np.concatenate((here - step * apart, here + step * apart)))
        best[active] = np.minimum(best[active], np.minimum(found[: len(here)], found[len(here) :]) + further)
    return np.sqrt(best)


def _percentile(distances: FloatArray, lengths: FloatArray, percent: float) -> float:
    """The least distance within which at least this share of the length lies, as surface-distance takes it."""
    upto = lengths.cumsum()
    position = int(np.searchsorted(upto / upto[-1], percent / 100))
    return float(distances[min(position, len(distances) - 1)])


def _lengths(height: float, width: float) -> FloatArray:
    """Length of contour through a corner, by the pixels around it: 8 top left, 4 top right, 2 and 1 below."""
    diagonal = math.hypot(height, width) / 2
    table = np.full(16, diagonal)  # one pixel, or all but one
    table[[0, 15]] = 0
    table[[0b0011, 0b1100]] = width
    table[[0b0101, 0b1010]] = height
    table[[0b0110, 0b1001]] = 2 * diagonal
    return table


def _corners(window: Bytes) -> Bytes:
    """Which of the four pixels around each inner corner are set. Shapes: (h, w) of 0 and 1 -> (h - 1, w - 1)."""
    pairs = window[:, :-1] << np.uint8(1)
    pairs |= window[:, 1:]
    codes = pairs[:-1] << np.uint8(2)
    codes |= pairs[1:]
    return codes


def _clear_edge(codes: Bytes, box: Box, shape: tuple[int, ...]) -> None:
    """Take away the corners that lie on the edge of the image."""
    top, left, bottom, right = box
    if top < 0:
        codes[0] = 0
    if left < 0:
        codes[:, 0] = 0
    if bottom > shape[0]:
        codes[-1] = 0
    if right > shape[1]:
        codes[:, -1] = 0


def _check(pred: BoolArray, target: BoolArray, ignore: BoolArray | None) -> None:
    masks = (pred, target) if ignore is None else (pred, target, ignore)
    _all_bool(*masks)
    for mask in masks:
        _same_shape(mask, target)


def _box_of(pred: BoolArray, target: BoolArray) -> Box:
    """What encloses both masks, and one pixel around: it may reach over the edge of the image."""
    left, top, width, height = cv2.boundingRect((pred | target).view(np.uint8))
    return top - 1, left - 1, top + height + 1, left + width + 1


def _cut(mask: BoolArray, box: Box) -> Bytes:
    """The pixels of a box as 0 and 1, 0 outside the image."""
    top, left, bottom, right = box
    height, width = mask.shape
    inside = mask[max(top, 0) : bottom, max(left, 0) : right]
    beyond = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)))
    return np.pad(inside, beyond).view(np.uint8)


def _rim(mask: BoolArray, ignore: BoolArray | None, reach: int, edge: Edge) -> BoolArray:
    """What of a mask lies within `reach` of a known pixel outside it."""
    solid = mask if ignore is None else mask | ignore
    around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    beyond = 0 if edge == "closed" else 1
    core = cv2.erode(solid.view(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=beyond)
    rim: BoolArray = mask & (core == 0)
    return rim
