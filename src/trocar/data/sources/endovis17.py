"""EndoVis 2017, "Robotic Instrument Segmentation" (Allan et al. 2019, arXiv:1902.06426), as it is distributed.

Training: `instrument_dataset_1..8/left_frames/frameNNN.png` (1920x1080) and `ground_truth/<instrument>_labels/`, one
folder an instrument, with masks of the parts. Test: `instrument_dataset_1..10/left_frames` and, there or in a tree of
their own, `BinarySegmentation`, `PartsSegmentation`, `TypeSegmentation`. Frames and masks are cut to the camera's
picture, 1280x1024 at x 320, y 28; frames that have this size already are taken as they are. `right_frames` are not
labelled and not read.

Sources: the challenge's data page (crop; that the test part of sequences 1 to 8 follows directly on their training
part, so that both are one group here), github.com/ternaus/robot-surgery-segmentation prepare_data.py (10 shaft, 20
wrist, 30 claspers; the instrument is the union of all folders but `Other_labels`; numbers of the types),
github.com/BCV-Uniandes/ISINet data/organize2017.py (a later folder, by name, is drawn over an earlier one). Not
verified on the data itself: the values of the test masks (30 shaft, 100 wrist, 255 claspers, 200 other; types 1 to 7),
for which public loaders agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trocar.config import DataSettings
from trocar.data.files import read_image, read_mask_file
from trocar.data.records import IGNORE, ImageArray, MaskArray, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.encoding import BINARY_CLASSES
from trocar.data.sources.listing import Listing, files_by_stem, several
from trocar.errors import UserError

CROP_XYWH = (320, 28, 1280, 1024)  # of a frame of 1920x1080
PARTS = ("background", "shaft", "wrist", "claspers")
TYPES = (
    "background",
    "bipolar forceps",
    "prograsp forceps",
    "large needle driver",
    "vessel sealer",
    "grasping retractor",
    "monopolar curved scissors",
    "other",
)
OTHER = "other"  # the folder of what is no robotic instrument, such as a drop-in ultrasound probe
_TRAIN_PARTS = {10: 1, 20: 2, 30: 3}
_TEST_PARTS = {0: 0, 30: 1, 100: 2, 255: 3, 200: 0}
_TEST_FOLDERS = {"instrument": "BinarySegmentation", "parts": "PartsSegmentation", "types": "TypeSegmentation"}
_EXPECTED = "instrument_dataset_N/left_frames with ground_truth/*_labels (training) or *Segmentation (test)"
_WORDS = {
    "instrument": "the union of the instrument folders without Other_labels; of the test frames BinarySegmentation",
    "parts": "10, 20, 30 shaft, wrist, claspers (test: 30, 100, 255); other values of an instrument are ignored",
    "types": "by the names of the folders; of the test frames TypeSegmentation",
}


@dataclass
class _Sequence:
    """One stretch of frames and where its labels lie; frames and labels may come from two trees."""

    side: Side
    name: str
    frames: dict[str, list[Path]] = field(default_factory=dict)
    labels: dict[str, dict[str, list[Path]]] = field(default_factory=dict)  # folder -> frame -> files


def recognises(root: Path) -> bool:
    """Whether there are sequences `instrument_dataset_N` with left frames or labels below."""
    return research.holds(root, _is_sequence, depth=3)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the labelled frames with the classes of `data.target`; training frames have instances, a folder each."""
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    notes: list[str] = []
    sides: dict[str, Side | None] = {}
    for sequence in _sequences(root, notes):
        if not sequence.labels:
            notes.append(f"{sequence.side}/{sequence.name}: {len(sequence.frames)} frames without labels are left out")
            continue
        for name in sorted(sequence.frames.keys() | _labelled(sequence)):
            made = _record(sequence, name, settings.target)
            if isinstance(made, UserError):
                problems[f"{sequence.side}/{sequence.name}/{name}"] = made
            else:
                records.append(made)
                sides[made.name] = sequence.side
    if not records and not problems:
        raise research.nothing_here("labelled frames of EndoVis 2017", root, _EXPECTED)
    lists = research.official({record.name: sides[record.name] for record in records})
    if lists:
        notes.append(
            "the official test part of sequences 1 to 8 continues their training part: the official split cuts these "
            "groups, and the challenge asks to score each by a model that was not trained on its own training part"
        )
    if settings.target == "types":
        notes.append("the type `other` is no robotic instrument: with data.target=instrument it is background")
    classes = {"instrument": BINARY_CLASSES, "parts": PARTS, "types": TYPES}[settings.target]
    source = Source(
        dataset="endovis17",
        root=root,
        classes=classes,
        records=research.in_time_order(records),
        official=lists,
        mask_encoding=_WORDS[settings.target],
        notes=tuple(notes),
    )
    return source, problems


