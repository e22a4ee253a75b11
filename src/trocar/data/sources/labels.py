"""What the readers of annotation tools share: JSON and XML of strangers, names of classes, images, and the listing."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image

from trocar import documents
from trocar.config import DataSettings
from trocar.data.annotations.shapes import Shape, paint_instances, paint_mask, size_hw, tells_instances
from trocar.data.files import IMAGE_SUFFIXES, read_image
from trocar.data.records import IGNORE, SIDES, Record, Side, Source
from trocar.data.sources.listing import Listing, natural
from trocar.errors import UserError

BACKGROUND_NAMES = ("background", "_background_", "__background__")
IGNORE_NAMES = ("ignore", "ignored", "__ignore__")
_SIDE_WORDS: dict[str, Side] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_EXIF_ORIENTATION = 0x0112


# ------------------------------------------------------------------ files


def read_text(path: Path) -> str:
    """The text of a file of labels. Raises `UserError` for what is missing, unreadable, too large or no text."""
    return documents.read_text(path, "the labels", mend="export them again")


def read_json(path: Path) -> Any:
    """The document of a JSON file."""
    return documents.read_json(path, "the labels", mend="export them again")


def read_xml(path: Path) -> Element:
    """The root of an XML file.

    Entities are refused (defusedxml): a few lines of them grow to gigabytes, or fetch files and addresses; see
    docs.python.org/3/library/xml.html#xml-security.
    """
    text = read_text(path)
    try:
        root: Element = fromstring(text, forbid_dtd=True)
        return root
    except DefusedXmlException:
        raise UserError(
            "the XML declares a document type or entities, which labels have no use for and attacks do",
            where=str(path),
            mend="export the labels again; if the declaration is yours, delete it",
        ) from None
    except (ParseError, ValueError, RecursionError) as error:
        raise UserError(f"the labels are no XML: {error}", where=str(path), mend="export them again") from None


def mentions(path: Path, *words: str, most: int = documents.MAX_BYTES) -> bool:
    """Whether the first `most` bytes of a file hold all these words: enough to recognise a format, without parsing."""
    wanted = {word.encode() for word in words}
    overlap = max(map(len, wanted))
    read, tail = 0, b""
    try:
        documents.refuse_what_is_no_file(path)
        with path.open("rb") as file:
            while wanted and read < most and (data := file.read(min(2**22, most - read))):
                read += len(data)
                wanted = {word for word in wanted if word not in tail + data}
                tail = data[-overlap:]
    except OSError:
        return False
    return not wanted


@contextmanager
def expecting(what: str, where: str) -> Iterator[None]:
    """Say where a document is not built as its format says; inside, a missing key or a wrong kind of value is that."""
    try:
        yield
    except UserError as error:
        raise error if error.where else UserError(error.what, where=where, mend=error.mend) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{what} is not as the format has it: {reason[:200]}", where=where, mend="export it again"
        ) from None


# ------------------------------------------------------------------ classes


def class_table(labels: Iterable[str], where: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the classes in this order, the background first, and the class index of every label.

    `background` in its spellings is index 0 and `ignore` is 255; neither needs to be there.
    """
    background, classes, meaning = "background", [], {}
    for label in dict.fromkeys(labels):
        if not label.strip():
            raise UserError("a class has no name", where=where, mend="name it there, and export the labels again")
        if label.lower() in BACKGROUND_NAMES:
            meaning[label] = 0
            background = label
        elif label.lower() in IGNORE_NAMES:
            meaning[label] = IGNORE
        else:
            classes.append(label)
            meaning[label] = len(classes)
    if len(classes) > 200:
        raise UserError(f"{len(classes)} classes; trocar takes 200", where=where, mend="join some of them")
    if not classes:
        raise UserError(
            "the labels name no class", where=where, mend="label something, or export with the names of the classes"
        )
    return ("background" if background.startswith("_") else background, *classes), meaning


# ------------------------------------------------------------------ images


def find_image(name: str, folders: Sequence[Path], root: Path, where: str) -> Path:
    """The image of that name in the first of the folders that has it. Raises `UserError` where none does.

    What would lie outside of `root` is refused: labels of strangers name no files of ours.
    """
    relative = name.replace("\\", "/")
    if not relative or "\0" in relative:
        raise UserError("an image has no name", where=where, mend="export the labels again")
    forms = dict.fromkeys((relative, *(unicodedata.normalize(form, relative) for form in ("NFC", "NFD"))))
    places = [Path(os.path.normpath(folder / form)) for folder in folders for form in forms]
    inside = [path for path in places if is_within(path, root)]
    if not inside:
        raise UserError(
            f"the labels name an image outside of {root}: {name[:200]}",
            where=where,
            mend="put labels and images below one folder, and name the images relative to it",
        )
    if Path(relative).suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(
            f"{name[:200]} has no ending of an image",
            where=where,
            mend=f"images are {', '.join(IMAGE_SUFFIXES)}",
        )
    try:
        found = next((path for path in inside if path.is_file()), None)
    except OSError:  # a name longer than the system has
        found = None
    if found is None:
        raise UserError(
            f"the image {name[:200]} is missing",
            where=f"{where}; looked for {inside[0]}" + f" and {len(inside) - 1} more places" * (len(inside) > 1),
            mend="put the images there: many tools export the labels without them",
        )
    return found


