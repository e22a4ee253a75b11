"""Records and sources: what a labelled frame is, whatever the layout on disk it came from.

A source lists its records without reading a pixel; `record.image()` and `record.mask()` read. Both are picklable,
so that worker processes can do the reading.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.config import DataSettings
from trocar.errors import UserError, UserErrors

IGNORE = 255  # label of pixels that count nowhere: not in the loss, not in metrics, not in counts

ImageArray: TypeAlias = NDArray[np.uint8]  # (H, W, 3) RGB, as shot
MaskArray: TypeAlias = NDArray[np.uint8]  # (H, W) class index, 0 background, 255 ignore
Side: TypeAlias = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One image or video frame with its mask: plain facts, and functions that read the pixels when called.

    `image()` -> uint8 RGB (H, W, 3), EXIF turn applied. `mask()` -> uint8 class indices (H, W) into the source's
    `classes`, 255 ignore, at the image's size. `instances()` -> uint8 (H, W), 0 background, then one index an
    instrument. Each raises `UserError` where the file is missing, unreadable or not what its layout promises.
    """

    name: str  # unique in its source; forward slashes; no file ending
    group: str  # patient, procedure or video: what a split must not cut
    dataset: str
    image: Callable[[], ImageArray] = field(repr=False, compare=False)
    mask: Callable[[], MaskArray] = field(repr=False, compare=False)
    instances: Callable[[], MaskArray] | None = field(default=None, repr=False, compare=False)
    frame: int | None = None  # position in its video, in frames; None for stills
    files: tuple[Path, ...] = ()  # what it is read from, for messages and fingerprints
    source: str = ""  # of several sources in a recipe: its name there
    weight: float = 1.0  # how often it is drawn in an epoch of training
    train_only: bool = False  # never validation or test

    def read(self) -> tuple[ImageArray, MaskArray]:
        """Image and mask, checked to be of one size. Raises `UserError` where they are not."""
        image, mask = self.image(), self.mask()
        if image.shape[:2] != mask.shape:
            raise UserError(
                f"mask is {mask.shape[1]}x{mask.shape[0]} but its image is {image.shape[1]}x{image.shape[0]}",
                where=f"record {self.name}, {', '.join(str(path) for path in self.files)}",
                mend=f"re-export that mask at the image's size, or list {self.name} under data.exclude in the recipe",
            )
        return image, mask


@dataclass(frozen=True)
class Source:
    """The records of one place on disk, in a stable order (groups together, time order inside a group)."""

    dataset: str  # what the layout is called, such as "kvasir-instrument"
    root: Path
    classes: tuple[str, ...]  # name of each class index; [0] is the background
    records: tuple[Record, ...]
    official: Mapping[Side, tuple[str, ...]] | None = None  # record names of the official lists, where there are any
    mask_encoding: str = ""  # what was recognised on disk, in words
    notes: tuple[str, ...] = ()  # what a user should know, one sentence each
    findings: tuple[
        UserError, ...
    ] = ()  # what listing found wrong: missing partners, equal names. Training refuses them
    settings: DataSettings | None = None  # by which it was opened; None where it was made in memory

    def __post_init__(self) -> None:
        counts = Counter(record.name for record in self.records)
        twice = sorted(name for name, count in counts.items() if count > 1)
        assert not twice, f"a reader gave equal names: {twice[:5]}"

    def __len__(self) -> int:
        return len(self.records)

    @property
    def groups(self) -> dict[str, list[Record]]:
        """Records by group, in order of appearance."""
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            groups.setdefault(record.group, []).append(record)
        return groups

    def select(self, names: Iterable[str]) -> list[Record]:
        """The records of these names, in the order asked for. Raises `UserErrors` for every unknown name."""
        known = {record.name: record for record in self.records}
        names = list(names)
        missing = [name for name in names if name not in known]
        if missing:
            raise UserErrors(
                [
                    UserError(
                        f"the data has no record {name}",
                        where=str(self.root),
                        mend="use the data that the split was made from, or make a new split",
                    )
                    for name in missing
                ]
            )
        return [known[name] for name in names]

    def fingerprint(self) -> str:
        """SHA-256 over record names, groups, file names and sizes: cheap, and it changes when the set of data does.

        Content is not read. Two copies of the same data in different folders have the same fingerprint.
        """
        digest = hashlib.sha256()
        for record in sorted(self.records, key=lambda record: record.name):
            sizes = [(path.name, size_of(path)) for path in record.files]
            digest.update(repr((record.name, record.group, record.frame, sizes)).encode())
        return f"sha256:{digest.hexdigest()}"


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where it is missing or cannot be reached."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def join_classes(mask: MaskArray) -> MaskArray:
    """Every class but the background becomes 1 (instrument); 255 stays. Shapes: (H, W) -> (H, W)."""
    return np.where((mask == 0) | (mask == IGNORE), mask, np.uint8(1)).astype(np.uint8)
