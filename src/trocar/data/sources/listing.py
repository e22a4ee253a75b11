"""What every reader of a layout shares: its answer, natural order, and pairing of two folders by stem."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeAlias

from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Source
from trocar.errors import UserError

# What was found, and what is wrong by the name of the record it concerns: excluding that name settles it.
Listing: TypeAlias = tuple[Source, dict[str, UserError]]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts)


def files_by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Image files by relative path without ending, and the other files. Hidden files and folders are not looked at."""
    images: dict[str, list[Path]] = {}
    others: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in sorted(names):
            path = Path(parent, name)
            if hidden(name):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
            else:
                others.append(path)
    return images, others


def hidden(name: str) -> bool:
    """Whether it is the file system's own, or the twin tree that macOS puts into archives."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def pair(
    images: dict[str, list[Path]], masks: dict[str, list[Path]]
) -> tuple[dict[str, tuple[Path, Path]], dict[str, UserError]]:
    """Image and mask of each stem, in natural order, and what is wrong by stem: no partner, or several of one name."""
    pairs: dict[str, tuple[Path, Path]] = {}
    problems: dict[str, UserError] = {}
    for stem in sorted(images.keys() | masks.keys(), key=natural):
        image, mask = images.get(stem, []), masks.get(stem, [])
        if len(image) > 1 or len(mask) > 1:
            problems[stem] = several(stem, image if len(image) > 1 else mask)
        elif not mask:
            problems[stem] = _alone("the image has no mask of its name", "add its mask", stem, image[0])
        elif not image:
            problems[stem] = _alone("the mask has no image of its name", "add its image", stem, mask[0])
        else:
            pairs[stem] = (image[0], mask[0])
    return pairs, problems


def several(stem: str, paths: list[Path]) -> UserError:
    """The refusal of files that differ by their ending alone."""
    return UserError(
        f"{len(paths)} files would all be record {stem}",
        where=", ".join(str(path) for path in paths),
        mend="keep one of them or rename, so that no two differ by their ending alone",
    )


def _alone(what: str, mend: str, stem: str, path: Path) -> UserError:
    return UserError(
        what, where=f"record {stem}, {path}", mend=f"{mend}, or list {stem} under data.exclude in the recipe"
    )
