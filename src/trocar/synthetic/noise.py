"""Smooth random fields, the raw material of every texture here.

Fields are drawn on a coarse grid counted in cells per shorter side and enlarged, so that the same seed gives
the same scene at any size, only sharper.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Range = tuple[float, float]


def value_noise(rng: np.random.Generator, size_hw: tuple[int, int], cells: float) -> Float:
    """A smooth field of about unit variance with bumps 1/`cells` of the shorter side wide.

    Shapes: -> (H, W) float32.
    """
    return _enlarged(_grid(rng, size_hw, cells), size_hw)


def fractal_noise(
    rng: np.random.Generator, size_hw: tuple[int, int], cells: float, octaves: int, gain: float = 0.5
) -> Float:
    """Octaves of noise, each twice as fine and `gain` times as strong, scaled to about unit variance.

    Shapes: -> (H, W) float32.
    """
    field = _grid(rng, size_hw, cells)
    rows, columns = field.shape
    for octave in range(1, octaves):  # enlarged step by step: only the last step works at full size
        shape = (rows * 2**octave, columns * 2**octave)
        field = as_float(cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC))
        field += np.float32(gain**octave) * rng.standard_normal(shape, np.float32)
    scale = math.sqrt(sum(gain ** (2 * octave) for octave in range(octaves)))
    return _enlarged(field / np.float32(scale), size_hw)


def smoothstep(low: float, high: float, values: Float) -> Float:
    """0 below `low`, 1 above `high`, a smooth ramp between. Shapes: any."""
    ramp = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return as_float(ramp * ramp * (3 - 2 * ramp))


def pixel_grid(size_hw: tuple[int, int]) -> tuple[Float, Float]:
    """x and y of the pixel centres in shorter sides, 0 at the middle of the view, y down.

    Shapes: -> (1, W), (H, 1) float32, to be broadcast.
    """
    height, width = size_hw
    side = min(size_hw)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / side
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / side
    return as_float(x[None, :]), as_float(y[:, None])


def blur(field: Float, sigma_px: float) -> Float:
    """Gaussian blur; a sigma too small to matter returns the field itself. Shapes: (H, W[, C]) -> the same."""
    return field if sigma_px < 0.2 else as_float(cv2.GaussianBlur(field, (0, 0), sigma_px))


def draw(rng: np.random.Generator, bounds: Range) -> float:
    """One number, evenly from a range."""
    return float(rng.uniform(*bounds))


def as_float(values: object) -> Float:
    """float32, as OpenCV's type hints do not say it. A copy only where the dtype differs."""
    return np.asarray(values, np.float32)


def linear(colour: tuple[int, int, int] | Float) -> Float:
    """Linear light from an 8-bit RGB colour. The display curve is taken as a square root: fast and near enough."""
    return as_float((np.asarray(colour, np.float32) / 255) ** 2)


def _grid(rng: np.random.Generator, size_hw: tuple[int, int], cells: float) -> Float:
    shape = [math.ceil(cells * side / min(size_hw)) + 2 for side in size_hw]
    return rng.standard_normal(shape, np.float32)


def _enlarged(grid: Float, size_hw: tuple[int, int]) -> Float:
    return as_float(cv2.resize(grid, size_hw[::-1], interpolation=cv2.INTER_CUBIC))