# ------------------------------------------------------------------ folders


def _is_sequence(folder: Path) -> bool:
    if not re.fullmatch(r"instrument_dataset_\d+", folder.name):
        return False
    places = _label_places(folder)
    return (folder / "left_frames").is_dir() or any((place / name).is_dir() for place in places for name in _tests())


def _tests() -> tuple[str, ...]:
    return tuple(_TEST_FOLDERS.values())


def _label_places(folder: Path) -> tuple[Path, ...]:
    return folder, folder / "ground_truth", folder / "gt"


def _sequences(root: Path, notes: list[str]) -> list[_Sequence]:
    """Frames and labels of each sequence, brought together by side and number; the first tree by name wins."""
    found: dict[tuple[Side, str], _Sequence] = {}
    for folder in research.descend(root, _is_sequence, depth=3):
        frames, labels = files_by_stem(folder / "left_frames")[0], _labels(folder)
        is_test = _is_test(labels) or research.side_of(_words(folder, root)) == "test"
        side: Side = "test" if is_test else "train"
        sequence = found.setdefault((side, folder.name), _Sequence(side, folder.name))
        if (sequence.frames and frames) or (sequence.labels and labels):
            again = folder.relative_to(root).as_posix()
            notes.append(f"{again} holds {side}/{folder.name} once more: what was found first is used")
        sequence.frames = sequence.frames or frames
        sequence.labels = sequence.labels or labels
    return list(found.values())


def _words(folder: Path, root: Path) -> list[str]:
    """Words of the folders above a sequence: `instrument_1_4_testing` is of the test."""
    return [word for part in folder.relative_to(root).parts[:-1] for word in part.split("_")]


