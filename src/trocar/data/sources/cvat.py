"""CVAT for images 1.1: `annotations.xml` with polygons, masks, boxes and ellipses, and `images/` (docs.cvat.ai).

Polygons are filled by pycocotools, as CVAT itself does when it exports masks; there boxes and ellipses become areas
too. Shapes of one `group_id` are one instrument. Higher `z_order` is on top.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from trocar.config import DataSettings
from trocar.data.annotations.raster import as_ring, fill, from_cvat_rle
from trocar.data.annotations.rings import Ring
from trocar.data.annotations.shapes import Shape, instance_key, size_hw
from trocar.data.sources.labels import (
    Entry,
    Found,
    class_table,
    expecting,
    find_image,
    listing,
    mentions,
    read_xml,
    side_named,
    stem_of,
)
from trocar.data.sources.listing import Listing
from trocar.errors import UserError

DOCUMENT = "annotations.xml"
_AREAS = ("polygon", "mask", "box", "ellipse")
_OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def recognises(root: Path) -> bool:
    """Whether `annotations.xml` is there and begins as CVAT's does."""
    return mentions(root / DOCUMENT, "<annotations", most=4096)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the images of the file; those without shapes show no instrument."""
    path = root / DOCUMENT
    if not path.is_file():
        raise UserError("no CVAT labels here", where=str(root), mend=f"expected {DOCUMENT}, with images/ beside it")
    document = read_xml(path)
    images = document.findall("image")
    _refuse_what_is_not_of_images(document, images, path)
    names = [label.findtext("name") or "" for label in document.iterfind("meta//labels/label")]
    used = [str(shape.get("label")) for image in images for shape in image if shape.tag in _AREAS]
    classes, meaning = class_table([name for name in [*names, *used] if name], str(path))
    found = Found()
    for image in images:
        name = stem_of(str(image.get("name", ""))).removeprefix("images/")
        try:
            found.entries.append(_entry(image, name, path, root, meaning))
        except UserError as error:
            found.problems[name] = error
        found.skipped.update(shape.tag for shape in image if shape.tag in _OTHERS)
    return listing(found, dataset="cvat", root=root, classes=classes, words="CVAT shapes", settings=settings)


def _refuse_what_is_not_of_images(document: Element, images: list[Element], path: Path) -> None:
    if document.tag != "annotations" or not images:
        tracks = document.find("track") is not None
        raise UserError(
            "the file is CVAT for video (tracks), not for images" if tracks else "the file lists no images",
            where=str(path),
            mend='export the task again as "CVAT for images 1.1", with images',
        )


def _entry(image: Element, name: str, path: Path, root: Path, meaning: dict[str, int]) -> Entry:
    where = f"record {name}, {path}"
    size = size_hw(image.get("height"), image.get("width"), where)
    file_name = str(image.get("name", ""))
    subset = image.get("subset", "")
    folders = [root / "images", root, *([root / "images" / subset, root / subset] if subset else [])]
    shapes: list[tuple[int, Shape]] = []
    for number, shape in enumerate((shape for shape in image if shape.tag in _AREAS), start=1):
        with expecting(f"a {shape.tag}", f"{where}, shape {number}"):
            shapes.append((int(shape.get("z_order", 0)), _shape(shape, meaning)))
    shapes.sort(key=lambda pair: pair[0])
    return Entry(
        name=name,
        image=find_image(file_name, folders, root, where),
        size=size,
        shapes=[shape for _, shape in shapes],
        labels=path,
        side=side_named(subset),
    )


def _shape(shape: Element, meaning: dict[str, int]) -> Shape:
    """CVAT's own `group_id` of 0 is no group; the `instance` of our writer says of 0 that it is not known which."""
    group = int(shape.get("group_id", 0)) or None
    instance = instance_key(int(shape.attrib["instance"])) if "instance" in shape.attrib else group
    return Shape(meaning[shape.attrib["label"]], _area(shape), instance)


def _area(shape: Element) -> Any:
    if shape.tag == "polygon":
        return partial(fill, [as_ring([point.split(",") for point in shape.attrib["points"].split(";")])])
    if shape.tag == "mask":
        left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        runs = np.array([int(run) for run in shape.attrib["rle"].split(",") if run.strip()], dtype=np.int64)
        return partial(from_cvat_rle, runs, (left, top, width, height))
    turn = np.deg2rad(_finite(shape.get("rotation", "0")))
    return partial(fill, [as_ring(_box(shape, turn) if shape.tag == "box" else _ellipse(shape, turn))])


def _box(shape: Element, turn: float) -> Ring:
    left, top, right, bottom = (_finite(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return _turned(corners, ((left + right) / 2, (top + bottom) / 2), turn)


def _ellipse(shape: Element, turn: float) -> Ring:
    x, y, rx, ry = (_finite(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return _turned(np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1), (x, y), turn)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _turned(points: Ring, centre: tuple[float, float], turn: float) -> Ring:
    """Clockwise as seen, since y points down."""
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray((points - centre) @ rotation + centre)
