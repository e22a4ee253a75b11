"""CVAT's segmentation mask 1.1: coloured masks of classes and instruments in Pascal VOC's folders, `labelmap.txt`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trocar.data.files import atomic_write_text, write_png
from trocar.data.records import IGNORE
from trocar.data.sources.cvat_masks import IMAGES, LABELMAP, LISTS, MASKS, OBJECTS, voc_colours
from trocar.data.writers.frames import IGNORE_NAME, Frame, Job

__all__ = ["IMAGES", "write"]


def write(frames: Iterable[Frame], job: Job) -> int:
    """A mask of classes for each image, one of instruments where they are known, and a list a side. VOC's colours."""
    colours = voc_colours()
    areas, ignored = 0, False
    lists: dict[str, list[str]] = {}
    for frame in frames:
        write_png(job.folder / MASKS / f"{frame.name}.png", colours[frame.mask])
        if frame.instances is not None:
            write_png(job.folder / OBJECTS / f"{frame.name}.png", colours[frame.instances])
        lists.setdefault(frame.side or "default", []).append(frame.name)
        ignored |= bool((frame.mask == IGNORE).any())
        areas += len(frame.pieces())
    for side, names in lists.items():
        atomic_write_text(job.folder / LISTS / f"{side}.txt", "".join(f"{name}\n" for name in names))
    coloured = [*zip(job.classes, colours, strict=False), *([(IGNORE_NAME, colours[IGNORE])] if ignored else [])]
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{_code(colour)}::" for name, colour in coloured)]
    atomic_write_text(job.folder / LABELMAP, "".join(f"{line}\n" for line in lines))
    return areas


def _code(colour: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    return ",".join(map(str, colour.tolist()))
