"""`live`: a feed through a model, shown as it comes: on a page of this machine, in a window, or only counted.

The feed is read in one thread, of which the newest frame is taken; predicting, drawing and handing on happen here, one
frame after the other; viewers and the recording have threads of their own and are never waited for. However it ends,
all of them have ended when `live` returns, and what was recorded is playable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from trocar.config import Settings
from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.draw import overlay
from trocar.inference.feeds import STDIN, Feed, FeedOptions, is_live, open_feed, shown
from trocar.inference.predictor import Predictor
from trocar.inference.smoothing import NO_SMOOTHING, Smoother, SmoothSettings
from trocar.inference.window import Window
from trocar.live.figures import Figures
from trocar.live.newest import Arrival, NewestFrame
from trocar.live.page import PORT, Page
from trocar.live.recording import Recording
from trocar.plain import none_for_nan

View: TypeAlias = Literal["page", "window", "headless"]
Ended: TypeAlias = Literal[
    "the source ended", "time is up", "stopped", "the window was closed", "the source failed", "trocar failed"
]

LATE_MS = 200.0
_POLL_S = 0.2  # how soon the end of the time is seen where no frame comes


class LiveSummary(Settings):
    """What a run of `live` did. Every frame that was read was shown or dropped."""

    source: str = Field(description="a URL without user, password and query")
    model: str
    engine: str
    smoothing: str
    ended: Ended
    seconds: float = Field(description="from the start of the reading to the end")
    read: int = Field(description="frames that came")
    shown: int
    dropped: int = Field(description="frames that were not shown, since a newer one came first")
    late: int = Field(description="frames that were older than late_ms when they were shown")
    late_ms: float
    lost: int = Field(description="frames that could not be decoded; they are not in `read`")
    damaged: int = Field(description="frames decoded with errors; shown as they are")
    reconnections: int = Field(description="how often a lost connection was made again")
    cuts: int = Field(description="how often smoothing forgot what was before: cuts, pauses")
    frames_per_second: float | None = Field(description="shown, over all the time; null where nothing was")
    latency_ms: dict[str, float | None] = Field(description="p50, p95, p99 from arrival to the finished overlay")
    recording: dict[str, Any] | None = Field(description="file, frames, missed and error of the recording")
    error: dict[str, Any] | None = Field(description="what, where and mend of what the user can mend")


def live(
    source: str,
    model: str | Path | Predictor | None = None,
    *,
    view: View = "page",
    port: int = PORT,
    late_ms: float = LATE_MS,
    seconds: float | None = None,
    loop: bool = False,
    record: Path | None = None,
    smooth: SmoothSettings = NO_SMOOTHING,
    feeds: FeedOptions | None = None,
    ready: Callable[[str], None] | None = None,
    **opening: Any,
) -> LiveSummary:
    """Show what a model finds in a feed, until it ends, `seconds` are over or Ctrl-C; returns what was done.

    `source` is whatever `open_feed` takes; files are played at their own rate, with `loop` again and again. `model` is
    as for `predict`; `feeds` says how a feed is opened; `opening` goes to `Predictor.open`. `ready` is told the address
    of the page. Raises `UserError` where it cannot begin; what fails later (the source, the recording) is in the
    summary's `error`.
    """
    from_clock = is_live(source) or source == STDIN
    if loop and from_clock:
        raise UserError("only files can be repeated", where=shown(source), mend="leave --loop out")
    predictor = model if isinstance(model, Predictor) else Predictor.open(model, **opening)
    return run(
        shown(source),
        lambda: open_feed(source, feeds),
        predictor,
        own_pace=not from_clock,
        loop=loop,
        view=view,
        port=port,
        late_ms=late_ms,
        seconds=seconds,
        record=record,
        smooth=smooth,
        ready=ready,
    )


def run(
    name: str,
    feed: Callable[[], Feed],
    predictor: Predictor,
    *,
    own_pace: bool = False,
    loop: bool = False,
    view: View = "page",
    port: int = PORT,
    late_ms: float = LATE_MS,
    seconds: float | None = None,
    record: Path | None = None,
    smooth: SmoothSettings = NO_SMOOTHING,
    ready: Callable[[str], None] | None = None,
) -> LiveSummary:
    """As `live`, with a feed that `feed` opens, under this name, and a predictor that is open."""
    smooth.check(predictor)
    session = _Session(name, predictor, Figures(late_ms), smooth, seconds)
    session.warm_up()
    newest = NewestFrame(feed, own_pace=own_pace, loop=loop)
    try:
        with ExitStack() as stack:
            session.open(stack, view, port, record, newest.rate, ready)
            stack.callback(newest.close)  # first of all, so that the page tells of the end as it is
            session.loop(newest)
    finally:
        newest.close()  # also where the page or the recording could not be opened
    return session.summary()


class _Session:
    """One run: what it is made of, and what is known of it so far. The page asks from other threads."""

    def __init__(
        self, name: str, predictor: Predictor, figures: Figures, smooth: SmoothSettings, seconds: float | None
    ) -> None:
        self.name = name
        self.predictor = predictor
        self.figures = figures
        self.smoother = Smoother(smooth)
        self.seconds = seconds
        self.newest: NewestFrame | None = None
        self.recording: Recording | None = None
        self.shows: list[Callable[[ImageArray], None]] = []
        self.closed_by_user: Callable[[], bool] = lambda: False
        self.ended: Ended | None = None
        self.error: UserError | None = None
        self._begun = self._finished = time.monotonic()
        self._first_at: float | None = None
        self._last_at: float | None = None  # arrival of the last frame shown
        self._quality = math.nan

    def warm_up(self) -> None:
        """Predict a black frame: an engine takes longer for its first."""
        self.predictor(np.zeros((*self.predictor.preprocess.size_hw, 3), np.uint8))

    def open(
        self,
        stack: ExitStack,
        view: View,
        port: int,
        record: Path | None,
        rate: Fraction,
        ready: Callable[[str], None] | None,
    ) -> None:
        """Open what the frames are handed to, for as long as the stack lasts."""
        if view == "page":
            page = stack.enter_context(Page(self.state, port))
            self.shows.append(page.show)
            if ready is not None:
                ready(page.url)
        elif view == "window":
            window = stack.enter_context(Window(f"trocar live {self.name}"))
            self.shows.append(lambda picture: window.show(picture, self._caption()))
            self.closed_by_user = window.closed
        if record is not None:
            self.recording = stack.enter_context(Recording(record, rate))

    def loop(self, newest: NewestFrame) -> None:
        """Read and show frames until it ends."""
        self.newest = newest
        self._begun = time.monotonic()
        try:
            newest.start()
            while self.ended is None:
                self._step(newest)
        except KeyboardInterrupt:
            self.ended = "stopped"
        except UserError as error:
            self.ended, self.error = "the source failed", error
        finally:
            self.ended = self.ended or "trocar failed"
            self._finished = time.monotonic()

    def _step(self, newest: NewestFrame) -> None:
        left = math.inf if self.seconds is None else self._begun + self.seconds - time.monotonic()
        if left <= 0:
            self.ended = "time is up"
        elif self.closed_by_user():
            self.ended = "the window was closed"
        elif (arrival := newest.take(min(left, _POLL_S))) is not None:
            self._frame(arrival)
        elif newest.ended:
            self.ended = "the source ended"

    def _frame(self, arrival: Arrival) -> None:
        image = arrival.frame.image
        found = self.smoother.prediction(self.predictor, image, self.predictor(image), arrival.frame.seconds)
        picture = overlay(image, found.mask)
        for show in self.shows:
            show(picture)
        self.figures.shown(arrival.at)
        self._quality = found.quality
        self._first_at = arrival.at if self._first_at is None else self._first_at
        self._last_at = arrival.at
        if self.recording is not None:
            self.recording.add(picture, Fraction(round((arrival.at - self._first_at) * 90_000), 90_000))

    # -------------------------------------------------------------- what is known of it

    def state(self) -> dict[str, Any]:
        """What the page tells, now."""
        limit = self.predictor.quality_limit
        known = None if math.isnan(self._quality) else self._quality
        return {
            "state": "running" if self.ended is None else "ended",
            **self._counts(),
            "frames_per_second": none_for_nan(self.figures.recent_rate()),
            "recent_latency_ms": self.figures.recent_latency_ms(),
            "since_frame_s": None if self._last_at is None else round(time.monotonic() - self._last_at, 2),
            "quality": known,
            "quality_limit": limit,
            "look_at": None if limit is None or known is None else known < limit,
        }

    def _caption(self) -> str:
        """The figures in a line."""
        now, rate = self.figures.recent_latency_ms(), self.figures.recent_rate()
        if math.isnan(rate):
            return ""
        return (
            f"latency {now['p50']:.0f} ms, 99 % under {now['p99']:.0f} ms; {rate:.1f} frames a second; "
            f"{self._dropped()} dropped, {self.figures.late} late"
        )

    def summary(self) -> LiveSummary:
        """What was done."""
        assert self.ended is not None
        took = self._finished - self._begun
        failed = self.error or (self.recording.error if self.recording else None)
        return LiveSummary(
            **self._counts(),
            frames_per_second=round(self.figures.count / took, 2) if self.figures.count else None,
            error=None if failed is None else failed.as_dict(),
        )

    def _dropped(self) -> int:
        """In the end also the frame at which it was stopped."""
        if self.newest is None:
            return 0
        return self.newest.dropped if self.ended is None else self.newest.read - self.figures.count

    def _counts(self) -> dict[str, Any]:
        newest, figures = self.newest, self.figures
        end = time.monotonic() if self.ended is None else self._finished
        return {
            "source": self.name,
            "model": self.predictor.card.name,
            "engine": self.predictor.about,
            "smoothing": self.smoother.settings.about,
            "ended": self.ended,
            "seconds": round(end - self._begun, 3),
            "read": newest.read if newest else 0,
            "shown": figures.count,
            "dropped": self._dropped(),
            "late": figures.late,
            "late_ms": figures.late_ms,
            "lost": newest.lost if newest else 0,
            "damaged": newest.damaged if newest else 0,
            "reconnections": newest.reconnections if newest else 0,
            "cuts": self.smoother.cuts,
            "latency_ms": figures.latency_ms(),
            "recording": self.recording.about() if self.recording else None,
        }
