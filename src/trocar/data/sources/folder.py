"""A folder of images and a folder of masks, matched by their path without ending, never by sort order.

`instances/`, with one index an instrument, is used where it is present. What mask values mean is in `encoding`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trocar.config import DataSettings
from trocar.data.files import IMAGE_SUFFIXES, read_image, read_mask_file
from trocar.data.records import MaskArray, Record, Source
from trocar.data.sources import encoding
from trocar.data.sources.listing import Listing, files_by_stem, natural, pair
from trocar.errors import UserError

INSTANCES = "instances"


def recognises(root: Path) -> bool:
    """Whether there are folders of the default names; other names need `data.images` and `data.masks`."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def read(root: Path, settings: DataSettings, *, dataset: str = "folder") -> Listing:
    """List the pairs of an image and a mask of the same relative stem.

    Groups are the first folders below images (a patient, whatever lies below); without folders, or on request, each
    image is its own. Images that lie beside such folders form one group together, named ".".
    """
    image_folder, mask_folder = _existing(root, settings.images), _existing(root, settings.masks)
    images, other_images = files_by_stem(image_folder)
    masks, other_masks = files_by_stem(mask_folder)
    instances, other_instances = files_by_stem(root / INSTANCES)
    if not images and not masks:
        raise UserError(
            f"no images in {settings.images} and none in {settings.masks}",
            where=str(root),
            mend=f"put image files there: {', '.join(IMAGE_SUFFIXES)}",
        )
    pairs, problems = pair(images, masks)
    if not pairs:
        _refuse_if_names_never_match(images, masks, root)
    for stem in [stem for stem in pairs if len(instances.get(stem, [])) > 1]:
        del pairs[stem]
        problems[stem] = _several_instances(stem, instances[stem])

    by_folder = settings.group_by != "none" and any("/" in stem for stem in images)
    groups = {stem: _group(stem) if by_folder else stem for stem in pairs}
    order = sorted(pairs, key=lambda stem: (natural(groups[stem]) if by_folder else (), natural(stem)))
    found = encoding.recognise(root, [pairs[stem][1] for stem in order])
    records = [
        _record(stem, groups[stem], dataset, pairs[stem], instances.get(stem, [None])[0], found) for stem in order
    ]
    notes = [
        *_notes_on_groups(images, by_folder, settings),
        *_notes_on_instances(set(instances), set(pairs)),
        *_notes_on_others([*other_images, *other_masks, *other_instances], root),
    ]
    source = Source(
        dataset=dataset,
        root=root,
        classes=found.classes,
        records=tuple(records),
        mask_encoding=found.words,
        notes=tuple(notes),
    )
    return source, problems


def _record(
    stem: str, group: str, dataset: str, files: tuple[Path, Path], instances: Path | None, found: encoding.Encoding
) -> Record:
    image, mask = files
    return Record(
        name=stem,
        group=group,
        dataset=dataset,
        image=partial(read_image, image),
        mask=partial(found.read, mask),
        instances=partial(read_instances, instances) if instances else None,
        files=(image, mask, *([instances] if instances else [])),
    )


def read_instances(path: Path) -> MaskArray:
    """Indices of instruments, 0 background. Shapes: -> uint8 (H, W)."""
    stored = encoding.as_grey(read_mask_file(path))
    if stored is None:
        raise UserError(
            "the instance mask is coloured", where=str(path), mend="save it with one channel: 0 background, 1, 2, ..."
        )
    return stored


def _existing(root: Path, name: str) -> Path:
    folder = root / name
    if folder.is_dir():
        return folder
    others = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    raise UserError(
        f"no folder {name} in {root}",
        where=f"folders there: {', '.join(others[:10]) or 'none'}",
        mend="rename it, or name your folders: --set data.images=NAME --set data.masks=NAME",
    )


def _refuse_if_names_never_match(images: dict[str, list[Path]], masks: dict[str, list[Path]], root: Path) -> None:
    """One error instead of one a file, where the two folders follow different naming."""
    if images and masks and not images.keys() & masks.keys():
        raise UserError(
            f"no mask has the name of an image: images are like {min(images, key=natural)}, masks like "
            f"{min(masks, key=natural)}",
            where=f"{len(images)} images and {len(masks)} masks in {root}",
            mend="give each mask the path and name of its image; only the ending may differ",
        )


def _several_instances(stem: str, paths: list[Path]) -> UserError:
    return UserError(
        f"{len(paths)} instance masks for record {stem}",
        where=", ".join(str(path) for path in paths),
        mend="keep one of them",
    )


def _group(stem: str) -> str:
    return stem.split("/", 1)[0] if "/" in stem else "."


def _notes_on_groups(images: dict[str, list[Path]], by_folder: bool, settings: DataSettings) -> list[str]:
    if not by_folder:
        if settings.group_by == "folder":
            raise UserError(
                "data.group_by is folder, but the images lie in no sub-folders",
                where=settings.images,
                mend="put the images of each patient or video in a folder of its own, or set data.group_by=none",
            )
        return ["patients are not known: each image is its own group, so near-identical images may be split apart"]
    notes = []
    if any(stem.count("/") > 1 for stem in images):
        notes.append(f"groups are the first folders below {settings.images}; folders inside them make no group")
    if any("/" not in stem for stem in images):
        notes.append(f"images that lie in no folder below {settings.images} form one group, named .")
    return notes


def _notes_on_instances(have: set[str], want: set[str]) -> list[str]:
    if not have:
        return []
    notes = []
    if want - have:
        notes.append(f"{len(want - have)} of {len(want)} records have no mask in {INSTANCES}")
    if have - want:
        notes.append(f"{len(have - want)} masks in {INSTANCES} belong to no record, such as {min(have - want)}")
    return notes


def _notes_on_others(others: list[Path], root: Path) -> list[str]:
    if not others:
        return []
    shown = ", ".join(path.relative_to(root).as_posix() for path in others[:5])
    return [f"{len(others)} files are no images and were passed over: {shown}" + (", ..." if len(others) > 5 else "")]
