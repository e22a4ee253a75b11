"""Label Studio's JSON export: brush regions (its own run lengths) and polygons (labelstud.io/guide/export).

The images lie anywhere below the folder that holds the JSON; they are found by file name, with or without the eight
characters that an upload puts before it. Of several annotations of a task the ground truth counts, or else the last.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from trocar.config import DataSettings
from trocar.data.annotations.raster import as_ring, fill, from_brush_rle
from trocar.data.annotations.rings import BoolArray
from trocar.data.annotations.shapes import Shape, instance_key, size_hw
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.sources.labels import (
    Entry,
    Found,
    class_table,
    expecting,
    image_size_hw,
    listing,
    mentions,
    read_json,
    read_xml,
    stem_of,
)
from trocar.data.sources.listing import Listing, files_by_stem
from trocar.errors import UserError

_AREAS = ("brushlabels", "polygonlabels")
_BOXES = ("rectanglelabels", "ellipselabels")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def recognises(root: Path) -> bool:
    """Whether a JSON file in the folder has Label Studio's keys."""
    return _document(root) is not None


def read(root: Path, settings: DataSettings) -> Listing:
    """List the tasks that were annotated; the others, and those that were skipped by the annotator, are counted."""
    path = _document(root)
    if path is None:
        raise UserError("no Label Studio labels here", where=str(root), mend="expected its JSON export and the images")
    tasks = read_json(path)
    with expecting("the export", str(path)):
        chosen = [(task, _annotation(task)) for task in tasks]
        results = [result for _, annotation in chosen if annotation for result in annotation["result"]]
        names = [label for result in results if _kind(result) in _AREAS for label in result["value"][_kind(result)]]
    listed = _listed_classes(root)
    classes, meaning = class_table([*listed, *sorted(set(map(str, names)) - set(listed))], str(path))
    found = Found()
    images = _Images(root)
    for number, (task, annotation) in enumerate(chosen, start=1):
        if annotation is None:
            continue
        where = f"task {task.get('id', number)}, {path}"
        try:
            with expecting("a task", where):
                found.entries.append(_entry(task, annotation, path, images, meaning, where))
        except UserError as error:
            found.problems[f"task {task.get('id', number)}"] = error
        found.skipped.update(kind for kind in map(_kind, annotation["result"]) if kind not in (*_AREAS, *_BOXES))
    waiting = sum(annotation is None for _, annotation in chosen)
    if waiting:
        found.notes.append(f"{waiting} of {len(chosen)} tasks are not annotated, or were skipped: passed over")
    several = sum(len(task.get("annotations", [])) > 1 for task, _ in chosen)
    if several:
        found.notes.append(f"{several} tasks have several annotations: the ground truth was taken, or else the last")
    return listing(
        found, dataset="label-studio", root=root, classes=classes, words="Label Studio regions", settings=settings
    )


def _document(root: Path) -> Path | None:
    candidates = sorted(root.glob("*.json"))[:20]
    return next((path for path in candidates if mentions(path, '"annotations"', '"data"', '"result"')), None)


def _listed_classes(root: Path) -> list[str]:
    """Classes in order of the labelling interface's XML where it lies beside the export, as our writer leaves it."""
    path = root / "labeling_config.xml"
    if not path.is_file():
        return []
    return [str(label.get("value")) for label in read_xml(path).iter("Label") if label.get("value")]


def _annotation(task: dict[str, Any]) -> dict[str, Any] | None:
    done = [annotation for annotation in task.get("annotations", []) if not annotation.get("was_cancelled")]
    truths = [annotation for annotation in done if annotation.get("ground_truth")]
    chosen: list[dict[str, Any]] = truths or done
    return chosen[-1] if chosen else None


def _kind(result: dict[str, Any]) -> str:
    return str(result.get("type")).lower()


class _Images:
    """Image files below a folder, by their bare names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name: dict[str, list[Path]] = {}
        for paths in files_by_stem(root)[0].values():
            for path in paths:
                self.by_name.setdefault(path.name, []).append(path)

    def find(self, task: dict[str, Any], where: str) -> tuple[str, Path]:
        """Record name and image of a task. Raises `UserError` where none or several fit."""
        wanted = Path(_file_named(task, where))
        for name in (wanted.name, _UPLOADED.sub("", wanted.name)):
            fitting = self.by_name.get(name, [])
            exact = [path for path in fitting if path.as_posix().endswith(f"/{wanted.as_posix()}")]
            if len(exact or fitting) == 1:
                path = (exact or fitting)[0]
                return stem_of(path.relative_to(self.root).as_posix()).removeprefix("images/"), path
            if fitting:
                raise UserError(
                    f"{len(fitting)} images are called {name}",
                    where=f"{where}: {', '.join(map(str, fitting[:3]))}",
                    mend="keep the images in the folders that the tasks name, or rename them",
                )
        raise UserError(
            f"the image {wanted.as_posix()[:200]} is missing",
            where=f"{where}; looked below {self.root}",
            mend="Label Studio exports JSON without images: copy them beside it",
        )


def _file_named(task: dict[str, Any], where: str) -> str:
    """What a task calls its image: the path of an upload, of a bucket, or of `/data/local-files/?d=...`."""
    for value in task["data"].values():
        if isinstance(value, str):
            parts = urlsplit(value)
            path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0].replace("\\", "/")
            if path.lower().endswith(IMAGE_SUFFIXES):
                return path.lstrip("/")
    raise UserError("the task names no image", where=where, mend="export the tasks of an image project")


def _entry(
    task: dict[str, Any],
    annotation: dict[str, Any],
    path: Path,
    images: _Images,
    meaning: dict[str, int],
    where: str,
) -> Entry:
    name, image = images.find(task, where)
    shapes, sizes = [], set()
    for result in annotation["result"]:
        kind = _kind(result)
        if kind in _BOXES:
            raise UserError(
                "the task holds a box or an ellipse: nothing says which pixels are the instrument",
                mend="paint it with the brush, or leave the image out",
            )
        if kind in _AREAS:
            sizes.add(size_hw(result.get("original_height"), result.get("original_width"), where))
            shapes.append(_shape(result, kind, meaning))
    if len(sizes) > 1:
        raise UserError("regions of one image have several sizes", mend="export the labels again")
    size = sizes.pop() if sizes else image_size_hw(image)
    return Entry(name=name, image=image, size=size, shapes=shapes, labels=path)


def _shape(result: dict[str, Any], kind: str, meaning: dict[str, int]) -> Shape:
    value = result["value"]
    if result.get("image_rotation"):
        raise UserError(
            "the image was turned in Label Studio: its regions no longer lie on the file's pixels",
            mend="turn the image file itself and label it as it is",
        )
    (label,) = value[kind]
    key = instance_key((result.get("meta") or {}).get("instance"))
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise UserError(f"a brush region is stored as {value.get('format')}, not rle", mend="export it again")
        return Shape(meaning[label], partial(from_brush_rle, _bytes(value["rle"])), key)
    return Shape(meaning[label], partial(_percent, as_ring(value["points"])), key)


def _bytes(numbers: Any) -> bytes:
    if not isinstance(numbers, list):
        raise UserError("a brush region is not a list of bytes", mend="export the labels again")
    return bytes(numbers)


def _percent(ring: Any, size: tuple[int, int]) -> BoolArray:
    return fill([ring * (size[1] / 100, size[0] / 100)], size)
