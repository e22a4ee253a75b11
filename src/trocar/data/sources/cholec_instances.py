"""CholecInstanceSeg (Alabi et al. 2024, arXiv:2406.16039): LabelMe polygons for 41,933 frames of Cholec80 and
CholecT50.

`train|val|test/VIDNN_<part>/ann_dir/<frame>.json` with `img_dir/<frame>.png`, where part is seg8k, t50_full,
t50_sparse or t80_sparse. The annotations are published without images; these come from CholecSeg8k, CholecT50 and
Cholec80. Each shape has a label, one of seven instruments, and a `group_id` that counts the instruments of that label
in the frame; an instrument may have several polygons. No shapes: no instrument. A group is the video, VIDNN, whatever
the part.

Polygons are filled as the authors do, by OpenCV with points rounded down and the outline included, each by itself;
where instruments overlap, the later one in the file is seen. (Their convert_to_semantic_maps keeps only the last
polygon of an instrument; here all count, as in their conversion to COCO.)

Source: github.com/labdeeman7/cholec_instance_seg (README, utilities/ with sample files, dataset_variables.py for the
seven labels and the sides).
"""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import DataSettings
from trocar.data.files import MAX_PIXELS, read_image
from trocar.data.records import MaskArray, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.encoding import BINARY_CLASSES
from trocar.data.sources.listing import Listing, hidden, natural, pair
from trocar.documents import read_json
from trocar.errors import UserError

LABELS = ("grasper", "hook", "irrigator", "clipper", "bipolar", "scissors", "snare")
_FURTHEST = 2**20  # of a point from the origin, in pixels; OpenCV draws in 32-bit integers
_EXPECTED = "train, val or test with VIDNN_<part>/ann_dir/*.json and VIDNN_<part>/img_dir/*.png"


class _Shape(NamedTuple):
    label: str
    instance: int  # counts the instruments of a label, from 1
    points: NDArray[np.int32]  # (N, 2), x and y


def recognises(root: Path) -> bool:
    """Whether there are folders `VIDNN_...` with ann_dir below."""
    return research.holds(root, _is_video, depth=2)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the annotated frames with their instances; `types` tells the seven instruments apart."""
    classes = ("background", *LABELS) if settings.target == "types" else BINARY_CLASSES
    index = {label: min(number, len(classes) - 1) for number, label in enumerate(LABELS, start=1)}
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    sides: dict[str, Side | None] = {}
    for folder in research.descend(root, _is_video, depth=2):
        place = folder.relative_to(root)
        images = research.named_files(folder / "img_dir", place.as_posix())
        pairs, wrong = pair(images, _annotations(folder / "ann_dir", place.as_posix()))
        problems |= wrong
        records += [_record(name, place.name.split("_")[0], files, index) for name, files in pairs.items()]
        sides |= dict.fromkeys(pairs, research.side_of(place.parts))
    if not records and not problems:
        raise research.nothing_here("frames of CholecInstanceSeg", root, _EXPECTED)
    source = Source(
        dataset="cholec-instances",
        root=root,
        classes=classes,
        records=tuple(sorted(records, key=lambda record: (natural(record.group), natural(record.name)))),
        official=research.official(sides),
        mask_encoding="LabelMe polygons, outlines included",
    )
    return source, problems


def _is_video(folder: Path) -> bool:
    return bool(re.fullmatch(r"VID\d+_\w+", folder.name)) and (folder / "ann_dir").is_dir()


def _annotations(folder: Path, prefix: str) -> dict[str, list[Path]]:
    files = (path for path in folder.glob("*.json") if not hidden(path.name))
    return {f"{prefix}/{path.stem}": [path] for path in files}


def _record(name: str, group: str, files: tuple[Path, Path], index: dict[str, int]) -> Record:
    image, annotation = files
    return Record(
        name=name,
        group=group,
        dataset="cholec-instances",
        image=partial(read_image, image),
        mask=partial(_read_mask, annotation, index),
        instances=partial(_read_instances, annotation),
        frame=research.number_in(image.stem),
        files=files,
    )


# ------------------------------------------------------------------ polygons


def _read_mask(path: Path, index: dict[str, int]) -> MaskArray:
    size_hw, shapes = _read_shapes(path)
    return _draw(size_hw, [(shape.points, index[shape.label]) for shape in shapes])


def _read_instances(path: Path) -> MaskArray:
    """Instruments counted from 1, in the order in which the file first names them."""
    size_hw, shapes = _read_shapes(path)
    keys = list(dict.fromkeys((shape.label, shape.instance) for shape in shapes))
    if len(keys) > 254:
        raise _wrong(path, f"it holds {len(keys)} instruments, more than 254")
    return _draw(size_hw, [(shape.points, keys.index((shape.label, shape.instance)) + 1) for shape in shapes])


def _draw(size_hw: tuple[int, int], polygons: list[tuple[NDArray[np.int32], int]]) -> MaskArray:
    mask = np.zeros(size_hw, dtype=np.uint8)
    for points, value in polygons:
        cv2.fillPoly(mask, [points], value)
    return mask


def _read_shapes(path: Path) -> tuple[tuple[int, int], list[_Shape]]:
    """Size (height, width) and shapes of an annotation, checked."""
    tree = read_json(path, "the annotation", mend="copy it again")
    if not isinstance(tree, dict) or not isinstance(tree.get("shapes"), list):
        raise _wrong(path, "it holds no list of shapes")
    height, width = tree.get("imageHeight"), tree.get("imageWidth")
    if not (_is_whole(height) and _is_whole(width) and 0 < height * width <= MAX_PIXELS):
        raise _wrong(path, f"it gives the image's size as {width} x {height}")
    return (height, width), [_shape(path, shape) for shape in tree["shapes"]]


def _shape(path: Path, shape: Any) -> _Shape:
    if not isinstance(shape, dict) or shape.get("label") not in LABELS:
        label = shape.get("label") if isinstance(shape, dict) else shape
        raise _wrong(path, f"it names the instrument {str(label)[:40]!r}; known are {', '.join(LABELS)}")
    points = shape.get("points")
    if shape.get("shape_type", "polygon") != "polygon" or not isinstance(points, list) or not points:
        raise _wrong(path, "one of its shapes is no polygon")
    if not all(isinstance(point, list) and len(point) == 2 and all(map(_is_coordinate, point)) for point in points):
        raise _wrong(path, "one of its polygons has points that are no pair of coordinates")
    instance = shape.get("group_id")
    if not _is_whole(instance):
        raise _wrong(path, f"group_id is {str(instance)[:20]}, which counts no instrument")
    flat = np.fromiter(chain.from_iterable(points), dtype=np.float64)
    return _Shape(shape["label"], instance, flat.reshape(-1, 2).astype(np.int32))


def _is_whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def _is_coordinate(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) <= _FURTHEST


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"the annotation is not as in CholecInstanceSeg: {what}", where=str(path), mend="copy it again")
