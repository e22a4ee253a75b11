"""How good a score could be: the truth against itself, moved by a few pixels.

Two people who outline one instrument differ by a pixel or more. A model that agreed with one of them perfectly would
still score below 1 against the other, by about as much as the truth scores against itself moved as far. Differences
between models that are smaller than that gap are below what the labels can tell. It is a yardstick, not a bound: people
also differ in what they take for instrument, and a model can learn one person's habits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, MaskArray
from trocar.metrics.boundary import Edge, boundary_distances
from trocar.metrics.overlap import counts

BoolArray: TypeAlias = NDArray[np.bool_]

SHIFTS_PX = (1, 2, 3, 5)
DIRECTIONS = ((0, 1), (1, 0))  # (rows, columns): right, down; left and up score the same but at the border


def noise_ceiling(
    truth: MaskArray,
    shifts: Sequence[int] = SHIFTS_PX,
    *,
    tolerance: float = 2.0,
    spacing: tuple[float, float] | None = None,
    edge: Edge = "closed",
) -> dict[int, tuple[float, float]]:
    """(Dice, NSD at `tolerance`) of the instruments against themselves moved by each number of pixels.

    The tolerance is in px, or in mm where `spacing` says how high and wide a pixel is.

    Mean over moving right and down: moving back scores the same, as both metrics are symmetric. Where an instrument
    leaves the frame it is taken to go on as it meets the border, so that moving it inwards opens no gap. Ignored
    pixels stay where they are and count for nothing. NaN where no instrument is.

    Shapes: truth (H, W) class indices at the image's own size, 255 ignored.
    """
    instrument = (truth != 0) & (truth != IGNORE)
    if not instrument.any():
        return dict.fromkeys(shifts, (math.nan, math.nan))
    left, top, width, height = cv2.boundingRect(instrument.view(np.uint8))
    margin = max(shifts) + 1
    window = np.s_[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin]
    target, ignore = instrument[window], truth[window] == IGNORE
    unknown = ignore if ignore.any() else None
    return {shift: _against_itself(target, unknown, shift, tolerance, spacing, edge) for shift in shifts}


def _against_itself(
    target: BoolArray,
    ignore: BoolArray | None,
    shift: int,
    tolerance: float,
    spacing: tuple[float, float] | None,
    edge: Edge,
) -> tuple[float, float]:
    moved = [_moved(target, shift * rows, shift * columns) for rows, columns in DIRECTIONS]
    dice = [counts(pred, target, ignore).dice for pred in moved]
    nsd = [
        boundary_distances(pred, target, ignore, spacing=spacing, edge=edge).surface_dice(tolerance) for pred in moved
    ]
    return sum(dice) / len(dice), sum(nsd) / len(nsd)


def _moved(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    """The mask moved down and right, the border's pixels repeated where nothing was."""
    height, width = mask.shape
    beyond = (max(rows, 0), max(-rows, 0), max(columns, 0), max(-columns, 0))
    wide = cv2.copyMakeBorder(mask.view(np.uint8), *beyond, cv2.BORDER_REPLICATE)
    return np.asarray(wide[beyond[1] : beyond[1] + height, beyond[3] : beyond[3] + width] != 0)
