"""What a frame's picture tells by itself: light, blur, surround, burned-in marks, and what it is recognised by.

Measured on a reduced picture, whose shorter side is 240 to 480 pixels: light, hash and surround need no more, and
frames of all cameras then compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import ImageArray

REDUCED_SIDE = 240  # the shorter side of a reduced picture has at least so many pixels, if the frame does
BLANK = 2.0  # deviation of the grey levels below which a frame is one even colour
GRID_HW = (24, 32)  # cells in which marks and masks are located, whatever the frame's shape

_SURROUND = 12  # grey levels up to which a pixel at the frame's edge is surround, not picture
_BRIGHT = 250  # grey levels from which a pixel is blown out
_STROKE = 5  # pixels of the reduced picture: brighter parts narrower than this are strokes
_STROKE_CONTRAST = 50  # grey levels by which a stroke outshines what is beside it
_STROKE_SHARE = 0.05  # of a cell that strokes must fill for it to be marked
# Of 32x32 waves, row by row, those of the hash.
_LOWEST = np.array([*(32 * row + column for row in range(8) for column in range(8) if row + column), 32 * 8])

Grey: TypeAlias = NDArray[Any]  # uint8 (h, w): OpenCV's type hints say no more
Marks: TypeAlias = NDArray[np.bool_]  # (24, 32)


@dataclass(frozen=True, slots=True)
class Picture:
    """Measures of one picture. Light and deviation are of the view, what lies inside a black surround, in 0..255."""

    hash: int  # 64 bits, see `perceptual_hash`
    thumbnail: bytes  # 16x16 grey
    light: float  # 95th percentile of the grey levels
    deviation: float  # of the grey levels
    blown_out: float  # share of pixels from 250 on
    blur: float  # 0 sharp to 1 blurred, see `blur`
    surround: tuple[float, float, float, float]  # black margin left, top, right, below, as shares of the sides
    outside: float  # share of the frame that is surround, corners of a round view included
    marks: bytes  # 24x32 bits: cells with bright strokes
    marks_outside: int  # cells with something bright in the surround


def measure(image: ImageArray) -> Picture:
    """All measures of a reduced picture. Shapes: (h, w, 3) RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, (-(-grey.shape[1] // 2), -(-grey.shape[0] // 2)), interpolation=cv2.INTER_AREA)
    view, surround = _view(half)
    counts = cv2.calcHist([half], [0], view, [256], [0, 256]).ravel()
    area = max(float(counts.sum()), 1.0)
    _, deviation = cv2.meanStdDev(half, mask=view)
    outside = 1 - float(cv2.countNonZero(view)) / view.size
    return Picture(
        hash=perceptual_hash(grey),
        thumbnail=cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).tobytes(),
        light=float(np.searchsorted(np.cumsum(counts), 0.95 * area)),
        deviation=float(deviation[0, 0]),
        blown_out=float(counts[_BRIGHT:].sum()) / area,
        blur=blur(grey),
        surround=surround,
        outside=outside,
        marks=np.packbits(_strokes(grey)).tobytes(),
        marks_outside=_marks_outside(half, view) if outside else 0,
    )


def perceptual_hash(grey: Grey) -> int:
    """64 bits: which of the lowest frequencies of the picture, at 32x32, lie above their median.

    The hash by discrete cosine transform (Zauner 2010, phash.org), without the mean. Shapes: (h, w) grey.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)
    lowest = waves.ravel()[_LOWEST]
    middle = np.partition(lowest, (31, 32))[31:33]
    return int.from_bytes(np.packbits(lowest > middle.sum() / 2).tobytes(), "big")


def blur(grey: Grey) -> float:
    """Share of the gradients that survive a further blur: little is lost where there is little detail to lose.

    After Crete et al. 2007 (doi:10.1117/12.702790), with a 5x5 mean. About 0.5 in a sharp frame, whatever it shows;
    0.9 and more where it is blurred. A picture of one even grey gives 1. Shapes: (h, w) grey.
    """
    before = _gradient(cv2.blur(grey, (2, 2)))  # takes off the sensor's noise, which a blurred frame has too
    after = _gradient(cv2.blur(grey, (5, 5)))
    return min(1.0, after / before) if before > 0 else 1.0


def unpack_marks(marks: bytes) -> Marks:
    """Cells with bright strokes. Shapes: -> (24, 32) bool."""
    bits = np.unpackbits(np.frombuffer(marks, np.uint8), count=GRID_HW[0] * GRID_HW[1])
    return np.asarray(bits.reshape(GRID_HW), dtype=np.bool_)


def _gradient(grey: Grey) -> float:
    across, down = cv2.spatialGradient(grey)
    return float(cv2.norm(across, cv2.NORM_L1) + cv2.norm(down, cv2.NORM_L1))


def _view(grey: Grey) -> tuple[Grey, tuple[float, float, float, float]]:
    """The lit part of the frame as a mask, and the black margins beside it; all of a frame that is dark throughout."""
    height, width = grey.shape
    lit = above(cv2.medianBlur(grey, 3), _SURROUND)
    everything = np.full_like(grey, 255)
    if cv2.countNonZero(lit) == lit.size:
        return everything, (0.0, 0.0, 0.0, 0.0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=4, ltype=cv2.CV_16U)
    if count < 2:
        return everything, (0.0, 0.0, 0.0, 0.0)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, w, h, area = (int(number) for number in stats[largest])
    if area < 0.1 * grey.size:
        return everything, (0.0, 0.0, 0.0, 0.0)  # a dark frame with some light in it, not a picture in a surround
    outline, _ = cv2.findContours(cv2.inRange(labels, largest, largest), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(max(outline, key=len))  # shadow at the rim of the view is view
    view = cv2.fillConvexPoly(np.zeros_like(grey), hull, 255)
    margins = (left / width, top / height, 1 - (left + w) / width, 1 - (top + h) / height)
    return view, margins


def _marks_outside(grey: Grey, view: Grey) -> int:
    """Cells of the surround with something bright."""
    lit = _cells(above(grey, 6 * _SURROUND)) > _STROKE_SHARE
    return int(np.count_nonzero((_cells(view) < 0.02) & lit))


def _strokes(grey: Grey) -> Marks:
    kernel = np.ones((_STROKE, _STROKE), np.uint8)
    strokes = above(cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel), _STROKE_CONTRAST)
    return np.asarray(_cells(strokes) > _STROKE_SHARE, dtype=np.bool_)


def _cells(mask: Grey) -> NDArray[np.float32]:
    """Share of each cell that is set. Shapes: (h, w) 0 or 255 -> (24, 32) in 0..1."""
    rows, columns = GRID_HW
    cells = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cells / 255, dtype=np.float32)


def above(grey: Grey, level: int) -> Grey:
    """255 where a pixel is brighter than the level, else 0. Shapes: (h, w) -> (h, w)."""
    return np.asarray(cv2.threshold(grey, level, 255, cv2.THRESH_BINARY)[1], dtype=np.uint8)
