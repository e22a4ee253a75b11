"""EndoVis 2015, "Instrument segmentation and tracking" (MICCAI challenge), as it is distributed.

`rigid/OP*/Raw/img_NN_raw.png` with `Masks/img_NN_class.png` (parts) and `Masks/img_NN_instrument.png` (instances),
a group a surgery; `robotic/Dataset*/Video.avi` with its mask as a video, a group a procedure. The root may be the
folder that holds `rigid` and `robotic`, or one of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from trocar.config import DataSettings
from trocar.data.files import read_image, read_mask_file
from trocar.data.records import ImageArray, MaskArray, Record, Source
from trocar.data.sources.listing import Listing
from trocar.data.video_frames import count_frames, read_frame
from trocar.errors import UserError

CLASSES = ("background", "shaft", "manipulator")
_PART_VALUES = {0: 0, 160: 1, 70: 2}  # value on disk -> class index
_INSTANCE_VALUES = {0: 0, 20: 1, 40: 2, 60: 3, 80: 4}
_EXPECTED_LAYOUT = "OP*/Raw with OP*/Masks (rigid), or Dataset*/Video.avi (robotic), also below rigid/ and robotic/"


def recognises(root: Path) -> bool:
    """Whether the folder is laid out like EndoVis 2015."""
    return any(_procedures(root))


def read(root: Path, settings: DataSettings) -> Listing:  # noqa: ARG001 - every reader is called the same way
    """List rigid frames and video frames, each with parts; rigid ones with instances too."""
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    notes: list[str] = []
    kinds = set()
    for folder in _procedures(root):
        group = folder.relative_to(root).as_posix()
        kind = "rigid" if (folder / "Raw").is_dir() else "robotic"
        kinds.add(kind)
        add = _add_rigid if kind == "rigid" else _add_robotic
        add(folder, group, records, problems, notes)
    if not kinds:
        raise UserError("no EndoVis 2015 frames here", where=str(root), mend=f"expected {_EXPECTED_LAYOUT}")
    words = {
        "rigid": "rigid: 0 background, 160 shaft, 70 manipulator",
        "robotic": "robotic: the nearest of these values, as video compression blurs them",
    }
    if "robotic" in kinds:
        notes.append(
            "robotic masks: where video compression blurs the border of shaft (160) and background (0), single pixels "
            "come out nearest to manipulator (70), about 0.2 % of that class; the whole instrument is not affected"
        )
    source = Source(
        dataset="endovis15",
        root=root,
        classes=CLASSES,
        records=tuple(records),
        mask_encoding="; ".join(words[kind] for kind in sorted(kinds)),
        notes=tuple(notes),
    )
    return source, problems


def _procedures(root: Path) -> Iterator[Path]:
    """Folders of one surgery or procedure each, below the root or below its `rigid` and `robotic`."""
    for parent in (root, root / "rigid", root / "robotic"):
        folders = (path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else ()
        for folder in sorted(folders):
            is_rigid = (folder / "Raw").is_dir() and (folder / "Masks").is_dir()
            if is_rigid or (folder / "Video.avi").is_file() or any(folder.glob("*Segmentation.avi")):
                yield folder


# ------------------------------------------------------------------ rigid: stills


def _add_rigid(
    folder: Path, group: str, records: list[Record], problems: dict[str, UserError], notes: list[str]
) -> None:
    images = _numbered(folder / "Raw", r"(img_\d+)_raw\.png")
    parts = _numbered(folder / "Masks", r"(img_\d+)_class\.png")
    instances = _numbered(folder / "Masks", r"(img_\d+)_instrument\.png")
    for stem in sorted(images.keys() | parts.keys()):
        name = f"{group}/{stem}"
        if stem not in parts:
            problems[name] = _missing("mask", name, images[stem], f"Masks/{stem}_class.png")
        elif stem not in images:
            problems[name] = _missing("image", name, parts[stem], f"Raw/{stem}_raw.png")
        else:
            found = [path for path in (images[stem], parts[stem], instances.get(stem)) if path]
            records.append(
                Record(
                    name=name,
                    group=group,
                    dataset="endovis15",
                    image=partial(read_image, images[stem]),
                    mask=partial(_read_values, parts[stem], _PART_VALUES),
                    instances=partial(_read_values, instances[stem], _INSTANCE_VALUES) if stem in instances else None,
                    files=tuple(found),
                )
            )
    without = len((images.keys() & parts.keys()) - instances.keys())
    if without:
        notes.append(f"{group}: {without} frames have no instance mask (img_NN_instrument.png)")


def _numbered(folder: Path, pattern: str) -> dict[str, Path]:
    matches = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir())
    return {match[1]: path for match, path in matches if match}


def _missing(partner: str, name: str, present: Path, expected: str) -> UserError:
    has = "the image has no mask" if partner == "mask" else "the mask has no image"
    return UserError(
        f"{has}: {expected} is missing",
        where=f"record {name}, {present}",
        mend=f"add the missing file, or list {name} under data.exclude in the recipe",
    )


def _read_values(path: Path, meaning: dict[int, int]) -> MaskArray:
    stored = read_mask_file(path)
    if stored.ndim == 3:
        raise UserError("the mask has colours; one channel was expected", where=str(path), mend="copy it again")
    table = np.full(256, 255, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    mask = table[stored]
    if (mask == 255).any():
        values = sorted(set(np.unique(stored).tolist()) - set(meaning))
        raise UserError(
            f"the mask holds unexpected values {values[:10]}, {np.mean(mask == 255):.2%} of its pixels",
            where=str(path),
            mend=f"expected are {sorted(meaning)}: copy the original file again",
        )
    return mask


# ------------------------------------------------------------------ robotic: videos


def _add_robotic(
    folder: Path, group: str, records: list[Record], problems: dict[str, UserError], notes: list[str]
) -> None:
    video = folder / "Video.avi"
    try:
        mask_videos = _mask_videos(folder)
        if not video.is_file():
            raise UserError(
                "the mask video has no Video.avi", where=str(folder), mend=f"add it, or list {group} in data.exclude"
            )
        counts = {path.name: count_frames(path) for path in (video, *mask_videos)}
    except UserError as error:
        problems[group] = error
        return
    if len(set(counts.values())) > 1:
        notes.append(f"{group}: only the frames that all videos have are used, of {counts}")
    records += [
        Record(
            name=f"{group}/{index:05d}",
            group=group,
            dataset="endovis15",
            image=partial(_read_video_image, video, index),
            mask=partial(_read_video_mask, mask_videos, index),
            frame=index,
            files=(video, *mask_videos),
        )
        for index in range(min(counts.values()))
    ]


def _mask_videos(folder: Path) -> tuple[Path, ...]:
    whole = folder / "Segmentation.avi"
    sides = tuple(folder / f"{side}_Instrument_Segmentation.avi" for side in ("Left", "Right"))
    if whole.is_file():
        return (whole,)
    if all(path.is_file() for path in sides):
        return sides
    raise UserError(
        "the video has no mask video",
        where=str(folder),
        mend=f"add Segmentation.avi, or both of {sides[0].name} and {sides[1].name}",
    )


def _read_video_image(path: Path, index: int) -> ImageArray:
    return read_frame(path, index, "rgb24")


def _read_video_mask(paths: tuple[Path, ...], index: int) -> MaskArray:
    """The nearest part of each pixel, over all videos the later class where several label it.

    In Dataset1 left and right overlap in up to 134 pixels of 41 frames, never with different parts.
    """
    masks = [_NEAREST[read_frame(path, index, "gray")] for path in paths]
    return np.asarray(np.maximum.reduce(masks), dtype=np.uint8)


def _nearest_table() -> MaskArray:
    """Class index of the nearest part value, for each grey from 0 to 255."""
    nearest = [min(_PART_VALUES, key=lambda value: abs(value - grey)) for grey in range(256)]
    return np.array([_PART_VALUES[value] for value in nearest], dtype=np.uint8)


_NEAREST = _nearest_table()
