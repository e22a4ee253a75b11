"""CVAT's segmentation mask 1.1, which is Pascal VOC's layout: coloured masks and `labelmap.txt` (docs.cvat.ai).

`JPEGImages/`, `SegmentationClass/`, `SegmentationObject/` (an instrument a colour), `ImageSets/Segmentation/*.txt`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trocar.config import DataSettings
from trocar.data.files import read_image, read_mask_file
from trocar.data.records import MaskArray, Record, Side
from trocar.data.sources.encoding import Colour, as_colours, name_colours, pack
from trocar.data.sources.labels import Found, class_table, expecting, listing_of, read_text, side_named
from trocar.data.sources.listing import Listing, files_by_stem, natural, pair
from trocar.errors import UserError

LABELMAP = "labelmap.txt"
IMAGES, MASKS, OBJECTS, LISTS = "JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"


def recognises(root: Path) -> bool:
    """Whether the label map and the folder of masks are there."""
    return (root / LABELMAP).is_file() and (root / MASKS).is_dir()


def read(root: Path, settings: DataSettings) -> Listing:
    """List the pairs of an image and a mask of the same relative stem; sides come from the lists, where there are."""
    if not recognises(root):
        raise UserError("no segmentation masks of CVAT here", where=str(root), mend=f"expected {LABELMAP} and {MASKS}/")
    if not (root / IMAGES).is_dir():
        raise UserError(
            f"the masks have no images: there is no {IMAGES}",
            where=str(root),
            mend=f'export again with "Save images", or put the images into {IMAGES}',
        )
    colours = _read_labelmap(root / LABELMAP)
    classes, meaning = class_table(colours, str(root / LABELMAP))
    codes = {_packed(colour): meaning[name] for name, colour in colours.items()}
    images, masks, objects = (files_by_stem(root / folder)[0] for folder in (IMAGES, MASKS, OBJECTS))
    found = Found()
    pairs, found.problems = pair(images, masks)
    sides = _read_sides(root / LISTS)
    records = {
        name: Record(
            name=name,
            group=name,
            dataset="cvat-masks",
            image=partial(read_image, image),
            mask=partial(_read_mask, mask, codes),
            instances=partial(_read_objects, objects[name][0]) if name in objects else None,
            files=(image, mask, *objects.get(name, [])[:1]),
        )
        for name, (image, mask) in sorted(pairs.items(), key=lambda item: natural(item[0]))
    }
    words = "colours: " + ", ".join(f"#{_packed(colour):06x} {name}" for name, colour in colours.items())
    return listing_of(
        found, records, dataset="cvat-masks", root=root, classes=classes, words=words, settings=settings, sides=sides
    )


def _read_labelmap(path: Path) -> dict[str, Colour]:
    """Colour of each label: lines `name:red,green,blue:parts:actions`, # begins a comment."""
    colours: dict[str, Colour] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            with expecting("a line of the label map", f"{path}, line {number}"):
                name, code = line.rsplit(":", 3)[:2]
                red, green, blue = (int(part) for part in code.split(","))
                if not all(0 <= part <= 255 for part in (red, green, blue)):
                    raise ValueError(f"{code} is no colour")
                colours[name.strip()] = (red, green, blue)
    if len(set(colours.values())) < len(colours):
        raise UserError("two labels have one colour", where=str(path), mend="give each label a colour of its own")
    return colours


def _read_sides(folder: Path) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    for path in sorted(folder.glob("*.txt")) if folder.is_dir() else []:
        side = side_named(path.stem)
        if side:
            sides |= {line.strip(): side for line in read_text(path).splitlines() if line.strip()}
    return sides


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _read_mask(path: Path, codes: dict[int, int]) -> MaskArray:
    """Class indices by colour. Black is background where no label has it. Shapes: -> uint8 (H, W)."""
    packed = pack(as_colours(read_mask_file(path, palette_as_colours=True)))
    known = np.array(sorted({0, *codes}), dtype=np.uint32)
    where = np.minimum(np.searchsorted(known, packed), known.size - 1)
    unknown = known[where] != packed
    if unknown.any():
        raise UserError(
            f"the mask holds colours that {LABELMAP} does not name: {name_colours(packed[unknown])}, "
            f"{unknown.mean():.2%} of its pixels",
            where=str(path),
            mend=f"add them to {LABELMAP}; if they are mixtures along edges, export again without resizing",
        )
    return np.array([codes.get(int(code), 0) for code in known], dtype=np.uint8)[where]


def _read_objects(path: Path) -> MaskArray:
    """Index of the instrument by VOC's colours; other colours are numbered as they sort. Shapes: -> uint8 (H, W)."""
    packed = pack(as_colours(read_mask_file(path, palette_as_colours=True)))
    found, where = np.unique(packed, return_inverse=True)
    index_of = {int(code): index for index, code in enumerate(pack(voc_colours()[None])[0])}
    if all(int(code) in index_of for code in found):
        numbers = [index_of[int(code)] for code in found]
    elif found.size <= 255:
        numbers = [*range(found.size)] if found[0] == 0 else [*range(1, found.size + 1)]
    else:
        raise UserError(
            f"the mask of instruments has {found.size} colours", where=str(path), mend="export it without resizing"
        )
    return np.array(numbers, dtype=np.uint8)[where].reshape(packed.shape)


def voc_colours() -> NDArray[np.uint8]:
    """Colour of each index in Pascal VOC: the index's bits, dealt out to red, green and blue. Shapes: -> (256, 3)."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    index = np.arange(256)
    for bit in range(8):
        colours[:, bit % 3] |= ((index >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours
