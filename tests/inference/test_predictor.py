from __future__ import annotations

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
from trocar.inference.predictor import Predictor, sigmoid, softmax
from trocar.inference.torch_engine import TorchEngine, load_network
from trocar.model_folder import ModelCard, read_tensors


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
