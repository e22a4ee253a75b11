from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import Pixels, blobs, files_in, frames_of, save, save_clip
from numpy.typing import NDArray

from trocar.console.predict import show_predictions
from trocar.errors import UserError, UserErrors
from trocar.inference import outputs
from trocar.inference.predict import predict
from trocar.inference.predictor import Prediction, Predictor
from trocar.inference.smoothing import Smoother, SmoothSettings
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter
from trocar.model_folder import ModelCard, QualityLimit


def load(path: Path) -> NDArray[Any]:
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored is not None, path
    return stored


def told(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "predictions.json").read_text())
    return summary


# ------------------------------------------------------------------ images


def test_a_folder_of_images(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    images = {name: save(data / f"{name}.png", blobs(rng, 51, 77 + len(name))) for name in ("a", "op1/b", "op2/b")}
    summary = predict([data], by_brightness, out, batch_size=2)
    assert files_in(out) == sorted(
        ["predictions.json"] + [f"masks/{name}.png" for name in images] + [f"overlays/{name}.jpg" for name in images]
    )
    for name, image in images.items():
        mask, look = load(out / "masks" / f"{name}.png"), load(out / "overlays" / f"{name}.jpg")
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, by_brightness(image).mask * 255)
        assert 0 < np.count_nonzero(mask) < mask.size
        assert look.shape == image.shape
    assert told(out) == json.loads(summary.model_dump_json())
    assert summary.complete
    assert [entry.file for entry in summary.predictions] == [str(data / f"{name}.png") for name in images]
    first = summary.predictions[0]
    assert (first.kind, first.mask, first.overlay) == ("image", "masks/a.png", "overlays/a.jpg")
    assert (first.width, first.height, first.frames) == (78, 51, 1)
    share = np.mean(load(out / first.mask) > 0)
    assert first.share == pytest.approx({"background": 1 - share, "instrument": share})
    assert summary.classes == ("background", "instrument")
    assert summary.threshold == 0.5
    assert set(summary.versions) == {"trocar", "numpy", "opencv"}, "no library runs a function, no video was there"


def test_several_classes_and_their_probabilities(
    tmp_path: Path, rng: np.random.Generator, by_channel: Predictor
) -> None:
    image = save(tmp_path / "x.png", blobs(rng, 60, 90))
    out = tmp_path / "out"
    predict([tmp_path / "x.png"], by_channel, out, probabilities=True, overlays=False)
    assert files_in(out) == [
        "classes.json",
        "masks/x.png",
        "predictions.json",
        "probabilities/x/0-background.png",
        "probabilities/x/1-shaft.png",
        "probabilities/x/2-tip.png",
    ]
    found = by_channel(image)
    assert json.loads((out / "classes.json").read_text()) == {"background": 0, "shaft": 1, "tip": 2}
    np.testing.assert_array_equal(load(out / "masks/x.png"), found.mask)
    assert set(np.unique(found.mask)) == {0, 1, 2}
    for index, name in enumerate(("0-background", "1-shaft", "2-tip")):
        plane = load(out / "probabilities/x" / f"{name}.png")
        assert plane.dtype == np.uint16
        np.testing.assert_allclose(plane / 65535, found.probabilities[index], atol=0.5 / 65535 + 1e-7)
    assert told(out)["predictions"][0]["overlay"] is None