def is_within(path: Path, root: Path) -> bool:
    """Whether the path as written, links not followed, lies below the folder."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))  # noqa: PTH100 - resolve() follows links


def image_size_hw(path: Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, its EXIF turn applied, without decoding it."""
    try:
        documents.refuse_what_is_no_file(path)
        with Image.open(path) as header:
            width, height = header.size
            turned = header.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return size_hw(*((width, height) if turned else (height, width)), str(path))
    except Exception:  # damaged in one of many ways: reading it says which
        return read_image(path).shape[:2]


def stem_of(name: str) -> str:
    """A file's name as the name of a record: forward slashes, no ending, no way up or from the top, composed (NFC)."""
    path = posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/")).lstrip("/")
    while path.startswith("../"):
        path = path.removeprefix("../")
    return posixpath.splitext(path)[0]


def side_named(words: str) -> Side | None:
    """The side that a name such as `instances_train2017` speaks of, if it speaks of one."""
    letters = "".join(letter if letter.isalpha() else " " for letter in words.lower()).split()
    return next((_SIDE_WORDS[word] for word in letters if word in _SIDE_WORDS), None)


# ------------------------------------------------------------------ the listing


@dataclass
class Entry:
    """One image with its labels, as a reader found it."""

    name: str
    image: Path
    size: tuple[int, int]  # (height, width) that the labels are of
    shapes: list[Shape]
    labels: Path  # the file that holds them
    side: Side | None = None

    def record(self, dataset: str, with_instances: bool) -> Record:
        """The record, its own group; painting its masks is left to its functions."""
        where = f"record {self.name}, {self.labels}"
        shapes = tuple(self.shapes)
        return Record(
            name=self.name,
            group=self.name,
            dataset=dataset,
            image=partial(read_image, self.image),
            mask=partial(paint_mask, shapes, self.size, where),
            instances=partial(paint_instances, shapes, self.size, where) if with_instances else None,
            files=(self.image, self.labels),
        )


@dataclass
class Found:
    """What a reader gathers while it goes through the labels."""

    entries: list[Entry] = field(default_factory=list)
    problems: dict[str, UserError] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)  # kinds of labels that are no areas -> how many
    notes: list[str] = field(default_factory=list)


def listing(
    found: Found, *, dataset: str, root: Path, classes: tuple[str, ...], words: str, settings: DataSettings
) -> Listing:
    """The entries as a source; images of one record name become a problem."""
    for name, count in Counter(entry.name for entry in found.entries).items():
        if count > 1:
            found.problems[name] = UserError(
                f"{count} labelled images would all be record {name}",
                where=str(root),
                mend="rename the images, so that no two differ by their ending or their side's folder alone",
            )
    entries = {entry.name: entry for entry in found.entries if entry.name not in found.problems}
    with_instances = tells_instances(shape for entry in entries.values() for shape in entry.shapes)
    return listing_of(
        found,
        {name: entry.record(dataset, with_instances) for name, entry in entries.items()},
        dataset=dataset,
        root=root,
        classes=classes,
        words=words,
        settings=settings,
        sides={name: entry.side for name, entry in entries.items() if entry.side},
    )


def listing_of(
    found: Found,
    records: Mapping[str, Record],
    *,
    dataset: str,
    root: Path,
    classes: tuple[str, ...],
    words: str,
    settings: DataSettings,
    sides: Mapping[str, Side] | None = None,
) -> Listing:
    """The records as a source: groups given, in stable order, with sides and notes."""
    groups, notes = group_by_folder(list(records), settings)
    order = sorted(records, key=lambda name: (natural(groups[name]) if "/" in name else (), natural(name)))
    passed = ", ".join(f"{count} {kind}" for kind, count in found.skipped.most_common())
    if passed:
        notes.append(f"labels that are no areas were passed over: {passed}")
    source = Source(
        dataset=dataset,
        root=root,
        classes=classes,
        records=tuple(dataclasses.replace(records[name], group=groups[name]) for name in order),
        official=_official({name: side for name, side in (sides or {}).items() if name in records}),
        mask_encoding=words,
        notes=(*notes, *found.notes),
    )
    return source, found.problems


def group_by_folder(names: Sequence[str], settings: DataSettings) -> tuple[dict[str, str], list[str]]:
    """Group of each name, its first folder, or itself where there are no folders; and what a user should know."""
    if settings.group_by == "none" or not any("/" in name for name in names):
        if settings.group_by == "folder":
            raise UserError(
                "data.group_by is folder, but the images lie in no sub-folders",
                mend="put the images of each patient or video in a folder of its own, or set data.group_by=none",
            )
        note = "patients are not known: each image is its own group, so near-identical images may be split apart"
        return {name: name for name in names}, [note]
    groups = {name: name.split("/", 1)[0] if "/" in name else "." for name in names}
    loose = "." in groups.values()
    return groups, ["images that lie in no folder form one group, named ."] if loose else []


def _official(sides: Mapping[str, Side]) -> dict[Side, tuple[str, ...]] | None:
    if len(set(sides.values())) < 2:
        return None
    return {
        side: tuple(sorted(name for name, own in sides.items() if own == side))
        for side in SIDES
        if side in sides.values()
    }
