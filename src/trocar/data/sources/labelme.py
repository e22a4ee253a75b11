"""LabelMe: a JSON file beside each image, with polygons, rectangles, circles and masks (github.com/wkentaro/labelme).

`labels.txt` in the root, where there is one, gives the classes in their order; otherwise they are sorted by name.
Polygons are filled by pixel centres; LabelMe itself also paints the pixels that the outline runs over.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trocar.config import DataSettings
from trocar.data.annotations.raster import as_ring, fill
from trocar.data.annotations.rings import BoolArray
from trocar.data.annotations.shapes import Shape, instance_key, paint_instances, paint_mask, size_hw
from trocar.data.files import IMAGE_SUFFIXES, MAX_PIXELS, read_image
from trocar.data.records import MaskArray, Record
from trocar.data.sources.labels import (
    Found,
    class_table,
    expecting,
    find_image,
    listing_of,
    mentions,
    read_json,
    read_text,
)
from trocar.data.sources.listing import Listing, files_by_stem, hidden, refuse_unlisted
from trocar.errors import UserError, UserErrors

LABELS = "labels.txt"
AREAS = ("polygon", "rectangle", "circle", "mask")
_FURTHEST = 1e6  # pixels
_LOOKED_AT = 3  # JSON files that are opened to recognise the layout


def recognises(root: Path) -> bool:
    """Whether the first JSON files below the folder have LabelMe's keys."""
    for number, path in enumerate(_documents(root)):
        if mentions(path, '"shapes"', '"imagePath"'):
            return True
        if number + 1 >= _LOOKED_AT:
            break
    return False


def read(root: Path, settings: DataSettings) -> Listing:
    """List the images that have a JSON file; an image without one has not been labelled, and is only counted."""
    found = Found()
    labels: set[str] = set()
    tells_instances = False
    labelled: dict[str, tuple[Path, Path]] = {}
    for path in _documents(root):
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            document = _document(path)
            if document is None:
                found.notes.append(f"{path.relative_to(root)} is JSON, but not of LabelMe: passed over")
                continue
            for shape in document["shapes"]:
                if _kind(shape) in AREAS:
                    labels.add(str(shape["label"]))
                    tells_instances |= shape.get("instance") != 0
                else:
                    found.skipped[str(_kind(shape))] += 1
            labelled[name] = (_image(document, path, root), path)
        except UserError as error:
            found.problems[name] = error
    if not labelled and not found.problems:
        raise UserError(
            "no LabelMe labels here", where=str(root), mend="expected a JSON file with `shapes` beside each image"
        )
    if found.problems and not labels:
        raise UserErrors(list(found.problems.values()))  # rather than that there are no classes
    classes, meaning = class_table(_ordered(root, labels), str(root))
    found.notes += _unlabelled(root, {image for image, _ in labelled.values()})
    records = {name: _record(name, image, path, meaning, tells_instances) for name, (image, path) in labelled.items()}
    return listing_of(found, records, dataset="labelme", root=root, classes=classes, words="LabelMe", settings=settings)


