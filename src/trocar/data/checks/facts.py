"""What reading one record tells: small enough to keep of every record, and to remember between checks."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from trocar.data.checks import masks, outline, picture
from trocar.data.checks.masks import Mask
from trocar.data.checks.outline import Outline
from trocar.data.checks.picture import REDUCED_SIDE, Picture
from trocar.data.files import read_image, read_reduced_image, shrink
from trocar.data.records import IGNORE, ImageArray, MaskArray, Record
from trocar.errors import UserError, UserErrors

_LABELLED = np.array([0 if value in (0, IGNORE) else 1 for value in range(256)], dtype=np.uint8)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be used."""

    kind: str  # a key of findings.KINDS
    what: str
    where: str
    mend: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """All that is kept of one record. What could not be read, or is not to be used, is None or empty."""

    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] | None = None  # (width, height) of the image
    digest: str | None = None  # see `image_digest`; where the image was read whole for the other facts
    pixels: dict[int, int] = dataclasses.field(default_factory=dict)  # of each mask value that occurs
    picture: Picture | None = None
    mask: Mask | None = None
    outline: Outline | None = None

    @property
    def usable(self) -> bool:
        """Whether image and mask could be read and belong together."""
        return bool(self.pixels)

    @property
    def empty(self) -> bool:
        """Whether the mask shows no instrument."""
        return not any(0 < value < IGNORE for value in self.pixels)

    @property
    def foreground(self) -> float:
        """Share of instrument among the pixels that are not ignored; NaN where all are."""
        labelled = sum(count for value, count in self.pixels.items() if value != IGNORE)
        return 1 - self.pixels.get(0, 0) / labelled if labelled else float("nan")

    def to_json(self) -> str:
        """Text for the cache; `facts_from_json` reads it."""
        return _ENCODER.encode(self)


