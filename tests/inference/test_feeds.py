from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from feed_servers import Script, jpegs, mpegts, numbered_frames, serving, silent_server
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference import feeds
from trocar.inference.feeds import RawFormat, is_feed, is_live, open_feed, shown
from trocar.inference.feeds_from_files import RawFeed
from trocar.inference.feeds_live import LiveFeed
from trocar.inference.frames import Frame
from trocar.inference.pipeline import stream

pytestmark = pytest.mark.timeout(60)


def levels(frames: Iterable[Frame]) -> list[int]:
    """The number of each frame of `numbered_frames`, from its brightness."""
    return [round((float(frame.image.mean()) - 20) / 4) for frame in frames]


def until_error(feed: feeds.Feed) -> tuple[list[Frame], UserError]:
    found: list[Frame] = []
    with feed, pytest.raises(UserError) as caught:
        found.extend(feed)
    return found, caught.value


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


# ------------------------------------------------------------------ which is which


@pytest.mark.parametrize(
    ("text", "feed", "live"),
    [
        ("-", True, False),
        ("camera:0", True, True),
        ("/dev/video2", True, True),
        ("rtsp://cam/stream", True, True),
        ("HTTP://cam/stream", True, True),
        ("frames/img_%04d.png", True, False),
        ("img_%d.jpg", True, False),
        ("clip.mp4", False, False),
        ("http:clip.mp4", False, False),
        ("file:///etc/passwd", False, False),
        ("100%dark.mp4", True, False),
        ("100%%dark.mp4", False, False),
        ("frames/*.png", False, False),
    ],
)
def test_feeds_are_told_by_their_form(text: str, feed: bool, live: bool) -> None:
    assert (is_feed(text), is_live(text)) == (feed, live)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "100%dark.mp4").write_bytes(mpegts(numbered_frames(20)))
    with open_feed(str(tmp_path / "100%dark.mp4")) as feed:
        assert len(list(feed)) == 20


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown("rtsp://user:p%40ss@10.0.0.1:554/live?token=x#y") == "rtsp://10.0.0.1:554/live"
    assert shown("camera:0") == "camera:0"


# ------------------------------------------------------------------ files as one video


def test_a_numbered_pattern_is_one_video_with_its_gaps(tmp_path: Path) -> None:
    images = numbered_frames(12)
    for number in (8, 9, 11):
        save(tmp_path / f"f_{number:03d}.png", images[number])
    save(tmp_path / "f_10.png", images[0])  # not as %03d writes it
    (tmp_path / "f_012.png").write_text("no image")
    with open_feed(str(tmp_path / "f_%03d.png"), rate=Fraction(30)) as feed:
        found = list(feed)
        assert (feed.lost, feed.damaged, feed.rate) == (2, 0, 30)
    assert levels(found) == [8, 9, 11]
    assert [frame.seconds for frame in found] == [0, Fraction(1, 30), Fraction(3, 30)]


def test_a_folder_is_one_video_in_the_order_people_count(tmp_path: Path) -> None:
    images = numbered_frames(12)
    for number in (2, 10, 1):
        save(tmp_path / f"img{number}.png", images[number])
    save(tmp_path / ".hidden.png", images[5])
    (tmp_path / "notes.txt").write_text("")
    with open_feed(str(tmp_path)) as feed:
        found = list(feed)
    assert levels(found) == [1, 2, 10]
    assert [frame.seconds for frame in found] == [0, Fraction(1, 25), Fraction(2, 25)]


