"""Kvasir-Instrument (Jha et al. 2021, doi:10.1007/978-3-030-67835-7_19) in its own layout, with its official split.

`images/*.jpg`, `masks/*.png` of the same stems (0/255, three equal channels), `train.txt` and `test.txt` with a stem
a line. `bboxes.json` is derived from the masks and not read. Patients are not published: each image is its own group.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import IMAGE_SUFFIXES, read_image
from trocar.data.records import Record, Side, Source
from trocar.data.sources.encoding import ZERO_255
from trocar.data.sources.listing import Listing, files_by_stem, pair
from trocar.documents import read_text
from trocar.errors import UserError

_LISTS: tuple[Side, ...] = ("train", "test")
_HOME = "datasets.simula.no/kvasir-instrument"


def recognises(root: Path) -> bool:
    """Whether both official lists and the masks are there; the images may still be missing."""
    return all((root / f"{side}.txt").is_file() for side in _LISTS) and (root / "masks").is_dir()


def read(root: Path, settings: DataSettings) -> Listing:  # noqa: ARG001 - every reader is called the same way
    """List the pairs, by name. What a list names and the folders lack is a finding, and so is a name on both lists."""
    _refuse_if_incomplete(root)
    images, _ = files_by_stem(root / "images")
    masks, _ = files_by_stem(root / "masks")
    pairs, problems = pair(images, masks)
    lists = {side: _read_list(root / f"{side}.txt") for side in _LISTS}
    for side, names in lists.items():
        problems |= _wrong_with_list(root / f"{side}.txt", names, images.keys() | masks.keys())
    for name in sorted(set(lists["train"]) & set(lists["test"])):
        problems[name] = UserError(
            f"{name} is on both official lists",
            where=str(root),
            mend="download the lists again",
        )
    records = [
        Record(
            name=name,
            group=name,
            dataset="kvasir-instrument",
            image=partial(read_image, pairs[name][0]),
            mask=partial(ZERO_255.read, pairs[name][1]),
            files=pairs[name],
        )
        for name in sorted(pairs)
        if name not in problems
    ]
    known = {record.name for record in records}
    official = {side: tuple(sorted(known.intersection(names))) for side, names in lists.items()}
    notes = ["patients are not published: each image is its own group, so a patient may be on both sides of a split"]
    unlisted = sorted(known.difference(*lists.values()))
    if unlisted:
        notes.append(f"{len(unlisted)} images are on neither official list, such as {unlisted[0]}")
    source = Source(
        dataset="kvasir-instrument",
        root=root,
        classes=ZERO_255.classes,
        records=tuple(records),
        official=official,
        mask_encoding="0/255, stored in three equal channels",
        notes=tuple(notes),
    )
    return source, problems


def _refuse_if_incomplete(root: Path) -> None:
    for part in ("images", "masks", "train.txt", "test.txt"):
        if not (root / part).exists():
            what = "the images" if part == "images" else part
            raise UserError(
                f"Kvasir-Instrument without {what}: there is no {root / part}",
                where=str(root),
                mend=f"download the data set from {_HOME} and unpack it, so that images/, masks/ and both lists lie in "
                "one folder",
            )


def _read_list(path: Path) -> list[str]:
    """Stems of a list; blank lines and endings such as .jpg are taken off."""
    lines = read_text(path, "the official list", mend="download it again").split()
    if not lines:
        raise UserError("the official list is empty", where=str(path), mend="download it again")
    return [Path(line).stem if line.lower().endswith(IMAGE_SUFFIXES) else line for line in lines]


def _wrong_with_list(path: Path, names: list[str], known: set[str]) -> dict[str, UserError]:
    absent = {
        name: UserError(
            f"the official list names {name}, which has no image",
            where=str(path),
            mend=f"download the data set again, or list {name} under data.exclude in the recipe",
        )
        for name in names
        if name not in known
    }
    twice = {
        name: UserError(f"the official list names {name} {count} times", where=str(path), mend="keep one line of it")
        for name, count in Counter(names).items()
        if count > 1
    }
    return absent | twice