def _plain(value: Any) -> Any:
    """What JSON cannot say of itself: bytes as base64, and our dataclasses."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return {name: getattr(value, name) for name in value.__slots__}


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def facts_from_json(text: str) -> Facts:
    """What `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    tree = json.loads(text)
    view, mask, outlined = tree["picture"], tree["mask"], tree["outline"]
    if view is not None:
        texts = {name: base64.b64decode(view[name], validate=True) for name in ("thumbnail", "marks")}
        view = Picture(**{**view, **texts, "surround": tuple(view["surround"])})
    if mask is not None:
        mask = Mask(**{**mask, "place": base64.b64decode(mask["place"], validate=True)})
    return Facts(
        faults=tuple(Fault(**fault) for fault in tree["faults"]),
        size=tuple(tree["size"]) if tree["size"] else None,
        digest=tree["digest"],
        pixels={int(value): int(count) for value, count in tree["pixels"].items()},
        picture=view,
        mask=mask,
        outline=Outline(**outlined) if outlined else None,
    )


def examine(records: Sequence[Record]) -> list[Facts]:
    """Read all of some records, so that a bad mask is told beside a bad image.

    Each step is taken for all of them before the next: what it needs then stays in the processor's caches.
    """
    shots = [_shot(record) for record in records]
    pictures = [None if shot.image is None else picture.measure(shot.image) for shot in shots]
    labels = [_labels(record, shot) for record, shot in zip(records, shots, strict=True)]
    outlines = [_outline(shot, label) for shot, label in zip(shots, labels, strict=True)]
    return [
        Facts((*shot.faults, *label.faults), shot.size, shot.digest, label.pixels, seen, label.mask, outlined)
        for shot, seen, label, outlined in zip(shots, pictures, labels, outlines, strict=True)
    ]


class _Shot(NamedTuple):
    """The image of a record, reduced; none where it cannot be read."""

    faults: tuple[Fault, ...]
    image: ImageArray | None = None
    size: tuple[int, int] | None = None  # (width, height) of the whole
    digest: str | None = None


class _Labels(NamedTuple):
    """What the masks of a record gave; nothing where one cannot be read or does not fit the image."""

    faults: tuple[Fault, ...]
    pixels: dict[int, int]
    mask: Mask | None = None
    small: MaskArray | None = None  # the instrument, half as large as the reduced image


def _shot(record: Record) -> _Shot:
    faults: list[Fault] = []
    read = _try(lambda: _read_reduced(record.image), lambda error: faults.append(_fault("unreadable", record, error)))
    return _Shot(tuple(faults), *(read or ()))


def _labels(record: Record, shot: _Shot) -> _Labels:
    faults: list[Fault] = []
    mask = _try(record.mask, lambda error: faults.append(_refused_mask(record, error)))
    instances = None
    if record.instances:
        instances = _try(record.instances, lambda error: faults.append(_refused_mask(record, error)))
    if shot.size:
        faults += _size_faults(record, shot.size, mask, instances)
    if shot.image is None or mask is None or faults:
        return _Labels(tuple(faults), {})
    counts = masks.count_values(mask)
    instrument = np.asarray(cv2.LUT(mask, _LABELLED), dtype=np.uint8) if IGNORE in counts else mask
    small = np.asarray(cv2.resize(instrument, _half(shot.image), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return _Labels((), counts, masks.measure(instrument, small), small)


def _outline(shot: _Shot, labels: _Labels) -> Outline | None:
    if shot.image is None or labels.small is None:
        return None
    image = np.asarray(cv2.resize(shot.image, _half(shot.image), interpolation=cv2.INTER_AREA), np.uint8)
    return outline.measure(image, labels.small)


def _half(image: ImageArray) -> tuple[int, int]:
    """Width and height; edges of this size tell masks apart best."""
    return max(1, image.shape[1] // 2), max(1, image.shape[0] // 2)


def image_digest(record: Record) -> str:
    """Of the image's size and pixels: equal for equal pictures, whatever the format of their files."""
    return _digest(record.image())


def _digest(image: ImageArray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=repr(image.shape).encode()).hexdigest()


def _read_reduced(read: Callable[[], ImageArray]) -> tuple[ImageArray, tuple[int, int], str | None]:
    """A reduced picture, the true (width, height), and the digest where the whole picture was at hand.

    A plain file is decoded at the reduced size; all else, such as a frame of a video, is read whole and shrunk.
    """
    if isinstance(read, functools.partial) and read.func is read_image and not read.keywords:
        return *read_reduced_image(read.args[0], REDUCED_SIDE), None
    image = read()
    step = next(step for step in (8, 4, 2, 1) if min(image.shape[:2]) >= step * REDUCED_SIDE or step == 1)
    return shrink(image, step), (image.shape[1], image.shape[0]), _digest(image)


def _try(read: Callable[[], T], refused: Callable[[UserError], None]) -> T | None:
    try:
        return read()
    except UserErrors as several:
        for single in several.errors:
            refused(single)
    except UserError as error:
        refused(error)
    return None


def _refused_mask(record: Record, error: UserError) -> Fault:
    kind, explained = masks.explain(record.files[1:], error)
    return _fault(kind, record, explained)


def _fault(kind: str, record: Record, error: UserError) -> Fault:
    where = error.where or f"record {record.name}"
    if record.name not in where:
        where = f"record {record.name}, {where}"
    return Fault(kind, error.what, where, error.mend)


def _size_faults(
    record: Record, size: tuple[int, int], mask: MaskArray | None, instances: MaskArray | None
) -> Iterator[Fault]:
    where = f"record {record.name}, {', '.join(str(path) for path in record.files)}"
    for name, array in (("mask", mask), ("instance mask", instances)):
        if array is None or array.shape == (size[1], size[0]):
            continue
        what = f"{name} is {array.shape[1]}x{array.shape[0]} but its image is {size[0]}x{size[1]}"
        if array.shape == size:
            what += ": lying against upright"
            mend = (
                "the image or the mask was turned alone, often by an EXIF flag that the tool for labelling did not "
                "follow: turn the mask as the image is seen"
            )
            yield Fault("orientation", what, where, mend)
        else:
            mend = f"re-export that mask at the image's size, or list {record.name} under data.exclude in the recipe"
            yield Fault("size", what, where, mend)
