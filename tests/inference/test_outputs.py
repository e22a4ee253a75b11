"""What `predict` writes besides masks and overlays, and of feeds."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import blobs, files_in, frames_of, save, save_clip
from feed_servers import Script, mpegts, numbered_frames, serving
from pycocotools import mask as coco
from test_sound import clip_with_sound, packets

from trocar.console.predict import show_predictions
from trocar.errors import UserError, UserErrors
from trocar.inference import outputs
from trocar.inference import predict as module
from trocar.inference.feeds import FeedOptions, RawFormat
from trocar.inference.outputs import Lines
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor
from trocar.inference.video_writer import VideoWriter

pytestmark = pytest.mark.timeout(60)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, decoding
def test_lines_hold_each_mask_as_coco_has_it(tmp_path: Path, rng: np.random.Generator, by_channel: Predictor) -> None:
    image = save(tmp_path / "a.png", blobs(rng, 40, 60))
    frames = save_clip(tmp_path / "clip.mkv", [blobs(rng, 33, 47) for _ in range(5)], [0, 40, 100, 120, 200])
    predict([tmp_path / "a.png", tmp_path / "clip.mkv"], by_channel, tmp_path / "out", lines=True, batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text().splitlines()]
    assert [(Path(line["file"]).name, line["frame"], line["seconds"]) for line in lines] == [
        ("a.png", 0, None),
        *[("clip.mkv", number, time) for number, time in enumerate([0, 0.04, 0.1, 0.12, 0.2])],
    ]
    for line, picture in zip(lines, [image, *frames], strict=True):
        expected = by_channel(picture)
        assert line["quality"] == pytest.approx(expected.quality, abs=1e-4)
        assert (line["height"], line["width"]) == expected.mask.shape
        found = np.zeros(expected.mask.shape, np.uint8)
        for thing in line["objects"]:
            region = coco.decode(thing["rle"]).astype(bool)
            assert thing["class"] == expected.classes[thing["index"]]
            assert thing["area"] == region.sum()
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            assert thing["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            found[region] = thing["index"]
        np.testing.assert_array_equal(found, expected.mask)
    elapsed = [line["elapsed_s"] for line in lines[1:]]
    assert elapsed == sorted(elapsed)
    predict([tmp_path / "a.png"], by_channel, tmp_path / "out")
    assert not (tmp_path / "out/frames.jsonl").exists(), "lines of an earlier prediction would lie beside new masks"


def test_masks_of_a_video_as_pngs(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    frames = save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(3)])
    summary = predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", video_masks="png", overlays=False)
    names = [f"masks/clip/{number:06d}.png" for number in range(3)]
    assert files_in(tmp_path / "out") == [*names, "predictions.json"]
    for name, frame in zip(names, frames, strict=True):
        found = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, by_brightness(frame).mask * 255)
    assert summary.predictions[0].mask == "masks/clip"


def test_raw_masks_and_no_files(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    image = save(tmp_path / "a.png", blobs(rng, 40, 60))
    frames = save_clip(tmp_path / "clip.mkv", [blobs(rng, 33, 47) for _ in range(3)])
    raw, out = io.BytesIO(), tmp_path / "out"
    predict([tmp_path / "a.png", tmp_path / "clip.mkv"], by_brightness, out, raw=raw, masks=False, overlays=False)
    expected = b"".join((by_brightness(picture).mask * 255).tobytes() for picture in (image, *frames))
    assert raw.getvalue() == expected
    assert files_in(out) == ["predictions.json"]


def test_a_reader_of_raw_masks_that_goes_away_is_no_hang(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 480, 640)] * 30)
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.read(reading, 1000), os.close(reading))).start()
    with os.fdopen(writing, "wb", buffering=0) as raw, pytest.raises(UserError, match="whoever read the raw masks"):
        predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", raw=raw)
    assert not (tmp_path / "out").exists(), "not one mask has arrived"


def test_the_overlay_has_the_sound_and_the_shape_of_pixels_of_the_video(
    tmp_path: Path, by_brightness: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_with_sound(tmp_path / "a.mkv")
    clip_with_sound(tmp_path / "b.mkv", codec="pcm_u8")
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(12, 11)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    summary = predict([tmp_path / name for name in ("a.mkv", "b.mkv", "wide.mp4")], by_brightness, tmp_path / "out")
    assert [one.sound for one in summary.predictions] == ["copied", "left out: MP4 cannot hold pcm_u8", None]
    assert [data for data, _ in packets(tmp_path / "out/overlays/a.mp4")] == [
        data for data, _ in packets(tmp_path / "a.mkv")
    ]
    with av.open(str(tmp_path / "out/overlays/wide.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(12, 11)
    assert summary.predictions[2].pixel_aspect == pytest.approx(12 / 11)
    show_predictions(summary, tmp_path / "out")
    assert "b.mkv: sound left out: MP4 cannot hold pcm_u8" in capsys.readouterr().out


# ------------------------------------------------------------------ feeds


def masks_of(path: Path) -> list[Any]:
    return [frame.to_ndarray() for frame in frames_of(path)]


def test_a_folder_and_a_pattern_as_one_video(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    images = [save(tmp_path / f"op/f_{number}.png", blobs(rng, 40, 60)) for number in (8, 9, 10)]
    expected = [by_brightness(image).mask * 255 for image in images]
    feeds = FeedOptions(rate=Fraction(10))
    summary = predict([tmp_path / "op"], by_brightness, tmp_path / "a", as_video=True, feeds=feeds)
    np.testing.assert_array_equal(masks_of(tmp_path / "a/masks/op.mkv"), expected)
    assert [float(frame.pts * frame.time_base) for frame in frames_of(tmp_path / "a/masks/op.mkv")] == [0, 0.1, 0.2]
    assert (summary.predictions[0].kind, summary.predictions[0].frames) == ("video", 3)
    predict([str(tmp_path / "op/f_%d.png")], by_brightness, tmp_path / "b")
    np.testing.assert_array_equal(masks_of(tmp_path / "b/masks/f.mkv"), expected)
    predict([tmp_path / "op"], by_brightness, tmp_path / "c")
    assert files_in(tmp_path / "c/masks") == ["f_10.png", "f_8.png", "f_9.png"], "without --as-video: images"


def test_two_feeds_of_equal_name_do_not_overwrite_each_other(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    for folder in ("x/op", "y/op"):
        save(tmp_path / folder / "1.png", blobs(rng, 40, 60))
    predict([tmp_path / "x/op", tmp_path / "y/op"], by_brightness, tmp_path / "out", as_video=True)
    assert files_in(tmp_path / "out/masks") == ["x/op.mkv", "y/op.mkv"]


def test_raw_frames_from_stdin(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [blobs(rng, 40, 60) for _ in range(3)]
    pipe = io.TextIOWrapper(io.BytesIO(b"".join(frame.tobytes() for frame in frames) + b"half"))
    monkeypatch.setattr(sys, "stdin", pipe)
    with pytest.raises(UserErrors, match="end inside a frame"):
        predict(["-"], by_brightness, tmp_path / "out", feeds=FeedOptions(raw=RawFormat((60, 40))))
    np.testing.assert_array_equal(
        masks_of(tmp_path / "out/masks/stdin.mkv"), [by_brightness(frame).mask * 255 for frame in frames]
    )


def test_a_stream_from_a_server_and_no_secret_of_its_url(tmp_path: Path, by_brightness: Predictor) -> None:
    data = mpegts(numbered_frames(20))
    with serving(Script([data], length=len(data))) as url:
        secret = url.replace("http://", "http://user:secret@") + "?token=secret"
        seen: list[tuple[int, int]] = []
        summary = predict(
            [secret], by_brightness, tmp_path / "out", progress=lambda done, total: seen.append((done, total))
        )
    port = url.split(":")[2].split("/")[0]
    assert files_in(tmp_path / "out/masks") == [f"127-0-0-1-{port}-feed.mkv"]
    assert summary.predictions[0].frames == 20
    assert seen[-1] == (20, 20)
    assert "secret" not in (tmp_path / "out/predictions.json").read_text()


def test_a_feed_that_fails_is_listed_and_the_rest_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    inputs = [str(tmp_path / "none_%d.png"), "http://127.0.0.1:9/x", tmp_path / "a.png"]
    with pytest.raises(UserErrors) as caught:
        predict(inputs, by_brightness, tmp_path / "out", feeds=FeedOptions(timeout_s=2))
    assert len(caught.value.errors) == 2
    assert files_in(tmp_path / "out/masks") == ["a.png"]


def test_raw_frames_without_a_size_are_refused_before_anything_is_written(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    with pytest.raises(UserError, match="raw frames on stdin have no header"):
        predict([tmp_path / "a.png", "-"], by_brightness, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ window


def test_a_window_shows_overlays_until_it_is_closed(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(9)])
    shown: list[Any] = []

    class Fake:
        def __init__(self, title: str) -> None:
            assert "trocar" in title

        def show(self, look: np.ndarray) -> None:
            shown.append(look.shape)

        def closed(self) -> bool:
            return len(shown) == 4

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            shown.append("closed")

    monkeypatch.setattr(module, "Window", Fake)
    with pytest.raises(KeyboardInterrupt, match="window was closed"):
        predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", window=True, overlays=False)
    assert shown == [(40, 60, 3)] * 4 + ["closed"]
    assert len(frames_of(tmp_path / "out/masks/clip.mkv")) == 4
    assert outputs.Wanted(window=True).files("x", ("a", "b"), video=True).mask == "masks/x.mkv"


# ------------------------------------------------------------------ Ctrl-C

OUTPUTS: dict[str, tuple[Any, int]] = {"masks": (VideoWriter, 0), "overlay": (VideoWriter, 1), "lines": (Lines, 0)}


@pytest.mark.parametrize("where", list(OUTPUTS))
def test_ctrl_c_inside_a_frame_finishes_it_in_all_outputs(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(9)])
    kind, which = OUTPUTS[where]
    write, writers = kind.write, []

    def stopped(self: Any, *what: Any) -> None:
        write(self, *what)
        writers.append(self)
        if self in writers[which : which + 1] and writers.count(self) == 3:  # after the third frame
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(kind, "write", stopped)
    raw, out = io.BytesIO(), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match="what is done is closed"):
        predict([tmp_path / "clip.mkv"], by_brightness, out, lines=True, raw=raw)
    (entry,) = json.loads((out / "predictions.json").read_text())["predictions"]
    assert (entry["frames"], len(entry["frame_quality"])) == (3, 3)
    assert len(frames_of(out / "masks/clip.mkv")) == len(frames_of(out / "overlays/clip.mp4")) == 3
    assert (out / "frames.jsonl").read_text().count("\n") == 3
    assert len(raw.getvalue()) == 3 * 40 * 60


@pytest.mark.parametrize("where", ["closing", "summary"])
def test_ctrl_c_while_files_are_finished_costs_no_frame(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(9)])

    def stopped() -> None:  # before the encoder gives what it holds, or before anything is written
        signal.raise_signal(signal.SIGINT)
        monkeypatch.undo()

    if where == "closing":
        close = VideoWriter.close
        monkeypatch.setattr(VideoWriter, "close", lambda self, **how: (stopped(), close(self, **how)))
    else:
        write = module._Job._write_summary
        monkeypatch.setattr(
            module._Job,
            "_write_summary",
            lambda self, complete: (complete and stopped(), write(self, complete=complete)),
        )
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict([tmp_path / "clip.mkv"], by_brightness, out)
    (entry,) = json.loads((out / "predictions.json").read_text())["predictions"]
    assert entry["frames"] == len(frames_of(out / "masks/clip.mkv")) == len(frames_of(out / "overlays/clip.mp4")) == 9


def test_ctrl_c_inside_an_image_finishes_and_lists_it(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", blobs(rng, 40, 60))
    write_png = outputs.write_png

    def stopped(*what: Any) -> None:
        write_png(*what)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(outputs, "write_png", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict([tmp_path / "a.png", tmp_path / "b.png"], by_brightness, tmp_path / "out", lines=True)
    assert files_in(tmp_path / "out") == ["frames.jsonl", "masks/a.png", "overlays/a.jpg", "predictions.json"]
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]
    assert Path(entry["file"]).name == "a.png"


PREDICT_SLOWLY = """
import sys, time
sys.path.insert(0, sys.argv[3])
from tiny import brightness, tiny_card
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor

