"""LabelMe: a JSON file beside each image, with PNG masks or polygons, and `labels.txt` in LabelMe's order."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trocar.data.annotations.rings import joined, trace
from trocar.data.annotations.shapes import Piece
from trocar.data.files import atomic_write_text
from trocar.data.records import IGNORE
from trocar.data.writers.frames import Frame, Job

IMAGES = ""  # beside the labels
_IGNORE_NAME, _BACKGROUND_NAME = "__ignore__", "_background_"  # LabelMe's own
_VERSION = "5.5.0"  # of the format; masks came with 5.3
# LabelMe cuts coordinates down to whole pixels and paints the outline, too: a quarter of a pixel inside the edge, both
# come out as the pixels that were meant.
_INSET = 0.25


def write(frames: Iterable[Frame], job: Job) -> int:
    """One JSON file an image. `group_id` is the instrument's number, and our `instance` too, which crosses labels."""
    areas = 0
    for frame in frames:
        shapes = [
            shape
            for piece in frame.pieces()
            for shape in (_polygons(piece, job.classes) if job.outlines else [_mask(piece, job.classes)])
        ]
        areas += len(shapes)
        document: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(frame.image).name,
            "imageData": None,
            "imageHeight": frame.size_hw[0],
            "imageWidth": frame.size_hw[1],
        }
        atomic_write_text(job.folder / f"{frame.name}.json", json.dumps(document), sync=False)
    lines = [_IGNORE_NAME, _BACKGROUND_NAME, *job.classes[1:]]
    atomic_write_text(job.folder / "labels.txt", "".join(f"{line}\n" for line in lines))
    return areas


def _polygons(piece: Piece, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """A polygon for each region, its holes cut open."""
    regions = trace(piece.pixels, inset=_INSET)
    return [_shape(piece, classes, "polygon", joined(region).tolist()) for region in regions]


def _mask(piece: Piece, classes: tuple[str, ...]) -> dict[str, Any]:
    """A PNG of the bounding box, whose last row and column the second point names."""
    rows, columns = np.flatnonzero(piece.pixels.any(axis=1)), np.flatnonzero(piece.pixels.any(axis=0))
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
    crop = piece.pixels[top : bottom + 1, left : right + 1].astype(np.uint8)
    fine, data = cv2.imencode(".png", crop)
    assert fine
    corners = [[left, top], [right, bottom]]
    return _shape(piece, classes, "mask", corners) | {"mask": base64.b64encode(data.tobytes()).decode("ascii")}


def _shape(piece: Piece, classes: tuple[str, ...], kind: str, points: list[Any]) -> dict[str, Any]:
    return {
        "label": _IGNORE_NAME if piece.index == IGNORE else classes[piece.index],
        "points": points,
        "group_id": piece.instance or None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
        "instance": piece.instance,
    }
