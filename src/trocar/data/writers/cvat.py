"""CVAT for images 1.1: `annotations.xml` with masks (run lengths) or polygons, `images/`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from trocar.data.annotations.raster import to_cvat_rle
from trocar.data.annotations.rings import joined, trace
from trocar.data.annotations.shapes import Piece
from trocar.data.files import replacing
from trocar.data.records import IGNORE
from trocar.data.writers.frames import IGNORE_NAME, Frame, Job, class_name

IMAGES = "images"


def write(frames: Iterable[Frame], job: Job) -> int:
    """One file for all images; `group_id` is the number of the instrument, and so is our `instance`."""
    areas, ignored = 0, False
    with replacing(job.folder / "annotations.xml") as path, path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        for number, frame in enumerate(frames):
            image = _image(number, frame)
            for piece in frame.pieces():
                ignored |= piece.index == IGNORE
                for tag, attributes in _shapes(piece, job.outlines):
                    SubElement(image, tag, _common(piece, job.classes) | attributes)
                    areas += 1
            indent(image, level=1)
            file.write(f"  {tostring(image, encoding='unicode')}\n")
        labels = [*job.classes[1:], *([IGNORE_NAME] if ignored else [])]
        file.write(f"  {tostring(_meta(labels), encoding='unicode')}\n</annotations>\n")
    return areas


def _image(number: int, frame: Frame) -> Element:
    height, width = frame.size_hw
    attributes = {"id": str(number), "name": frame.image.removeprefix(f"{IMAGES}/")}
    if frame.side:
        attributes["subset"] = frame.side
    return Element("image", attributes | {"width": str(width), "height": str(height)})


def _common(piece: Piece, classes: tuple[str, ...]) -> dict[str, str]:
    common = {"label": class_name(classes, piece.index), "source": "file", "occluded": "0", "z_order": "0"}
    if piece.instance:
        common["group_id"] = str(piece.instance)
    return common | {"instance": str(piece.instance)}


def _shapes(piece: Piece, outlines: bool) -> list[tuple[str, dict[str, str]]]:
    """A mask, or a polygon for each region with its holes cut open: CVAT's polygons have none."""
    if not outlines:
        made: dict[str, Any] = to_cvat_rle(piece.pixels)
        return [("mask", {key: str(value) for key, value in made.items()})]
    rings = [joined(region) for region in trace(piece.pixels)]
    return [("polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())}) for ring in rings]


def _meta(labels: list[str]) -> Element:
    meta = Element("meta")
    listed = SubElement(SubElement(meta, "task"), "labels")
    for label in labels:
        SubElement(SubElement(listed, "label"), "name").text = label
    indent(meta, level=1)
    return meta
