"""YOLO segmentation as Ultralytics has it: `data.yaml`, `images/`, and `labels/` with a line of numbers an instrument.

A line is a class number and x y x y ... from 0 to 1 (docs.ultralytics.com/datasets/segment). An image without a file
of labels shows no instrument. The YAML names folders of images, or text files that list images, for each side; the
labels of `.../images/a.jpg` are `.../labels/a.txt`.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from trocar.config import DataSettings
from trocar.data.annotations.raster import as_ring, fill
from trocar.data.annotations.rings import BoolArray, Ring
from trocar.data.annotations.shapes import Shape, paint_instances, paint_mask
from trocar.data.files import IMAGE_SUFFIXES, read_image
from trocar.data.records import SIDES, MaskArray, Record, Side
from trocar.data.sources.labels import (
    Found,
    class_table,
    expecting,
    find_image,
    image_size_hw,
    is_within,
    listing_of,
    mentions,
    read_text,
    stem_of,
)
from trocar.data.sources.listing import Listing, files_by_stem
from trocar.documents import read_yaml
from trocar.errors import UserError

UNLISTED = "unlisted"  # key, beside those of the sides, of images on no official list; our writer's


def recognises(root: Path) -> bool:
    """Whether a YAML file in the folder names classes and a side, and there are labels."""
    return _document(root) is not None and (any(root.glob("labels")) or any(root.glob("*/labels")))


def read(root: Path, settings: DataSettings) -> Listing:
    """List the images of all sides, each once; their labels are read when asked for."""
    path = _document(root)
    if path is None:
        raise UserError(
            "no YOLO labels here", where=str(root), mend="expected data.yaml with names and train, images/ and labels/"
        )
    document = _checked(path)
    names = document["names"]
    with expecting("names", str(path)):
        table = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in sorted(names)}
    classes, meaning = class_table([str(name) for name in table.values()], str(path))
    index_of = {number: meaning[str(name)] for number, name in table.items()}
    found = Found()
    records: dict[str, Record] = {}
    sides: dict[str, Side] = {}
    images = _images(document, path, root, found)
    counts = Counter(name for name, _, _ in images)
    for name, image, side in images:
        if counts[name] > 1:
            found.problems[name] = _several(name, root)
            continue
        records[name] = _record(name, image, index_of, document.get("instances") is not False)
        if side:
            sides[name] = side
    unlabelled = sum(len(record.files) == 1 for record in records.values())
    if unlabelled:
        found.notes.append(f"{unlabelled} images have no file of labels: no instrument, as the format has it")
    return listing_of(
        found,
        records,
        dataset="yolo",
        root=root,
        classes=classes,
        words="YOLO polygons",
        settings=settings,
        sides=sides,
    )


def _document(root: Path) -> Path | None:
    candidates = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])[:20]
    return next((path for path in candidates if mentions(path, "names:")), None)


def _checked(path: Path) -> dict[str, Any]:
    document = read_yaml(path, "the file", mend="mend it")
    names = document.get("names") if isinstance(document, dict) else None
    names = names.values() if isinstance(names, dict) else names if isinstance(names, list) else []
    if not names or not all(isinstance(name, str | int) for name in names):
        raise UserError("the file needs `names`, the names of the classes", where=str(path), mend="add them")
    places = [document.get(key) for key in ("path", *SIDES, UNLISTED)]
    listed = [place for some in places for place in (some if isinstance(some, list) else [some])]
    if not all(isinstance(place, str | None) for place in listed):
        raise UserError("a side names something other than folders and lists", where=str(path), mend="mend the YAML")
    try:
        "".join(str(text) for text in (*names, *listed)).encode()
    except UnicodeEncodeError as error:  # halves of characters can be printed nowhere
        raise UserError(f"a name is no text: {error}", where=str(path), mend="mend the YAML") from None
    return cast(dict[str, Any], document)


# ------------------------------------------------------------------ images


def _images(document: dict[str, Any], path: Path, root: Path, found: Found) -> list[tuple[str, Path, Side | None]]:
    """Record name, image and side of every image of the sides; one folder for several sides gives no side."""
    by_image: dict[Path, tuple[str, set[Side | None]]] = {}
    sides: tuple[Side | None, ...] = (*SIDES, None)
    for side in sides:
        entries = document.get(side or UNLISTED)
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            for name, image in _images_of(entry, document, path, root, found):
                by_image.setdefault(image, (name, set()))[1].add(side)
    if not by_image and not found.problems:
        raise UserError("the sides hold no images", where=str(path), mend=f"images are {', '.join(IMAGE_SUFFIXES)}")
    return [(name, image, next(iter(sides)) if len(sides) == 1 else None) for image, (name, sides) in by_image.items()]


def _images_of(entry: str, document: dict[str, Any], path: Path, root: Path, found: Found) -> list[tuple[str, Path]]:
    """Images of one entry of a side: a folder, or a text file with an image a line."""
    bases = [root / document["path"], root] if document.get("path") else [root]
    climbed = entry.replace("\\", "/")
    while climbed.startswith("../"):  # Roboflow writes ../train/images and means train/images
        climbed = climbed.removeprefix("../")
    places = [Path(os.path.normpath(base / name)) for base in bases for name in (entry, climbed)]
    places = [place for place in places if is_within(place, root) and _exists(place)]
    if not places:
        found.problems[entry] = UserError(
            f"there is no {entry[:200]}", where=f"{path}, below {root}", mend="mend the path, or put the images there"
        )
        return []
    place = places[0]
    if place.is_dir():
        stems, _ = files_by_stem(place)
        return [(_name(image, place, root), image) for images in stems.values() for image in images]
    listed = []
    for line in filter(None, map(str.strip, read_text(place).splitlines())):
        try:
            image = find_image(line, [place.parent, *bases], root, str(place))
            listed.append((_name(image, root, root), image))
        except UserError as error:
            found.problems[stem_of(line)] = error
    return listed


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than the system has
        return False


def _name(image: Path, folder: Path, root: Path) -> str:
    """The path below the side's folder of images, or below `images/`, without ending."""
    name = stem_of(image.relative_to(folder).as_posix())
    return name.removeprefix("images/") if folder == root else name


