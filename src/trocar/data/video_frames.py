"""Single frames of a video by their number, for labelled videos.

Frames are counted as the decoder gives them, in display order: time stamps of AVI files with B-frames are not to be
trusted, and seeking by them lands on wrong frames. So a reader decodes forwards; going backwards past the last few
frames starts again at the first. In order, and with steps, that costs one decoding of the file; in random order it
costs about half the file a frame, so whoever shuffles should keep what was read.

One reader a file is kept open in each process, and shared by its threads.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from trocar.data.files import MAX_PIXELS
from trocar.documents import refuse_what_is_no_file
from trocar.errors import UserError

_OPEN_READERS = 8
_PIXELS_KEPT = 2**26  # of all frames kept of one video, half of which 16 of Full HD are
_FRAMES_KEPT = 16  # threads that read neighbouring frames arrive a little out of order


def count_frames(path: str | Path) -> int:
    """Number of frames, counted from the packets without decoding any. Raises `UserError` if it is no video."""
    try:
        refuse_what_is_no_file(Path(path))
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise UserError("the file holds no video", where=str(path))
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except OSError as error:  # av's errors of files are OSError, or derive from it too
        raise _unreadable(Path(path), error) from None
    except av.FFmpegError as error:
        raise _unreadable(Path(path), error) from None


def read_frame(path: str | Path, index: int, pixel_format: str = "rgb24") -> NDArray[np.uint8]:
    """Frame number `index`, from 0. Shapes: -> uint8 (H, W, 3) as `rgb24`, (H, W) as `gray`."""
    return _reader(Path(path)).read(index, pixel_format)


class _Reader:
    """Decodes one video forwards and keeps its last frames. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._frames: Iterator[av.VideoFrame] | None = None
        self._next = 0
        self._kept: OrderedDict[int, av.VideoFrame] = OrderedDict()

    def read(self, index: int, pixel_format: str) -> NDArray[np.uint8]:
        assert index >= 0, index
        with self._lock:
            try:
                frame = self._decode_up_to(index)
            except (OSError, av.FFmpegError) as error:
                self._frames = None
                raise _unreadable(self._path, error) from None
        return np.asarray(frame.to_ndarray(format=pixel_format), dtype=np.uint8)

    def _decode_up_to(self, index: int) -> av.VideoFrame:
        if index in self._kept:
            return self._kept[index]
        if self._frames is None or index < self._next:
            self._frames, self._next = _decode(self._path), 0
            self._kept.clear()
        for frame in self._frames:
            self._kept[self._next] = frame
            self._next += 1
            most = max(1, min(_FRAMES_KEPT, _PIXELS_KEPT // (frame.width * frame.height)))
            while len(self._kept) > most:
                self._kept.popitem(last=False)
            if index < self._next:
                return frame
        self._frames = None
        raise UserError(
            f"the video ends after {self._next} frames; frame {index} was asked for",
            where=str(self._path),
            mend="the file may be cut off: copy it again",
        )


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    refuse_what_is_no_file(path)
    with av.open(str(path), metadata_errors="replace") as container:
        # One thread: readers run side by side in workers already, and threads do not survive a fork.
        decoder = container.streams.video[0].codec_context if container.streams.video else None
        if decoder is None:
            raise UserError(
                "the file holds no video, or one of an unknown codec",
                where=str(path),
                mend="copy the file again, or convert it to H.264",
            )
        decoder.thread_count = 1
        decoder.options = {"max_pixels": str(MAX_PIXELS)}
        if decoder.width * decoder.height > MAX_PIXELS:
            raise UserError(
                f"the video claims to be {decoder.width}x{decoder.height}, more than {MAX_PIXELS} pixels",
                where=str(path),
                mend="its header is damaged: copy the file again",
            )
        yield from container.decode(video=0)


_readers: OrderedDict[Path, _Reader] = OrderedDict()
_readers_lock = threading.Lock()


def _reader(path: Path) -> _Reader:
    with _readers_lock:
        reader = _readers.pop(path, None) or _Reader(path)
        _readers[path] = reader
        if len(_readers) > _OPEN_READERS:
            _readers.popitem(last=False)  # closed once the thread that may be using it lets go
        return reader


_inherited: list[object] = []


def _forget_after_fork() -> None:
    """A child shares its parent's file positions and may inherit a lock that nobody will release.

    What it inherits is put aside, not freed: FFmpeg's colour conversion would wait for threads that only the
    parent has.
    """
    global _readers, _readers_lock
    _inherited.append(_readers)
    _readers, _readers_lock = OrderedDict(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _unreadable(path: Path, error: Exception) -> UserError:
    what = "the file does not exist" if isinstance(error, FileNotFoundError) else f"cannot read the video: {error}"
    return UserError(what, where=str(path), mend="copy the file again, or mend its path")
