"""ROBUST-MIS 2019 (Ross et al. 2021, doi:10.1016/j.media.2020.101920; frames of the Heidelberg colorectal data set).

A folder a frame: `Training/<surgery>/<procedure>/<frame>/raw.png`,
`Testing/Stage_1..3/<surgery>/<procedure>/<frame>/`, with `instrument_instances.png`: 0 background, then a value an
instrument. Where that file is missing, the frame shows no instrument. `10s_video.zip`, the ten seconds before it, is
not read. ROBUST-MIPS, which has the same files, is read too.

A group is a procedure, named by surgery and number whatever the side: stage 1 of the test shows procedures of the
training (stage 2 other patients, stage 3 another surgery), so that the official split cuts groups.

Sources: two public loaders that give these paths (one for SegSTRONG-C, one that reads the release's manifest); the
challenge's page and the paper for the stages. Not verified on the data itself: that every unlabelled frame is one
without instruments. A part (Training, a stage) without a single mask is taken as unlabelled instead, and left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from trocar.config import DataSettings
from trocar.data.files import read_image, read_mask_file
from trocar.data.records import MaskArray, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.encoding import BINARY_CLASSES, as_grey
from trocar.data.sources.listing import Listing, natural
from trocar.errors import UserError

_IMAGE, _MASK = "raw.png", "instrument_instances.png"
_DEPTH = 5  # side, stage, surgery, procedure, frame
_EXPECTED = f"Training/<surgery>/<procedure>/<frame>/{_IMAGE}, and {_MASK} where the frame shows an instrument"


def recognises(root: Path) -> bool:
    """Whether a folder with raw.png lies below others."""
    return research.holds(root, _is_frame, depth=_DEPTH)


def read(root: Path, settings: DataSettings) -> Listing:  # noqa: ARG001 - every reader is called the same way
    """List the frames, each with its instances; without a mask they are all background."""
    parts: dict[tuple[str, ...], list[Path]] = {}
    for folder in research.descend(root, _is_frame, depth=_DEPTH):
        parts.setdefault(folder.relative_to(root).parts[:-3], []).append(folder)
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    sides: dict[str, Side | None] = {}
    notes: list[str] = []
    for part, folders in parts.items():
        words = "/".join(part) or root.name
        empty = sum(not (folder / _MASK).is_file() for folder in folders)
        if empty == len(folders):
            notes.append(f"{words}: none of {empty} frames has a mask: they are taken as unlabelled and left out")
            continue
        if empty:
            notes.append(f"{words}: {empty} of {len(folders)} frames have no {_MASK}: they show no instrument")
        for folder in folders:
            record = _record(folder, root)
            if (folder / _IMAGE).is_file():
                records.append(record)
                sides[record.name] = research.side_of(part)
            else:
                problems[record.name] = _no_image(record.name, folder)
    if not records:
        raise UserError(
            "no labelled frames of ROBUST-MIS here", where=" ".join([str(root), *notes]), mend=f"expected {_EXPECTED}"
        )
    lists = research.official(sides)
    if lists:
        notes.append("stage 1 of the test shows procedures of the training: the official split cuts these groups")
    source = Source(
        dataset="robust-mis",
        root=root,
        classes=BINARY_CLASSES,
        records=tuple(sorted(records, key=lambda record: (natural(record.group), natural(record.name)))),
        official=lists,
        mask_encoding="instances: 0 background, any other value an instrument",
        notes=tuple(notes),
    )
    return source, problems


def _is_frame(folder: Path) -> bool:
    return (folder / _IMAGE).is_file() or (folder / _MASK).is_file()


def _record(folder: Path, root: Path) -> Record:
    image, mask = folder / _IMAGE, folder / _MASK
    place = folder.relative_to(root)
    labelled = mask.is_file()
    return Record(
        name=place.as_posix(),
        group="/".join(place.parts[-3:-1]) or ".",
        dataset="robust-mis",
        image=partial(read_image, image),
        mask=partial(_read_mask, mask) if labelled else partial(_no_instrument, image),
        instances=partial(_read_instances, mask) if labelled else partial(_no_instrument, image),
        frame=research.number_in(folder.name),
        files=(image, mask) if labelled else (image,),
    )


def _no_image(name: str, folder: Path) -> UserError:
    return UserError(
        f"the mask has no image: {_IMAGE} is missing",
        where=f"record {name}, {folder}",
        mend=f"add it, or list {name} under data.exclude in the recipe",
    )


def _read_instances(path: Path) -> MaskArray:
    stored = as_grey(read_mask_file(path))
    if stored is None:
        raise UserError("the mask is coloured; one value an instrument was expected", where=str(path))
    return research.numbered_instances(stored)


def _read_mask(path: Path) -> MaskArray:
    return (_read_instances(path) > 0).astype(np.uint8)


def _no_instrument(image: Path) -> MaskArray:
    return np.zeros(read_image(image).shape[:2], dtype=np.uint8)