def test_frames_of_several_sizes_are_no_video(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / "b.png", np.zeros((6, 4, 3), np.uint8))
    found, error = until_error(open_feed(str(tmp_path)))
    assert len(found) == 1
    assert "changes its size at frame 2, from 6x4 to 4x6" in str(error)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file fits the pattern"):
        open_feed(str(tmp_path / "x_%d.png"))
    with pytest.raises(UserError, match="no file fits the pattern"):
        open_feed(str(tmp_path / "missing" / "x_%d.png"))
    with pytest.raises(UserError, match="no image is there"):
        open_feed(str(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        open_feed(str(tmp_path / "missing.mp4"))
    (tmp_path / "x_1.png").write_text("no image")
    (tmp_path / "x_2.png").write_text("no image")
    with pytest.raises(UserError, match="image"), open_feed(str(tmp_path / "x_%d.png")) as feed:
        list(feed)
    (tmp_path / "x_99999999999.png").write_text("")
    with pytest.raises(UserError, match="no frames of one video"):
        open_feed(str(tmp_path / "x_%d.png"))


# ------------------------------------------------------------------ raw frames


@pytest.mark.parametrize("pixels", ["rgb24", "bgr24", "gray"])
def test_raw_frames(rng: np.random.Generator, pixels: str) -> None:
    images = rng.integers(0, 256, (4, 5, 7, 1 if pixels == "gray" else 3), dtype=np.uint8)
    feed = RawFeed(io.BytesIO(images.tobytes()), RawFormat.parse("7x5", pixels), Fraction(30))
    found = list(feed)
    expected = images[..., ::-1] if pixels == "bgr24" else np.broadcast_to(images, (4, 5, 7, 3))
    np.testing.assert_array_equal([frame.image for frame in found], expected)
    assert [frame.seconds for frame in found] == [Fraction(n, 30) for n in range(4)]


def test_raw_frames_through_a_pipe_in_pieces(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    images = rng.integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    reading, writing = os.pipe()

    def write() -> None:
        data = images.tobytes()
        for start in range(0, len(data), 999):
            os.write(writing, data[start : start + 999])
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        with open_feed("-", raw=RawFormat.parse("70x50", "rgb24")) as feed:
            np.testing.assert_array_equal([frame.image for frame in feed], images)
    thread.join()


def test_raw_frames_that_end_inside_a_frame() -> None:
    found, error = until_error(RawFeed(io.BytesIO(bytes(25)), RawFormat((5, 2), "gray"), Fraction(25)))
    assert len(found) == 2
    assert "after 2 frames, 5 of 10 bytes" in str(error)
    found, error = until_error(RawFeed(io.BytesIO(b""), RawFormat((5, 2), "gray"), Fraction(25)))
    assert "after 0 frames, 0 of 10 bytes" in str(error)


def test_raw_frames_need_their_format() -> None:
    with pytest.raises(UserError, match="no header"):
        open_feed("-")
    for size in ("720", "0x5", "-1x5", "99999999x5", "axb"):
        with pytest.raises(UserError, match="no size"):
            RawFormat.parse(size, "gray")
    with pytest.raises(UserError, match="not known"):
        RawFormat.parse("7x5", "yuv420p")


@pytest.mark.skipif(os.name == "nt", reason="pipes cannot be polled there")
def test_a_silent_pipe_is_left_when_nobody_wants_more(by_brightness: object) -> None:
    """Ctrl-C while stdin waits: no thread hangs in a read."""
    reading, writing = os.pipe()
    os.write(writing, bytes(10))
    with os.fdopen(reading, "rb") as pipe:
        results = stream(by_brightness, RawFeed(pipe, RawFormat((5, 2), "gray"), Fraction(25)))
        next(results)
        started = time.monotonic()
        results.close()
    assert time.monotonic() - started < 5
    os.close(writing)


# ------------------------------------------------------------------ URLs


def test_a_stream_over_http(tmp_path: Path) -> None:
    data = mpegts(numbered_frames(20))
    with serving(Script([data], length=len(data))) as url, open_feed(url) as feed:
        found = list(feed)
        assert (feed.rate, feed.lost) == (25, 0)
    assert levels(found) == list(range(20))
    assert [frame.seconds for frame in found] == [Fraction(n, 25) for n in range(20)]


def test_a_video_file_over_http(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        made = container.add_stream("ffv1", rate=10)
        made.height, made.width, made.pix_fmt = 48, 64, "bgr0"
        for image in numbered_frames(8):
            container.mux(made.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(made.encode(None))
    data = path.read_bytes()
    with serving(Script(*[[data]] * 3, kind="video/x-matroska", length=len(data))) as url, open_feed(url) as feed:
        assert levels(feed) == list(range(8))


def test_mjpeg_over_http_has_the_times_of_arrival() -> None:
    steps = jpegs(numbered_frames(6), 0.05)
    script = Script(steps, kind="multipart/x-mixed-replace; boundary=edge")
    with serving(script) as url:
        found, _ = until_error(open_feed(url, timeout_s=5, reconnects=0))
    assert levels(found) == list(range(6))
    seconds = [frame.seconds for frame in found]
    assert seconds[0] == 0
    assert seconds == sorted(set(seconds))


def live(url: str, *, reconnects: int = 3, timeout_s: float = 1.0, endless: bool = True) -> LiveFeed:
    feed = open_feed(url, timeout_s=timeout_s, reconnects=reconnects, endless=endless)
    assert isinstance(feed, LiveFeed)
    feed._pause_s = 0.01
    return feed


def test_a_stream_that_drops_is_connected_to_again_and_its_clock_goes_on() -> None:
    data = mpegts(numbered_frames(20))
    with serving(Script([data], [data])) as url:
        feed = live(url, reconnects=2)
        found, error = until_error(feed)
    assert levels(found) == [*range(20), *range(20)]
    seconds = [frame.seconds for frame in found]
    assert seconds == sorted(set(seconds)), "times rise over the gap"
    assert seconds[21] - seconds[20] == Fraction(1, 25)
    assert feed.reconnected == 1
    assert "no more frames come from the source, also after 2 new connections" in str(error)
    assert error.where == url


def test_a_stream_that_is_cut_in_the_middle_is_connected_to_again() -> None:
    """Over HTTP too, where a whole stream may end: this one promised more."""
    data = mpegts(numbered_frames(20))
    with serving(Script([data[: len(data) // 2]], [data], length=len(data))) as url:
        feed = live(url, reconnects=2, endless=False)
        with feed:
            found = levels(feed)
    assert feed.reconnected == 1
    assert found[-20:] == list(range(20))
    assert 4 < len(found[:-20]) < 16


def test_a_stream_that_stalls_ends_with_a_clear_error() -> None:
    data = mpegts(numbered_frames(20))
    with serving(Script([data, 30.0])) as url:
        found, error = until_error(live(url, reconnects=0))
    assert levels(found) == list(range(20))
    assert "no more frames come from the source: nothing came from it for 1 s" in str(error)
    assert error.mend


def test_a_source_that_never_answers_is_an_error() -> None:
    with silent_server() as port:
        for scheme in ("rtsp", "http"):
            with pytest.raises(UserError, match=r"cannot be opened: nothing came from it for 0\.5 s") as caught:
                open_feed(f"{scheme}://user:secret@127.0.0.1:{port}/x", timeout_s=0.5)
            assert caught.value.where == f"{scheme}://127.0.0.1:{port}/x"
            assert "secret" not in str(caught.value)


def test_a_source_that_is_not_there_is_an_error() -> None:
    with silent_server() as port:
        pass
    for scheme in ("rtsp", "http", "tcp"):
        with pytest.raises(UserError, match="cannot be opened"):
            open_feed(f"{scheme}://127.0.0.1:{port}/x", timeout_s=2)
    with serving(Script()) as url, pytest.raises(UserError, match="cannot be opened"):
        open_feed(url)
    with serving(Script([b"<html>no video</html>"])) as url, pytest.raises(UserError, match="cannot be opened"):
        open_feed(url)


def test_a_playlist_from_a_server_reads_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(mpegts(numbered_frames(5)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
    script = Script([playlist] * 2, kind="application/vnd.apple.mpegurl")
    found: list[Frame] = []
    with serving(script) as url, contextlib.suppress(UserError), open_feed(url + ".m3u8", timeout_s=2) as feed:
        found.extend(feed)
    assert script.asked
    assert found == []


def test_a_live_feed_is_stopped_from_another_thread() -> None:
    with serving(Script([mpegts(numbered_frames(20)), 30.0])) as url:
        feed = live(url, timeout_s=1)
        iterator = iter(feed)
        next(iterator)
        feed.stop()
        assert list(iterator) == []
        feed.close()


# ------------------------------------------------------------------ cameras


class Camera:
    """Stands in for PyAV: a recording whose cable is pulled; what is opened next is in the list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *, plugged: int) -> None:
        self.opened: list[tuple[str, dict[str, object]]] = []
        original = av.open

        def opening(device: str, **options: object) -> object:
            self.opened.append((device, options))
            if len(self.opened) > plugged:
                raise OSError(19, "No such device")
            return original(str(path))

        monkeypatch.setattr(av, "open", opening)


def test_a_camera_that_disappears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "clip.ts").write_bytes(mpegts(numbered_frames(10)))
    camera = Camera(monkeypatch, tmp_path / "clip.ts", plugged=2)
    feed = open_feed("camera:3", reconnects=2)
    feed._pause_s = 0.01
    found, error = until_error(feed)
    assert levels(found) == [*range(10), *range(10)]
    assert "no more frames come from the source, also after 2 new connections" in str(error)
    assert "No such device" in str(error)
    assert error.where == "camera:3"
    assert camera.opened[0][0] == "/dev/video3"
    assert camera.opened[0][1]["format"] == "v4l2"


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"cannot be opened|Linux only"):
        open_feed("/dev/video98")


def test_cameras_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="Linux only"):
        open_feed("camera:0")
