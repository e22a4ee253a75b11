"""What the values in mask files mean: recognised from a sample, then verified in every mask that is read.

Recognised are 0/1, 0/255, and whatever a `classes.json` beside the folders names: values (`{"background": 0, "shaft":
1}`) or colours (`{"background": [0, 0, 0], "shaft": [255, 0, 0]}`). An entry called `ignore` is no class; its pixels
count nowhere. Grey masks may be stored in three equal channels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.files import read_mask_file
from trocar.data.records import IGNORE, MaskArray
from trocar.documents import read_json
from trocar.errors import UserError
from trocar.plain import some

BINARY_CLASSES = ("background", "instrument")
CLASS_TABLE = "classes.json"
_SAMPLE = 32
_UNKNOWN = 254  # marks values without a meaning while decoding; class indices stay below it

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Encoding:
    """Meaning of the values in mask files: `values` for grey ones, `colours` for coloured ones, never both."""

    classes: tuple[str, ...]
    words: str
    values: tuple[tuple[int, int], ...] = ()  # (value on disk, class index or 255)
    colours: tuple[tuple[Colour, int], ...] = ()  # ((red, green, blue) on disk, class index or 255)

    def read(self, path: Path) -> MaskArray:
        """Class indices of a mask file. Raises `UserError` if it holds a value without a meaning.

        Shapes: -> uint8 (H, W).
        """
        if self.colours:
            return self._from_colours(as_colours(read_mask_file(path, palette_as_colours=True)), path)
        grey = as_grey(read_mask_file(path))
        if grey is None:
            raise _coloured(path)
        return self._from_values(grey, path)

    def _from_values(self, grey: NDArray[np.uint8], path: Path) -> MaskArray:
        """Class indices; black and white ones are written over `grey`, which was read for this alone."""
        if self.values == ZERO_255.values and cv2.norm(grey, cv2.NORM_L1) == 255 * cv2.countNonZero(grey):
            return np.bitwise_and(grey, 1, out=grey)  # half the time of a table
        table = np.full(256, _UNKNOWN, dtype=np.uint8)
        for value, index in self.values:
            table[value] = index
        mask = np.asarray(cv2.LUT(grey, table), dtype=np.uint8)  # several times as fast as indexing, without the GIL
        if (mask == _UNKNOWN).any():
            raise _unexpected_values(grey, dict(self.values), self.words, path)
        return mask

    def _from_colours(self, colours: NDArray[np.uint8], path: Path) -> MaskArray:
        packed = pack(colours)
        mask = np.full(packed.shape, _UNKNOWN, dtype=np.uint8)
        for (red, green, blue), index in self.colours:
            mask[packed == (red << 16 | green << 8 | blue)] = index
        unknown = mask == _UNKNOWN
        if unknown.any():
            raise UserError(
                f"the mask holds colours that {CLASS_TABLE} does not name: {name_colours(packed[unknown])}, "
                f"{unknown.mean():.2%} of its pixels",
                where=str(path),
                mend=f"add them to {CLASS_TABLE}; if they are mixtures along edges, export without anti-aliasing",
            )
        return mask


ZERO_ONE = Encoding(BINARY_CLASSES, "0/1 (255 is ignored)", values=((0, 0), (1, 1), (255, IGNORE)))
ZERO_255 = Encoding(BINARY_CLASSES, "0/255", values=((0, 0), (255, 1)))


def recognise(root: Path, masks: Sequence[Path]) -> Encoding:
    """The encoding of these masks: that of the class table in `root` if there is one, otherwise 0/1 or 0/255.

    Up to 32 masks, evenly spread, are read. Masks that do not fit what most say are refused when they are read.
    """
    table = _read_class_table(root / CLASS_TABLE)
    if table:
        return table
    sample = _read_sample(masks)
    if not sample:
        return ZERO_255  # none is readable: each says so itself when it is read
    coloured = next((path for path, stored in sample if as_grey(stored) is None), None)
    if coloured is not None:
        raise _coloured(coloured)
    values = [set(np.unique(stored).tolist()) for _, stored in sample]
    binary_votes = sum(found <= {0, 255} for found in values)
    index_votes = sum(found <= {0, 1, 255} and 1 in found for found in values)
    if binary_votes or index_votes:
        encoding = ZERO_255 if binary_votes > index_votes else ZERO_ONE
    elif all({0, 255} <= found for found in values):
        encoding = ZERO_255  # anti-aliased throughout: every mask is refused with its share of greys
    else:
        raise _no_meaning(root, sample, values)
    in_colour = sample[0][1].ndim == 3
    return Encoding(encoding.classes, _with_channels(encoding.words, in_colour), values=encoding.values)


def _with_channels(words: str, in_colour: bool) -> str:
    return f"{words}, stored in three equal channels" if in_colour else words


def _read_sample(masks: Sequence[Path]) -> list[tuple[Path, NDArray[np.uint8]]]:
    """Readable masks of an evenly spread sample that show something; of the rest, the first that does, or the last."""
    chosen = sorted({round(i) for i in np.linspace(0, len(masks) - 1, min(_SAMPLE, len(masks)))})
    rest = sorted(set(range(len(masks))) - set(chosen))
    readable = [(masks[i], stored) for i in chosen if (stored := _try_to_read(masks[i])) is not None]
    showing = [(path, stored) for path, stored in readable if stored.any()]
    if showing:
        return showing
    for i in rest:
        stored = _try_to_read(masks[i])
        if stored is not None and stored.any():
            return [(masks[i], stored)]
    return readable[-1:]


def _try_to_read(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_mask_file(path)
    except UserError:
        return None  # reported when the record is read


# ------------------------------------------------------------------ class table


def _read_class_table(path: Path) -> Encoding | None:
    if not path.is_file():
        return None
    table = read_json(path, "the class table", mend="mend the JSON")
    wrong = _wrong_with(table)
    if wrong:
        raise UserError(
            f"the class table {wrong}",
            where=str(path),
            mend='write {"background": 0, "shaft": 1} for values, or {"background": [0, 0, 0], "shaft": [255, 0, 0]} '
            "for colours; the first class is the background",
        )
    ignored = table.pop("ignore", None)
    if all(isinstance(code, int) for code in table.values()):
        return _table_of_values(table, ignored)
    classes = tuple(table)
    colours = [(tuple(code), index) for index, code in enumerate(table.values())]
    if ignored is not None:
        colours.append((tuple(ignored), IGNORE))
    words = f"colours: {', '.join(f'{_hex(code)} {name}' for name, code in table.items())}"
    return Encoding(classes, words, colours=tuple(colours))


def _table_of_values(table: dict[str, int], ignored: int | None) -> Encoding:
    if sorted(table.values()) == list(range(len(table))):
        table = dict(sorted(table.items(), key=lambda item: item[1]))  # plain indices: value and class are one
    values = {code: index for index, code in enumerate(table.values())}
    values.setdefault(255 if ignored is None else ignored, IGNORE)
    words = ", ".join(f"{code} {name}" for name, code in table.items())
    ignored_words = ", ".join(f"{code} ignored" for code, index in values.items() if index == IGNORE)
    words = f"indexed: {words}" + (f" ({ignored_words})" if ignored_words else "")
    return Encoding(tuple(table), words, values=tuple(values.items()))


def _wrong_with(table: Any) -> str | None:
    if not isinstance(table, dict):
        return "is not a mapping of class names"
    codes = list(table.values())
    if len(table.keys() - {"ignore"}) < 2:
        return "names fewer than two classes"
    if len(table) > 200:
        return "names more than 200 classes"
    if not (all(_is_value(code) for code in codes) or all(_is_colour(code) for code in codes)):
        return "must give every class a value from 0 to 255, or every class a colour of three such values"
    if len({json.dumps(code) for code in codes}) < len(codes):
        return "gives two classes the same value"
    return None


def _is_value(code: Any) -> bool:
    return isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255


def _is_colour(code: Any) -> bool:
    return isinstance(code, list) and len(code) == 3 and all(_is_value(part) for part in code)


# ------------------------------------------------------------------ pixels


def as_grey(stored: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """One channel of a mask whose channels are equal; None if they differ. Shapes: (H, W) or (H, W, 3) -> (H, W)."""
    if stored.ndim == 2:
        return stored
    first = stored[..., 0]
    equal = np.array_equal(first, stored[..., 1]) and np.array_equal(first, stored[..., 2])
    return np.ascontiguousarray(first) if equal else None


def as_colours(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels of a mask, equal ones if it is grey. Shapes: (H, W) or (H, W, 3) -> (H, W, 3)."""
    return stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2)


