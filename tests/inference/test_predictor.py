from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

import trocar
from trocar.config import PreprocessSettings
from trocar.errors import UserError, UserErrors
from trocar.inference.engines.torch import TorchEngine, load_network
from trocar.inference.predictor import Predictor, mean_logits, sigmoid, softmax
from trocar.model_folder import ModelCard, QualityLimit, read_tensors


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return trocar.load(tiny_model, device="cpu")


@pytest.fixture
def engine(predictor: Predictor) -> TorchEngine:
    assert isinstance(predictor.engine, TorchEngine)
    return predictor.engine


def noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (101, 157), (31, 301), (1, 1), (7, 640), (200, 5)])
def test_a_prediction_has_the_size_of_its_image(
    predictor: Predictor, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    found = predictor(noise(rng, *size))
    assert found.mask.shape == size
    assert found.mask.dtype == np.uint8
    assert found.probabilities.shape == (1, *size)
    assert found.probabilities.dtype == np.float32
    assert found.network_logits.shape == (1, 64, 96)
    assert found.placement.native_hw == size
    assert set(np.unique(found.mask)) <= {0, 1}


def test_a_mask_equals_the_pipeline_written_by_hand(
    predictor: Predictor, engine: TorchEngine, rng: np.random.Generator
) -> None:
    """Letterbox 128x300 -> 41x96 in 64x96; sigmoid; bilinear; threshold."""
    image = noise(rng, 128, 300)
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:41] = cv2.resize(image, (96, 41), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        logits = engine.network(torch.from_numpy(frame)[None])[0, 0].double().numpy()
    probability = cv2.resize(special.expit(logits)[:41], (300, 128), interpolation=cv2.INTER_LINEAR)
    threshold = float(np.quantile(probability, 0.7))  # random weights: somewhere with pixels on both sides
    found = Predictor(engine, predictor.card, threshold=threshold)(image)
    np.testing.assert_allclose(found.probabilities[0], probability, atol=1e-5)
    clear = np.abs(probability - threshold) > 1e-5
    np.testing.assert_array_equal(found.mask[clear], probability[clear] >= threshold)
    assert 0.2 < found.mask.mean() < 0.4


def test_a_mask_of_several_classes_is_the_largest_probability(tiny_parts_model: Path, rng: np.random.Generator) -> None:
    image = noise(rng, 128, 300)
    predictor = Predictor.open(tiny_parts_model, "cpu")
    found = predictor(image)
    assert found.classes == ("background", "shaft", "tip")
    assert found.threshold is None
    assert found.probabilities.shape == (3, 128, 300)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    shares = special.softmax(found.network_logits.astype(np.float64), axis=0)[:, :41]
    native = np.stack([cv2.resize(plane, (300, 128), interpolation=cv2.INTER_LINEAR) for plane in shares])
    np.testing.assert_allclose(found.probabilities, native, atol=1e-5)
    ordered = np.sort(native, axis=0)
    clear = ordered[2] - ordered[1] > 1e-5
    np.testing.assert_array_equal(found.mask[clear], native.argmax(axis=0)[clear])
    assert len(np.unique(found.mask)) > 1


def test_squash_and_letterbox_put_a_disc_back_where_it_was(make_card: Callable[..., ModelCard]) -> None:
    """Independent of the network: an engine that sees brightness must give back the bright disc."""
    disc = np.zeros((203, 301), np.uint8)
    cv2.circle(disc, (200, 60), 40, 1, -1)
    image = np.repeat(disc[..., None] * np.uint8(255), 3, axis=2)
    for fit in ("letterbox", "squash"):
        card = make_card(preprocess=PreprocessSettings(size_hw=(64, 96), fit=fit))
        found = Predictor(_brightness, card)(image).mask
        overlap = np.count_nonzero(found & disc) / np.count_nonzero(found | disc)
        assert overlap > 0.95, fit


def _brightness(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    return (frames[..., 0].astype(np.float32)[:, None] - 128) / 16


def test_a_batch_equals_single_images_in_order(predictor: Predictor, rng: np.random.Generator) -> None:
    images = [noise(rng, height, width) for height, width in [(50, 70), (64, 96), (200, 31), (99, 99), (64, 96)]]
    for batch_size in (None, 2, 5, 100):
        together = predictor.predict_batch(images, batch_size=batch_size)
        for image, found in zip(images, together, strict=True):
            np.testing.assert_allclose(found.network_logits, predictor(image).network_logits, atol=1e-4)
            assert found.mask.shape == image.shape[:2]
    assert predictor.predict_batch([]) == []


def test_threads_may_share_a_predictor(predictor: Predictor, rng: np.random.Generator) -> None:
    images = [noise(rng, 40 + index, 60) for index in range(8)]
    alone = [predictor(image).probabilities for image in images]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(predictor, images), strict=True):
            np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_the_threshold_itself_is_foreground(by_brightness: Predictor) -> None:
    grey = np.full((64, 96, 3), 128, np.uint8)  # probability 0.5 exactly
    assert by_brightness(grey).mask.all()
    assert not Predictor(by_brightness.engine, by_brightness.card, threshold=0.501)(grey).mask.any()


def test_a_threshold_that_makes_no_sense_is_refused(tiny_model: Path, tiny_parts_model: Path) -> None:
    with pytest.raises(UserError, match=r"threshold 1\.5"):
        Predictor.open(tiny_model, "cpu", threshold=1.5)
    with pytest.raises(UserError, match="several classes"):
        Predictor.open(tiny_parts_model, "cpu", threshold=0.5)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
    ids=["float", "grey", "rgba", "empty", "list"],
)
def test_what_is_no_image_is_refused(by_brightness: Predictor, image: Any) -> None:
    with pytest.raises(ValueError, match="an image is"):
        by_brightness(image)


