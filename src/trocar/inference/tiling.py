"""Frames larger than the network's: cut into overlapping tiles at a stated scale, and the answers blended into one.

At scale 1 a tile shows the frame's own pixels, where the whole frame would be shrunk to fit. Tiles lie evenly over the
frame and overlap by a quarter of their side or more. Near an edge that lies inside the frame a network sees its own
padding instead of what is there, so the outermost sixteenth of a tile counts for nothing, and from there the weight
rises along a raised cosine. The weights of all tiles add up to 1 on every pixel; they are products of one weight a row
and one a column. A network whose view is narrower than that rim answers as if it had seen the whole frame.

Of one frame: its size as tiles cover it, and a few tiles at a time, are all that is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import PreprocessSettings
from trocar.data.preprocess import Placement, apply_image_steps, place, resize_as_tensorflow, resize_image
from trocar.data.records import ImageArray
from trocar.errors import UserError

OVERLAP = 1 / 4  # of a tile's side, at least
RIM = 1 / 16  # of a tile's side: of no weight at an edge inside the frame
TILES_AT_ONCE = 4
MAX_SCALE = 8.0

_LEAST = 1.2e-7  # probability; 1 less it is below 1 in float32

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Axis:
    """Where tiles begin along one side of the frame, and what each of their pixels weighs there."""

    length: int  # of the frame, as it is cut
    tile: int  # of a tile; of the frame where that is shorter
    starts: tuple[int, ...]
    weights: tuple[FloatArray, ...]  # one a tile, of `tile` values


@dataclass(frozen=True, eq=False)
class Grid:
    """The tiles of frames of one size."""

    placement: Placement  # of the whole frame at the scale of the tiles
    network_hw: tuple[int, int]
    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def tile_placement(self) -> Placement:
        """Of every tile in its network frame: narrower where the frame is."""
        tile_hw = (self.rows.tile, self.columns.tile)
        return Placement(tile_hw, self.network_hw, *tile_hw)


def checked_scale(scale: float | None) -> float | None:
    """The scale of the tiles; None: no tiles. Raises `UserError` where it is none."""
    if scale is not None and not 0 < scale <= MAX_SCALE:
        raise UserError(
            f"tiles at a scale of {scale}", mend=f"give a number above 0 and up to {MAX_SCALE:g}; 1 is native"
        )
    return scale


def plan(native_hw: tuple[int, int], scale: float, settings: PreprocessSettings) -> Grid | None:
    """The tiles of a frame of this size; None where at this scale it fits into the network's frame as it is."""
    height, width = (max(1, round(side * scale)) for side in native_hw)
    network_height, network_width = settings.size_hw
    if height <= network_height and width <= network_width:
        return None
    whole = Placement(native_hw, (height, width), height, width)
    return Grid(whole, settings.size_hw, _axis(height, network_height), _axis(width, network_width))


def predict_in_tiles(
    image: ImageArray,
    grid: Grid,
    settings: PreprocessSettings,
    predict: Callable[[NDArray[np.uint8]], list[FloatArray]],
) -> list[FloatArray]:
    """The blended probabilities of a frame, one array a view.

    `predict` maps network frames to the probabilities of their views (one, or with flips two).

    Shapes: image (H, W, 3) native; predict: (N, h, w, 3) -> V x (N, C, h, w); -> V x (C, grid height, grid width).
    """
    frame = _at_scale(image, grid, settings)
    tiles = list(product(range(len(grid.rows.starts)), range(len(grid.columns.starts))))
    blended: list[FloatArray] = []
    for start in range(0, len(tiles), TILES_AT_ONCE):
        some = tiles[start : start + TILES_AT_ONCE]
        batch = np.stack([_padded(frame[_window(grid, tile)], grid, settings) for tile in some])
        for number, view in enumerate(predict(batch)):
            if number == len(blended):
                blended.append(np.zeros((view.shape[1], *frame.shape[:2]), np.float32))
            for tile, planes in zip(some, view, strict=True):
                blended[number][:, *_window(grid, tile)] += _weighted(planes, grid, tile)
    return blended


