"""SAR-RARP50 (Psychogyios et al. 2023, arXiv:2401.00496): suturing in prostatectomy, a mask a second.

`train1|train2|test/video_NN/segmentation/NNNNNNNNN.png`, numbered by the video's frame (60 a second, so 0, 60, 120,
...), with frames of the same numbers in `rgb/` (as the organisers' tool extracts them, ten a second), or else taken
from `video_left.avi`. Masks hold 0 background and nine labels: 1 tool clasper, 2 tool wrist, 3 tool shaft, 4 suturing
needle, 5 thread, 6 suction tool, 7 needle holder, 8 clamps, 9 catheter. A mask of three channels has its labels in all
of them.

A group is a video; `video_11_1` and `video_11_2` are parts of one. `data.target=instrument` counts what a hand or arm
holds (1, 2, 3, 6, 7); needle, thread, clamps and catheter are background there. `parts` has the nine labels of the
challenge, `types` joins clasper, wrist and shaft to one.

Sources: github.com/surgical-vision/SAR_RARP50-evaluation (folders, sampling, that masks hold nine labels and only the
first channel counts; colour table of scripts/evaluate.py for their names). The parts of videos, and that folders may
be called train_set and test_set, are from public loaders.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import read_image
from trocar.data.records import ImageArray, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.listing import Listing, pair
from trocar.data.video_frames import read_frame
from trocar.errors import UserError

LABELS = (
    "tool-clasper",
    "tool-wrist",
    "tool-shaft",
    "suturing-needle",
    "thread",
    "suction-tool",
    "needle-holder",
    "clamps",
    "catheter",
)
_TOOL = LABELS[:3]
TABLES = {  # data.target -> label -> class; what is in none is background
    "instrument": dict.fromkeys((*_TOOL, "suction-tool", "needle-holder"), "instrument"),
    "parts": {name: name for name in LABELS},
    "types": dict.fromkeys(_TOOL, "robotic-instrument") | {name: name for name in LABELS[3:]},
}
_STEP = 60  # frames from one mask to the next
_EXPECTED = "train1, train2 or test with video_NN/segmentation/*.png, and video_NN/rgb or video_NN/video_left.avi"


def recognises(root: Path) -> bool:
    """Whether there are folders `video_NN` with a folder segmentation below."""
    return research.holds(root, _is_video, depth=2)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the frames that have a mask, each with its image from `rgb` or from the video."""
    classes, index = research.classes_of(TABLES[settings.target])
    meaning = {0: 0} | {code: index.get(name, 0) for code, name in enumerate(LABELS, start=1)}
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    sides: dict[str, Side | None] = {}
    shown: dict[str, int] = {}  # group -> frames of its earlier parts
    for folder in research.descend(root, _is_video, depth=2):
        group = re.sub(r"(video_\d+)_\d+$", r"\1", folder.name)
        masks = research.named_files(folder / "segmentation", folder.relative_to(root).as_posix())
        stills = research.named_files(folder / "rgb", folder.relative_to(root).as_posix())
        images = {name: stills[name] if name in stills else _video(folder) for name in masks}
        pairs, wrong = pair({name: found for name, found in images.items() if found}, masks)
        problems |= wrong
        before = shown.get(group, 0)
        made = [_record(name, group, files, meaning, before) for name, files in pairs.items()]
        shown[group] = max((record.frame or 0 for record in made), default=before) + _STEP
        sides |= dict.fromkeys((record.name for record in made), research.side_of(folder.relative_to(root).parts))
        records += made
    if not records and not problems:
        raise research.nothing_here("videos of SAR-RARP50", root, _EXPECTED)
    objects = "needle, thread, clamps and catheter are background"
    source = Source(
        dataset="sar-rarp50",
        root=root,
        classes=classes,
        records=research.in_time_order(records),
        official=research.official(sides),
        mask_encoding="labels 0 to 9",
        notes=(objects,) if settings.target == "instrument" else (),
    )
    return source, problems


def _is_video(folder: Path) -> bool:
    return bool(re.fullmatch(r"video_\d+(_\d+)?", folder.name)) and (folder / "segmentation").is_dir()


def _video(folder: Path) -> list[Path]:
    video = folder / "video_left.avi"
    return [video] if video.is_file() else []


def _record(name: str, group: str, files: tuple[Path, Path], meaning: dict[int, int], before: int) -> Record:
    """`before`: frames of earlier parts of this video, so that its frames count on."""
    image, mask = files
    number = research.number_in(mask.stem) or 0
    return Record(
        name=name,
        group=group,
        dataset="sar-rarp50",
        image=partial(_read_video_image, image, number) if image.suffix == ".avi" else partial(read_image, image),
        mask=partial(research.read_codes, mask, meaning),
        frame=before + number,
        files=files,
    )


def _read_video_image(path: Path, index: int) -> ImageArray:
    return read_frame(path, index, "rgb24")
