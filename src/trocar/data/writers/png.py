"""Plain indexed PNG with a class table: `images/`, `masks/`, `classes.json`, `instances/`; the `folder` layout."""

from __future__ import annotations

import json
from collections.abc import Iterable

from trocar.data.files import atomic_write_text, write_png
from trocar.data.sources.encoding import CLASS_TABLE
from trocar.data.sources.folder import INSTANCES
from trocar.data.writers.frames import Frame, Job

IMAGES = "images"


def write(frames: Iterable[Frame], job: Job) -> int:
    """A grey 8-bit PNG for each image, class indices and 255 ignore, and one of instruments where they are known."""
    areas = 0
    for frame in frames:
        write_png(job.folder / "masks" / f"{frame.name}.png", frame.mask)
        if frame.instances is not None:
            write_png(job.folder / INSTANCES / f"{frame.name}.png", frame.instances)
        areas += len(frame.pieces())
    table = {name: index for index, name in enumerate(job.classes)}
    atomic_write_text(job.folder / CLASS_TABLE, json.dumps(table, ensure_ascii=False, indent=1) + "\n")
    return areas
