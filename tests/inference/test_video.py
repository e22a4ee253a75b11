from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference.frames import Frame
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter, colour_codec

TICK = Fraction(1, 1000)


def write_clip(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    **options: str,
) -> None:
    """By PyAV alone, without the code under test."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = TICK
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times_ms[index] if times_ms else 40 * index
            frame.time_base = TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def smooth(rng: np.random.Generator, count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Frames that lossy codecs keep well, each with its own brightness."""
    base = cv2.resize(rng.integers(0, 200, (4, 5, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return [np.asarray(cv2.add(base, np.full_like(base, 5 * index)), np.uint8) for index in range(count)]


def read(path: Path) -> tuple[list[NDArray[np.uint8]], list[Fraction]]:
    with VideoReader(path) as reader:
        frames = list(reader)
    return [frame.image for frame in frames], [frame.seconds for frame in frames]


# ------------------------------------------------------------------ reading


def test_frames_and_times_come_in_the_order_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    """H.264 with B-frames stores them out of order; the times are uneven."""
    frames = smooth(rng, 12, 64, 96)
    times = [0, 40, 90, 100, 180, 200, 240, 300, 310, 400, 440, 500]
    write_clip(tmp_path / "clip.mp4", frames, times_ms=times)
    images, seconds = read(tmp_path / "clip.mp4")
    assert seconds == [Fraction(time, 1000) for time in times]
    brightness = [image.mean() for image in images]
    assert brightness == sorted(brightness)
    assert len(images) == 12
    np.testing.assert_allclose(images[5].astype(int), frames[5].astype(int), atol=25)
    with VideoReader(tmp_path / "clip.mp4") as reader:
        assert reader.frames_expected == 12


def test_times_rise_where_the_container_has_none(tmp_path: Path) -> None:
    """AVI with frames that are decoded in another order than shown: FFmpeg's times run forth and back there."""
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "b-adapt": "0", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 + 10 * n, np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)  # else this test shows nothing
    images, times = read(path)
    assert [round((int(image[0, 0, 0]) - 10) / 10) for image in images] == list(range(20))
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert min(steps) >= Fraction(1, 25)
    assert sum(step != Fraction(1, 25) for step in steps) <= 3
    assert abs(times[-1] - Fraction(19, 25)) <= Fraction(3, 25)


def test_a_lossless_clip_is_read_to_the_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    frames = [rng.integers(0, 256, (33, 47, 3), dtype=np.uint8) for _ in range(5)]
    write_clip(tmp_path / "clip.mkv", frames, codec="ffv1", pixels="bgr0")
    images, _ = read(tmp_path / "clip.mkv")
    np.testing.assert_array_equal(images, frames)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuvj420p", "yuv422p10le", "gray"])
def test_colours_are_those_that_pyav_gives(tmp_path: Path, rng: np.random.Generator, pixels: str) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, smooth(rng, 3, 64, 98), codec="ffv1" if pixels == "gray" else "libx264", pixels=pixels)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(read(path)[0], expected)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_put_upright(tmp_path: Path, rng: np.random.Generator, degrees: int) -> None:
    """As phones write it: a matrix in the track header. OpenCV is the judge."""
    path = tmp_path / "clip.mp4"
    write_clip(path, smooth(rng, 3, 64, 96))
    one = 0x10000
    turn = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of other fields
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = struct.pack(">9i", turn[0], turn[1], 0, turn[2], turn[3], 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    images, _ = read(path)
    judge = cv2.VideoCapture(str(path))
    for image in images:
        expected = cv2.cvtColor(judge.read()[1], cv2.COLOR_BGR2RGB)
        assert image.shape == expected.shape
        np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=12)
    judge.release()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"hello world\n" * 100, "not a video"), (bytes(range(256)) * 40, "not a video")],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        VideoReader(path)
    assert caught.value.where == str(path)
    with pytest.raises(UserError, match="no such file"):
        VideoReader(tmp_path / "missing.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="no video"):
        VideoReader(tmp_path / "a.mp4")


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "clip.mp4"
    noisy = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(20)]
    write_clip(path, noisy, movflags="faststart")  # the index comes first, so the rest can be missing
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, error = read_until_error(path)
    assert 4 < len(frames) < 16
    assert "cannot be read to its end: it ends inside a frame" in str(error)
    assert error.where == str(path)


def test_a_matroska_video_that_is_cut_off_is_shorter_than_it_says(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "clip.mkv"
    noisy = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(20)]
    write_clip(path, noisy, times_ms=[200 * index for index in range(20)])
    assert len(read(path)[0]) == 20
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, error = read_until_error(path)
    assert 4 < len(frames) < 16
    assert "of 3.8 s are there" in str(error)