def test_probabilities_agree_with_scipy_and_do_not_overflow(rng: np.random.Generator) -> None:
    logits = (rng.normal(size=(3, 20, 30)) * 200).astype(np.float32)
    logits[0, 0, :4] = [0, 1e4, -1e4, -90]
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(sigmoid(logits), special.expit(exact), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(softmax(logits), special.softmax(exact, axis=0), rtol=1e-4, atol=1e-37)
    assert sigmoid(logits).dtype == softmax(logits).dtype == np.float32


def test_a_damaged_model_is_not_opened(tmp_path: Path, tiny_model: Path) -> None:
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserErrors, match="SHA-256 differs"):
        trocar.load(tmp_path)


def test_an_unknown_device_is_refused_before_anything_is_loaded(tiny_model: Path) -> None:
    with pytest.raises(UserError):
        Predictor.open(tiny_model, "cuda:99")
    with pytest.raises(UserError):
        Predictor.open(tiny_model, "abacus")


def test_importing_what_needs_no_torch_imports_none() -> None:
    code = (
        "import sys, trocar.inference.predict, trocar.inference.predictor, trocar.inference.video, "
        "trocar.inference.draw; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------ quality and flips


def test_quality_by_hand_padding_left_out(by_brightness: Predictor) -> None:
    """40x96 in 64x96: a third at probability 0.9, a third at 0.2, and the rest at 0.02 (padding would add to it)."""
    image = np.zeros((40, 96, 3), np.uint8)
    levels = [np.rint(128 + 16 * special.logit(p)) for p in (0.9, 0.2, 0.02)]
    image[:, :32], image[:, 32:64], image[:, 64:] = levels
    p, low, rest = special.expit((np.array(levels) - 128) / 16)
    assert by_brightness(image).quality == pytest.approx(2 * p / (1 + p + low + rest), rel=1e-6)
    assert math.isnan(by_brightness(image).disagreement)


def test_an_empty_mask_has_no_quality(by_brightness: Predictor) -> None:
    found = by_brightness(np.zeros((50, 60, 3), np.uint8))
    assert not found.mask.any()
    assert math.isnan(found.quality)


def test_a_mask_lost_on_the_way_to_its_size_has_no_quality(by_brightness: Predictor) -> None:
    """Bright rows that vanish when the network's frame is shrunk to a 2x3 image."""
    predictor = Predictor(_one_bright_pixel, by_brightness.card)
    found = predictor(np.zeros((2, 3, 3), np.uint8))
    assert not found.mask.any()
    assert math.isnan(found.quality)


def _one_bright_pixel(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    logits = np.full((len(frames), 1, *frames.shape[1:3]), -9, np.float32)
    logits[:, :, 0, 0] = 9
    return logits


def test_quality_of_several_classes_is_of_any_instrument(by_channel: Predictor, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    shares = special.softmax(image.astype(np.float64) / 16, axis=-1)
    instrument, mask = 1 - shares[..., 0], image.argmax(axis=-1) != 0
    expected = 2 * instrument[mask].sum() / (mask.sum() + instrument.sum())
    assert by_channel(image).quality == pytest.approx(expected, rel=1e-5)


def test_flips_average_the_image_and_its_mirror_image(tiny_model: Path, rng: np.random.Generator) -> None:
    """By hand: mirror the image itself, predict, mirror back. No padding and no resizing, so that both are the same."""
    image = noise(rng, 64, 96)
    plain, flipped = (Predictor.open(tiny_model, "cpu", flips=flips) for flips in (False, True))
    one, other = plain(image), plain(np.ascontiguousarray(image[:, ::-1]))
    mean = (one.probabilities + other.probabilities[..., ::-1]) / 2
    found = flipped(image)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-5)
    np.testing.assert_allclose(special.expit(found.network_logits), mean, atol=1e-5)
    assert np.abs(one.probabilities - mean).max() > 1e-3
    masks = one.mask == 1, other.mask[:, ::-1] == 1
    overlap = 2 * np.count_nonzero(masks[0] & masks[1]) / (masks[0].sum() + masks[1].sum())
    assert found.disagreement == pytest.approx(1 - overlap, abs=1e-9)


def test_flips_leave_the_padding_where_it_is(by_brightness: Predictor, rng: np.random.Generator) -> None:
    """And a network without any sense of place sees the same in a mirror, whatever the shape of the image."""
    seen: list[NDArray[np.uint8]] = []

    def watch(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        seen.append(frames)
        return by_brightness.engine(frames)

    flipped = Predictor(watch, by_brightness.card, flips=True)
    images = [noise(rng, 128, 60), noise(rng, 30, 192)]  # 64x30 and 15x96 in 64x96
    for image, found in zip(images, flipped.predict_batch(images), strict=True):
        expected = by_brightness(image)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
        assert found.quality == pytest.approx(expected.quality, abs=1e-6)
        assert found.disagreement == pytest.approx(0, abs=1e-12)
    once, mirrored = seen
    np.testing.assert_array_equal(mirrored[0, :, :30], once[0, :, 29::-1])
    np.testing.assert_array_equal(mirrored[1, :15], once[1, :15, ::-1])
    assert not mirrored[0, :, 30:].any()
    assert not mirrored[1, 15:].any()


def test_flips_of_several_classes(by_channel: Predictor, rng: np.random.Generator) -> None:
    image = noise(rng, 70, 50)
    found = Predictor(by_channel.engine, by_channel.card, flips=True)(image)
    np.testing.assert_allclose(found.probabilities, by_channel(image).probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.probabilities.sum(axis=0) > 0.999, True)


@pytest.mark.parametrize("binary", [True, False])
def test_mean_logits_are_those_of_the_mean_probability(rng: np.random.Generator, binary: bool) -> None:
    one, other = rng.normal(0, 30, (2, 1 if binary else 3, 8, 9)).astype(np.float32)
    one.flat[0], other.flat[0] = 500, 400  # nothing overflows
    mean = mean_logits(one, other, binary=binary)
    assert np.isfinite(mean).all()
    to_shares = special.expit if binary else lambda logits: special.softmax(logits, axis=0)
    exact = (to_shares(one.astype(np.float64)) + to_shares(other.astype(np.float64))) / 2
    np.testing.assert_allclose(to_shares(mean.astype(np.float64)), exact, atol=1e-5)


def test_what_the_limit_promises_depends_on_how_it_was_fitted(
    by_brightness: Predictor, make_card: Callable[..., ModelCard]
) -> None:
    limit = QualityLimit(limit=0.9, factor=3, bad_dice=0.7, alpha=0.1, frames=20, assumption="if exchangeable")
    card, engine = make_card(quality=limit), by_brightness.engine
    assert Predictor(engine, card).quality_limit == 0.9
    assert Predictor(engine, card).quality_promise() == "if exchangeable"
    assert Predictor(engine, card, threshold=0.5).quality_promise() == "if exchangeable"
    assert Predictor(engine, card, threshold=0.6).quality_promise().startswith("none at this threshold")
    assert Predictor(engine, card, flips=True).quality_promise().startswith("none with flips")
    both = Predictor(engine, card, flips=True, tiles=1.0)
    assert both.unlike_fitting(smoothed=True) == ("with flips", "in tiles", "with smoothing")
    assert both.quality_promise(smoothed=True).startswith("none with flips and in tiles and with smoothing: ")
    assert by_brightness.quality_limit is None
    assert "brings no quality limit" in by_brightness.quality_promise()
    none = make_card(quality=limit.model_copy(update={"limit": None, "assumption": "too few"}))
    assert Predictor(engine, none, flips=True).quality_promise() == "too few"
    assert Predictor(engine, none, flips=True).unlike_fitting() == ()


# ------------------------------------------------------------------ the torch engine


def test_the_engine_is_in_evaluation_mode_and_takes_read_only_frames(
    tiny_model: Path, engine: TorchEngine, rng: np.random.Generator
) -> None:
    assert not any(module.training for module in engine.network.modules())
    frames = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    first = engine(frames)
    frames.flags.writeable = False
    np.testing.assert_array_equal(engine(frames), first)
    assert first.dtype == np.float32
    stored = read_tensors(tiny_model)
    for name, tensor in engine.network.state_dict().items():
        assert torch.equal(tensor, stored[name]), f"{name} changed by predicting"


def test_bf16_is_close_and_asked_for_only(engine: TorchEngine, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    exact = engine(frames)
    coarse = TorchEngine(engine.network, engine.device, precision="bf16")(frames)
    assert coarse.dtype == np.float32
    assert not np.array_equal(coarse, exact)
    np.testing.assert_allclose(coarse, exact, atol=0.1 * np.abs(exact).max())


def test_weights_of_another_architecture_are_refused(tiny_model: Path, make_card: Callable[..., ModelCard]) -> None:
    card = make_card()
    other = card.model_copy(update={"model": card.model.model_copy(update={"pyramid_width": 24})})
    with pytest.raises(UserError, match="do not fit the architecture"):
        load_network(tiny_model, other)


def test_memory_that_runs_out_names_what_to_lower(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(engine.network, "forward", full)
    with pytest.raises(UserError, match="2 images at a time") as caught:
        engine(rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    assert "--batch-size" in str(caught.value.mend)