def _labels(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Mask files by frame for each label folder: those of the test, or else one an instrument."""
    for place in _label_places(folder):
        kept = {name: files_by_stem(place / name)[0] for name in _tests() if (place / name).is_dir()}
        if kept:
            return kept
    return {path.name: files_by_stem(path)[0] for path in research.subfolders(folder / "ground_truth")}


def _labelled(sequence: _Sequence) -> set[str]:
    return {name for files in sequence.labels.values() for name in files}


# ------------------------------------------------------------------ records


def _record(sequence: _Sequence, frame: str, target: str) -> Record | UserError:
    """The record of a frame, or what keeps it from being one."""
    name = f"{sequence.side}/{sequence.name}/{frame}"
    images = sequence.frames.get(frame, [])
    wanted = _wanted(sequence, target)
    absent = [folder for folder in wanted if frame not in sequence.labels.get(folder, {})]
    if not images or absent:
        what = "the masks have no image: left_frames lacks it" if not images else f"no mask in {', '.join(absent)}"
        return UserError(
            what, where=f"record {name}", mend=f"add what is missing, or list {name} under data.exclude in the recipe"
        )
    for paths in (images, *(sequence.labels[folder][frame] for folder in wanted)):
        if len(paths) > 1:
            return several(name, paths)
    masks = {folder: sequence.labels[folder][frame][0] for folder in wanted}
    return Record(
        name=name,
        group=sequence.name,
        dataset="endovis17",
        image=partial(_read_frame, images[0]),
        mask=_mask_reader(masks, target),
        instances=None if _is_test(masks) else partial(_read_instances, _instruments(masks)),
        frame=research.number_in(frame),
        files=(images[0], *masks.values()),
    )


def _wanted(sequence: _Sequence, target: str) -> list[str]:
    if _is_test(sequence.labels):
        return [_TEST_FOLDERS[target]]
    return sorted(folder for folder in sequence.labels if target == "types" or not _is_other(folder))


def _is_test(labels: dict[str, Path] | dict[str, dict[str, list[Path]]]) -> bool:
    return bool(labels.keys() & set(_tests()))


def _is_other(folder: str) -> bool:
    return folder.lower().startswith(OTHER)


def _instruments(masks: dict[str, Path]) -> tuple[Path, ...]:
    return tuple(path for folder, path in masks.items() if not _is_other(folder))


def _mask_reader(masks: dict[str, Path], target: str) -> partial[MaskArray]:
    paths = tuple(masks.values())
    if _is_test(masks):
        return partial(_read_test, paths[0], target)
    if target == "parts":
        return partial(_read_parts, paths)
    if target == "types":
        return partial(_read_types, tuple((path, _type_of(folder)) for folder, path in masks.items()))
    return partial(_read_union, paths)


def _type_of(folder: str) -> int:
    words = folder.lower().replace("_", " ")
    named = [index for index, name in enumerate(TYPES) if index and name in words]
    if not named:
        raise UserError(
            f"the label folder {folder} names no instrument type that is known",
            where="ground_truth",
            mend=f"name it after one of {', '.join(TYPES[1:])}, or read the data with data.target=instrument",
        )
    return named[0]


# ------------------------------------------------------------------ pixels


def _read_frame(path: Path) -> ImageArray:
    return _crop(read_image(path), path)


def _crop(array: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """The camera's picture. Shapes: (1080, 1920, ...) or (1024, 1280, ...) -> (1024, 1280, ...)."""
    x, y, width, height = CROP_XYWH
    if array.shape[:2] == (height, width):
        return array
    if array.shape[:2] != (1080, 1920):
        raise UserError(
            f"the frame is {array.shape[1]}x{array.shape[0]}; expected is 1920x1080, or 1280x1024 where it is cut",
            where=str(path),
            mend="copy the original file again: its labels fit that size only",
        )
    return np.ascontiguousarray(array[y : y + height, x : x + width])


def _read_values(path: Path) -> NDArray[np.uint8]:
    """Values of a mask, cut. Some masks have three channels: where these differ, the pixel has no known value, 255."""
    stored = _crop(read_mask_file(path), path)
    if stored.ndim == 2:
        return stored
    low, high = stored.min(axis=-1), stored.max(axis=-1)
    return np.where(low == high, low, np.uint8(IGNORE)).astype(np.uint8)


def _read_union(paths: tuple[Path, ...]) -> MaskArray:
    """1 where any instrument is labelled, whatever the value."""
    mask = np.zeros((CROP_XYWH[3], CROP_XYWH[2]), dtype=np.uint8)
    for path in paths:
        mask[_read_values(path) > 0] = 1
    return mask


def _read_parts(paths: tuple[Path, ...]) -> MaskArray:
    """Parts of all instruments. Values that are no part are ignored; a mask of little else is refused."""
    mask = np.zeros((CROP_XYWH[3], CROP_XYWH[2]), dtype=np.uint8)
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[list(_TRAIN_PARTS)] = list(_TRAIN_PARTS.values())
    for path in paths:
        values = _read_values(path)
        labelled = values > 0
        parts = table[values[labelled]]
        if parts.size and np.mean(parts == IGNORE) > 0.5:
            raise UserError(
                "most of the mask holds values that name no part",
                where=str(path),
                mend=f"expected are {', '.join(map(str, _TRAIN_PARTS))}: copy the original file again, or set "
                "data.target=instrument",
            )
        mask[labelled] = parts
    return mask


def _read_types(masks: tuple[tuple[Path, int], ...]) -> MaskArray:
    mask = np.zeros((CROP_XYWH[3], CROP_XYWH[2]), dtype=np.uint8)
    for path, index in masks:
        mask[_read_values(path) > 0] = index
    return mask


def _read_instances(paths: tuple[Path, ...]) -> MaskArray:
    return _read_types(tuple((path, index) for index, path in enumerate(paths, start=1)))


def _read_test(path: Path, target: str) -> MaskArray:
    values = _read_values(path)
    if target == "instrument":
        return (values > 0).astype(np.uint8)
    meaning = _TEST_PARTS if target == "parts" else {index: index for index in range(len(TYPES))}
    return research.decode(values, meaning, path)