def read_until_error(path: Path) -> tuple[list[Frame], UserError]:
    frames: list[Frame] = []
    with VideoReader(path) as reader, pytest.raises(UserError) as caught:
        frames.extend(reader)
    return frames, caught.value


def test_damage_in_the_middle_is_counted_and_the_rest_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(
        path, [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(10)], codec="ffv1", pixels="bgr0"
    )
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][4]
        content = bytes(packet)
    data = path.read_bytes()
    assert data.count(content) == 1
    spoilt = content[:100] + b"\xff" * (len(content) - 100)
    path.write_bytes(data.replace(content, spoilt))
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.lost + reader.damaged == 1
        assert len(frames) + reader.lost == 10


def test_a_change_of_size_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    """A raw H.264 stream may change its size at any key frame."""
    for name, size in [("a", (64, 96)), ("b", (96, 64))]:
        write_clip(tmp_path / f"{name}.h264", smooth(rng, 3, *size))
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with VideoReader(path) as reader, pytest.raises(UserError, match="changes its size at frame 4, from 96x64"):
        list(reader)


def test_a_playlist_in_the_place_of_a_video_fetches_nothing(tmp_path: Path) -> None:
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{server.server_port}/x.ts\n"
        for name in ("clip.mp4", "clip.m3u8"):
            (tmp_path / name).write_text(playlist + "#EXT-X-ENDLIST\n")
            with pytest.raises(UserError), VideoReader(tmp_path / name) as reader:
                list(reader)
        server.shutdown()
    assert asked == []


