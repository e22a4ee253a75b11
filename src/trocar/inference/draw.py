"""Overlays for people: the mask as a tint and a line on the image, in colours that colour-blind eyes tell apart."""

from __future__ import annotations

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
    labelled = np.where(mask == IGNORE, np.uint8(0), mask)
    colours = _COLOURS[labelled]
    tinted = cv2.addWeighted(image, 1 - TINT, colours, TINT, 0)
    drawn = cv2.copyTo(tinted, labelled, image.copy())
    return np.asarray(cv2.copyTo(colours, _outline(labelled), drawn), np.uint8)


def _outline(labelled: MaskArray) -> NDArray[np.uint8]:
    """Non-zero on the labelled pixels that touch another class; edges of the image are no outline."""
    width = max(1, round(min(labelled.shape) * LINE_PER_PIXEL))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    differs = cv2.dilate(labelled, kernel) != cv2.erode(labelled, kernel)
    return np.asarray(differs & (labelled > 0), np.uint8)


_COLOURS = np.array([(0, 0, 0), *(class_colour(index) for index in range(1, 256))], np.uint8)