def log_odds(probabilities: FloatArray, *, binary: bool) -> FloatArray:
    """Logits that mean these probabilities, finite: those of two classes from -16 to 16. Shapes: (C, h, w) -> same."""
    if not binary:
        return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    sure = np.clip(probabilities, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(sure) - np.log1p(-sure), np.float32)


def as_network_logits(probabilities: FloatArray, settings: PreprocessSettings) -> FloatArray:
    """Logits of tiles as if the network had seen the whole frame, for figures that are taken at its size.

    Probabilities are averaged, not logits; padding is background.

    Shapes: probabilities (C, H, W) native -> (C, h, w) of the network.
    """
    placement, binary = place(probabilities.shape[1:], settings), len(probabilities) == 1
    small = np.zeros((len(probabilities), *settings.size_hw), np.float32)
    if not binary:
        small[0] = 1
    size_wh = (placement.width, placement.height)
    for plane, target in zip(probabilities, small, strict=True):
        target[: placement.height, : placement.width] = cv2.resize(plane, size_wh, interpolation=cv2.INTER_AREA)
    return log_odds(small, binary=binary)


# ------------------------------------------------------------------ tiles


def _axis(length: int, side: int) -> Axis:
    """Shapes: weights are (tile,) each; at every pixel of the frame those of its tiles add up to 1."""
    tile = min(length, side)
    overlap = math.ceil(tile * OVERLAP)
    count = 1 if length <= side else math.ceil((length - overlap) / (tile - overlap))
    starts = tuple(np.linspace(0, length - tile, count).round().astype(int).tolist())
    rising = _rise(tile, overlap)
    windows = []
    for number in range(count):
        window = np.ones(tile)
        if number > 0:
            window *= rising
        if number < count - 1:
            window *= rising[::-1]
        windows.append(window)
    total = np.zeros(length)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    shares = [window / total[start : start + tile] for start, window in zip(starts, windows, strict=True)]
    return Axis(length, tile, starts, tuple(share.astype(np.float32) for share in shares))


def _rise(tile: int, overlap: int) -> NDArray[np.float64]:
    """From 0 at a tile's edge to 1 past its overlap; mirrored over the overlap it adds up to 1. Shapes: -> (tile,)."""
    rim = tile * RIM
    progress = np.clip((np.arange(tile) + 0.5 - rim) / max(overlap - 2 * rim, 1e-9), 0, 1)
    return np.asarray((1 - np.cos(np.pi * progress)) / 2)


def _window(grid: Grid, tile: tuple[int, int]) -> tuple[slice, slice]:
    top, left = grid.rows.starts[tile[0]], grid.columns.starts[tile[1]]
    return slice(top, top + grid.rows.tile), slice(left, left + grid.columns.tile)


def _weighted(planes: FloatArray, grid: Grid, tile: tuple[int, int]) -> FloatArray:
    inside = planes[:, : grid.rows.tile, : grid.columns.tile]
    return inside * grid.rows.weights[tile[0]][:, None] * grid.columns.weights[tile[1]]


def _at_scale(image: ImageArray, grid: Grid, settings: PreprocessSettings) -> ImageArray:
    """The whole frame after the image steps, as large as the tiles cover it."""
    stepped = apply_image_steps(image, settings.image_steps)
    size_hw = grid.placement.network_hw
    if settings.resize == "tensorflow":
        return np.rint(resize_as_tensorflow(stepped, size_hw)).astype(np.uint8)
    return resize_image(stepped, size_hw)


def _padded(tile: ImageArray, grid: Grid, settings: PreprocessSettings) -> ImageArray:
    """Where the frame is narrower than the network's: black where it was trained so (letterbox), else mirrored."""
    below, right = grid.network_hw[0] - tile.shape[0], grid.network_hw[1] - tile.shape[1]
    if not below and not right:
        return tile
    border = cv2.BORDER_CONSTANT if settings.fit == "letterbox" else cv2.BORDER_REFLECT
    return np.asarray(cv2.copyMakeBorder(tile, 0, below, 0, right, border, value=(0, 0, 0)), np.uint8)
