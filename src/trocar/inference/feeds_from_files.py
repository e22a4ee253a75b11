"""Feeds that wait for us: image files as the frames of one video, and raw frames without headers."""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.files import IMAGE_SUFFIXES, read_image
from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.frames import Frame
from trocar.sizes import parse_size

NUMBER = re.compile(r"(?<!%)%0?(\d*)d")
_POLL_S = 0.2


class Stoppable:
    """What feeds share: counters, and the end asked for from another thread."""

    def __init__(self) -> None:
        self.lost = 0
        self.damaged = 0
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let no more frames come; any thread may ask."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the source."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def same_size(image: ImageArray, shape: tuple[int, ...] | None, name: str, count: int) -> tuple[int, ...]:
    """The shape of the image. Raises `UserError` where the frames before had another."""
    if shape is not None and image.shape != shape:
        raise UserError(
            f"the picture changes its size at frame {count}, from {shape[1]}x{shape[0]} "
            f"to {image.shape[1]}x{image.shape[0]}",
            where=name,
            mend="what came before is done; start again",
        )
    return image.shape


class FilesFeed(Stoppable):
    """Image files as the frames of one video. One that is missing or cannot be read is lost, and its time passes."""

    def __init__(self, name: str, files: Iterable[Path | None], rate: Fraction) -> None:
        super().__init__()
        self.name = name
        self.rate = rate
        self.time_base = 1 / rate
        self._files = list(files)
        self.frames_expected = len(self._files)
        if not self._files:
            raise UserError(
                "no image is there to be a frame", where=name, mend=f"give images: {' '.join(IMAGE_SUFFIXES)}"
            )

    def __iter__(self) -> Iterator[Frame]:
        shape, last_error, any_read = None, None, False
        for index, path in enumerate(self._files):
            if self._stopped.is_set():
                return
            try:
                image = None if path is None else read_image(path)
            except UserError as error:
                image, last_error = None, error
            if image is None:
                self.lost += 1
                continue
            any_read, shape = True, same_size(image, shape, str(path), index + 1)
            yield Frame(image, index / self.rate)
        if not any_read and last_error is not None:
            raise last_error


def ordered_images(folder: Path) -> list[Path]:
    """The images of a folder, img2 before img10."""

    def as_counted(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    try:
        entries = [path for path in folder.iterdir() if path.name[0] != "." and path.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise UserError(f"cannot list the folder: {error.strerror}", where=str(folder)) from None
    return sorted(entries, key=as_counted)


def numbered_files(pattern: Path) -> list[Path | None]:
    """The files of a pattern such as frame_%04d.png by their numbers, from lowest to highest; None: it is missing."""
    before, after = NUMBER.split(pattern.name)[0], NUMBER.split(pattern.name)[-1]
    written = re.compile(re.escape(before.replace("%%", "%")) + r"(\d+)" + re.escape(after.replace("%%", "%")))
    found: dict[int, Path] = {}
    names = os.listdir(pattern.parent) if pattern.parent.is_dir() else []  # noqa: PTH208 - names are enough
    for name in names:
        match = written.fullmatch(name)
        if match and name == pattern.name.replace("%%", "%") % int(match[1]):
            found[int(match[1])] = pattern.parent / name
    if not found:
        raise UserError(f"no file fits the pattern {pattern.name}", where=str(pattern.parent))
    if max(found) - min(found) > 100 * len(found):
        raise UserError(
            f"the numbers of the {len(found)} files reach from {min(found)} to {max(found)}: no frames of one video",
            where=str(pattern),
            mend="give the folder with --as-video; its files are then taken one after the other",
        )
    return [found.get(number) for number in range(min(found), max(found) + 1)]


# ------------------------------------------------------------------ raw frames


@dataclass(frozen=True)
class RawFormat:
    """Frames without any header, one after the other."""

    size_wh: tuple[int, int]
    pixels: Literal["rgb24", "bgr24", "gray"] = "rgb24"

    @classmethod
    def parse(cls, size: str, pixels: str) -> RawFormat:
        """From `720x576` (width x height) and the name of the pixel format."""
        height, width = parse_size(size)
        if pixels not in ("rgb24", "bgr24", "gray"):
            raise UserError(f"raw frames of format {pixels!r} are not known", mend="use rgb24, bgr24 or gray")
        return cls((width, height), pixels)  # type: ignore[arg-type]


class RawFeed(Stoppable):
    """Frames without headers from a pipe or file, at an even rate."""

    def __init__(self, source: BinaryIO, raw: RawFormat, rate: Fraction, name: str = "stdin") -> None:
        super().__init__()
        self.name = name
        self.rate = rate
        self.time_base = 1 / rate
        self._source = source
        self._raw = raw

    def __iter__(self) -> Iterator[Frame]:
        width, height = self._raw.size_wh
        channels = 1 if self._raw.pixels == "gray" else 3
        size, count = height * width * channels, 0
        while not self._stopped.is_set():
            data = self._read(size)
            if self._stopped.is_set() or (not data and count):
                return
            if len(data) < size:
                raise UserError(
                    f"raw frames end inside a frame: after {count} frames, {len(data)} of {size} bytes are there",
                    where=self.name,
                    mend="what came before is done; see that size and format are those of the frames",
                )
            yield Frame(self._rgb(np.frombuffer(data, np.uint8).reshape(height, width, channels)), count / self.rate)
            count += 1

    def _rgb(self, picture: NDArray[np.uint8]) -> ImageArray:
        if self._raw.pixels == "rgb24":
            return picture
        turn = cv2.COLOR_GRAY2RGB if self._raw.pixels == "gray" else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(picture, turn), np.uint8)

    def _read(self, size: int) -> bytearray:
        """So many bytes; fewer at the end of the source, or where `stop` was called."""
        data = bytearray()
        while len(data) < size and not self._stopped.is_set():
            chunk = self._some(size - len(data))
            if chunk == b"":
                break
            data += chunk or b""
        return data

    def _some(self, most: int) -> bytes | None:
        """What can be read now; None: nothing yet; empty: the end. A pipe is polled, so that `stop` is seen."""
        try:
            number = self._source.fileno()
        except OSError:  # no file of the system
            return self._source.read(most)
        if os.name != "nt" and not select.select([number], [], [], _POLL_S)[0]:  # there select knows sockets only
            return None
        return os.read(number, min(most, 1 << 20))
