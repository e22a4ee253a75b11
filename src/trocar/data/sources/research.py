"""What the readers of research sets share: finding folders, reading coded masks, naming classes, official sides.

Most of these sets label anatomy, or things that an instrument holds, beside the instruments. For each, `data.target`
chooses one of up to three tables from label to class: `instrument` (one class), `parts` and `types`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trocar.data.files import read_mask_file
from trocar.data.records import IGNORE, SIDES, MaskArray, Record, Side
from trocar.data.sources.encoding import as_grey
from trocar.data.sources.listing import files_by_stem, hidden, natural
from trocar.errors import UserError
from trocar.plain import some

_UNKNOWN = 254  # marks codes without a meaning while decoding; class indices stay below it


# ------------------------------------------------------------------ folders and files


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly below, in natural order; none if there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not hidden(path.name)]
    except OSError as error:
        raise UserError(
            f"cannot look into the folder: {error.strerror}", where=str(folder), mend="grant permission to read it"
        ) from None
    return sorted(found, key=lambda path: natural(path.name))


def descend(root: Path, wanted: Callable[[Path], bool], depth: int) -> Iterator[Path]:
    """Folders below `root`, at most `depth` levels down, that are `wanted`; what lies inside those is not looked at."""
    for folder in subfolders(root):
        if wanted(folder):
            yield folder
        elif depth > 1:
            yield from descend(folder, wanted, depth - 1)


def holds(root: Path, wanted: Callable[[Path], bool], depth: int, width: int = 6) -> bool:
    """Whether such a folder is met among the first `width` of each level, so that a foreign tree costs little."""
    folders = subfolders(root)[:width]
    return any(map(wanted, folders)) or (
        depth > 1 and any(holds(folder, wanted, depth - 1, width) for folder in folders)
    )


def named_files(folder: Path, prefix: str) -> dict[str, list[Path]]:
    """Image files by the record they belong to: `prefix`, then their path in the folder without ending."""
    return {f"{prefix}/{stem}": paths for stem, paths in files_by_stem(folder)[0].items()}


def number_in(text: str) -> int | None:
    """The last run of digits in a name, which is the frame's number; None where there is none."""
    digits = [part for part in natural(text) if part[0] == 0]
    return digits[-1][1] if digits else None


def side_of(parts: Iterable[str]) -> Side | None:
    """The side that a folder's name begins with, whatever its case: train, val or test."""
    return next((side for part in parts for side in SIDES if part.lower().startswith(side)), None)


def in_time_order(records: Iterable[Record]) -> tuple[Record, ...]:
    """Groups together, in each by frame number."""
    return tuple(sorted(records, key=lambda record: (natural(record.group), record.frame or 0, record.name)))


def official(sides: Mapping[str, Side | None]) -> dict[Side, tuple[str, ...]] | None:
    """The official lists, from the side of each record; None unless some train and others test."""
    lists = {side: tuple(name for name, own in sides.items() if own == side) for side in SIDES}
    if not lists["train"] or not lists["test"]:
        return None
    return {side: names for side, names in lists.items() if names}


def nothing_here(what: str, root: Path, expected: str) -> UserError:
    """The refusal of a folder that is not laid out as its kind says."""
    return UserError(f"no {what} here", where=str(root), mend=f"expected {expected}")


# ------------------------------------------------------------------ classes


def classes_of(table: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, background first, and the class index of each label in a table from label to class."""
    classes = ("background", *dict.fromkeys(table.values()))
    return classes, {label: classes.index(name) for label, name in table.items()}


# ------------------------------------------------------------------ masks of codes


def read_codes(path: Path, meaning: Mapping[int, int], stray: float = 0.0) -> MaskArray:
    """`decode` of a grey mask file; three equal channels count as grey. Shapes: -> uint8 (H, W)."""
    grey = as_grey(read_mask_file(path))
    if grey is None:
        raise UserError(
            "the mask has colours where three equal channels, or one, were expected",
            where=str(path),
            mend="copy the original file again",
        )
    return decode(grey, meaning, path, stray)


def decode(codes: NDArray[np.uint8], meaning: Mapping[int, int], path: Path, stray: float = 0.0) -> MaskArray:
    """Class index of each pixel. Codes without a meaning are ignored (255) up to a share `stray`, and refused above it.

    Shapes: codes (H, W) -> uint8 (H, W).
    """
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    mask = table[codes]
    unknown = mask == _UNKNOWN
    share = float(unknown.mean())
    if share > stray:
        found = np.unique(codes[unknown]).tolist()
        shown = some([str(value) for value in found], 10)
        raise UserError(
            f"the mask holds unexpected values {shown}, {share:.2%} of its pixels",
            where=str(path),
            mend=f"expected are {', '.join(map(str, sorted(meaning)))}: copy the original file again",
        )
    mask[unknown] = IGNORE
    return mask


def numbered_instances(codes: NDArray[np.uint8]) -> MaskArray:
    """Instances counted from 1 in the order of their codes; 0 stays background. Shapes: (H, W) -> uint8 (H, W)."""
    found = np.unique(codes)
    table = np.zeros(256, dtype=np.uint8)
    table[found[found > 0]] = np.arange(1, np.count_nonzero(found) + 1)
    return table[codes]