def slowly(frames):
    time.sleep(0.02)
    return brightness(frames)

try:
    predict([sys.argv[1]], Predictor(slowly, tiny_card()), sys.argv[2], lines=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to another process there")
def test_a_real_ctrl_c_finishes_the_files(tmp_path: Path) -> None:
    """The signal comes while threads read, predict and encode."""
    clip_with_sound(tmp_path / "clip.mkv", seconds=40)
    lines = tmp_path / "out/frames.jsonl"
    command = [sys.executable, "-c", PREDICT_SLOWLY, str(tmp_path / "clip.mkv"), str(tmp_path / "out")]
    process = subprocess.Popen([*command, str(Path(__file__).parents[1])])
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and not (lines.exists() and lines.read_text().count("\n") > 30):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]
    assert 30 < entry["frames"] < 1000
    assert not entry["complete"]
    for output in ("masks/clip.mkv", "overlays/clip.mp4"):
        assert len(frames_of(tmp_path / "out" / output)) == entry["frames"]
    assert lines.read_text().count("\n") == entry["frames"]
    sound = packets(tmp_path / "out/overlays/clip.mp4")
    assert float(sound[-1][1]) == pytest.approx(entry["frames"] / 25, abs=0.2), "cut where the pictures end"
    assert not list((tmp_path / "out").rglob(".*")), "no scratch files stay"
