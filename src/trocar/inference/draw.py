"""Overlays for people: the mask as a tint and a line on the image, in colours that colour-blind eyes tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, ImageArray, MaskArray

# Okabe and Ito 2008 (jfly.uni-koeln.de/color), without black; sky blue first: nothing in the body has it.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
TINT = 0.4  # share of the colour inside a region
LINE_PER_PIXEL = 1 / 400  # line width as a share of the shorter side: visible on any screen


def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class index from 1 on; colours repeat after seven classes."""
    return PALETTE[(index - 1) % len(PALETTE)]


def overlay(image: ImageArray, mask: MaskArray) -> ImageArray:
    """The image with every class tinted and outlined in its colour; background and 255 are left as they are.

    Shapes: image (H, W, 3) uint8 RGB, mask (H, W) class indices -> (H, W, 3) uint8 RGB.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image is {image.shape[:2]} but mask is {mask.shape}")
    drawn = image.copy()
    around, regions = _regions(mask)
    part = drawn[around]
    for index, region, line in regions:
        plain = _plain(class_colour(index), region.shape)
        cv2.copyTo(cv2.addWeighted(part, 1 - TINT, plain, TINT, 0), region, part)
        cv2.copyTo(plain, line, part)
    return drawn


def draw_on_planes(planes: Sequence[NDArray[np.uint8]], mask: MaskArray, *, bt709: bool) -> None:
    """The same on a picture of even sides that is stored as Y, U and V, in place.

    Where the mask ends inside a pixel of U and V, that takes the share of the colour which is right on average.

    Shapes: planes (H, W), (H / 2, W / 2) twice, limited range; mask (H, W) class indices.
    """
    (rows, columns), regions = _regions(mask, even=True)
    halved = slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2)
    parts = [planes[0][rows, columns], planes[1][halved], planes[2][halved]]
    for index, region, line in regions:
        share = cv2.bitwise_or(cv2.min(region, np.array(255 * TINT)), line)
        smaller = cv2.resize(share, parts[1].shape[::-1], interpolation=cv2.INTER_AREA)
        colour = _yuv(class_colour(index), bt709=bt709)
        for part, value, of_colour in zip(parts, colour, (share, smaller, smaller), strict=True):
            kept = cv2.multiply(part, 255 - of_colour, scale=1 / 255)
            cv2.addWeighted(kept, 1, of_colour, value / 255, 0, dst=part)


def _regions(
    mask: MaskArray, *, even: bool = False
) -> tuple[tuple[slice, slice], list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Where there is something to draw; and there of each class: index, 255 where it is, 255 where its outline is.

    The outline is what is nearer than its width to another class.
    """
    _, labelled = cv2.threshold(mask, IGNORE - 1, 0, cv2.THRESH_TOZERO_INV)  # what is ignored is background here
    left, top, width, height = cv2.boundingRect(labelled)
    if not width:
        return (slice(0, 0), slice(0, 0)), []
    line = max(1, round(min(mask.shape) * LINE_PER_PIXEL))
    # Nothing beyond the line's width around what is labelled has a say, and none of it is drawn on.
    start, stop = (max(0, top - line), max(0, left - line)), (top + height + line, left + width + line)
    if even:
        start, stop = (start[0] // 2 * 2, start[1] // 2 * 2), (stop[0] + stop[0] % 2, stop[1] + stop[1] % 2)
    around = slice(start[0], min(stop[0], mask.shape[0])), slice(start[1], min(stop[1], mask.shape[1]))
    labels = np.ascontiguousarray(labelled[around], np.uint8)
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    found = []
    for index in map(int, _present(labels)):
        region = np.asarray(cv2.inRange(labels, index, index), np.uint8)
        inner = cv2.erode(region, kernel)  # which takes nothing away at the edges of the image
        found.append((index, region, np.asarray(cv2.subtract(region, inner), np.uint8)))
    return around, found


def _yuv(colour: tuple[int, int, int], *, bt709: bool) -> tuple[float, float, float]:
    """Y, U and V of limited range (ITU-R BT.601 or BT.709)."""
    red, green, blue = (value / 255 for value in colour)
    of_red, of_blue = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    return 16 + 219 * luma, 128 + 224 * chroma[0], 128 + 224 * chroma[1]


def _plain(colour: tuple[int, int, int], size_hw: tuple[int, ...]) -> ImageArray:
    """A picture of one colour."""
    height, width = size_hw
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = np.tile(np.array(colour, np.uint8), width).reshape(width, 3)  # whole rows: far quicker than pixels
    return picture


def _present(labels: MaskArray) -> Sequence[int] | NDArray[np.intp]:
    """Class indices that occur, without the background."""
    if labels.max() == 1:  # the common case, and quick to see
        return [1]
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return np.flatnonzero(counts.ravel()[1:]) + 1
