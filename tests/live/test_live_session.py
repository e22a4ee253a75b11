from __future__ import annotations

import _thread
import json
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted import PATIENCE_S, InStep, ScriptedFeed, wait_for

from tiny import PARTS, brightness, tiny_card
from trocar.errors import UserError
from trocar.inference.predictor import Predictor
from trocar.inference.smoothing import SmoothSettings
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter
from trocar.live import LiveSummary, live
from trocar.live import session as sessions
from trocar.live.session import run


def headless(feed: ScriptedFeed, predictor: Predictor, **more: Any) -> LiveSummary:
    return run("a feed", lambda: feed, predictor, view="headless", **more)


def test_every_frame_that_was_read_was_shown_or_dropped(predictor: Predictor) -> None:
    feed = ScriptedFeed(300)
    summary = headless(feed, predictor)
    assert summary.ended == "the source ended"
    assert summary.read == 300 == summary.shown + summary.dropped
    assert summary.shown >= 1
    assert summary.error is None
    assert feed.closed
    assert summary.frames_per_second is not None
    json.dumps(summary.model_dump(mode="json"), allow_nan=False)


def test_a_slow_engine_shows_the_newest_and_drops_the_rest() -> None:
    """While the first frame is in the network four more come: the last of them is next."""
    seen: list[int] = []
    sent, in_network = threading.Event(), threading.Event()

    def after(number: int) -> None:
        if number == 0:
            assert in_network.wait(PATIENCE_S)
        if number == 4:
            sent.set()

    def engine(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        seen.append(int(frames[0, 0, 0, 0]) - 20)
        if seen[-1] == 0:
            in_network.set()
            assert sent.wait(PATIENCE_S)
        return brightness(frames)

    summary = headless(ScriptedFeed(5, after=after), Predictor(engine, tiny_card()))
    assert seen[0] == -20  # the black frame that warms up
    assert seen[1:] == [0, 4]
    assert (summary.read, summary.shown, summary.dropped) == (5, 2, 3)


def test_late_frames_are_counted(predictor: Predictor) -> None:
    """Nothing is as fast as 0 ms; everything is faster than an hour."""
    assert headless(ScriptedFeed(1), predictor, late_ms=0.0).late == 1
    summary = headless(ScriptedFeed(1), predictor, late_ms=3.6e6)
    assert summary.late == 0
    assert summary.latency_ms["p50"] is not None
    assert 0 < summary.latency_ms["p50"] <= summary.latency_ms["p99"]


def test_the_time_is_up_even_where_no_frame_comes(predictor: Predictor) -> None:
    quiet = threading.Semaphore(0)
    feed = ScriptedFeed(2, after=lambda number: wait_for(quiet))
    stop, feed.stop = feed.stop, lambda: (stop(), quiet.release())[0]  # type: ignore[method-assign]
    summary = headless(feed, predictor, seconds=0.3)
    assert summary.ended == "time is up"
    assert summary.seconds >= 0.3
    assert summary.read == 1


def test_ctrl_c_ends_it_properly(tmp_path: Path) -> None:
    """Sent while the feed is going on: the summary tells of it, and the recording can be read."""
    step = InStep()

    feed = step.feed(10**6, lambda number: _thread.interrupt_main() if number == 20 else None)
    summary = headless(feed, Predictor(step.engine, tiny_card()), record=tmp_path / "seen.mkv")
    assert summary.ended == "stopped"
    assert summary.read == summary.shown + summary.dropped
    assert summary.error is None
    assert feed.closed
    assert summary.recording is not None
    with VideoReader(tmp_path / "seen.mkv") as reader:
        assert sum(1 for _ in reader) == summary.recording["frames"]


def test_a_source_that_fails_ends_it_with_what_it_did(predictor: Predictor) -> None:
    feed = ScriptedFeed(3, error=UserError("the camera is gone", where="camera:0", mend="plug it in"))
    summary = headless(feed, predictor)
    assert summary.ended == "the source failed"
    assert summary.error == {"what": "the camera is gone", "where": "camera:0", "mend": "plug it in"}
    assert summary.read == 3
    assert summary.shown >= 1
    assert feed.closed


def test_a_defect_is_raised_and_everything_ended() -> None:
    def engine(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        if frames.any():
            raise RuntimeError("a defect")
        return brightness(frames)

    feed = ScriptedFeed(10**6)
    with pytest.raises(RuntimeError, match="a defect"):
        run("a feed", lambda: feed, Predictor(engine, tiny_card()), port=0)
    assert feed.closed


def test_what_cannot_be_opened_leaves_nothing_open(predictor: Predictor, tmp_path: Path) -> None:
    there = tmp_path / "there.mp4"
    there.write_text("mine")
    for record, words in ((there, "overwrite"), (tmp_path / "x.txt", "no ending of a video")):
        feed = ScriptedFeed(3)
        with pytest.raises(UserError, match=words):
            run("a feed", lambda feed=feed: feed, predictor, port=0, record=record)  # type: ignore[misc]
        assert feed.closed
    assert there.read_text() == "mine"


def test_a_window_that_is_closed_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Fake:
        def __init__(self, title: str) -> None:
            assert "a feed" in title

        def show(self, picture: NDArray[np.uint8], text: str) -> None:
            shown.append((picture.shape, text))

        def closed(self) -> bool:
            return len(shown) == 3

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            shown.append("closed")

    monkeypatch.setattr(sessions, "Window", Fake)
    step = InStep()
    summary = run("a feed", lambda: step.feed(10**6), Predictor(step.engine, tiny_card()), view="window")
    assert summary.ended == "the window was closed"
    assert summary.shown == 3
    assert [one[0] for one in shown[:3]] == [(48, 64, 3)] * 3
    assert "latency" in shown[2][1]
    assert shown[3:] == ["closed"]


# ------------------------------------------------------------------ smoothing


def test_frames_are_smoothed_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever brighter frames turn foreground at 128; the mean of a long memory, by hand, seven frames later."""
    step, shares = InStep(), []

    def drawn(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shares.append(bool(mask.all()))
        return image

    monkeypatch.setattr(sessions, "overlay", drawn)
    feed, smooth = step.feed(130), SmoothSettings("exponential", 0.9)
    summary = headless(feed, Predictor(step.engine, tiny_card()), smooth=smooth)
    assert summary.smoothing == "exponential, weight 0.9"
    assert summary.cuts == 0
    assert summary.dropped == 0
    mean, expected = 0.0, []
    for n in range(130):
        p = 1 / (1 + np.exp(-(20 + n - 128) / 16))
        mean = p if n == 0 else 0.1 * p + 0.9 * mean
        expected.append(mean >= 0.5)
    late = expected.index(True) - 108
    assert 5 < late < 12
    assert shares == expected


def test_hysteresis_of_several_classes_is_refused_before_it_begins() -> None:
    def engine(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32)

    opened: list[ScriptedFeed] = []

    def feed() -> ScriptedFeed:
        opened.append(ScriptedFeed(3))
        return opened[-1]

    with pytest.raises(UserError, match="two classes"):
        run("a feed", feed, Predictor(engine, tiny_card(**PARTS)), smooth=SmoothSettings(hysteresis=(0.4, 0.6)))
    assert not opened


# ------------------------------------------------------------------ recording


def test_a_recording_has_every_frame_at_its_time(predictor: Predictor, tmp_path: Path) -> None:
    """A file of 12 frames a second, played at its own rate and recorded: the times are those of the file."""
    path = tmp_path / "clip.mkv"
    with VideoWriter(path, "grey", rate=Fraction(12), time_base=Fraction(1, 1000)) as writer:
        for n in range(7):
            writer.write(np.full((48, 64), 30 * n, np.uint8), Fraction(n, 12))
    summary = live(str(path), predictor, view="headless", record=tmp_path / "seen.mp4")
    assert summary.read == 7 == summary.shown + summary.dropped
    assert summary.recording == {
        "file": str(tmp_path / "seen.mp4"),
        "frames": summary.shown,
        "missed": 0,
        "error": None,
    }
    with VideoReader(tmp_path / "seen.mp4") as reader:
        seconds = [frame.seconds for frame in reader]
    assert len(seconds) == summary.shown
    if summary.shown == 7 and summary.late == 0:  # a busy machine drops some
        assert [float(one) for one in seconds] == pytest.approx([n / 12 for n in range(7)], abs=0.002)


def test_a_disk_that_fails_stops_the_recording_and_not_the_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = VideoWriter.write

    def full(self: VideoWriter, picture: NDArray[np.uint8], seconds: Fraction) -> None:
        if self.frames == 2:
            raise OSError(28, "No space left on device")
        write(self, picture, seconds)

    monkeypatch.setattr(VideoWriter, "write", full)
    step = InStep()
    feed = step.feed(60)
    summary = headless(feed, Predictor(step.engine, tiny_card()), record=tmp_path / "seen.mkv")
    assert summary.ended == "the source ended"
    assert summary.shown == 60
    assert summary.recording is not None
    assert summary.recording["frames"] == 2
    assert summary.recording["missed"] == summary.shown - 2
    assert "No space left" in summary.recording["error"]
    assert summary.error is not None
    assert "No space left" in summary.error["what"]
    with VideoReader(tmp_path / "seen.mkv") as reader:
        assert sum(1 for _ in reader) == 2


def test_an_encoder_that_is_too_slow_misses_frames_and_holds_none_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = VideoWriter.write

    def slow(self: VideoWriter, picture: NDArray[np.uint8], seconds: Fraction) -> None:
        assert go_on.wait(PATIENCE_S)
        write(self, picture, seconds)

    monkeypatch.setattr(VideoWriter, "write", slow)
    step = InStep()

    feed = step.feed(40, lambda number: go_on.set() if number == 39 else None)
    summary = headless(feed, Predictor(step.engine, tiny_card()), record=tmp_path / "seen.mkv")
    assert summary.shown == 40
    assert summary.recording is not None
    assert summary.recording["error"] is None
    assert summary.recording["missed"] > 0
    assert summary.recording["frames"] + summary.recording["missed"] == summary.shown
    with VideoReader(tmp_path / "seen.mkv") as reader:
        assert sum(1 for _ in reader) == summary.recording["frames"]


# ------------------------------------------------------------------ sources


def test_only_files_can_be_repeated(predictor: Predictor) -> None:
    for source in ("camera:0", "rtsp://user:secret@host/stream", "-"):
        with pytest.raises(UserError, match="only files") as raised:
            live(source, predictor, loop=True, view="headless")
        assert "secret" not in str(raised.value)


def test_a_file_is_repeated_until_the_time_is_up(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with VideoWriter(path, "grey", rate=Fraction(100), time_base=Fraction(1, 1000)) as writer:
        for n in range(5):
            writer.write(np.full((48, 64), n, np.uint8), Fraction(n, 100))
    summary = live(str(path), predictor, view="headless", loop=True, seconds=1.0)
    assert summary.ended == "time is up"
    assert summary.read > 5
    assert summary.read <= 105


def test_the_name_of_a_source_hides_its_password() -> None:
    assert sessions.shown("rtsp://user:secret@host/stream?key=1") == "rtsp://host/stream"
