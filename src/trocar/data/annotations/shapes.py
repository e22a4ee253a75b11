"""Labelled areas of one image, as annotation tools keep them, and the masks they make together.

Where areas overlap, the later one in the file is on top, as the tools paint them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trocar.data.annotations.rings import BoolArray
from trocar.data.files import MAX_PIXELS
from trocar.data.records import IGNORE, MaskArray
from trocar.errors import UserError

MAX_INSTANCES = 255
NO_INSTANCE = ""  # of areas that are no single instrument, such as COCO's crowds
_MAX_WORK = 2**31  # pixels times areas of one image: beyond it lies no picture but an attempt to stall the reader


@dataclass(frozen=True)
class Shape:
    """One area: its class index (255 ignore, 0 background painted over others), which instrument, and its pixels.

    `instance` is a number from 1 to 255 that is kept, any other key that areas of one instrument share, `NO_INSTANCE`,
    or None for an instrument of its own. `area` takes (height, width) and gives a bool mask (H, W).
    """

    index: int
    area: Callable[[tuple[int, int]], BoolArray]
    instance: Hashable | None = None


def instance_key(number: object) -> Hashable | None:
    """Key of the instrument's number that our writers add to a format: 0 says that it is not known which."""
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return number or NO_INSTANCE


def tells_instances(shapes: Iterable[Shape]) -> bool:
    """Whether the areas say which instrument they are of; those our writers make of plain masks do not."""
    keys = [shape.instance for shape in shapes if shape.index not in (0, IGNORE)]
    return not keys or any(key != NO_INSTANCE for key in keys)


def size_hw(height: object, width: object, where: str) -> tuple[int, int]:
    """Height and width that a file claims, as whole numbers. Raises `UserError` for what no picture can have."""
    sides = []
    for side in (height, width):
        try:
            number = float(side)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = 0.0
        if isinstance(side, bool) or not 1 <= number <= MAX_PIXELS or number != int(number):
            raise _no_size(height, width, where)
        sides.append(int(number))
    if sides[0] * sides[1] > MAX_PIXELS:
        raise _no_size(height, width, where)
    return sides[0], sides[1]


def _no_size(height: object, width: object, where: str) -> UserError:
    return UserError(
        f"the size of the image is given as {str(width)[:20]} x {str(height)[:20]}",
        where=where,
        mend=f"it takes two whole numbers of at most {MAX_PIXELS} pixels together: export the labels again",
    )


def paint_mask(shapes: Sequence[Shape], size: tuple[int, int], where: str) -> MaskArray:
    """Class indices, 0 where no area lies. Shapes: -> uint8 (H, W)."""
    return _paint([(shape, shape.index) for shape in shapes], size, where)


def paint_instances(shapes: Sequence[Shape], size: tuple[int, int], where: str) -> MaskArray:
    """Indices of instruments, 0 where none lies. Shapes: -> uint8 (H, W)."""
    numbers = _numbers(shapes, where)
    return _paint(list(zip(shapes, numbers, strict=True)), size, where)


def _paint(values: Sequence[tuple[Shape, int]], size: tuple[int, int], where: str) -> MaskArray:
    if len(values) * size[0] * size[1] > _MAX_WORK:
        raise UserError(
            f"{len(values)} areas in one image of {size[1]}x{size[0]}", where=where, mend="export the labels again"
        )
    painted = np.zeros(size, dtype=np.uint8)
    for number, (shape, value) in enumerate(values, start=1):
        try:
            painted[shape.area(size)] = value
        except UserError as error:
            raise UserError(error.what, where=f"{where}, area {number} of {len(values)}", mend=error.mend) from None
    return painted


def _numbers(shapes: Sequence[Shape], where: str) -> list[int]:
    keys = [
        NO_INSTANCE if shape.index in (0, IGNORE) else (i,) if shape.instance is None else shape.instance
        for i, shape in enumerate(shapes)
    ]
    kept = {key for key in keys if isinstance(key, int) and 1 <= key <= MAX_INSTANCES}
    others = [key for key in dict.fromkeys(keys) if key != NO_INSTANCE and key not in kept]
    if len(kept) + len(others) > MAX_INSTANCES:
        raise UserError(
            f"{len(kept) + len(others)} instruments in one image; trocar takes {MAX_INSTANCES}",
            where=where,
            mend="group the areas of one instrument in the annotation tool, or leave the image out",
        )
    free = (number for number in range(1, MAX_INSTANCES + 1) if number not in kept)
    numbers: dict[Hashable, int] = {
        NO_INSTANCE: 0,
        **{key: key for key in kept},
        **dict(zip(others, free, strict=False)),
    }
    return [numbers[key] for key in keys]


# ------------------------------------------------------------------ the other way: areas out of masks


@dataclass(frozen=True)
class Piece:
    """What is written as one area: the pixels of one class and one instrument (0: not known which)."""

    index: int
    instance: int
    pixels: BoolArray


def pieces(mask: MaskArray, instances: MaskArray | None) -> list[Piece]:
    """The areas of a record in order of instrument and class, one for each pair; they do not overlap.

    Without instances each class is one area; ignored pixels are one area of the class 255. Shapes: (H, W) each.
    """
    numbers = np.zeros_like(mask) if instances is None else np.where((mask == 0) | (mask == IGNORE), 0, instances)
    both = numbers.astype(np.uint16) << 8 | mask
    found = [int(pair) for pair in np.unique(both) if pair & 255]
    return [Piece(index=pair & 255, instance=pair >> 8, pixels=both == pair) for pair in found]