def test_pictures_beyond_all_reason_are_refused(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.mkv", smooth(rng, 2, 48, 64))
    monkeypatch.setattr("trocar.inference.video.MOST_PIXELS", 48 * 64 - 1)
    with pytest.raises(UserError, match="pictures are 64x48: more than"):
        VideoReader(tmp_path / "clip.mkv")


def test_a_picture_in_the_place_of_a_video_is_refused(tmp_path: Path) -> None:
    """FFmpeg would open it as a video of one frame, as it would a list of other files."""
    (tmp_path / "clip.mp4").write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    with pytest.raises(UserError, match="none of the known kinds"):
        VideoReader(tmp_path / "clip.mp4")


def test_a_colon_in_a_name_is_no_protocol(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mkv", smooth(rng, 2, 32, 32))
    (tmp_path / "plain.mkv").rename(tmp_path / "http:clip.mkv")
    assert len(read(Path("http:clip.mkv"))[0]) == 2


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize(("pixels", "kind"), [("grey", np.uint8), ("grey16", np.uint16)])
def test_grey_is_lossless_at_odd_sizes_and_keeps_times(
    tmp_path: Path, rng: np.random.Generator, pixels: str, kind: type
) -> None:
    frames = [rng.integers(0, np.iinfo(kind).max, (33, 47), dtype=kind, endpoint=True) for _ in range(6)]
    times = [Fraction(n * 3003, 90000) for n in (0, 1, 2, 5, 6, 7)]
    path = tmp_path / "new" / "mask.mkv"
    with VideoWriter(path, pixels, rate=Fraction(30000, 1001), time_base=Fraction(1, 90000)) as writer:  # type: ignore[arg-type]
        for frame, time in zip(frames, times, strict=True):
            writer.write(frame, time)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    assert all(frame.key_frame for frame in decoded)
    np.testing.assert_array_equal([frame.to_ndarray() for frame in decoded], frames)
    for frame, time in zip(decoded, times, strict=True):
        assert abs(frame.pts * frame.time_base - time) <= Fraction(1, 2000)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_colour_looks_like_what_was_written(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, codec: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("trocar.inference.video_writer.colour_codec", lambda: codec)
    frames = smooth(rng, 8, *size)
    times = [Fraction(n, 30) for n in (0, 1, 2, 3, 6, 7, 8, 9)]
    with VideoWriter(tmp_path / "look.mp4", "colour", rate=Fraction(30), time_base=Fraction(1, 90000)) as writer:
        assert writer.codec == codec
        for frame, time in zip(frames, times, strict=True):
            writer.write(frame, time)
    images, seconds = read(tmp_path / "look.mp4")
    assert images[0].shape == (64 + size[0] % 2 * 2, 96 + size[1] % 2 * 2, 3)
    for image, frame in zip(images, frames, strict=True):
        assert np.abs(image[: size[0], : size[1]].astype(int) - frame).mean() < 6
    for found, time in zip(seconds, times, strict=True):
        assert abs(found - time) <= Fraction(1, 1000)


def test_the_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    """PAL at 4:3: pixels are wider than high."""
    path = tmp_path / "a.mp4"
    options = {"rate": Fraction(25), "time_base": TICK, "pixel_aspect": Fraction(12, 11)}
    with VideoWriter(path, "colour", **options) as writer:  # type: ignore[arg-type]
        for index in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(index, 25))
    with VideoReader(path) as reader:
        list(reader)
        assert reader.pixel_aspect == Fraction(12, 11)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(12, 11)


def test_h264_is_there() -> None:
    assert colour_codec() == "libx264"


def test_an_error_leaves_a_playable_file_of_what_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    for name, pixels in [("a.mp4", "colour"), ("a.mkv", "grey")]:
        frames = smooth(rng, 5, 64, 96)
        writer = VideoWriter(tmp_path / name, pixels, rate=Fraction(25), time_base=TICK)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            write_until_stopped(writer, [frame if pixels == "colour" else frame[..., 0] for frame in frames])
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "a.mp4"]


def write_until_stopped(writer: VideoWriter, frames: Sequence[NDArray[np.uint8]]) -> None:
    with writer:
        for index, frame in enumerate(frames):
            writer.write(frame, Fraction(index, 25))
        raise KeyboardInterrupt


def test_no_frame_leaves_no_file_and_no_old_one_is_lost(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    for name in ("old.mp4", "new.mp4"):
        with VideoWriter(tmp_path / name, "colour", rate=Fraction(25), time_base=TICK):
            pass
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old.mp4", b"old")]


def test_a_file_of_which_nothing_can_be_played_is_not_left(tmp_path: Path) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = VideoWriter(tmp_path / "a.mkv", "grey", rate=Fraction(25), time_base=TICK)
    writer._stream = SimpleNamespace(encode=full, codec_context=writer._stream.codec_context)  # type: ignore[assignment]
    (tmp_path / f".a.{os.getpid()}.mkv").write_bytes(b"the beginning of a header")
    with pytest.raises(OSError, match="No space left"), writer:
        writer.frames = 1
    assert list(tmp_path.iterdir()) == []


WRITE_UNTIL_FULL = """
import resource, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from trocar.inference.video_writer import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
path, pixels = Path(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
written = 0
try:
    with VideoWriter(path, pixels, rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
        for written in range(400):
            shape = (64, 96, 3) if pixels == "colour" else (64, 96)
            writer.write(rng.integers(0, 256, shape, dtype=np.uint8), Fraction(written, 25))
except OSError as error:
    print(written, type(error).__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
@pytest.mark.parametrize(("name", "pixels"), [("a.mp4", "colour"), ("a.mkv", "grey")])
def test_a_full_disk_leaves_what_was_finished_before_playable(tmp_path: Path, name: str, pixels: str) -> None:
    """The system itself refuses to write more."""
    command = [sys.executable, "-c", WRITE_UNTIL_FULL, str(tmp_path / name), pixels]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    written = int(done.stdout.split()[0])
    assert 20 < written < 399
    with av.open(str(tmp_path / name)) as container:
        frames = 0
        with contextlib.suppress(av.FFmpegError):
            for _ in container.decode(video=0):
                frames += 1
    assert frames > written // 2 if name == "a.mkv" else frames > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_overlays_are_ordinary_mp4_once_finished(tmp_path: Path) -> None:
    """With one index at the end of the file: players that know no fragments can play and seek."""
    with VideoWriter(tmp_path / "a.mp4", "colour", rate=Fraction(25), time_base=TICK) as writer:
        for index in range(60):
            writer.write(np.full((48, 64, 3), index, np.uint8), Fraction(index, 25))
    data, boxes = (tmp_path / "a.mp4").read_bytes(), []
    while data:
        size, name = struct.unpack(">I4s", data[:8])
        boxes.append(name)
        data = data[size:]
    assert boxes == [b"ftyp", b"free", b"mdat", b"moov"]


def test_times_that_do_not_rise_are_moved_up(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mkv", "grey", rate=Fraction(25), time_base=TICK) as writer:
        for value, milliseconds in enumerate([0, 40, 40, 30, 200]):
            writer.write(np.full((4, 4), value, np.uint8), Fraction(milliseconds, 1000))
    images, seconds = read(tmp_path / "a.mkv")
    assert [int(image[0, 0, 0]) for image in images] == [0, 1, 2, 3, 4]
    assert [float(second) for second in seconds] == [0, 0.04, 0.041, 0.042, 0.2]
