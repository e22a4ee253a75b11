"""Write any source in the format of an annotation tool: `trocar convert`.

Records keep their names, except that each gets the folder of its group, from which every reader tells groups. The
folder appears when all is written and not before; a record that cannot be read is told with all others, and nothing is
written.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from PIL import Image

from trocar.data.files import IMAGE_SUFFIXES, read_image, write_png
from trocar.data.records import IGNORE, MaskArray, Record, Side, Source
from trocar.data.sources.labels import BACKGROUND_NAMES, IGNORE_NAMES
from trocar.data.writers import coco, cvat, cvat_masks, label_studio, labelme, png, yolo
from trocar.data.writers.frames import Frame, Job
from trocar.errors import UserError, UserErrors

Format = Literal["coco", "labelme", "cvat", "cvat-masks", "label-studio", "yolo", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
Progress = Callable[[int, int], None]  # records written, records in all

_EXIF_ORIENTATION = 0x0112


class _Writer(NamedTuple):
    write: Callable[[Iterable[Frame], Job], int]  # gives the number of areas
    images: str  # folder of the images
    has_choice: bool = False  # of polygons or something exact
    keeps_sides: bool = True


_WRITERS: dict[Format, _Writer] = {
    "coco": _Writer(coco.write, coco.IMAGES, has_choice=True),
    "labelme": _Writer(labelme.write, labelme.IMAGES, has_choice=True, keeps_sides=False),
    "cvat": _Writer(cvat.write, cvat.IMAGES, has_choice=True),
    "cvat-masks": _Writer(cvat_masks.write, cvat_masks.IMAGES),
    "label-studio": _Writer(label_studio.write, label_studio.IMAGES, keeps_sides=False),
    "yolo": _Writer(yolo.write, yolo.IMAGES),
    "png": _Writer(png.write, png.IMAGES, keeps_sides=False),
}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was written: `areas` are pairs of class and instrument, or their polygons."""

    out: Path
    to: Format
    records: int
    areas: int
    images: dict[str, int]  # how the images came there: copied, linked, written anew -> how many
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {**vars(self), "out": str(self.out), "notes": list(self.notes)}


