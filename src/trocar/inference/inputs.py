"""Which files `predict` is asked for, and the name each one's outputs get.

Files, folders (with all below them) and glob patterns become one list without doubles, in a stable order. Nothing is
opened here.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trocar.data.files import IMAGE_SUFFIXES
from trocar.errors import UserError
from trocar.inference.feeds import STDIN, Feed, FeedOptions, is_feed, open_feed, shown
from trocar.inference.feeds_from_files import NUMBER
from trocar.inference.frames import VIDEO_SUFFIXES

KNOWN = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
OUTPUT_FOLDERS = ("masks", "overlays", "probabilities", "instances")
SUMMARY = "predictions.json"  # beside these folders; it marks them as made by `predict`
CLASSES = "classes.json"
LINES = "frames.jsonl"


@dataclass(frozen=True)
class Input:
    """An image or video to predict, and the name of its outputs: relative, forward slashes, without an ending."""

    path: Path
    stem: str
    feed: str | None = None  # as it was given, where it is no file: a camera, a URL, a folder as one video

    @property
    def is_video(self) -> bool:
        """By its ending, or because it is a feed."""
        return self.feed is not None or self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def name(self) -> str:
        """As it may be written down: a URL without its secrets."""
        return str(self.path) if self.feed is None else shown(self.feed)

    def open(self, options: FeedOptions) -> Feed:
        """The frames of a video or feed."""
        return open_feed(self.feed or str(self.path), options)


def gather(inputs: Sequence[str | Path], *, as_video: bool = False) -> tuple[list[Input], list[UserError]]:
    """The inputs, each once, and an error for everything named that is not there or of no use.

    A folder is one video with `as_video`, else what it holds.
    Below a folder or a pattern, names that begin with a dot, other kinds of files and the outputs of earlier
    predictions are passed over. Equal stems are told apart by their folders, then by their endings (`x_png`).
    """
    found: dict[Path, tuple[Path, Path]] = {}  # resolved -> (path, path relative to what was asked for)
    problems: list[UserError] = []
    feeds: dict[Path, str] = {}
    for entry in inputs:
        try:
            if _is_one_video(entry, as_video):
                key = Path(str(entry)) if is_feed(str(entry)) else Path(os.path.realpath(entry))
                feeds[key] = str(entry)
                found.setdefault(key, (Path(entry), Path(_feed_stem(str(entry)))))
                continue
            base, paths = _expand(entry, problems)
        except OSError as error:  # a name too long, a folder that may not be entered
            words = f"cannot look for it: {error.strerror or error}"
            problems.append(UserError(words, where=str(error.filename or entry)))
            continue
        for path in paths:
            resolved = Path(os.path.realpath(path))  # unlike resolve(), not put off by links in a circle
            found.setdefault(resolved, (path, path.relative_to(base)))
    stems = _name_all(list(found.values()))
    return [
        Input(path, stem, feeds.get(key)) for (key, (path, _)), stem in zip(found.items(), stems, strict=True)
    ], problems


def _is_one_video(entry: str | Path, as_video: bool) -> bool:
    path = Path(entry)
    return (as_video and path.is_dir()) or (is_feed(str(entry)) and (str(entry) == STDIN or not path.is_file()))


def _feed_stem(text: str) -> str:
    """A name for the outputs of a feed, of letters, digits, _ and - only."""
    if text == STDIN:
        return "stdin"
    plain = shown(text)
    if "://" not in plain and not plain.startswith("camera:"):
        path = Path(plain)
        named = NUMBER.sub("", path.stem).strip("_-. ") if not path.is_dir() else path.resolve().name
        plain = named or path.resolve().parent.name
    return re.sub(r"[^\w-]+", "-", plain.partition("://")[2] or plain).strip("-") or "feed"


def _expand(entry: str | Path, problems: list[UserError]) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files meant by one argument."""
    path = Path(entry)
    if path.is_dir():
        return path, _some(list(_walk(path, problems)), f"no image or video in {path}", problems)
    if path.exists():
        known = _is_known(path)
        return path.parent, _some([path] if known else [], f"{path} has no ending of an image or video", problems)
    if glob.has_magic(str(entry)):
        base = _fixed_part(path)
        matches = [Path(match) for match in sorted(glob.glob(str(entry), recursive=True))]  # noqa: PTH207 - skips hidden files
        used = [match for match in matches if match.is_file() and _is_known(match) and not _is_output(match)]
        return base, _some(used, f"no image or video matches {entry}", problems)
    return path.parent, _some([], f"no such file or folder: {path}", problems)


def _some(paths: list[Path], otherwise: str, problems: list[UserError]) -> list[Path]:
    if not paths:
        problems.append(UserError(otherwise, mend=f"give files, folders or patterns of {' '.join(KNOWN)}"))
    return paths


def _walk(folder: Path, problems: list[UserError]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(UserError(f"cannot list the folder: {error.strerror}", where=str(error.filename)))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name[0] != "." and not _is_output_folder(here / name))
        yield from (here / name for name in sorted(files) if name[0] != "." and _is_known(here / name))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in KNOWN


def _is_output_folder(folder: Path) -> bool:
    return folder.name in OUTPUT_FOLDERS and (folder.parent / SUMMARY).is_file()


def _is_output(path: Path) -> bool:
    return any(_is_output_folder(parent) for parent in path.absolute().parents)


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of the first part with a wildcard."""
    fixed = Path()
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


# ------------------------------------------------------------------ names of outputs


def _name_all(files: Sequence[tuple[Path, Path]]) -> list[str]:
    """A name for each (path, relative path): its relative stem, and more only where two would be equal."""
    groups: dict[str, list[int]] = {}
    for index, (_, relative) in enumerate(files):
        groups.setdefault(_key(_stem(relative)), []).append(index)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for indices in sorted(groups.values(), key=len):  # those that stand alone keep their names
        for index, name in zip(indices, _tell_apart([files[index] for index in indices]), strict=True):
            names[index] = _not_in(taken, name)
            taken.add(_key(names[index]))
    return [names[index] for index in range(len(files))]


def _tell_apart(files: Sequence[tuple[Path, Path]]) -> list[str]:
    plain = [_stem(relative) for _, relative in files]
    if len(files) == 1:
        return plain
    paths = [path.absolute() for path, _ in files]
    common = os.path.commonpath([path.parent for path in paths])
    folders = [_stem(path.relative_to(common)) for path in paths]
    endings = [path.suffix[1:] for path in paths]
    both = [f"{stem}_{ending}" for stem, ending in zip(folders, endings, strict=True)]
    suffixed = [f"{stem}_{ending}" for stem, ending in zip(plain, endings, strict=True)]
    choices = (folders, suffixed, both)
    return next((names for names in choices if len({_key(name) for name in names}) == len(names)), both)


def _not_in(taken: set[str], name: str) -> str:
    unique, count = name, 2
    while _key(unique) in taken:
        unique, count = f"{name}-{count}", count + 1
    return unique


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _key(name: str) -> str:
    """Names that some file systems hold for one."""
    return unicodedata.normalize("NFC", name).casefold()
