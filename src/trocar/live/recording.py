"""Records what is shown, beside showing it: a slow or full disk never holds a frame up."""

from __future__ import annotations

import queue
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.frames import VIDEO_SUFFIXES
from trocar.inference.video_writer import VideoWriter

AHEAD = 8  # frames that may wait for the encoder: what a short stall of the disk costs in memory
_TIME_BASE = Fraction(1, 90_000)


class Recording:
    """Writes overlays to a video file in a thread of its own; a context manager, which closes the file.

    A frame for which there is no room in time is left out and counted in `missed`. Where writing fails, `error` says
    why, nothing more is written, and what was written before is playable.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(
                f"{path.name} has no ending of a video", where=str(path), mend="end its name with .mp4 or .mkv"
            )
        if path.exists():
            raise UserError("the recording would overwrite a file", where=str(path), mend="give another name")
        try:
            self._writer = VideoWriter(path, "colour", rate=rate, time_base=_TIME_BASE)
        except (OSError, av.FFmpegError) as error:
            raise _cannot_write(path, error) from error
        self.path = path
        self.missed = 0
        self.error: UserError | None = None
        self._waiting: queue.Queue[tuple[ImageArray, Fraction] | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, name="trocar-live-recording")

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._writer.frames

    def about(self) -> dict[str, Any]:
        """Its file, how many frames were written and left out, and what went wrong."""
        return {
            "file": str(self.path),
            "frames": self.frames,
            "missed": self.missed,
            "error": None if self.error is None else self.error.what,
        }

    def add(self, picture: ImageArray, seconds: Fraction) -> None:
        """Have a picture written; returns at once."""
        if self.error is not None:
            self.missed += 1
            return
        try:
            self._waiting.put_nowait((picture, seconds))
        except queue.Full:
            self.missed += 1

    def _run(self) -> None:
        try:
            with self._writer as writer:
                while (item := self._waiting.get()) is not None:
                    writer.write(*item)
        except (OSError, av.FFmpegError) as error:
            self.error = _cannot_write(self.path, error)
            self.missed += self._drain()

    def _drain(self) -> int:
        """Throw away what waits, and count it with the one that failed."""
        count = 1
        while not self._waiting.empty():
            count += self._waiting.get() is not None
        return count

    def __enter__(self) -> Recording:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()


def _cannot_write(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot write the recording: {getattr(error, 'strerror', None) or error}",
        where=str(path),
        mend="free space there, or give a place that may be written to",
    )
