"""Newest frame wins: a feed is read in a thread of its own, and only its newest unread frame is kept.

What is slower than the feed then lags behind by one frame at most, however long it runs, and the frames in between are
dropped and counted. Files are played at their own rate, as if a camera sent them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from trocar.inference.feeds import Feed
from trocar.inference.frames import Frame

BEHIND_S = 0.5  # a file that is decoded so much too slowly goes on from there instead of hurrying after its clock
PATIENCE_S = 20.0  # for a source that does not come back from waiting; feeds give up earlier


class Arrival(NamedTuple):
    """A frame and when it came, by `time.monotonic`; of a file: when it was due."""

    frame: Frame
    at: float


class NewestFrame:
    """Reads a feed and hands out its newest frame, from `start` to `close`.

    `own_pace`: frames are read when they are due by their times, and not as fast as they can be had. `loop`: the feed
    is opened again at its end; times go on.
    """

    def __init__(self, open_feed: Callable[[], Feed], *, own_pace: bool = False, loop: bool = False) -> None:
        self._open_feed = open_feed
        self._feed = open_feed()  # here, so that what cannot be opened is said at once
        self.rate = self._feed.rate
        self.read = 0
        self.dropped = 0
        self._lost_before, self._damaged_before = 0, 0  # in earlier rounds of a loop
        self._own_pace, self._loop = own_pace, loop
        self._changed = threading.Condition()  # everything below is touched under it
        self._newest: Arrival | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trocar-live-reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def lost(self) -> int:
        """Frames that could not be decoded, so far."""
        return self._lost_before + self._feed.lost

    @property
    def damaged(self) -> int:
        """Frames decoded with errors, so far."""
        return self._damaged_before + self._feed.damaged

    @property
    def reconnections(self) -> int:
        """How often a lost connection was made again, so far."""
        return int(getattr(self._feed, "reconnected", 0))  # only feeds that have a connection

    def take(self, timeout_s: float) -> Arrival | None:
        """The newest frame that nobody has taken, as soon as there is one; None where none came in time, or at the end.

        Raises what ended the feed once its last frame was taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, timeout_s)
            arrival, self._newest = self._newest, None
            if arrival is None and self._error is not None:
                raise self._error
            return arrival

    @property
    def ended(self) -> bool:
        """Whether no frame is left and none will come."""
        with self._changed:
            return self._ended and self._newest is None

    def close(self) -> None:
        """End the reading; a frame that was not taken counts as dropped."""
        self._stopped.set()
        self._feed.stop()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)
        if not self._thread.is_alive():  # closing a container that is being read would crash
            self._feed.close()
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = None

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for arrival in self._arrivals():
                with self._changed:
                    self.read += 1
                    self.dropped += self._newest is not None
                    self._newest = arrival
                    self._changed.notify_all()
        except BaseException as raised:  # raised again where the frames are taken
            error = raised
        with self._changed:
            self._ended, self._error = True, None if self._stopped.is_set() else error
            self._changed.notify_all()

    def _arrivals(self) -> Iterator[Arrival]:
        offset = Fraction(0)  # of the clock of this round
        while not self._stopped.is_set():
            last: Fraction | None = None
            for frame, at in self._paced(self._feed) if self._own_pace else self._as_they_come(self._feed):
                last = frame.seconds + offset
                yield Arrival(frame._replace(seconds=last), at)
            if not self._loop or last is None or self._stopped.is_set():
                return
            offset = last + 1 / self.rate
            self._reopen()

    def _reopen(self) -> None:
        self._lost_before, self._damaged_before = self.lost, self.damaged
        self._feed.close()
        self._feed = self._open_feed()
        if self._stopped.is_set():  # `close` may have told the feed before this one
            self._feed.stop()

    def _as_they_come(self, feed: Feed) -> Iterator[Arrival]:
        for frame in feed:
            yield Arrival(frame, time.monotonic())

    def _paced(self, feed: Feed) -> Iterator[Arrival]:
        """A frame is decoded when it is due, as that of a camera would be, and its age counts from then."""
        frames, begin, due = iter(feed), None, time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            frame = next(frames, None)
            if frame is None:
                return
            begin = now - float(frame.seconds) if begin is None else begin
            due = begin + float(frame.seconds)
            if due > now and self._stopped.wait(max(0.0, due - time.monotonic())):  # its time is later than guessed
                return
            if now - due >= BEHIND_S:
                begin, due = begin + now - due, now
            yield Arrival(frame, due)
            due += float(1 / self.rate)