def _several(name: str, root: Path) -> UserError:
    return UserError(
        f"several images would all be record {name}",
        where=str(root),
        mend="rename the images, so that no two differ by their ending or their side's folder alone",
    )


# ------------------------------------------------------------------ labels


def _record(name: str, image: Path, index_of: dict[int, int], with_instances: bool) -> Record:
    labels = _labels_of(image)
    there = labels.is_file()
    # `instances: false` in the YAML is our writer's, where a line is all of a class: nobody told instruments apart.
    return Record(
        name=name,
        group=name,
        dataset="yolo",
        image=partial(read_image, image),
        mask=partial(_read_mask, labels if there else None, image, index_of),
        instances=partial(_read_instances, labels if there else None, image, index_of) if with_instances else None,
        files=(image, labels) if there else (image,),
    )


def _labels_of(image: Path) -> Path:
    """The last folder called images becomes labels, the ending .txt."""
    head, found, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if found else image).with_suffix(".txt")


def _read_mask(labels: Path | None, image: Path, index_of: dict[int, int]) -> MaskArray:
    return paint_mask(_shapes(labels, index_of), image_size_hw(image), str(labels))


def _read_instances(labels: Path | None, image: Path, index_of: dict[int, int]) -> MaskArray:
    return paint_instances(_shapes(labels, index_of), image_size_hw(image), str(labels))


def _shapes(labels: Path | None, index_of: dict[int, int]) -> list[Shape]:
    if labels is None:
        return []
    shapes = []
    for number, line in enumerate(read_text(labels).splitlines(), start=1):
        if line.strip():
            with expecting("a line of labels", f"{labels}, line {number}"):
                shapes.append(_shape(line.split(), index_of))
    return shapes


def _shape(words: list[str], index_of: dict[int, int]) -> Shape:
    number = int(words[0])
    if number not in index_of:
        raise UserError(f"class {number} is not among the names", mend="add its name to the YAML file")
    if len(words) == 5:
        raise UserError(
            "the line is a box, not an outline: nothing says which pixels are the instrument",
            mend="export the labels for segmentation",
        )
    if len(words) % 2 == 0:
        raise UserError("the line has an x without a y", mend="export the labels again")
    ring = as_ring(np.array([float(word) for word in words[1:]]))
    if ring.max() > 2 or ring.min() < -1:
        raise UserError(
            f"the outline reaches to {np.abs(ring).max():g}, where sides of the image are 1",
            mend="divide x by the image's width and y by its height",
        )
    return Shape(index_of[number], partial(_scaled, ring))


def _scaled(ring: Ring, size: tuple[int, int]) -> BoolArray:
    return fill([ring * (size[1], size[0])], size)
