"""Where frames come from besides video files: cameras, URLs, folders and numbered files as one video, raw frames.

`open_feed` tells from the text which it is. All feeds are iterated over like a `VideoReader`, once, and hold one frame
at a time. A feed that waits for its source waits at most `timeout_s`, or until `stop` is called from another thread.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

from trocar.errors import UserError
from trocar.inference.feeds_from_files import NUMBER, FilesFeed, RawFeed, RawFormat, numbered_files, ordered_images
from trocar.inference.frames import ANY_RATE, SCHEMES, Frame

__all__ = ["Feed", "FeedOptions", "RawFormat", "is_feed", "is_live", "open_feed", "shown"]

STDIN = "-"

_CAMERA = re.compile(r"camera:(\d+)|(/dev/video\d+)")


class Feed(Protocol):
    """Frames in the order they are shown; a context manager. `Frame.seconds` is the time on the feed's own clock."""

    rate: Fraction  # frames a second, as the source says or is told
    time_base: Fraction  # seconds; a unit in which the times can be written
    lost: int  # frames that could not be decoded, so far
    damaged: int  # frames decoded with errors, so far

    def __iter__(self) -> Iterator[Frame]:
        """Raises `UserError` where the source ends before its time; what came before has then been given."""
        ...

    def stop(self) -> None:
        """Let no more frames come; any thread may ask."""
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def is_feed(text: str) -> bool:
    """Whether this names a feed by its form: `-`, a camera, a URL, or a pattern such as frame_%04d.png."""
    return text == STDIN or bool(_CAMERA.fullmatch(text) or _is_url(text) or NUMBER.search(Path(text).name))


def is_live(text: str) -> bool:
    """Whether its frames come when they come, instead of when they are asked for."""
    return bool(_CAMERA.fullmatch(text) or _is_url(text))


def shown(text: str) -> str:
    """The name of a feed as it may be written down: a URL without user, password and query."""
    if not _is_url(text):
        return text
    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True)
class FeedOptions:
    """How a feed is opened.

    `rate` is that of frames which bring no times: folders, numbered files, raw (default 25). A live source that fails,
    sends nothing for `timeout_s`, or ends although it is `endless` (default: all but HTTP) is connected to again, at
    most `reconnects` times in a row. Of HTTP only what had a length can end; the rest counts as a lost connection.
    """

    rate: Fraction | None = None
    raw: RawFormat | None = None
    timeout_s: float = 10.0
    reconnects: int = 3
    endless: bool | None = None

    def raw_format(self) -> RawFormat:
        """Of frames on stdin. Raises `UserError` where it was not given."""
        if self.raw is None:
            raise UserError("raw frames on stdin have no header", mend="say what they are: --raw-size 720x576")
        return self.raw


def open_feed(text: str, options: FeedOptions | None = None, **changes: Any) -> Feed:
    """Open whatever `text` names: a feed's form (`is_feed`), a folder of frames, or a video file.

    `changes` are fields of `FeedOptions`.
    """
    how = replace(options or FeedOptions(), **changes)
    rate = how.rate or ANY_RATE
    if text == STDIN:
        return RawFeed(sys.stdin.buffer, how.raw_format(), rate)
    path = Path(text)
    if is_live(text) and not path.is_file():
        from trocar.inference.feeds_live import LiveFeed, connect_to_camera, connect_to_url  # imports PyAV

        camera = _CAMERA.fullmatch(text)
        if camera:
            connect, ends = connect_to_camera(camera[2] or f"/dev/video{camera[1]}", how.timeout_s), False
        else:
            connect, ends = connect_to_url(text, how.timeout_s), urlsplit(text).scheme in ("http", "https")
        endless = not ends if how.endless is None else how.endless
        name = shown(text)
        return LiveFeed(name, connect, timeout_s=how.timeout_s, reconnects=how.reconnects, endless=endless)
    if path.is_dir():
        return FilesFeed(text, ordered_images(path), rate)
    if NUMBER.search(path.name) and not path.is_file():
        return FilesFeed(text, numbered_files(path), rate)
    from trocar.inference.video import VideoReader  # imports PyAV

    return VideoReader(path)


def _is_url(text: str) -> bool:
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in SCHEMES
