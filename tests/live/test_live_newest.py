from __future__ import annotations

import threading
import time
from fractions import Fraction

import pytest
from scripted import PATIENCE_S, ScriptedFeed, number_of, wait_for, wait_until

from trocar.errors import UserError
from trocar.live.newest import NewestFrame


def test_the_newest_frame_wins_and_every_other_is_counted() -> None:
    """The taker is busy while seven frames come: it gets the seventh, and six were dropped."""
    all_sent, go_on = threading.Event(), threading.Event()

    def after(number: int) -> None:
        if number == 6:
            all_sent.set()
            assert go_on.wait(PATIENCE_S)

    newest = NewestFrame(lambda: ScriptedFeed(9, after=after))
    newest.start()
    assert all_sent.wait(PATIENCE_S)
    arrival = newest.take(1)
    assert arrival is not None
    assert number_of(arrival.frame.image) == 6
    assert (newest.read, newest.dropped) == (7, 6)
    assert newest.take(0) is None  # none twice
    assert not newest.ended
    go_on.set()
    wait_until(lambda: newest.read == 9)
    newest.close()
    assert (newest.read, newest.dropped) == (9, 8)  # the last was not taken


def test_a_frame_is_taken_as_soon_as_it_comes() -> None:
    """Each frame is sent when the one before was taken: none is dropped, none is given twice."""
    taken = threading.Semaphore(0)
    newest = NewestFrame(lambda: ScriptedFeed(20, after=lambda number: wait_for(taken)))
    newest.start()
    found = []
    while not newest.ended:
        if (arrival := newest.take(PATIENCE_S)) is not None:
            found.append(number_of(arrival.frame.image))
            taken.release()
    newest.close()
    assert found == list(range(20))
    assert newest.dropped == 0


def test_what_ended_the_feed_is_raised_after_its_last_frame() -> None:
    newest = NewestFrame(lambda: ScriptedFeed(1, error=UserError("the camera is gone")))
    newest.start()
    wait_until(lambda: not newest._thread.is_alive())
    arrival = newest.take(PATIENCE_S)
    assert arrival is not None
    with pytest.raises(UserError, match="the camera is gone"):
        newest.take(PATIENCE_S)
    newest.close()


def test_closing_ends_a_feed_that_goes_on_for_ever() -> None:
    feed = ScriptedFeed(10**9)
    newest = NewestFrame(lambda: feed)
    newest.start()
    assert newest.take(PATIENCE_S) is not None
    newest.close()
    assert feed.stopped.is_set()
    assert feed.closed
    newest.close()  # again is no harm
    assert newest.ended


def test_a_feed_that_cannot_be_opened_is_said_at_once() -> None:
    def broken() -> ScriptedFeed:
        raise UserError("no camera")

    with pytest.raises(UserError, match="no camera"):
        NewestFrame(broken)


def test_a_loop_opens_the_feed_again_and_its_clock_goes_on() -> None:
    feeds: list[ScriptedFeed] = []
    taken = threading.Semaphore(0)

    def opened() -> ScriptedFeed:
        feeds.append(ScriptedFeed(3, after=lambda number: wait_for(taken)))
        feeds[-1].lost = 2
        return feeds[-1]

    newest = NewestFrame(opened, loop=True)
    newest.start()
    seconds = []
    for _ in range(7):
        arrival = newest.take(PATIENCE_S)
        assert arrival is not None
        seconds.append(arrival.frame.seconds)
        if len(seconds) < 7:
            taken.release()
    assert seconds == [Fraction(n, 25) for n in range(7)]
    assert [feed.closed for feed in feeds] == [True, True, False]
    assert newest.lost == 6
    feeds[-1].stop()
    taken.release()
    newest.close()
    assert feeds[-1].closed


def test_a_loop_over_nothing_ends() -> None:
    newest = NewestFrame(lambda: ScriptedFeed(0), loop=True)
    newest.start()
    assert newest.take(PATIENCE_S) is None
    assert newest.ended
    newest.close()


def test_a_file_is_played_at_its_own_rate() -> None:
    """Ten frames of 50 a second take 0.18 s at least, and each is as old as its time says."""
    asked: list[float] = []  # when the frame after each was asked for: that is when it is decoded
    feed = ScriptedFeed(10, rate=Fraction(50), after=lambda number: asked.append(time.monotonic()))
    newest = NewestFrame(lambda: feed, own_pace=True)
    begun = time.monotonic()
    newest.start()
    arrivals = []
    while not newest.ended:
        if (arrival := newest.take(PATIENCE_S)) is not None:
            arrivals.append(arrival)
    assert time.monotonic() - begun >= 0.18
    newest.close()
    assert newest.read == 10
    first = arrivals[0]
    assert all(when >= first.at + (n + 1) / 50 - 1e-6 for n, when in enumerate(asked))
    for one in arrivals:
        late = one.at - (first.at + float(one.frame.seconds - first.frame.seconds))
        assert (
            abs(late) < 1e-6 or late > 0.4
        )  # a machine that was busy elsewhere, for so long that the clock was set anew


def test_without_a_pace_of_its_own_nothing_waits() -> None:
    """A camera's frames come when they come: ten thousand seconds of them at once."""
    newest = NewestFrame(lambda: ScriptedFeed(100, rate=Fraction(1, 100)))
    newest.start()
    wait_until(lambda: newest.read == 100)
    newest.close()


def test_closing_does_not_wait_for_the_next_frame_of_a_slow_file() -> None:
    newest = NewestFrame(lambda: ScriptedFeed(5, rate=Fraction(1, 1000)), own_pace=True)
    newest.start()
    wait_until(lambda: newest.read == 1)
    begun = time.monotonic()
    newest.close()
    assert time.monotonic() - begun < PATIENCE_S / 2
