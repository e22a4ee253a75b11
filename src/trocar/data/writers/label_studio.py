"""Label Studio: tasks with brush regions, `labeling_config.xml` for the project's interface, `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from trocar.data.annotations.raster import to_brush_rle
from trocar.data.annotations.shapes import Piece
from trocar.data.files import atomic_write_text
from trocar.data.records import IGNORE
from trocar.data.writers.frames import IGNORE_NAME, Frame, Job, class_name

IMAGES = "images"


def write(frames: Iterable[Frame], job: Job) -> int:
    """`tasks.json`, to be imported with local files served from this folder; `meta.instance` is the instrument."""
    tasks: list[dict[str, Any]] = []
    areas, ignored = 0, False
    for number, frame in enumerate(frames, start=1):
        results = [_region(piece, frame, job.classes, place) for place, piece in enumerate(frame.pieces(), start=1)]
        areas += len(results)
        ignored |= any(piece.index == IGNORE for piece in frame.pieces())
        annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": results}
        image = f"/data/local-files/?d={quote(frame.image)}"
        tasks.append({"id": number, "data": {"image": image}, "annotations": [annotation]})
    atomic_write_text(job.folder / "tasks.json", json.dumps(tasks))
    atomic_write_text(
        job.folder / "labeling_config.xml", _interface([*job.classes[1:], *([IGNORE_NAME] if ignored else [])])
    )
    return areas


def _region(piece: Piece, frame: Frame, classes: tuple[str, ...], place: int) -> dict[str, Any]:
    height, width = frame.size_hw
    return {
        "id": f"area{place}",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "origin": "manual",
        "image_rotation": 0,
        "original_width": width,
        "original_height": height,
        "value": {
            "format": "rle",
            "rle": to_brush_rle(piece.pixels),
            "brushlabels": [class_name(classes, piece.index)],
        },
        "meta": {"instance": piece.instance},
    }


def _interface(labels: list[str]) -> str:
    view = Element("View")
    SubElement(view, "Image", name="image", value="$image")
    brush = SubElement(view, "BrushLabels", name="tag", toName="image")
    for label in labels:
        SubElement(brush, "Label", value=label)
    indent(view)
    return tostring(view, encoding="unicode") + "\n"
