"""COCO instances: `annotations/instances_SIDE.json` with compressed run lengths or polygons, `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from trocar.data.annotations.raster import to_coco_rle
from trocar.data.annotations.rings import joined, trace
from trocar.data.annotations.shapes import Piece
from trocar.data.files import atomic_write_text
from trocar.data.records import IGNORE
from trocar.data.writers.frames import Frame, Job, class_name

IMAGES = "images"


def write(frames: Iterable[Frame], job: Job) -> int:
    """One file for each official side, `default` where there is none. Category ids are class indices."""
    documents: dict[str, dict[str, list[Any]]] = {}
    areas, ignored = 0, False
    for number, frame in enumerate(frames, start=1):
        document = documents.setdefault(frame.side or "default", {"images": [], "annotations": []})
        height, width = frame.size_hw
        file_name = frame.image.removeprefix(f"{IMAGES}/")
        document["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
        for piece in frame.pieces():
            areas += 1
            ignored |= piece.index == IGNORE
            document["annotations"].append({"id": areas, "image_id": number} | _annotation(piece, job.outlines))
    indices = [*range(1, len(job.classes)), *([IGNORE] if ignored else [])]
    categories = [{"id": index, "name": class_name(job.classes, index)} for index in indices]
    for side, document in documents.items():
        whole = {"info": {"description": "written by trocar convert"}, **document, "categories": categories}
        atomic_write_text(job.folder / "annotations" / f"instances_{side}.json", json.dumps(whole))
    return areas


def _annotation(piece: Piece, outlines: bool) -> dict[str, Any]:
    """`instance` is ours: the number of the instrument, which COCO itself has no place for; 0 where it is not known."""
    rows, columns = np.flatnonzero(piece.pixels.any(axis=1)), np.flatnonzero(piece.pixels.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": piece.index,
        "segmentation": _outlines(piece) if outlines else to_coco_rle(piece.pixels),
        "area": int(np.count_nonzero(piece.pixels)),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "iscrowd": 0,
        "instance": piece.instance,
    }


def _outlines(piece: Piece) -> list[list[int]]:
    """A polygon for each region, its holes cut open: COCO takes the union of polygons, each by the even-odd rule."""
    return [joined(region).astype(int).ravel().tolist() for region in trace(piece.pixels)]
