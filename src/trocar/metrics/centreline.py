"""Whether thin tools are followed over their whole length: clDice, the overlap of centre lines with masks.

A needle or a suction tube of a few pixels' width can lose a third of its length, or break in two, and keep a fair
Dice where a thick shaft is in the same image. Centre lines weigh every stretch alike, however thick it is there. Covers
one class in one image; averaging and what a report says of it are elsewhere.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from skimage.morphology import skeletonize

from trocar.metrics.overlap import BoolArray, _all_bool, _same_shape


def centreline_dice(pred: BoolArray, target: BoolArray, ignore: BoolArray | None = None) -> float:
    """clDice: harmonic mean of two shares of centre line, from 0 to 1 (Shit et al. 2021, arXiv:2003.07311).

    The shares are that of the prediction's centre line which lies in the true mask, and that of the truth's which lies
    in the predicted mask. Centre lines are scikit-image's thinning (Zhang and Suen 1984, doi:10.1145/357994.358023), as
    in the authors' code; it favours some directions, so a turned pair scores a little differently. Pixels where
    `ignore` is True belong to neither mask: what an ignored strip cuts in two has two centre lines. NaN where both
    masks are empty, 0 where one is or where neither centre line meets the other mask.

    Shapes: pred, target, ignore (H, W), True = the class, at the image's own size.
    """
    for mask in (pred, target) if ignore is None else (pred, target, ignore):
        _same_shape(mask, target)
        _all_bool(mask)
    if ignore is not None:
        pred, target = pred & ~ignore, target & ~ignore
    if not (pred.any() or target.any()):
        return math.nan
    if not (pred.any() and target.any()):
        return 0.0
    precision, sensitivity = _share_of_centreline(pred, target), _share_of_centreline(target, pred)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _share_of_centreline(mask: BoolArray, other: BoolArray) -> float:
    """How much of the centre line of a mask, which is not empty, lies in the other."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = slice(top, top + height), slice(left, left + width)  # thinning pays for every pixel
    line = skeletonize(mask[box], method="zhang")  # type: ignore[no-untyped-call]
    return int(np.count_nonzero(line & other[box])) / int(np.count_nonzero(line))
