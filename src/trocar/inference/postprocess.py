"""What is done to a mask after the network: small pieces dropped, small holes filled, connected pieces numbered.

Off unless asked for, by class, and only the mask changes: probabilities stay what the network said. Pieces hang
together over corners (8 neighbours), holes over sides (4 neighbours), so that a line one pixel wide closes a hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import MaskArray
from trocar.errors import UserError

InstanceIds: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
MOST_INSTANCES = 2**16 - 1


@dataclass(frozen=True)
class Area:
    """So many pixels, or such a share of the frame."""

    value: float
    of_frame: bool = False

    @classmethod
    def parse(cls, text: str) -> Area:
        """From `200` or `200px` (pixels) or `0.1%` (of the frame)."""
        number = text.strip().removesuffix("px").removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        of_frame = text.strip().endswith("%")
        if not 0 <= value < float("inf") or (of_frame and value > 100):
            raise UserError(f"{text!r} is no area", mend="give pixels, as 200, or a share of the frame, as 0.1%")
        return cls(value, of_frame)

    def pixels(self, shape: tuple[int, ...]) -> float:
        """In a frame of this shape (H, W)."""
        return self.value / 100 * shape[0] * shape[1] if self.of_frame else self.value

    def __str__(self) -> str:
        return f"{self.value:g}{'%' if self.of_frame else ' px'}"


@dataclass(frozen=True)
class Cleanup:
    """Which pieces are too small to be kept and which holes too small to be left, by class index from 1 on."""

    min_area: Mapping[int, Area] = field(default_factory=dict)
    fill_holes: Mapping[int, Area] = field(default_factory=dict)

    @classmethod
    def parse(cls, classes: Sequence[str], min_area: Sequence[str] = (), fill_holes: Sequence[str] = ()) -> Cleanup:
        """From `AREA` (every class) and `CLASS=AREA`; of what is said twice the more special, then the later counts."""
        return cls(_by_class(classes, min_area), _by_class(classes, fill_holes))

    def __bool__(self) -> bool:
        return bool(self.min_area or self.fill_holes)

    def in_words(self, classes: Sequence[str]) -> str:
        """What is done, or nothing."""
        texts = [f"pieces of {classes[index]} under {area} dropped" for index, area in self.min_area.items()]
        texts += [f"holes in {classes[index]} of up to {area} filled" for index, area in self.fill_holes.items()]
        return ", ".join(texts)


def _by_class(classes: Sequence[str], texts: Sequence[str]) -> dict[int, Area]:
    general: dict[int, Area] = {}
    special: dict[int, Area] = {}
    for text in texts:
        name, separator, area = text.rpartition("=")
        if not separator:
            general = dict.fromkeys(range(1, len(classes)), Area.parse(area))
        elif name in classes[1:]:
            special[classes.index(name)] = Area.parse(area)
        else:
            raise UserError(f"the model knows no class {name!r}", mend=f"give one of {', '.join(classes[1:])}")
    return general | special


def clean(mask: MaskArray, cleanup: Cleanup) -> MaskArray:
    """The mask without small pieces, which become background, then without small holes.

    A piece is dropped where it is smaller than the area of its class. A hole is a connected piece of background that
    does not touch the edge of the frame; it is filled, with the class that most of the pixels around it have (of
    equally many the lower), where it is no larger than the area of that class. So what is dropped from inside an
    instrument is filled again.

    Shapes: mask (H, W) class indices -> the same; a mask of which nothing changes is given back itself.
    """
    for index, area in cleanup.min_area.items():
        mask = _without_small(mask, index, area.pixels(mask.shape))
    if cleanup.fill_holes:
        limits = {index: area.pixels(mask.shape) for index, area in cleanup.fill_holes.items()}
        mask = _filled(mask, limits)
    return mask


def _without_small(mask: MaskArray, index: int, least: float) -> MaskArray:
    window = _around(mask == index)
    if window is None:
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats((mask[window] == index).view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < least
    small[0] = False
    if not small.any():
        return mask
    cleaned = mask.copy()
    cleaned[window][small[labels]] = 0
    return cleaned


def _filled(mask: MaskArray, limits: Mapping[int, float]) -> MaskArray:
    window = _around(mask != 0)
    if window is None:
        return mask
    inside = np.pad(mask[window], 1)  # all background that is open to the frame's edge is one piece with this rim
    count, labels, stats, _ = cv2.connectedComponentsWithStats((inside == 0).view(np.uint8), connectivity=4)
    most = max(limits.values())
    holes = [hole for hole in range(1, count) if hole != labels[0, 0] and stats[hole, cv2.CC_STAT_AREA] <= most]
    if not holes:
        return mask
    filled = mask.copy()
    view = filled[window]
    for hole in holes:
        left, top, width, height, area = stats[hole]
        near = np.s_[top - 1 : top + height + 1, left - 1 : left + width + 1]  # a hole has pixels all around
        own = labels[near] == hole
        rim = (cv2.dilate(own.view(np.uint8), _CROSS) != 0) & ~own
        index = int(np.bincount(inside[near][rim]).argmax())
        if area <= limits.get(index, -1.0):
            view[top - 1 : top + height - 1, left - 1 : left + width - 1][own[1:-1, 1:-1]] = index
    return filled


_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The window of the set pixels; None where there is none."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (slice(top, top + height), slice(left, left + width)) if width else None


# ------------------------------------------------------------------ instances


@dataclass(frozen=True)
class Instance:
    """A connected piece of one class."""

    id: int  # its number in the image of ids, from 1 on
    class_index: int
    area: int  # pixels
    box: tuple[int, int, int, int]  # left, top, width, height


def instances(mask: MaskArray, class_count: int) -> tuple[InstanceIds, list[Instance]]:
    """Every connected piece of every class gets a number: class by class, the largest first.

    Instruments that touch are one piece, one that another crosses is two: nothing but the mask is known. Raises
    `UserError` where there are more pieces than 16 bits can number.

    Shapes: mask (H, W) class indices -> ids (H, W), 0 background, uint8 where there are up to 255.
    """
    ids, found = np.zeros(mask.shape, np.uint16), list[Instance]()
    for index in range(1, class_count):
        window = _around(mask == index)
        if window is None:
            continue
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (mask[window] == index).view(np.uint8), connectivity=8
        )
        if len(found) + count - 1 > MOST_INSTANCES:
            raise UserError(
                f"the mask falls into more than {MOST_INSTANCES} pieces", mend="drop small ones, as with --min-area 10"
            )
        rows, columns = window
        order = sorted(range(1, count), key=lambda piece: (-stats[piece, cv2.CC_STAT_AREA], *stats[piece, 1::-1]))
        numbers = np.zeros(count, np.uint16)
        for piece in order:
            left, top, width, height, area = stats[piece].tolist()
            numbers[piece] = len(found) + 1
            box = (left + columns.start, top + rows.start, width, height)
            found.append(Instance(int(numbers[piece]), index, area, box))
        ids[window] += numbers[labels]
    return (ids.astype(np.uint8) if len(found) < 256 else ids), found