def pack(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Each colour as one number, 0xRRGGBB. Shapes: (H, W, 3) -> (H, W)."""
    red, green, blue = (colours[..., channel].astype(np.uint32) for channel in range(3))
    return np.asarray(red << 16 | green << 8 | blue, dtype=np.uint32)


def name_colours(packed: NDArray[np.uint32], limit: int = 6) -> str:
    """The most frequent colours as hex, most frequent first."""
    found, counts = np.unique(packed, return_counts=True)
    names = [f"#{found[i]:06x}" for i in np.argsort(-counts, kind="stable")]
    return some(names, limit)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


# ------------------------------------------------------------------ refusals


def _unexpected_values(grey: NDArray[np.uint8], meaning: dict[int, int], words: str, path: Path) -> UserError:
    counts = np.bincount(grey.ravel(), minlength=256)
    known = np.array([value in meaning for value in range(256)])
    found = np.flatnonzero((counts > 0) & ~known)
    shown = some([str(value) for value in found], 8)
    share = counts[~known].sum() / grey.size
    if len(found) > 2 and meaning.get(255) not in (None, IGNORE):
        cause = "greys between 0 and 255 come from anti-aliasing, from resizing, or from a JPEG on the way"
        mend = "export the mask without anti-aliasing, or threshold it at half and save it as PNG"
    else:
        cause = "this mask is encoded otherwise than most, or labels a class that nothing names"
        mend = f"save it like the others, or name its values in a {CLASS_TABLE} beside the folders"
    return UserError(
        f"the mask holds unexpected values {shown} in {share:.2%} of its pixels; expected is {words}: {cause}",
        where=str(path),
        mend=mend,
    )


def _coloured(path: Path) -> UserError:
    packed = pack(as_colours(read_mask_file(path, palette_as_colours=True)))
    return UserError(
        f"the mask is coloured ({name_colours(packed.ravel())}), and nothing says which colour is which class",
        where=str(path),
        mend=f'write {CLASS_TABLE} beside the folders, for example {{"background": [0, 0, 0], "shaft": [255, 0, 0]}}',
    )


def _no_meaning(root: Path, sample: list[tuple[Path, NDArray[np.uint8]]], values: list[set[int]]) -> UserError:
    together = sorted(set[int]().union(*values))
    shown = some([str(value) for value in together], 12)
    example = {"background": together[0]} | {f"class{i}": value for i, value in enumerate(together[1:5], start=1)}
    return UserError(
        f"mask values {shown} were found, and nothing says what they mean",
        where=f"{len(sample)} masks, for example {sample[0][0]}",
        mend=f"name them in {root / CLASS_TABLE}, for example {json.dumps(example)}",
    )
