"""CaDIS, cataract surgery (Grammatikopoulou et al. 2021, doi:10.1016/j.media.2021.102053), second version.

`VideoNN/Images/VideoN_frameNNNNNN.png` with masks of the same names in `VideoNN/Labels`, values 0 to 35. A group is a
video; the authors' split is by video: 3,550 frames train, 534 (videos 5, 7, 16) validate, 586 (2, 12, 22) test.

`data.target=instrument` joins labels 7 to 35, the class Instrument of the paper's first task; eye retractors, hand,
tape and the eye are background. `types` are the ten instrument classes of its second task, in which a handle counts as
its tool and seven rare tools are ignored.

Sources: github.com/RViMLab/MICCAI2021_Cataract_semantic_segmentation utils/defaults.py (labels, tasks, split),
github.com/MECLabTUDA/SDS_Playground cadisv2_dataset.py (folders, split). Their table of the second task has every
label of 7 to 35 once.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import read_image
from trocar.data.records import IGNORE, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.encoding import BINARY_CLASSES
from trocar.data.sources.listing import Listing, pair
from trocar.errors import UserError

TYPES = {  # classes of the second task, by the labels they join
    "cannula": (7, 8, 10, 20, 27, 32),
    "capsulorhexis-cystotome": (9, 22),
    "tissue-forceps": (11, 33),
    "primary-knife": (12, 28),
    "phacoemulsifier-handpiece": (13, 21),
    "lens-injector": (14, 24),
    "irrigation-aspiration-handpiece": (15, 18),
    "secondary-knife": (16, 23),
    "micromanipulator": (17,),
    "capsulorhexis-forceps": (19,),
}
_IGNORED_TYPES = (
    25,
    26,
    29,
    30,
    31,
    34,
    35,
)  # needle and its holder, vitrectomy, Mendez ring, marker, cotton, iris hooks
_NO_INSTRUMENT = range(7)  # pupil, tape, hand, eye retractors, iris, skin, cornea
_INSTRUMENTS = range(7, 36)
_VALIDATION, _TEST = (5, 7, 16), (2, 12, 22)
_EXPECTED = "VideoNN/Images and VideoNN/Labels with PNG files of the same names"


def recognises(root: Path) -> bool:
    """Whether there are folders `VideoNN` with Images and Labels below."""
    return research.holds(root, _is_video, depth=2)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the frames with the authors' split."""
    classes, meaning = _meaning(settings.target)
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    for video in research.descend(root, _is_video, depth=2):
        images, masks = (research.named_files(video / kind, video.name) for kind in ("Images", "Labels"))
        pairs, wrong = pair(images, masks)
        problems |= wrong
        records += [_record(name, video.name, files, meaning) for name, files in pairs.items()]
    if not records and not problems:
        raise research.nothing_here("frames of CaDIS", root, _EXPECTED)
    source = Source(
        dataset="cadis",
        root=root,
        classes=classes,
        records=research.in_time_order(records),
        official=research.official({record.name: _side(record.group) for record in records}),
        mask_encoding="labels 0 to 35; "
        + ("7 to 35 are instruments" if len(classes) == 2 else "rare tools are ignored"),
    )
    return source, problems


def _is_video(folder: Path) -> bool:
    named = re.fullmatch(r"Video\d+", folder.name)
    return bool(named) and (folder / "Images").is_dir() and (folder / "Labels").is_dir()


def _side(group: str) -> Side:
    number = research.number_in(group)
    if number in _TEST:
        return "test"
    return "val" if number in _VALIDATION else "train"


def _meaning(target: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, and class index of each label."""
    none = dict.fromkeys(_NO_INSTRUMENT, 0)
    if target != "types":
        return BINARY_CLASSES, none | dict.fromkeys(_INSTRUMENTS, 1)
    named = {label: index for index, labels in enumerate(TYPES.values(), start=1) for label in labels}
    return ("background", *TYPES), none | named | dict.fromkeys(_IGNORED_TYPES, IGNORE)


def _record(name: str, group: str, files: tuple[Path, Path], meaning: dict[int, int]) -> Record:
    image, mask = files
    return Record(
        name=name,
        group=group,
        dataset="cadis",
        image=partial(read_image, image),
        mask=partial(research.read_codes, mask, meaning),
        frame=research.number_in(name),
        files=files,
    )