def test_probabilities_of_two_classes_are_one_file(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    image = save(tmp_path / "x.png", blobs(rng, 60, 90))
    predict([tmp_path / "x.png"], by_brightness, tmp_path / "out", probabilities=True)
    plane = load(tmp_path / "out/probabilities/x.png")
    np.testing.assert_allclose(plane / 65535, by_brightness(image).probabilities[0], atol=1 / 65535)


def test_equal_stems_do_not_overwrite_each_other(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    images = {name: save(tmp_path / f"{name}", blobs(rng, 40, 60)) for name in ("a/x.png", "b/x.png", "b/x.bmp")}
    summary = predict([tmp_path / name for name in images], by_brightness, tmp_path / "out")
    assert len(files_in(tmp_path / "out" / "masks")) == 3
    for entry, image in zip(summary.predictions, images.values(), strict=True):
        np.testing.assert_array_equal(load(tmp_path / "out" / entry.mask), by_brightness(image).mask * 255)


def test_a_second_run_does_not_predict_the_first_ones_outputs(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "x.png", blobs(rng, 40, 60))
    for _ in range(2):
        summary = predict([tmp_path], by_brightness, tmp_path / "out")
        assert len(summary.predictions) == 1


def test_a_folder_of_labels_is_never_overwritten(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "images/x.png", blobs(rng, 40, 60))
    label = save(tmp_path / "masks/x.png", blobs(rng, 40, 60))
    with pytest.raises(UserError, match="already holds masks"):
        predict([tmp_path / "images"], by_brightness, tmp_path)
    np.testing.assert_array_equal(cv2.cvtColor(load(tmp_path / "masks/x.png"), cv2.COLOR_BGR2RGB), label)


def test_the_classes_of_an_earlier_prediction_do_not_stay(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, by_channel: Predictor
) -> None:
    save(tmp_path / "x.png", blobs(rng, 40, 60))
    predict([tmp_path / "x.png"], by_channel, tmp_path / "out")
    assert (tmp_path / "out/classes.json").exists()
    predict([tmp_path / "x.png"], by_brightness, tmp_path / "out")
    assert not (tmp_path / "out/classes.json").exists()


def test_a_model_folder_and_a_threshold(tmp_path: Path, rng: np.random.Generator, tiny_model: Path) -> None:
    save(tmp_path / "x.png", blobs(rng, 40, 60))
    summary = predict([tmp_path / "x.png"], tiny_model, tmp_path / "out", device="cpu", threshold=0.0)
    assert summary.threshold == 0.0
    assert summary.versions["torch"].startswith(version("torch"))  # +cpu or +cu130 may follow
    assert "openvino" not in summary.versions
    assert summary.weights
    assert summary.weights.startswith("sha256:")
    assert (load(tmp_path / "out/masks/x.png") == 255).all(), "every probability is at least 0"


# ------------------------------------------------------------------ bad input


def test_inputs_that_cannot_be_read_are_listed_and_the_rest_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("a", "c", "e"):
        save(data / f"{name}.png", blobs(rng, 40, 60))
    (data / "b.png").write_text("not an image")
    (data / "d.jpg").write_bytes(cv2.imencode(".jpg", blobs(rng, 40, 60))[1].tobytes()[:-200])
    (data / "f.mp4").write_bytes(b"")
    with pytest.raises(UserErrors) as caught:
        predict([data, tmp_path / "missing.png"], by_brightness, out, batch_size=2)
    text = str(caught.value)
    for name in ("missing.png", "b.png", "d.jpg", "f.mp4"):
        assert name in text
    assert len(caught.value.errors) == 4
    assert files_in(out / "masks") == ["a.png", "c.png", "e.png"]
    summary = told(out)
    assert len(summary["failed"]) == 4
    assert [Path(entry["file"]).name for entry in summary["predictions"]] == ["a.png", "c.png", "e.png"]
    assert summary["complete"]


def test_nothing_to_predict_is_an_error_and_makes_no_folder(tmp_path: Path, by_brightness: Predictor) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image or video in"):
        predict([tmp_path / "empty"], by_brightness, tmp_path / "out")
    with pytest.raises(UserError, match="nothing to predict"):
        predict([], by_brightness, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_nothing_was_predicted_the_folder_is_left_as_it_was(
    tmp_path: Path, rng: np.random.Generator, by_channel: Predictor, by_brightness: Predictor
) -> None:
    (tmp_path / "b.png").write_text("not an image")
    (tmp_path / "c.mp4").write_bytes(b"not a video")
    bad, out = [tmp_path / "b.png", tmp_path / "c.mp4"], tmp_path / "out"
    with pytest.raises(UserErrors):
        predict(bad, by_brightness, out, lines=True)
    assert not out.exists()
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    predict([tmp_path / "a.png"], by_channel, out, lines=True)
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    assert {"classes.json", "frames.jsonl", "predictions.json"} < before.keys()
    with pytest.raises(UserErrors):
        predict(bad, by_brightness, out)
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before


@pytest.mark.parametrize("kind", ["a.png", "clip.mkv"])
def test_a_stop_before_anything_was_predicted_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60)] * 3)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(by_brightness, "predict_batch", stop)
    with pytest.raises(KeyboardInterrupt, match="nothing was done yet"):
        predict([tmp_path / kind], by_brightness, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_stop_while_the_frames_are_counted_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    """Many videos far away take a while to be counted."""
    save(tmp_path / "a.png", blobs(rng, 40, 60))

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="nothing was done yet"):
        predict([tmp_path / "a.png"], by_brightness, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to_is_named_at_once(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "x.png", blobs(rng, 40, 60))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write") as caught:
        predict([tmp_path / "x.png"], by_brightness, tmp_path / "file" / "out")
    assert "file/out" in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_no_write_permission_is_named(tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor) -> None:
    save(tmp_path / "x.png", blobs(rng, 40, 60))
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write"):
        predict([tmp_path / "x.png"], by_brightness, tmp_path / "out")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_full_disk_stops_at_once_and_keeps_what_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    save(tmp_path / "b.png", blobs(rng, 40, 60))
    save_clip(tmp_path / "c.mkv", [blobs(rng, 40, 60)] * 3)
    full = OSError(28, "No space left on device")
    if kind == "image":
        write = outputs.write_png

        def write_png(path: Path, array: Pixels) -> None:
            if path.name == "b.png":
                raise full
            write(path, array)

        monkeypatch.setattr(outputs, "write_png", write_png)
    else:
        monkeypatch.setattr(VideoWriter, "write", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(UserError, match="No space left") as caught:
        predict([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.mkv"], by_brightness, tmp_path / "out")
    assert caught.value.mend
    summary = told(tmp_path / "out")
    assert not summary["complete"]
    assert len(summary["predictions"]) == (1 if kind == "image" else 2)


# ------------------------------------------------------------------ instances, clean-up, tiles


def two_discs(height: int, width: int) -> Pixels:
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, (20, 20), 12, (255, 255, 255), -1)
    cv2.circle(image, (60, 30), 8, (255, 255, 255), -1)
    image[40, 5:7] = 255  # a speck
    return image


def test_instances_are_numbered_and_listed(tmp_path: Path, by_brightness: Predictor) -> None:
    image = save(tmp_path / "x.png", two_discs(64, 96))
    out = tmp_path / "out"
    predict([tmp_path / "x.png"], by_brightness, out, overlays=False, instances=True)
    assert files_in(out) == ["instances/x.png", "masks/x.png", "predictions.json"]
    ids, mask, entry = load(out / "instances/x.png"), by_brightness(image).mask, told(out)["predictions"][0]
    np.testing.assert_array_equal(ids > 0, mask > 0)
    assert entry["instance_ids"] == "instances/x.png"
    assert [one["id"] for one in entry["instances"]] == [1, 2, 3]
    for one, centre in zip(entry["instances"], [(20, 20), (30, 60), (40, 5)], strict=True):
        assert ids[centre] == one["id"]
        assert one["area"] == np.count_nonzero(ids == one["id"])
        left, top, width, height = one["box"]
        assert (left, top, width, height) == cv2.boundingRect((ids == one["id"]).astype(np.uint8))
        assert one["class_name"] == "instrument"
    predict([tmp_path / "x.png"], by_brightness, tmp_path / "plain")
    assert told(tmp_path / "plain")["predictions"][0]["instances"] is None


def test_instances_of_a_video_are_of_each_frame(tmp_path: Path, by_brightness: Predictor) -> None:
    frames = save_clip(tmp_path / "clip.mkv", [two_discs(64, 96), np.zeros((64, 96, 3), np.uint8)])
    predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", instances=True)
    first, second = frames_of(tmp_path / "out/instances/clip.mkv")
    assert first.format.name == "gray16le"
    np.testing.assert_array_equal(first.to_ndarray() > 0, by_brightness(frames[0]).mask > 0)
    assert first.to_ndarray().max() == 3
    assert not second.to_ndarray().any()
    assert told(tmp_path / "out")["predictions"][0]["instances"] is None


def test_tiles_and_clean_up_reach_the_model_and_are_told(
    tmp_path: Path, tiny_model: Path, rng: np.random.Generator
) -> None:
    image = save(tmp_path / "x.png", blobs(rng, 150, 220))
    how: dict[str, Any] = {"threshold": 0.5, "tiles": 0.9, "min_area": ["2%"], "fill_holes": ["instrument=300"]}
    predict([tmp_path / "x.png"], tiny_model, tmp_path / "out", device="cpu", **how)
    expected = Predictor.open(tiny_model, "cpu", **how)(image)
    np.testing.assert_array_equal(load(tmp_path / "out/masks/x.png"), expected.mask * 255)
    summary = told(tmp_path / "out")
    assert summary["tiles"] == 0.9
    assert summary["cleanup"] == "pieces of instrument under 2% dropped, holes in instrument of up to 300 px filled"
    plain = Predictor.open(tiny_model, "cpu")(image)
    assert np.abs(plain.probabilities - expected.probabilities).max() > 1e-3


def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path: Path, tiny_model: Path) -> None:
    save(tmp_path / "x.png", two_discs(64, 96))
    for how in ({"tiles": -1.0}, {"min_area": ["tip=3"]}, {"fill_holes": ["much"]}):
        with pytest.raises(UserError):
            predict([tmp_path / "x.png"], tiny_model, tmp_path / "out", device="cpu", **how)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ videos


@pytest.mark.parametrize("size", [(48, 64), (51, 77)])
def test_a_video_gives_the_masks_of_its_frames_at_their_times(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, size: tuple[int, int]
) -> None:
    times = [100, 140, 180, 260, 300, 340, 380, 500, 540, 580]
    frames = save_clip(tmp_path / "clip.mkv", [blobs(rng, *size) for _ in times], times)
    out = tmp_path / "out"
    summary = predict([tmp_path / "clip.mkv"], by_brightness, out, batch_size=3, probabilities=True)
    assert files_in(out) == ["masks/clip.mkv", "overlays/clip.mp4", "predictions.json", "probabilities/clip.mkv"]
    expected = by_brightness.predict_batch(frames)
    masks, looks = frames_of(out / "masks/clip.mkv"), frames_of(out / "overlays/clip.mp4")
    chances = frames_of(out / "probabilities/clip.mkv")
    assert masks[0].format.name == "gray"
    np.testing.assert_array_equal(
        [mask.to_ndarray() for mask in masks], [prediction.mask * 255 for prediction in expected]
    )
    for plane, prediction in zip(chances, expected, strict=True):
        np.testing.assert_allclose(plane.to_ndarray() / 65535, prediction.probabilities[0], atol=1 / 65535)
    for found in (masks, looks, chances):
        assert [round(1000 * float(frame.pts * frame.time_base)) for frame in found] == times
    assert (looks[0].height, looks[0].width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    entry = summary.predictions[0]
    assert (entry.kind, entry.frames, entry.complete) == ("video", 10, True)
    assert summary.versions["av"] == version("av")
    assert (entry.width, entry.height) == (size[1], size[0])
    assert (entry.lost_frames, entry.damaged_frames, entry.overlay_codec) == (0, 0, "libx264")
    share = np.mean([prediction.mask for prediction in expected])
    assert entry.share["instrument"] == pytest.approx(share)


def test_a_video_of_several_classes(tmp_path: Path, rng: np.random.Generator, by_channel: Predictor) -> None:
    frames = save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(3)])
    predict([tmp_path / "clip.mkv"], by_channel, tmp_path / "out", probabilities=True)
    masks = [frame.to_ndarray() for frame in frames_of(tmp_path / "out/masks/clip.mkv")]
    np.testing.assert_array_equal(masks, [by_channel(frame).mask for frame in frames])
    assert files_in(tmp_path / "out/probabilities/clip") == ["0-background.mkv", "1-shaft.mkv", "2-tip.mkv"]


def test_the_overlay_shows_the_frame_it_belongs_to(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    """Dark frames have no mask: their overlay is the frame itself, brighter from one to the next."""
    save_clip(tmp_path / "clip.mkv", [np.full((40, 60, 3), 10 * index, np.uint8) for index in range(12)])
    predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out")
    looks = [frame.to_ndarray(format="rgb24").mean() for frame in frames_of(tmp_path / "out/overlays/clip.mp4")]
    np.testing.assert_allclose(looks, [10 * index for index in range(12)], atol=4)


def test_a_video_that_is_cut_off_keeps_every_frame_before_the_cut(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    noisy = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(10)]
    path = tmp_path / "clip.avi"
    save_clip(path, noisy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(UserErrors, match="ends inside a frame"):
        predict([path], by_brightness, tmp_path / "out", batch_size=4)
    entry = told(tmp_path / "out")["predictions"][0]
    assert not entry["complete"]
    assert entry["lost_frames"] == 1
    assert 5 <= entry["frames"] < 9
    masks = [frame.to_ndarray() for frame in frames_of(tmp_path / "out/masks/clip.mkv")]
    expected = [prediction.mask * 255 for prediction in by_brightness.predict_batch(noisy[: entry["frames"]])]
    np.testing.assert_array_equal(masks, expected)
    assert len(frames_of(tmp_path / "out/overlays/clip.mp4")) == entry["frames"]


def test_ctrl_c_leaves_playable_files_and_a_list_of_what_is_done(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60) for _ in range(12)])
    original = by_brightness.predict_batch
    calls: list[int] = []

    def stopping(images: Sequence[Pixels], **options: Any) -> list[Prediction]:
        calls.append(len(images))
        if len(calls) == 4:  # one of images, two of frames
            raise KeyboardInterrupt
        return original(images, **options)

    monkeypatch.setattr(by_brightness, "predict_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict([tmp_path / "a.png", tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", batch_size=3)
    out = tmp_path / "out"
    assert len(frames_of(out / "masks/clip.mkv")) == 6
    assert len(frames_of(out / "overlays/clip.mp4")) == 6
    summary = told(out)
    assert not summary["complete"]
    assert [(entry["kind"], entry["frames"], entry["complete"]) for entry in summary["predictions"]] == [
        ("image", 1, True),
        ("video", 6, False),
    ]
    assert files_in(out) == [
        "masks/a.png",
        "masks/clip.mkv",
        "overlays/a.jpg",
        "overlays/clip.mp4",
        "predictions.json",
    ], "no scratch files stay"


def test_memory_stays_bounded_on_a_long_video(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames decoded but not yet predicted: two batches ahead of two that are predicted, and one with the writer."""
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 16, 16)] * 100)
    ahead, most = 0, 0
    read, original = VideoReader.__iter__, by_brightness.predict_batch

    def counting(self: VideoReader) -> Iterator[Any]:
        nonlocal ahead, most
        for frame in read(self):
            ahead += 1
            most = max(most, ahead)
            yield frame

    def predicting(images: Sequence[Pixels], **options: Any) -> list[Prediction]:
        nonlocal ahead
        ahead -= len(images)
        return original(images, **options)

    monkeypatch.setattr(VideoReader, "__iter__", counting)
    monkeypatch.setattr(by_brightness, "predict_batch", predicting)
    predict([tmp_path / "clip.mkv"], by_brightness, tmp_path / "out", batch_size=4)
    assert most <= 4 * (2 + 2 + 1)


def test_progress_rises_to_the_number_of_frames(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    save(tmp_path / "a.png", blobs(rng, 40, 60))
    (tmp_path / "b.png").write_text("no image")
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 40, 60)] * 10)
    seen: list[tuple[int, int]] = []
    with pytest.raises(UserErrors):
        predict([tmp_path], by_brightness, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 12)
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


# ------------------------------------------------------------------ quality


@pytest.fixture
def with_a_limit(by_brightness: Predictor, make_card: Callable[..., ModelCard]) -> Predictor:
    limit = QualityLimit(limit=0.9, factor=3, bad_dice=0.7, alpha=0.1, frames=20, assumption="if exchangeable")
    return Predictor(by_brightness.engine, make_card(quality=limit))


def one_level(grey: int) -> Pixels:
    """Bright enough for 128 + 16 x logit; its mask is all or nothing."""
    return np.full((64, 96, 3), grey, np.uint8)


SURE, UNSURE, NOTHING = 255, 136, 0  # qualities: above 0.99; 2 p / (1 + p) of p = 0.62: 0.77; none


def test_images_to_look_at_are_marked(
    tmp_path: Path, with_a_limit: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, grey in (("a", SURE), ("b", UNSURE), ("c", NOTHING)):
        save(tmp_path / f"{name}.png", one_level(grey))
    summary = predict([tmp_path / f"{name}.png" for name in "abc"], with_a_limit, tmp_path / "out")
    listed = told(tmp_path / "out")["predictions"]
    assert [entry["look_at"] for entry in listed] == [False, True, None]
    p = 1 / (1 + math.exp(-0.5))
    assert listed[1]["quality"] == pytest.approx(2 * p / (1 + p), abs=1e-4)
    assert listed[0]["quality"] > 0.99
    assert listed[2]["quality"] is None
    assert [entry["disagreement"] for entry in listed] == [None] * 3
    assert told(tmp_path / "out")["quality_limit"] == 0.9
    show_predictions(summary, tmp_path / "out")
    shown = capsys.readouterr().out
    assert "1 of 3 frames to look at (quality under 0.900" in shown
    assert "1 in which nothing was found have no quality" in shown
    assert "the limit was fitted on the model's validation frames; elsewhere it is a hint" in shown.splitlines()
    assert told(tmp_path / "out")["quality_promise"] == "if exchangeable"


def test_frames_of_a_video_to_look_at_are_listed(
    tmp_path: Path, with_a_limit: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = [SURE, UNSURE, NOTHING, SURE, UNSURE]
    save_clip(tmp_path / "clip.mkv", [one_level(grey) for grey in levels])
    summary = predict([tmp_path / "clip.mkv"], with_a_limit, tmp_path / "out", batch_size=2)
    entry = told(tmp_path / "out")["predictions"][0]
    assert entry["frames_to_look_at"] == [1, 4]
    assert entry["look_at"] is True
    assert len(entry["frame_quality"]) == 5
    assert entry["frame_quality"][2] is None
    assert entry["frame_quality"][1] == entry["frame_quality"][4] < 0.9 < entry["frame_quality"][0]
    assert entry["quality"] == pytest.approx(np.mean([q for q in entry["frame_quality"] if q is not None]), abs=1e-4)
    show_predictions(summary, tmp_path / "out")
    assert "2 of 5 frames to look at" in capsys.readouterr().out


def test_without_a_limit_nothing_is_marked(
    tmp_path: Path, by_brightness: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "b.png", one_level(UNSURE))
    summary = predict([tmp_path / "b.png"], by_brightness, tmp_path / "out")
    assert summary.predictions[0].look_at is None
    assert summary.predictions[0].quality == pytest.approx(0.767, abs=1e-3)
    assert summary.quality_limit is None
    show_predictions(summary, tmp_path / "out")
    assert "look at" not in capsys.readouterr().out


def test_flips_are_passed_on_and_recorded(tmp_path: Path, rng: np.random.Generator, tiny_model: Path) -> None:
    image = save(tmp_path / "x.png", blobs(rng, 64, 96))
    summary = predict([tmp_path / "x.png"], tiny_model, tmp_path / "out", device="cpu", flips=True, probabilities=True)
    expected = Predictor.open(tiny_model, "cpu", flips=True)(image)
    np.testing.assert_allclose(load(tmp_path / "out/probabilities/x.png") / 65535, expected.probabilities[0], atol=1e-4)
    assert summary.flips
    assert summary.predictions[0].disagreement == pytest.approx(expected.disagreement, abs=1e-3)


# ------------------------------------------------------------------ smoothing


def test_the_masks_of_a_video_are_smoothed_in_order_and_images_are_not(
    tmp_path: Path, rng: np.random.Generator, by_brightness: Predictor
) -> None:
    """By hand: one frame after the other through one smoother, at the times of the file."""
    scene = blobs(rng, 60, 90) // 4 + np.uint8(90)
    frames = [scene + np.uint8(light) for light in (0, 8, 3, 9, 1, 10)]
    times = [0, 40, 80, 120, 1500, 1540]  # a pause, over which nothing is remembered
    save_clip(tmp_path / "in" / "clip.mkv", frames, times)
    image = save(tmp_path / "in" / "still.png", frames[0])
    smooth = SmoothSettings("exponential", 0.7, (0.45, 0.55))
    summary = predict([tmp_path / "in"], by_brightness, tmp_path / "out", smooth=smooth)
    assert (
        summary.smoothing == told(tmp_path / "out")["smoothing"] == "exponential, weight 0.7, hysteresis 0.45 to 0.55"
    )
    smoother = Smoother(smooth)
    expected = [
        smoother.prediction(by_brightness, frame, by_brightness(frame), ms / 1000).mask
        for frame, ms in zip(frames, times, strict=True)
    ]
    plain = [by_brightness(frame).mask for frame in frames]
    assert any((one != other).any() for one, other in zip(expected, plain, strict=True))
    assert smoother.cuts == 1
    found = frames_of(tmp_path / "out" / "masks" / "clip.mkv")
    assert len(found) == 6
    for mask, one in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask.to_ndarray(format="gray") // 255, one)
    still = cv2.imread(str(tmp_path / "out" / "masks" / "still.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(still // 255, by_brightness(image).mask)


def test_smoothing_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, rng: np.random.Generator, by_channel: Predictor
) -> None:
    save_clip(tmp_path / "clip.mkv", [blobs(rng, 60, 90)])
    with pytest.raises(UserError, match="two classes"):
        predict([tmp_path / "clip.mkv"], by_channel, tmp_path / "out", smooth=SmoothSettings(hysteresis=(0.4, 0.6)))
    assert not (tmp_path / "out").exists()


def test_a_limit_promises_nothing_for_smoothed_masks(
    tmp_path: Path, with_a_limit: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    save_clip(tmp_path / "clip.mkv", [one_level(150)])
    plain = predict([tmp_path / "clip.mkv"], with_a_limit, tmp_path / "plain")
    smoothed = predict([tmp_path / "clip.mkv"], with_a_limit, tmp_path / "out", smooth=SmoothSettings("flow"))
    assert not plain.quality_promise.startswith("none")
    assert smoothed.quality_promise.startswith("none with smoothing")
    assert (plain.unlike_fitting, smoothed.unlike_fitting) == ((), ("with smoothing",))
    show_predictions(smoothed, tmp_path / "out")
    assert "the limit promises nothing with smoothing: here it is a hint" in capsys.readouterr().out.splitlines()
    assert plain.smoothing == "none"


def test_only_what_was_written_now_is_told(
    tmp_path: Path, by_brightness: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "b.png", one_level(UNSURE))
    show_predictions(predict([tmp_path / "b.png"], by_brightness, tmp_path / "out", instances=True), tmp_path / "out")
    assert "instances:" in capsys.readouterr().out
    show_predictions(predict([tmp_path / "b.png"], by_brightness, tmp_path / "out", masks=False), tmp_path / "out")
    told_now = capsys.readouterr().out.splitlines()
    assert told_now[0] == "1 image"
    assert [line.partition(":")[0] for line in told_now[1:]] == ["overlays", "list of all"]


def test_stdin_without_a_format_leaves_nothing_behind(tmp_path: Path, by_brightness: Predictor) -> None:
    with pytest.raises(UserError, match="no header"):
        predict(["-"], by_brightness, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_missing_or_empty_is_told_apart_from_one_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello")
    for name, why in (("absent.mp4", "no such file"), ("empty.mp4", "0 bytes"), ("text.mp4", "not a video")):
        with pytest.raises(UserError, match=why):
            VideoReader(tmp_path / name)
