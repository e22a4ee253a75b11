"""COCO instances: JSON with polygons or run lengths (cocodataset.org/#format-data), masks made by pycocotools' rules.

The JSON lies in the root, in `annotations/`, or beside its images as `_annotations.coco.json`; images are looked for
beside it, in the root, in `images/`, and below a folder of the side. Names such as `instances_train.json` give sides.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from trocar.config import DataSettings
from trocar.data.annotations.raster import as_ring, fill, from_coco_rle
from trocar.data.annotations.shapes import NO_INSTANCE, Shape, instance_key, size_hw
from trocar.data.records import Side
from trocar.data.sources.labels import (
    Entry,
    Found,
    class_table,
    expecting,
    find_image,
    listing,
    mentions,
    read_json,
    side_named,
    stem_of,
)
from trocar.data.sources.listing import Listing
from trocar.errors import UserError

_MOST_FILES = 20  # of labels in one folder; LabelMe's folders have one for each image


def recognises(root: Path) -> bool:
    """Whether a JSON file in one of the places speaks of images, annotations and categories."""
    return bool(_documents(root))


def read(root: Path, settings: DataSettings) -> Listing:
    """List the images of all JSON files; those without annotations show no instrument, as the format means it."""
    paths = _documents(root)
    if not paths:
        raise UserError(
            "no COCO labels here",
            where=str(root),
            mend="expected a JSON file with images, annotations and categories, in the folder or in annotations/",
        )
    documents = {path: _checked(read_json(path), path) for path in paths}
    names = [name for path, document in documents.items() for name in _categories(document, path).values()]
    classes, meaning = class_table(names, str(paths[0]))
    found = Found()
    crowds = 0
    for path, document in documents.items():
        side = side_named(path.stem) or side_named(path.parent.name)
        index_of = {key: meaning[name] for key, name in _categories(document, path).items()}
        crowds += _add_images(document, path, root, side, index_of, found)
    if crowds:
        found.notes.append(f"{crowds} annotations are crowds: they count in the masks, not as single instruments")
    return listing(
        found, dataset="coco", root=root, classes=classes, words="COCO polygons or run lengths", settings=settings
    )


def _documents(root: Path) -> list[Path]:
    candidates = []
    for folder in (root, root / "annotations"):
        inside = sorted(folder.glob("*.json")) if folder.is_dir() else []
        candidates += inside if len(inside) <= _MOST_FILES else []
    candidates += sorted(root.glob("*/_annotations.coco.json"))
    return [path for path in candidates if mentions(path, '"images"', '"annotations"', '"categories"')]


def _checked(document: Any, path: Path) -> dict[str, list[dict[str, Any]]]:
    parts = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(
        isinstance(document.get(part), list) and all(isinstance(item, dict) for item in document[part])
        for part in parts
    ):
        raise UserError(
            "COCO labels need images, annotations and categories, each a list of objects",
            where=str(path),
            mend="export the labels again",
        )
    return {part: document[part] for part in parts}


def _categories(document: dict[str, list[dict[str, Any]]], path: Path) -> dict[int, str]:
    """Name of each category's id, in order of the ids."""
    with expecting("a category", str(path)):
        table = {int(category["id"]): str(category["name"]) for category in document["categories"]}
    return dict(sorted(table.items()))


def _add_images(
    document: dict[str, list[dict[str, Any]]],
    path: Path,
    root: Path,
    side: Side | None,
    index_of: dict[int, int],
    found: Found,
) -> int:
    """Add an entry or a problem for each image; the number of crowds among their annotations comes back."""
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(str(annotation.get("image_id")), []).append(annotation)
    folders = [path.parent, root, root / "images"]
    for word in (path.stem.removeprefix("instances_"), side or ""):
        folders += [root / word, root / "images" / word] if word else []
    crowds = 0
    for image in document["images"]:
        name = stem_of(str(image.get("file_name", ""))).removeprefix("images/")
        annotations = by_image.pop(str(image.get("id")), [])
        try:
            entry = _entry(image, name, path, root, folders)
            for annotation in annotations:
                where = f"annotation {annotation.get('id')} of record {name}, {path}"
                with expecting("an annotation", where):
                    entry.shapes.append(_shape(annotation, index_of))
                crowds += annotation.get("iscrowd") == 1
            found.entries.append(entry)
        except UserError as error:
            found.problems[name] = error
    if by_image:
        lost = sum(len(some) for some in by_image.values())
        example = next(iter(by_image))
        found.problems[f"{path.name}:image_id={example}"] = UserError(
            f"{lost} annotations belong to no image of the file, such as those of image_id {example}",
            where=str(path),
            mend="export the labels again: images were left out of the file, or have an id twice",
        )
    return crowds


def _entry(image: dict[str, Any], name: str, path: Path, root: Path, folders: list[Path]) -> Entry:
    where = f"record {name}, {path}"
    size = size_hw(image.get("height"), image.get("width"), where)
    found = find_image(str(image.get("file_name", "")), folders, root, where)
    side = side_named(path.stem) or side_named(path.parent.name)
    return Entry(name=name, image=found, size=size, shapes=[], labels=path, side=side)


def _shape(annotation: dict[str, Any], index_of: dict[int, int]) -> Shape:
    category = annotation["category_id"]
    if category not in index_of:
        raise UserError(
            f"category_id {category} is none of the file's categories ({', '.join(map(str, index_of))})",
            mend="add the category to the file, or delete the annotation",
        )
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        area: Any = partial(from_coco_rle, segmentation)
    elif isinstance(segmentation, list) and segmentation:
        area = partial(fill, [as_ring(points) for points in segmentation])
    else:
        raise UserError(
            "the annotation has a box but no outline: nothing says which pixels are the instrument",
            mend="outline it in the annotation tool, or leave the image out",
        )
    instance = NO_INSTANCE if annotation.get("iscrowd") == 1 else instance_key(annotation.get("instance"))
    return Shape(index_of[category], area, instance)
