"""Feeds that come when they come: cameras, and streams from a network."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from trocar.errors import UserError
from trocar.inference.feeds_from_files import Stoppable, same_size
from trocar.inference.frames import SCHEMES, Frame
from trocar.inference.video import clock_of, decoded, pictures_of, upright, words

# A list or page that a server sends must not make us read files of this machine.
_NETWORK_ONLY = {"protocol_whitelist": ",".join((*SCHEMES, "tls", "crypto"))}
_WITHOUT_CLOCK = ("mpjpeg", "mjpeg")  # JPEGs one after the other: the time is when they come
_HELD_S = 60.0  # a connection that held this long makes good for the lost ones before it


class LiveFeed(Stoppable):
    """A camera or a stream from a network. Times begin at 0 and go on over a lost connection as the clock does."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], InputContainer],
        *,
        timeout_s: float = 10.0,
        reconnects: int = 3,
        endless: bool = True,
        pause_s: float = 1.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.reconnected = 0  # how often a connection was made again, so far
        self._connect = connect
        self._timeout_s = timeout_s
        self._reconnects = reconnects
        self._endless = endless
        self._pause_s = pause_s
        self._reformatter = VideoReformatter()
        self._open()
        self.rate, self.time_base = clock_of(self._stream)

    def _open(self) -> None:
        asked = time.monotonic()
        try:
            self._container = self._connect()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"cannot be opened: {self._why(error, asked)}",
                where=self.name,
                mend="see that it is there, allowed to you, and not used by another program",
            ) from None
        stream = pictures_of(self._container)
        if stream is None:
            self._container.close()
            raise UserError("no pictures come from it (sound only?)", where=self.name)
        self._stream = stream
        self._clockless = self._container.format.name in _WITHOUT_CLOCK

    def __iter__(self) -> Iterator[Frame]:
        clock, shape, count, failures = _Clock(self.rate), None, 0, 0
        while not self._stopped.is_set():
            reason = "the stream ended"
            opened = came = time.monotonic()
            try:
                for frame in decoded(self._container, self._stream, self):
                    if self._stopped.is_set():
                        return
                    image = upright(frame, self._reformatter)
                    shape, count = same_size(image, shape, self.name, count + 1), count + 1
                    yield Frame(image, clock.next(self._stamp(frame)), frame)
                    came = time.monotonic()
                if not self._endless:
                    return
            except (av.FFmpegError, EOFError) as error:
                reason = self._why(error, came)
            failures = 0 if time.monotonic() - opened > _HELD_S else failures
            failures = self._open_again(reason, failures)
            clock.begin_anew()

    def _stamp(self, frame: av.VideoFrame) -> Fraction | None:
        if self._clockless or frame.pts is None:
            return None
        return frame.pts * (frame.time_base or self.time_base)

    def _why(self, error: BaseException, since: float) -> str:
        """What is wrong; the time limit of PyAV ends a call with whatever error the protocol makes of it."""
        if isinstance(error, av.ExitError) or time.monotonic() - since >= self._timeout_s:
            return f"nothing came from it for {self._timeout_s:g} s"
        return words(error)

    def _open_again(self, reason: str, failures: int) -> int:
        """Connect again, after a pause; how many tries were spent in a row. Raises `UserError` after the last one."""
        self._container.close()
        while failures < self._reconnects and not self._stopped.is_set():
            failures += 1
            self._stopped.wait(self._pause_s)
            try:
                self._open()
            except UserError as error:
                reason = error.what
            else:
                self.reconnected += 1
                return failures
        if self._stopped.is_set():
            return failures
        tries = f", also after {failures} new connections" if failures else ""
        raise UserError(
            f"no more frames come from the source{tries}: {reason}",
            where=self.name,
            mend="what came before is done; see to the source and start again",
        )

    def close(self) -> None:
        """Let go of the camera or connection."""
        super().close()
        self._container.close()


class _Clock:
    """Times of the frames of a live source: from 0, rising, and over a lost connection as long as that took."""

    def __init__(self, rate: Fraction) -> None:
        self._step = 1 / rate
        self._last: Fraction | None = None  # time given last, and when that was
        self._last_at = 0.0
        self._zero: Fraction | None = None  # stamp of the source at our 0

    def next(self, stamp: Fraction | None) -> Fraction:
        """The time of a frame that came now; `stamp` is the source's own, where it has one."""
        now = time.monotonic()
        passed = Fraction(round((now - self._last_at) * 1000), 1000)
        if self._last is None:
            seconds = Fraction(0)
        elif stamp is None or self._zero is None:
            seconds = self._last + max(passed, Fraction(1, 1000))
        else:
            seconds = stamp - self._zero
            if seconds <= self._last:  # a stamp that does not rise
                seconds = self._last + self._step
        if self._zero is None and stamp is not None:
            self._zero = stamp - seconds
        self._last, self._last_at = seconds, now
        return seconds

    def begin_anew(self) -> None:
        """The next stamp is of another connection."""
        self._zero = None


def connect_to_camera(device: str, timeout_s: float) -> Callable[[], InputContainer]:
    """What opens a camera. Raises `UserError` on systems where cameras have no number."""
    if not sys.platform.startswith("linux"):
        raise UserError("cameras are opened by number on Linux only", mend="give the URL of a stream of the camera")
    return lambda: av.open(device, format="v4l2", timeout=timeout_s, metadata_errors="replace")


def connect_to_url(url: str, timeout_s: float) -> Callable[[], InputContainer]:
    """What opens a URL, and reads nothing but the network for it."""
    options = dict(_NETWORK_ONLY)
    if url.lower().startswith("rtsp"):
        options |= {"rtsp_transport": "tcp"}  # over UDP lost packets damage frames
    return lambda: av.open(url, options=options, timeout=(timeout_s, timeout_s), metadata_errors="replace")
