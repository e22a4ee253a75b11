"""YOLO segmentation for Ultralytics: `labels/*.txt` with a polygon a line, `images/`, `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from trocar.data.annotations.rings import join, trace
from trocar.data.annotations.shapes import Piece
from trocar.data.files import atomic_write_text
from trocar.data.records import IGNORE
from trocar.data.sources.yolo import UNLISTED
from trocar.data.writers.frames import IGNORE_NAME, Frame, Job

IMAGES = "images"
# Ultralytics cuts coordinates down to whole pixels, and cv2.fillPoly paints the outline, too: a quarter of a pixel
# inside the edge, both come out as the pixels that were meant.
_INSET = 0.25


def write(frames: Iterable[Frame], job: Job) -> int:
    """A file of labels for each image, empty where it shows no instrument; the sides are lists of images."""
    lists: dict[str, list[str]] = {}
    areas, ignored = 0, False
    for frame in frames:
        found = frame.pieces()
        lines = [_line(piece, frame.size_hw, job.classes) for piece in found]
        areas += len(lines)
        ignored |= any(piece.index == IGNORE for piece in found)
        atomic_write_text(job.folder / "labels" / f"{frame.name}.txt", "".join(lines), sync=False)
        lists.setdefault(frame.side or "", []).append(f"./{frame.image}\n")
    names = [*job.classes[1:], *([IGNORE_NAME] if ignored else [])]
    document: dict[str, Any] = {"names": dict(enumerate(names)), "instances": job.has_instances}
    if set(lists) == {""}:
        document["train"] = IMAGES
    else:
        for side, images in lists.items():
            document[side or UNLISTED] = f"{side or UNLISTED}.txt"
            atomic_write_text(job.folder / f"{side or UNLISTED}.txt", "".join(images))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    missing = "" if "val" in lists else _NO_VAL
    atomic_write_text(job.folder / "data.yaml", missing + text)
    return areas


_NO_VAL = (
    "# Ultralytics asks for `val`, and the data had no such list: name images held out, of other patients than train.\n"
)


def _line(piece: Piece, size_hw: tuple[int, int], classes: tuple[str, ...]) -> str:
    """Class and outline. The format has one ring an instrument: all regions and holes are joined to it by cuts."""
    regions = trace(piece.pixels, inset=_INSET)
    ring = join([ring for region in regions for ring in (region.outer, *region.holes)])
    number = len(classes) - 1 if piece.index == IGNORE else piece.index - 1
    scaled = ring / (size_hw[1], size_hw[0])
    return " ".join([str(number), *(f"{value:.7g}" for value in scaled.ravel().tolist())]) + "\n"
