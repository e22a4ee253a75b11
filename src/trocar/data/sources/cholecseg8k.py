"""CholecSeg8k (Hong et al. 2020, arXiv:2012.12453) as it is distributed: 17 videos of Cholec80, 8,080 frames.

`videoNN/videoNN_MMMMM/frame_K_endo.png` with `frame_K_endo_watershed_mask.png`, whose three equal channels hold the
label: 31 grasper, 32 L-hook electrocautery, others anatomy. 0 and 255 (unlabelled, and the white border) are ignored.
The colour mask, blurred at its edges, and `_endo_mask.png`, sparse and of other values, are not read. A group is a
video.

Sources: public loaders that agree on the codes and say to use the watershed mask, among them github.com/MECLabTUDA/
SDS_Playground and the torch_em loader. One of them saw rare stray codes (35, 36): codes that no loader names are
ignored up to 1 % of a mask and refused above. The publication has no official split: each is made by video.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import read_image
from trocar.data.records import IGNORE, Record, Source
from trocar.data.sources import research
from trocar.data.sources.listing import Listing, files_by_stem, pair
from trocar.errors import UserError

LABELS = {31: "grasper", 32: "l-hook-electrocautery"}
_ANATOMY = (5, 11, 12, 13, 21, 22, 23, 24, 25, 33, 50)
_IGNORED = (0, 255)
_STRAY_SHARE = 0.01
_EXPECTED = "videoNN/videoNN_MMMMM/frame_K_endo.png with frame_K_endo_watershed_mask.png"
_VIDEO = re.compile(r"video\d+")
_CLIP = re.compile(r"video\d+_\d+")


def recognises(root: Path) -> bool:
    """Whether there are clips `videoNN_MMMMM` inside `videoNN`."""
    return research.holds(root, _is_video, depth=2)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the frames; `types` tells grasper and hook apart."""
    table = {name: name if settings.target == "types" else "instrument" for name in LABELS.values()}
    classes, index = research.classes_of(table)
    meaning = dict.fromkeys(_ANATOMY, 0) | dict.fromkeys(_IGNORED, IGNORE)
    meaning |= {code: index[name] for code, name in LABELS.items()}
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    for video in research.descend(root, _is_video, depth=2):
        for clip in filter(_is_clip, research.subfolders(video)):
            images, masks = _frames(clip, f"{video.name}/{clip.name}")
            pairs, wrong = pair(images, masks)
            problems |= wrong
            records += [_record(name, video.name, files, meaning) for name, files in pairs.items()]
    if not records and not problems:
        raise research.nothing_here("frames of CholecSeg8k", root, _EXPECTED)
    source = Source(
        dataset="cholecseg8k",
        root=root,
        classes=classes,
        records=research.in_time_order(records),
        mask_encoding="watershed labels: 31 grasper, 32 L-hook, 0 and 255 ignored, others background",
        notes=("frames of a video follow each other at 25 a second: neighbours are nearly the same image",),
    )
    return source, problems


def _is_clip(folder: Path) -> bool:
    return bool(_CLIP.fullmatch(folder.name))


def _is_video(folder: Path) -> bool:
    return bool(_VIDEO.fullmatch(folder.name)) and any(map(_is_clip, research.subfolders(folder)))


def _frames(clip: Path, prefix: str) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Images and watershed masks of a clip by the record they belong to."""
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for stem, paths in files_by_stem(clip)[0].items():
        for ending, found in (("_endo", images), ("_endo_watershed_mask", masks)):
            if match := re.fullmatch(rf"(frame_\d+){ending}", stem):
                found[f"{prefix}/{match[1]}"] = paths
    return images, masks


def _record(name: str, group: str, files: tuple[Path, Path], meaning: dict[int, int]) -> Record:
    image, mask = files
    return Record(
        name=name,
        group=group,
        dataset="cholecseg8k",
        image=partial(read_image, image),
        mask=partial(research.read_codes, mask, meaning, _STRAY_SHARE),
        frame=research.number_in(name),
        files=files,
    )
