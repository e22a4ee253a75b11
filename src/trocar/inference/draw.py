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
    _, labelled = cv2.threshold(mask, IGNORE - 1, 0, cv2.THRESH_TOZERO_INV)  # what is ignored is background here
    left, top, width, height = cv2.boundingRect(labelled)
    if not width:
        return drawn
    line = max(1, round(min(mask.shape) * LINE_PER_PIXEL))
    # Nothing beyond the line's width around what is labelled has a say, and none of it is drawn on.
    around = np.s_[max(0, top - line) : top + height + line, max(0, left - line) : left + width + line]
    part, labels = drawn[around], np.ascontiguousarray(labelled[around], np.uint8)
    outline = _outline(labels, line)
    for index in _present(labels):
        region = cv2.inRange(labels, int(index), int(index))
        plain = _plain(class_colour(int(index)), labels.shape)
        cv2.copyTo(cv2.addWeighted(part, 1 - TINT, plain, TINT, 0), region, part)
        cv2.copyTo(plain, cv2.bitwise_and(region, outline), part)
    return drawn


def _plain(colour: tuple[int, int, int], size_hw: tuple[int, ...]) -> ImageArray:
    """A picture of one colour."""
    height, width = size_hw
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = np.tile(np.array(colour, np.uint8), width).reshape(width, 3)  # whole rows: far quicker than pixels
    return picture


def _outline(labels: MaskArray, line: int) -> NDArray[np.uint8]:
    """255 on the pixels that are nearer than `line` to another class; edges of the image are no outline."""
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    return np.asarray(cv2.compare(cv2.dilate(labels, kernel), cv2.erode(labels, kernel), cv2.CMP_NE), np.uint8)


def _present(labels: MaskArray) -> Sequence[int] | NDArray[np.intp]:
    """Class indices that occur, without the background."""
    if labels.max() == 1:  # the common case, and quick to see
        return [1]
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return np.flatnonzero(counts.ravel()[1:]) + 1