def _documents(root: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(root, followlinks=False, onerror=refuse_unlisted):
        folders[:] = sorted(name for name in folders if not hidden(name))
        yield from (Path(parent, name) for name in sorted(names) if name.endswith(".json") and not hidden(name))


def _document(path: Path) -> dict[str, Any] | None:
    document = read_json(path)
    if not isinstance(document, dict) or "shapes" not in document:
        return None
    with expecting("the file", str(path)):
        for shape in document["shapes"]:
            if not {"label", "points"} <= shape.keys():
                raise ValueError("a shape lacks its label or its points")
    return document


def _kind(shape: dict[str, Any]) -> Any:
    return shape.get("shape_type") or "polygon"  # files of before 3.0 have polygons only and do not say so


def _image(document: dict[str, Any], path: Path, root: Path) -> Path:
    """The image the file names; where that is gone, one beside the file and of its name."""
    where = str(path)
    try:
        return find_image(str(document.get("imagePath", "")), [path.parent], root, where)
    except UserError:
        beside = [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES if path.with_suffix(suffix).is_file()]
        if len(beside) != 1:
            raise
        return beside[0]


def _ordered(root: Path, labels: set[str]) -> list[str]:
    table = root / LABELS
    listed = [line.strip() for line in read_text(table).splitlines() if line.strip()] if table.is_file() else []
    return [*listed, *sorted(labels - set(listed))]


def _unlabelled(root: Path, used: set[Path]) -> list[str]:
    stems, _ = files_by_stem(root)
    count = sum(Path(os.path.normpath(path)) not in used for paths in stems.values() for path in paths)
    return [f"{count} images have no JSON file: not labelled, passed over"] if count else []


def _record(name: str, image: Path, path: Path, meaning: dict[str, int], tells_instances: bool) -> Record:
    return Record(
        name=name,
        group=name,
        dataset="labelme",
        image=partial(read_image, image),
        mask=partial(_read_mask, path, meaning),
        instances=partial(_read_instances, path, meaning) if tells_instances else None,
        files=(image, path),
    )


# ------------------------------------------------------------------ one file


def _read_mask(path: Path, meaning: dict[str, int]) -> MaskArray:
    shapes, size = _shapes(path, meaning)
    return paint_mask(shapes, size, str(path))


def _read_instances(path: Path, meaning: dict[str, int]) -> MaskArray:
    shapes, size = _shapes(path, meaning)
    return paint_instances(shapes, size, str(path))


def _shapes(path: Path, meaning: dict[str, int]) -> tuple[list[Shape], tuple[int, int]]:
    document = _document(path)
    if document is None:
        raise UserError("the file is no longer of LabelMe", where=str(path), mend="export the labels again")
    size = size_hw(document.get("imageHeight"), document.get("imageWidth"), str(path))
    shapes = []
    for number, shape in enumerate(document["shapes"], start=1):
        if _kind(shape) in AREAS:
            with expecting("a shape", f"{path}, shape {number}"):
                shapes.append(_shape(shape, meaning))
    return shapes, size


def _shape(shape: dict[str, Any], meaning: dict[str, int]) -> Shape:
    """LabelMe takes shapes of one label and group_id as one instance; our own `instance` crosses labels."""
    label, group = str(shape["label"]), shape.get("group_id")
    key = instance_key(shape["instance"]) if "instance" in shape else None if group is None else (label, str(group))
    return Shape(meaning[label], _area(shape), key)


def _area(shape: dict[str, Any]) -> Any:
    kind = _kind(shape)
    points = np.asarray(shape["points"], dtype=np.float64).reshape(-1, 2)
    if kind == "polygon":
        return partial(fill, [as_ring(points)])
    if len(points) != 2 or not np.isfinite(points).all():
        raise UserError(f"a {kind} takes two points", mend="draw it again in LabelMe")
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "rectangle":
        return partial(fill, [as_ring([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])])
    if kind == "circle":
        if max(map(abs, (x0, y0, x1, y1))) > _FURTHEST:
            raise UserError("a circle lies absurdly far outside of any image", mend="draw it again in LabelMe")
        return partial(_disc, (x0, y0), float(np.hypot(x1 - x0, y1 - y0)))
    return partial(_pasted, shape["mask"], (int(x0), int(y0), int(x1), int(y1)))


def _disc(centre: tuple[float, float], radius: float, size: tuple[int, int]) -> BoolArray:
    rows, columns = np.arange(size[0]) + 0.5 - centre[1], np.arange(size[1]) + 0.5 - centre[0]
    return np.asarray(rows[:, None] ** 2 + columns**2 <= radius**2)


def _pasted(mask: Any, box: tuple[int, int, int, int], size: tuple[int, int]) -> BoolArray:
    """A mask shape: PNG in base64, from the first point to the last, which it includes."""
    left, top, right, bottom = box
    crop = _decoded(mask)
    if (
        crop.shape != (bottom - top + 1, right - left + 1)
        or min(left, top) < 0
        or right >= size[1]
        or bottom >= size[0]
    ):
        raise UserError(
            f"a mask of {crop.shape[1]}x{crop.shape[0]} does not fit its box ({left}, {top}) to ({right}, {bottom}) in "
            f"the image of {size[1]}x{size[0]}",
            mend="save the labels again in LabelMe",
        )
    pixels = np.zeros(size, dtype=bool)
    pixels[top : bottom + 1, left : right + 1] = crop
    return pixels


def _decoded(mask: Any) -> BoolArray:
    try:
        with Image.open(io.BytesIO(base64.b64decode(mask)), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"a mask claims to be {picture.width}x{picture.height}", mend="save the labels again")
            pixels = np.asarray(picture.convert("L"))
    except (binascii.Error, TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"a mask cannot be decoded: {error}", mend="save the labels again in LabelMe") from None
    return pixels > 0
