"""What a writer is given: frames one by one, their images already in place, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trocar.data.annotations.shapes import Piece, pieces
from trocar.data.records import IGNORE, MaskArray, Side

IGNORE_NAME = "ignore"


@dataclass(frozen=True)
class Frame:
    """One record to be written: its masks are of the image's size, at `image` below the folder that is written."""

    name: str
    image: str  # path below the folder, forward slashes
    mask: MaskArray
    instances: MaskArray | None
    side: Side | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of image and masks."""
        return self.mask.shape[0], self.mask.shape[1]

    def pieces(self) -> list[Piece]:
        """Its areas; see `shapes.pieces`."""
        return pieces(self.mask, self.instances)


@dataclass(frozen=True)
class Job:
    """Where labels go, and how: `folder` holds nothing but the images; `classes` has the background first.

    `has_instances` says whether any frame tells instruments apart; `outlines` asks for polygons where the format has
    something exact as well.
    """

    folder: Path
    classes: tuple[str, ...]
    has_instances: bool
    outlines: bool


def class_name(classes: tuple[str, ...], index: int) -> str:
    """Name of a class index; that of ignored pixels is `ignore`, as readers know it."""
    return IGNORE_NAME if index == IGNORE else classes[index]
