"""What a mask tells by itself: pieces, specks, holes, where it lies; and why a refused mask was refused."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.checks.picture import GRID_HW, above
from trocar.data.files import read_mask_file
from trocar.data.records import MaskArray
from trocar.data.sources.encoding import as_grey
from trocar.documents import refuse_what_is_no_file
from trocar.errors import UserError

TINY_SHARE = 5e-5  # of the frame: 15 pixels at 640x480, 66 at 1280x1024. A smaller piece is a speck or a hole

_FEW_VALUES = 8
_COUNTED_SINGLY = 3
_EDGE = 5  # pixels of the square around an edge in which anti-aliasing leaves greys


@dataclass(frozen=True, slots=True)
class Mask:
    """Measures of one mask, all classes of instruments together."""

    pieces: int  # connected, also over corners
    specks: int  # pieces below TINY_SHARE of the frame, beside a larger one
    speck_pixels: int
    holes: int  # background enclosed by instrument, below TINY_SHARE
    hole_pixels: int
    place: bytes  # 24x32 shares of cells, in 0..255, compressed: see `unpack_place`


def count_values(mask: MaskArray) -> dict[int, int]:
    """Pixels of each value that occurs, in the order of the values. Shapes: (H, W).

    A histogram takes longer than all other measures of a mask together: a few values are sooner counted one by one.
    """
    lowest, highest = (int(value) for value in cv2.minMaxLoc(mask)[:2])
    below = range(lowest, min(highest, lowest + _COUNTED_SINGLY))
    counts = {value: found for value in below if (found := _count(mask, value))}
    left = mask.size - sum(counts.values())
    if below.stop == highest or _count(mask, highest) == left:
        return {**counts, highest: left}
    histogram = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    return {int(value): int(histogram[value]) for value in np.flatnonzero(histogram)}


def _count(mask: MaskArray, value: int) -> int:
    if value == 0:
        return mask.size - cv2.countNonZero(mask)
    return cv2.countNonZero(cv2.inRange(mask, value, value))


def measure(instrument: MaskArray, small: MaskArray) -> Mask:
    """All measures. Shapes: (H, W) and the same reduced (h, w), non-zero = instrument, the first at native size."""
    outer, inner = _areas(instrument)
    tiny = TINY_SHARE * instrument.size
    specks = outer[outer < tiny] if (outer >= tiny).any() else outer[:0]
    holes = inner[inner < tiny]
    rows, columns = GRID_HW
    share = cv2.resize(above(small, 0), (columns, rows), interpolation=cv2.INTER_AREA)
    return Mask(
        pieces=len(outer),
        specks=len(specks),
        speck_pixels=int(specks.sum()),
        holes=len(holes),
        hole_pixels=int(holes.sum()),
        place=zlib.compress(share.tobytes(), 6),
    )


def unpack_place(place: bytes) -> NDArray[np.uint8]:
    """Share of each cell that is instrument. Shapes: -> (24, 32) in 0..255."""
    return np.frombuffer(zlib.decompress(place), np.uint8).reshape(GRID_HW)


def _areas(instrument: MaskArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels of each piece with what it encloses, and of each background inside a piece.

    By contours, an order of magnitude faster than labelling every pixel: a contour through B pixel centres round an
    area A holds A + B/2 + 1 pixels (Pick 1899); the one around a hole runs through instrument: A - B/2 + 1.
    """
    contours, hierarchy = cv2.findContours(instrument, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.empty(0), np.empty(0)
    is_hole = hierarchy[0, :, 3] >= 0
    length = np.array([len(contour) if len(contour) > 1 else 0 for contour in contours])  # a point has no way round
    area = np.array([cv2.contourArea(contour) for contour in contours])
    pixels = np.where(is_hole, area - length / 2 + 1, area + length / 2 + 1)
    return pixels[~is_hole], pixels[is_hole]


# ------------------------------------------------------------------ refused masks


def explain(paths: tuple[Path, ...], error: UserError) -> tuple[str, UserError]:
    """The kind of finding that a mask's refusal is, and the refusal with its likely cause, seen in the file."""
    for path in paths:
        try:
            stored = read_mask_file(path)
        except UserError:
            return ("jpeg-mask" if _is_jpeg(path) else "unreadable"), error
        cause = likely_cause(stored)
        if cause and str(path) == error.where:
            return "mask-values", UserError(f"{error.what}; likely here: {cause}", where=error.where, mend=error.mend)
    return "mask-values", error


def likely_cause(stored: NDArray[np.uint8]) -> str | None:
    """What probably made a mask file hold the values that it does, in words; None where nothing speaks for anything.

    Shapes: (H, W) or (H, W, 3), as stored.
    """
    grey = as_grey(stored)
    if grey is None:
        colours = len(np.unique(stored.reshape(-1, 3), axis=0))
        return f"a colour map of {colours} colours" if colours <= 64 else "a photograph or an overlay, not a mask"
    values = np.flatnonzero(cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel())
    if len(values) <= _FEW_VALUES and not _mostly_at_edges(grey):
        return f"labels of several classes ({', '.join(map(str, values))})"
    if values[0] > 8 or values[-1] < 247:
        return "a picture or a map of probabilities, not a mask"
    if _mostly_at_edges(grey):
        return "anti-aliasing, or resizing with interpolation: the greys lie along edges"
    odd = grey[(grey > 0) & (grey < 255)]
    if np.mean((odd < 64) | (odd > 191)) > 0.6:
        return "a JPEG on the way: faint greys lie some pixels off the edges too"
    return "a map of probabilities, or a soft brush"


def _mostly_at_edges(grey: NDArray[np.uint8]) -> bool:
    """Whether nearly all greys between black and white lie beside an edge between the two."""
    middle = cv2.inRange(grey, 1, 254)
    solid = above(grey, 127)
    kernel = np.ones((_EDGE, _EDGE), np.uint8)
    edge = cv2.compare(cv2.dilate(solid, kernel), cv2.erode(solid, kernel), cv2.CMP_NE)
    found = cv2.countNonZero(middle)
    return found > 0 and cv2.countNonZero(cv2.bitwise_and(middle, edge)) > 0.97 * found


def _is_jpeg(path: Path) -> bool:
    try:
        refuse_what_is_no_file(path)
        with path.open("rb") as file:
            return file.read(3) == b"\xff\xd8\xff"
    except OSError:
        return False
