"""Videos as they come: broken, odd, huge, of other depths; through `predict` as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from clips import blobs, frames_of, save_clip

from trocar.errors import UserErrors
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor
from trocar.inference.video import VideoReader, clock_of

pytestmark = pytest.mark.timeout(120)


def write(path: Path, frames: list[Any], codec: str, pixels: str, **settings: Any) -> None:
    """8 or 16 bit RGB frames, by PyAV alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=settings.pop("options", {}))
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.dtype == np.uint8 else "rgb48le")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, b"RIFF\x00\x00\x00\x00AVI LIST"])
def test_what_is_empty_is_listed_and_the_rest_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, content: bytes
) -> None:
    (tmp_path / "bad.avi").write_bytes(content)
    save_clip(tmp_path / "good.mkv", [blobs(rng, 40, 60)] * 2)
    with pytest.raises(UserErrors, match=r"bad\.avi"):
        predict([tmp_path], by_brightness, tmp_path / "out")
    assert len(frames_of(tmp_path / "out/masks/good.mkv")) == 2


@pytest.mark.parametrize("matrix", [8, 10, 14])  # YCgCo, BT.2020 of constant luminance, ICtCp
def test_colours_that_cannot_be_made_rgb_are_named_and_the_rest_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, matrix: int
) -> None:
    write(tmp_path / "bad.mkv", [blobs(rng, 40, 60)] * 2, "ffv1", "yuv420p", colorspace=matrix)
    save_clip(tmp_path / "good.mkv", [blobs(rng, 40, 60)] * 2)
    with pytest.raises(UserErrors, match="cannot be made RGB") as caught:
        predict([tmp_path], by_brightness, tmp_path / "out")
    assert "bad.mkv" in str(caught.value)
    assert len(frames_of(tmp_path / "out/masks/good.mkv")) == 2


def test_one_frame_is_a_video(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    (frame,) = save_clip(tmp_path / "one.mkv", [blobs(rng, 40, 60)])
    summary = predict([tmp_path / "one.mkv"], by_brightness, tmp_path / "out")
    (mask,) = frames_of(tmp_path / "out/masks/one.mkv")
    np.testing.assert_array_equal(mask.to_ndarray(), by_brightness(frame).mask * 255)
    assert len(frames_of(tmp_path / "out/overlays/one.mp4")) == 1
    assert summary.predictions[0].frames == 1


def test_ten_bits_look_like_eight(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    frames = [blobs(rng, 48, 64) for _ in range(3)]
    deep = [frame.astype(np.uint16) * 257 for frame in frames]
    write(tmp_path / "deep.mkv", deep, "ffv1", "yuv444p10le")
    with VideoReader(tmp_path / "deep.mkv") as reader:
        for found, frame in zip(reader, frames, strict=True):
            assert found.image.dtype == np.uint8
            np.testing.assert_allclose(found.image.astype(int), frame.astype(int), atol=3)
    predict([tmp_path / "deep.mkv"], by_brightness, tmp_path / "out")
    assert len(frames_of(tmp_path / "out/overlays/deep.mp4")) == 3


def test_interlaced_frames_are_read_whole(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    """Both fields stay woven into one frame: a frame in, a frame out, at its time."""
    options = {"flags": "+ilme+ildct"}
    write(tmp_path / "laced.mpg", [blobs(rng, 64, 96) for _ in range(6)], "mpeg2video", "yuv420p", options=options)
    assert any(frame.interlaced_frame for frame in frames_of(tmp_path / "laced.mpg"))
    summary = predict([tmp_path / "laced.mpg"], by_brightness, tmp_path / "out")
    entry = summary.predictions[0]
    assert (entry.frames, entry.lost_frames, entry.damaged_frames, entry.height) == (6, 0, 0, 64)
    assert len(frames_of(tmp_path / "out/masks/laced.mkv")) == 6


PREDICT_8K = """
import resource, sys
sys.path.insert(0, sys.argv[3])
from tiny import brightness, tiny_card
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor
summary = predict([sys.argv[1]], Predictor(brightness, tiny_card()), sys.argv[2])
one = summary.predictions[0]
print(one.frames, one.width, one.height, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in other units elsewhere")
def test_8k_is_predicted_in_bounded_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    """A frame is 100 MB as RGB and its probabilities 133 MB; x264 keeps a dozen frames too."""
    path = tmp_path / "8k.mkv"
    write(path, [blobs(rng, 4320, 7680)] * 6, "mjpeg", "yuvj420p")
    command = [sys.executable, "-c", PREDICT_8K, str(path), str(tmp_path / "out"), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    frames, width, height, mib = map(int, done.stdout.split())
    assert (frames, width, height) == (6, 7680, 4320)
    assert mib < 3500
    assert len(frames_of(tmp_path / "out/masks/8k.mkv")) == 6


def test_a_change_of_size_keeps_what_came_before(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    for name, size in [("a", (64, 96)), ("b", (96, 64))]:
        write(tmp_path / f"{name}.h264", [blobs(rng, *size) for _ in range(3)], "libx264", "yuv420p")
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    with pytest.raises(UserErrors, match="changes its size at frame 4"):
        predict([path], by_brightness, tmp_path / "out")
    for output in ("masks/both.mkv", "overlays/both.mp4"):
        assert len(frames_of(tmp_path / "out" / output)) == 3
    entry = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"][0]
    assert (entry["frames"], entry["complete"]) == (3, False)


FILL_THE_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[3])
from tiny import brightness, tiny_card
from trocar.errors import UserError
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    predict([sys.argv[1]], Predictor(brightness, tiny_card()), sys.argv[2])
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
def test_a_disk_that_is_full_in_the_middle_keeps_what_was_finished(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "clip.mkv"
    write(path, [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(200)], "ffv1", "bgr0")
    command = [sys.executable, "-c", FILL_THE_DISK, str(path), str(tmp_path / "out"), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "cannot write the predictions: File too large" in done.stdout, done.stdout + done.stderr
    assert "mend:" in done.stdout
    entry = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"][0]
    assert 20 < entry["frames"] < 200
    assert not entry["complete"]
    for output in ("masks/clip.mkv", "overlays/clip.mp4"):
        with VideoReader(tmp_path / "out" / output) as reader:
            assert sum(1 for _ in _until_broken(reader)) > 10
    assert not list((tmp_path / "out").rglob(".*")), "no scratch files stay"


def _until_broken(reader: VideoReader) -> Any:
    from trocar.errors import UserError

    try:
        yield from reader
    except UserError:
        return


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (Fraction(5, 1_671_168), Fraction(25)),  # a frame in four days: x264 and MP4 end in an error
        (Fraction(10**9), Fraction(25)),
        (None, Fraction(25)),
        (Fraction(1, 600), Fraction(1, 600)),  # a time lapse
        (Fraction(30_000, 1001), Fraction(30_000, 1001)),
    ],
)
def test_a_rate_that_cannot_be_meant_is_not_taken(said: Fraction | None, taken: Fraction) -> None:
    stream = SimpleNamespace(average_rate=said, guessed_rate=None, time_base=Fraction(1, 12_800))
    assert clock_of(stream) == (taken, Fraction(1, 12_800))  # type: ignore[arg-type]