def convert(
    source: Source,
    to: Format,
    out: str | Path,
    *,
    polygons: bool = False,
    link: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write all records of a source into the new folder `out` in the format `to`.

    `polygons` writes outlines in COCO, LabelMe and CVAT, which have something exact as well (the default); `link` makes
    hard links to the images instead of copies. Raises `UserErrors` with every record that cannot be converted.
    """
    out = Path(out)
    writer = _WRITERS[to]
    if polygons and not writer.has_choice:
        choice = ", ".join(name for name, one in _WRITERS.items() if one.has_choice)
        raise UserError(f"{to} leaves no choice of polygons", mend=f"leave --polygons out; it is for {choice}")
    _refuse(source, to, out)
    names, notes = _names(source)
    if source.official and not writer.keeps_sides:
        notes.append(f"{to} has no place for the official split: make one with a split file")
    sides: dict[str, Side] = {name: side for side, listed in (source.official or {}).items() for name in listed}
    has_instances = any(record.instances is not None for record in source.records)
    part = out.with_name(f".{out.name[:20]}.{secrets.token_hex(6)}.part")
    images: Counter[str] = Counter()
    errors: list[UserError] = []

    def frames() -> Iterator[Frame]:
        for number, record in enumerate(source.records, start=1):
            try:
                yield _frame(record, names[record.name], sides.get(record.name), part, writer.images, link, images)
            except UserErrors as several:
                errors.extend(several.errors)
            except UserError as error:
                errors.append(error)
            if progress:
                progress(number, len(source.records))

    try:
        areas = writer.write(frames(), Job(part, source.classes, has_instances=has_instances, outlines=polygons))
        if errors:
            raise UserErrors(errors)
        _put_in_place(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Conversion(out, to, len(source.records), areas, dict(images), tuple(notes))


# ------------------------------------------------------------------ before


def _refuse(source: Source, to: Format, out: Path) -> None:
    if source.findings:
        raise UserErrors(list(source.findings))
    if not source.records:
        raise UserError("there is no record to convert", where=str(source.root))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("the place to write to holds something", where=str(out), mend="give a new or empty folder")
    if to == "png":
        return
    reserved = [*BACKGROUND_NAMES, *IGNORE_NAMES]
    for name in source.classes[1:]:
        if name.lower() in reserved or name != name.strip() or not name.isprintable() or name.startswith("#"):
            raise UserError(
                f"a class is called {name!r}, which {to} would take for something else",
                where=str(source.root),
                mend=f"rename it; reserved are {', '.join(reserved)}, a # in front, blanks around, and line breaks",
            )


def _names(source: Source) -> tuple[dict[str, str], list[str]]:
    """New name of each record, its group the first folder, and notes on what was renamed."""
    names = {record.name: _name(record) for record in source.records}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} names would be given twice, such as {twice[0]}",
            where=str(source.root),
            mend="rename the frames, so that a name is unique in its group",
        )
    renamed = [name for name, new in names.items() if name != new]
    if not renamed:
        return names, []
    return names, [f"{len(renamed)} records were renamed after their groups: {renamed[0]} is {names[renamed[0]]}"]


def _name(record: Record) -> str:
    """`group/rest`; a record that is its own group, or loose beside folders, keeps its name."""
    first = record.name.split("/", 1)[0] if "/" in record.name else "."
    if record.group in (record.name, first):
        return record.name
    inner = record.name.removeprefix(f"{record.group}/")
    return f"{record.group.replace('/', '-')}/{inner}"


# ------------------------------------------------------------------ one record


def _frame(
    record: Record, name: str, side: Side | None, folder: Path, images: str, link: bool, counts: Counter[str]
) -> Frame:
    image, mask = record.read()
    instances = _instances(record, mask)
    original = _copyable(record)
    suffix = original.suffix.lower() if original else ".png"
    path = folder / images / f"{name}{suffix}"
    if original is None:
        write_png(path, image)
        counts["written anew"] += 1
    else:
        _copy(original, path, link)
        counts["linked" if link else "copied"] += 1
    return Frame(name, path.relative_to(folder).as_posix(), mask, instances, side)


def _instances(record: Record, mask: MaskArray) -> MaskArray | None:
    """Instances where the mask shows an instrument: elsewhere no format has a place for them."""
    if record.instances is None:
        return None
    instances = record.instances()
    if instances.shape != mask.shape:
        height, width = instances.shape
        raise UserError(
            f"instance mask is {width}x{height} but the mask is {mask.shape[1]}x{mask.shape[0]}",
            where=f"record {record.name}",
            mend="export it again at the image's size",
        )
    instances[(mask == 0) | (mask == IGNORE)] = 0
    return instances


def _copyable(record: Record) -> Path | None:
    """The image file where it is just what the record shows: not a video, not cropped, not turned by EXIF.

    Other programs may pass over the turn, and the masks would no longer fit.
    """
    image = record.image
    if not (isinstance(image, partial) and image.func is read_image and len(image.args) == 1 and not image.keywords):
        return None
    path = Path(image.args[0])
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    with Image.open(path) as header:
        return path if header.getexif().get(_EXIF_ORIENTATION, 1) == 1 else None


def _copy(original: Path, path: Path, link: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if link:
            os.link(original.resolve(), path)
        else:
            shutil.copyfile(original, path)
    except OSError as error:
        raise UserError(
            f"cannot {'link' if link else 'copy'} the image: {error.strerror or error}",
            where=f"{original} to {path}",
            mend="leave --link out: hard links need one disk" if link else "make room, or write elsewhere",
        ) from None


def _put_in_place(part: Path, out: Path) -> None:
    try:
        if out.is_dir():
            out.rmdir()  # empty, as was checked
        part.rename(out)
    except OSError as error:
        raise UserError(
            f"cannot put the folder in its place: {error.strerror or error}", where=str(out), mend="write elsewhere"
        ) from None
