"""EndoVis 2018, "Robotic Scene Segmentation" (Allan et al. 2020, arXiv:2001.11190), as it is distributed.

`<release>/seq_N/left_frames/frameNNN.png` with coloured masks of the same names in `labels/`, `labels.json` beside the
sequences, and `test_data/seq_N`. What each colour means is read from every `labels.json` found: the releases have a
list with RGB, the test data `{"classes": [...]}` with RGBA. `repairs/seq_N_frameNNN.png`, where it was unpacked too,
are the organisers' corrected masks of the first release and are used instead of those. `right_frames` are not
labelled.

Training and test number their sequences apart: both have a `seq_1`, of different procedures, so that groups are named
by side. Anatomy is background. `data.target=instrument` counts what a hand or arm holds: shaft, wrist and clasper,
suction and ultrasound probe; clamps, needle and thread are background there, and classes of their own under `parts`
and `types`.

Sources: github.com/mli0603/EndoVis2018 data/labels.json; github.com/IMSY-DKFZ/mml, creator `endovis18_rob_instr`
(releases, repairs); github.com/BCV-Uniandes/ISINet data/organize2018.py. Not verified on the data itself: the second
form of labels.json.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trocar.config import DataSettings
from trocar.data.files import read_image, read_mask_file
from trocar.data.records import MaskArray, Record, Side, Source
from trocar.data.sources import research
from trocar.data.sources.encoding import Colour, as_colours, name_colours, pack
from trocar.data.sources.listing import Listing, files_by_stem, natural, pair
from trocar.documents import read_json
from trocar.errors import UserError

_ROBOTIC = ("instrument-shaft", "instrument-wrist", "instrument-clasper")
_HELD = ("suction-instrument", "ultrasound-probe")
_OBJECTS = ("clamps", "suturing-needle", "thread")
_ANATOMY = ("background-tissue", "kidney-parenchyma", "covered-kidney", "small-intestine", "intestine")
TABLES = {  # data.target -> label -> class; what is in none is background
    "instrument": dict.fromkeys((*_ROBOTIC, *_HELD), "instrument"),
    "parts": {name: name for name in (*_ROBOTIC, *_HELD, *_OBJECTS)},
    "types": dict.fromkeys(_ROBOTIC, "robotic-instrument") | {name: name for name in (*_HELD, *_OBJECTS)},
}
_LABELS = "labels.json"
_EXPECTED = "seq_N/left_frames with seq_N/labels, and labels.json beside the sequences"


def recognises(root: Path) -> bool:
    """Whether there are folders `seq_N` with left frames below."""
    return research.holds(root, _is_sequence, depth=4)


def read(root: Path, settings: DataSettings) -> Listing:
    """List the labelled left frames with the classes of `data.target`; a group is a sequence of a side."""
    sequences = list(research.descend(root, _is_sequence, depth=4))
    if not sequences:
        raise research.nothing_here("frames of EndoVis 2018", root, _EXPECTED)
    classes, index = research.classes_of(TABLES[settings.target])
    meaning = tuple((colour, index.get(label, 0)) for colour, label in _colours(root, sequences).items())
    repairs = _repairs(root)
    records: list[Record] = []
    problems: dict[str, UserError] = {}
    notes: list[str] = []
    repaired = 0
    for folder in sequences:
        side: Side = research.side_of(_words(folder, root)) or "train"
        group = f"{side}/{folder.name}"
        if not (folder / "labels").is_dir():
            notes.append(f"{group}: frames without labels are left out")
            continue
        masks = research.named_files(folder / "labels", group)
        for name in masks.keys() & repairs.keys():
            masks[name] = [repairs[name]]
            repaired += 1
        pairs, wrong = pair(research.named_files(folder / "left_frames", group), masks)
        problems |= wrong
        records += [_record(name, group, files, meaning) for name, files in pairs.items()]
    if repaired:
        notes.append(f"{repaired} masks are those of the folder repairs")
    _refuse_equal_names(records, root)
    objects = f"{', '.join(_OBJECTS)} {'are background' if settings.target == 'instrument' else 'are classes too'}"
    source = Source(
        dataset="endovis18",
        root=root,
        classes=classes,
        records=tuple(sorted(records, key=lambda record: natural(record.name))),
        official=research.official({record.name: research.side_of([record.group]) for record in records}),
        mask_encoding=f"colours of {_LABELS}",
        notes=(*notes, f"anatomy is background; {objects}"),
    )
    return source, problems


# ------------------------------------------------------------------ folders


def _is_sequence(folder: Path) -> bool:
    return bool(re.fullmatch(r"seq_\d+", folder.name)) and (folder / "left_frames").is_dir()


def _words(folder: Path, root: Path) -> list[str]:
    return [word for part in folder.relative_to(root).parts[:-1] for word in re.split(r"[_ -]", part)]


def _repairs(root: Path) -> dict[str, Path]:
    """Corrected masks by the record they belong to; they are of the training data."""
    found: dict[str, Path] = {}
    for folder in research.descend(root, lambda path: path.name == "repairs" and any(path.glob("*.png")), depth=3):
        for stem, paths in files_by_stem(folder)[0].items():
            if match := re.fullmatch(r"(seq_\d+)_(frame\d+)", stem):
                found[f"train/{match[1]}/{match[2]}"] = paths[0]
    return found


def _record(name: str, group: str, files: tuple[Path, Path], meaning: tuple[tuple[Colour, int], ...]) -> Record:
    image, mask = files
    return Record(
        name=name,
        group=group,
        dataset="endovis18",
        image=partial(read_image, image),
        mask=partial(_read_colours, mask, meaning),
        frame=research.number_in(name),
        files=files,
    )


def _refuse_equal_names(records: list[Record], root: Path) -> None:
    groups: dict[str, set[Path]] = {}
    for record in records:
        groups.setdefault(record.group, set()).add(record.files[0].parent)
    twice = [f"{group}: {', '.join(sorted(map(str, places)))}" for group, places in groups.items() if len(places) > 1]
    if twice:
        raise UserError(
            "a sequence is there more than once", where="; ".join(twice), mend=f"keep one copy of it below {root}"
        )


# ------------------------------------------------------------------ colours


def _colours(root: Path, sequences: list[Path]) -> dict[Colour, str]:
    """Label of each colour, over every labels.json between the root and the sequences."""
    folders = dict.fromkeys(parent for folder in sequences for parent in _between(folder, root))
    files = [folder / _LABELS for folder in folders if (folder / _LABELS).is_file()]
    if not files:
        raise UserError(
            f"no {_LABELS}: nothing says what the colours of the masks mean",
            where=str(root),
            mend="copy it beside the sequences; it comes with the data",
        )
    found: dict[Colour, str] = {}
    for path in files:
        for colour, label in _read_labels(path).items():
            if found.setdefault(colour, label) != label:
                raise UserError(
                    f"colour {list(colour)} is {found[colour]} in one {_LABELS} and {label} in another",
                    where=str(path),
                    mend="read the two trees as sources of their own",
                )
    return found


def _between(folder: Path, root: Path) -> list[Path]:
    return [parent for parent in (folder, *folder.parents) if parent == root or root in parent.parents]


def _read_labels(path: Path) -> dict[Colour, str]:
    tree = read_json(path, "the labels", mend="copy it again")
    entries = tree.get("classes") if isinstance(tree, dict) else tree
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise UserError(
            "the labels are not as in EndoVis 2018",
            where=str(path),
            mend='expected is [{"name": "instrument-shaft", "color": [0, 255, 0], "classid": 1}, ...]',
        )
    labels = {(*map(int, entry["color"][:3]),): str(entry["name"]) for entry in entries}
    unknown = sorted(set(labels.values()) - {*_ROBOTIC, *_HELD, *_OBJECTS, *_ANATOMY})
    if unknown:
        raise UserError(
            f"{_LABELS} names {', '.join(unknown)}, which EndoVis 2018 does not have",
            where=str(path),
            mend="use the file that came with the data, or read the frames as a folder with a classes.json",
        )
    return labels  # type: ignore[return-value]  # the length of a colour was checked


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    colour = entry.get("color")
    return (
        isinstance(colour, list)
        and len(colour) in (3, 4)
        and all(isinstance(part, int) and 0 <= part <= 255 for part in colour)
    )


def _read_colours(path: Path, meaning: tuple[tuple[Colour, int], ...]) -> MaskArray:
    """Class index of each pixel's colour. Shapes: -> uint8 (H, W)."""
    packed = pack(as_colours(read_mask_file(path, palette_as_colours=True)))
    mask = np.zeros(packed.shape, dtype=np.uint8)
    known = np.zeros(packed.shape, dtype=bool)
    for (red, green, blue), index in meaning:
        here = packed == (red << 16 | green << 8 | blue)
        known |= here
        mask[here] = index
    if not known.all():
        raise UserError(
            f"the mask holds colours that {_LABELS} does not name: {name_colours(packed[~known])}, "
            f"{1 - known.mean():.2%} of its pixels",
            where=str(path),
            mend="copy the original file again",
        )
    return mask
