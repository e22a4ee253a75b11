"""What every reader of a layout shares: its answer, natural order, and pairing of two folders by stem."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TypeAlias

from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Source
from trocar.errors import UserError

# What was found, and what is wrong by the name of the record it concerns: excluding that name settles it.
Listing: TypeAlias = tuple[Source, dict[str, UserError]]

_DIGITS = 4000  # that Python turns into a number: names in files of labels may be longer than any file's


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", text)  # digits of any script, which int() takes; not raised ones such as ²
    return tuple((0, int(part[:_DIGITS]), part) if part.isdecimal() else (1, 0, part) for part in parts)


def files_by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Image files by relative path without ending, and the other files. Hidden files and folders are not looked at.

    Stems are in Unicode's composed form (NFC): what macOS decomposed is still the partner of what others named.
    Raises `UserError` for a folder that cannot be listed, and for a link that leads back to a folder around it.
    """
    images: dict[str, list[Path]] = {}
    others: list[Path] = []
    around = {str(folder): _identity(folder)}  # folder -> itself and those it lies in, as the file system knows them
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse_unlisted):
        folders[:] = sorted(name for name in folders if not hidden(name))
        above = around.pop(parent)
        for name in folders:
            inner = os.path.join(parent, name)  # noqa: PTH118 - as os.walk will call it
            around[inner] = above | _identity(inner)
            if around[inner] == above:
                raise _leads_back(inner)
        inside = "".join(f"{part}/" for part in Path(parent).relative_to(folder).parts)
        for name in sorted(names):
            path = Path(parent, name)
            if hidden(name):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.setdefault(unicodedata.normalize("NFC", inside + path.stem), []).append(path)
            else:
                others.append(path)
    return images, others


def _identity(folder: Path | str) -> frozenset[tuple[int, int]]:
    try:
        state = os.stat(folder)  # noqa: PTH116 - a text or a path
    except OSError:
        return frozenset({(-1, hash(folder))})  # gone, or not to be entered: os.walk says so
    return frozenset({(state.st_dev, state.st_ino)})


def refuse_unlisted(error: OSError) -> None:
    """For `os.walk`, which passes over in silence what it cannot list: raise a `UserError`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return  # no such folder: no files
    raise UserError(
        f"cannot list the folder: {error.strerror}", where=str(error.filename), mend="grant permission to read it"
    ) from None


def _leads_back(path: str) -> UserError:
    return UserError(
        "a link leads back to a folder that holds it: all files would come again and again",
        where=f"{path} -> {os.path.realpath(path)}",
        mend="remove the link",
    )


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
        mend="keep one of them or rename, so that no two differ by their ending (or by how accents are stored) alone",
    )


def _alone(what: str, mend: str, stem: str, path: Path) -> UserError:
    return UserError(
        what, where=f"record {stem}, {path}", mend=f"{mend}, or list {stem} under data.exclude in the recipe"
    )
