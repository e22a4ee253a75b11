"""Readers of the ways labelled frames lie on disk, one file a layout, and `open_source`, which finds the right one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trocar.config import DataSettings, nearest
from trocar.data.records import Source
from trocar.data.sources import (
    cadis,
    cholec_instances,
    cholecseg8k,
    coco,
    cvat,
    cvat_masks,
    drawn,
    endovis15,
    endovis17,
    endovis18,
    folder,
    kvasir,
    label_studio,
    labelme,
    robust_mis,
    sar_rarp50,
    videos,
    yolo,
)
from trocar.data.sources.listing import Listing
from trocar.errors import UserError, UserErrors, legible
from trocar.plain import some

__all__ = ["open_source"]


class _Layout(NamedTuple):
    recognises: Callable[[Path], bool]
    read: Callable[[Path, DataSettings], Listing]
    looks_like: str
    tells_apart: tuple[str, ...] = ("parts", "types")  # which of them its labels know; a class table may name either


# In the order they are tried: the special before the plain, as the plain folder would accept some of the others.
_LAYOUTS = {
    "drawn": _Layout(drawn.recognises, drawn.read, "dataset.json of kind `drawn`, as `trocar demo` writes", ("parts",)),
    "endovis15": _Layout(
        endovis15.recognises,
        endovis15.read,
        "rigid/OP*/Raw and Masks, robotic/Dataset*/Video.avi, or one of the two",
        ("parts",),
    ),
    "endovis17": _Layout(
        endovis17.recognises, endovis17.read, "instrument_dataset_N/left_frames and ground_truth or *Segmentation"
    ),
    "endovis18": _Layout(endovis18.recognises, endovis18.read, "seq_N/left_frames and labels, with labels.json"),
    "robust-mis": _Layout(
        robust_mis.recognises, robust_mis.read, "Training/SURGERY/N/FRAME/raw.png and instrument_instances.png", ()
    ),
    "cholecseg8k": _Layout(
        cholecseg8k.recognises,
        cholecseg8k.read,
        "videoNN/videoNN_MMMMM/frame_K_endo.png and frame_K_endo_watershed_mask.png",
        ("types",),
    ),
    "cholec-instances": _Layout(
        cholec_instances.recognises,
        cholec_instances.read,
        "train, val, test with VIDNN_PART/ann_dir and img_dir",
        ("types",),
    ),
    "sar-rarp50": _Layout(sar_rarp50.recognises, sar_rarp50.read, "train1, train2, test with video_NN/segmentation"),
    "cadis": _Layout(cadis.recognises, cadis.read, "VideoNN/Images and VideoNN/Labels", ("types",)),
    "kvasir-instrument": _Layout(kvasir.recognises, kvasir.read, "images, masks, train.txt and test.txt", ()),
    "folder": _Layout(
        folder.recognises, folder.read, "two folders, images and masks (or the names in data.images and data.masks)"
    ),
    "videos": _Layout(
        videos.recognises, videos.read, "VIDEO/images and VIDEO/masks (or the names in data.images, ...)"
    ),
    "cvat": _Layout(cvat.recognises, cvat.read, "annotations.xml of CVAT for images 1.1, and images"),
    "cvat-masks": _Layout(cvat_masks.recognises, cvat_masks.read, "labelmap.txt, SegmentationClass and JPEGImages"),
    "yolo": _Layout(yolo.recognises, yolo.read, "data.yaml with names, images and labels"),
    "coco": _Layout(coco.recognises, coco.read, "COCO's JSON, also in annotations, and images"),
    "label-studio": _Layout(label_studio.recognises, label_studio.read, "Label Studio's JSON export, and the images"),
    "labelme": _Layout(labelme.recognises, labelme.read, "LabelMe's JSON beside each image"),
}


_DEFAULTS = DataSettings()


def open_source(path: str | Path, settings: DataSettings = _DEFAULTS) -> Source:
    """The records below a folder, listed but not read; the layout is `settings.kind`, or recognised.

    Records that lack a partner or share a name are in `findings`, not among the records. `settings.exclude` removes
    records and findings by name, `settings.every` thins videos. Raises `UserError` where there is nothing to list.
    """
    if settings.sources:
        raise UserError(
            f"the recipe names {len(settings.sources)} sources, and a folder is given besides",
            where=str(path),
            mend="give the path of that recipe instead of the folder",
        )
    root = Path(path).expanduser()
    try:
        _refuse_what_is_no_folder(root)
        kind = _kind(root, settings)
        _refuse_what_labels_do_not_tell(kind, settings)
        source, problems = _LAYOUTS[kind].read(root, settings)
    except OSError as error:  # of looking into folders; readers of files have their own words
        raise UserError(
            f"cannot look into the data: {error.strerror or error}",
            where=str(error.filename or root),
            mend="grant permission to read it, or mend the disk",
        ) from None
    _refuse_names_that_are_no_text(source)
    source, problems = _without_excluded(source, problems, settings)
    source = _every_nth_frame(source, settings.every)
    notes = tuple(map(legible, source.notes))
    return dataclasses.replace(source, notes=notes, findings=tuple(problems.values()), settings=settings)


def _refuse_names_that_are_no_text(source: Source) -> None:
    """Names come into split files, tables and JSON, where bytes that are no UTF-8 have no place."""
    bad = [record for record in source.records if any("\ud800" <= letter <= "\udfff" for letter in record.name)]
    if bad:
        raise UserErrors(
            [
                UserError(
                    "a file's name is no text (no UTF-8)", where=str(record.files[0]), mend="rename it, or its folder"
                )
                for record in bad
            ]
        )


def _refuse_what_is_no_folder(root: Path) -> None:
    if not root.exists():
        raise UserError(f"no folder {root}", where=str(root.absolute()), mend="mend the path of the data")
    if not root.is_dir():
        raise UserError(f"{root} is a file, not a folder", mend="give the folder that holds the images and masks")
    try:
        empty = not any(root.iterdir())
    except OSError as error:
        raise UserError(
            f"cannot look into {root}: {error.strerror}", mend="grant permission to read the folder"
        ) from None
    if empty:
        raise UserError(f"the folder {root} is empty", where=str(root.absolute()), mend=_layouts_in_words())


def _refuse_what_labels_do_not_tell(kind: str, settings: DataSettings) -> None:
    possible = ("instrument", *_LAYOUTS[kind].tells_apart)
    if settings.target not in possible:
        raise UserError(
            f"data.target is {settings.target}, but {kind} does not label {settings.target} of instruments",
            mend=f"set data.target={' or '.join(possible)}",
        )


def _kind(root: Path, settings: DataSettings) -> str:
    if settings.kind != "auto":
        return settings.kind
    for kind, layout in _LAYOUTS.items():
        if layout.recognises(root):
            return kind
    if (root / settings.images).is_dir() or (root / settings.masks).is_dir():
        return "folder"  # its reader says which of the two is missing
    inside = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    raise UserError(f"no known layout of data in {root}", where=f"it holds {some(inside, 8)}", mend=_layouts_in_words())


def _layouts_in_words() -> str:
    return "expected one of: " + "; ".join(f"{kind}: {layout.looks_like}" for kind, layout in _LAYOUTS.items())


def _without_excluded(
    source: Source, problems: dict[str, UserError], settings: DataSettings
) -> tuple[Source, dict[str, UserError]]:
    excluded = set(settings.exclude)
    known = {record.name for record in source.records} | problems.keys()
    unknown = [name for name in settings.exclude if name not in known]
    if unknown:
        raise UserErrors([_unknown_exclude(name, sorted(known), source.root) for name in unknown])
    kept = tuple(record for record in source.records if record.name not in excluded)
    official = source.official and {
        side: tuple(name for name in names if name not in excluded) for side, names in source.official.items()
    }
    problems = {name: error for name, error in problems.items() if name not in excluded}
    return dataclasses.replace(source, records=kept, official=official), problems


def _unknown_exclude(name: str, known: list[str], root: Path) -> UserError:
    near = nearest(name, known)
    mend = f"did you mean {' or '.join(near)}?" if near else "names are as `trocar check --json` lists them"
    return UserError(f"data.exclude names {name}, but the data has no such record", where=str(root), mend=mend)


def _every_nth_frame(source: Source, every: int) -> Source:
    kept = tuple(record for record in source.records if record.frame is None or record.frame % every == 0)
    if len(kept) == len(source.records):
        return source
    note = f"of each video, frame 0 and every {every}th after it: {len(kept)} of {len(source.records)} records"
    return dataclasses.replace(source, records=kept, notes=(*source.notes, note))
