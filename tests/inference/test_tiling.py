from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special
from torch import nn

from tiny import PARTS
from trocar.config import PreprocessSettings
from trocar.data.preprocess import prepare_image
from trocar.errors import UserError
from trocar.inference import tiling
from trocar.inference.predictor import Predictor
from trocar.model_folder import ModelCard

NETWORK_HW = (64, 96)
LOCAL_REACH = 3  # pixels the local network sees to each side: below the rim of 4 and 6


def noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


class Local:
    """Three 3x3 convolutions: sees three pixels to each side, and its own zero padding beyond the frame's edge."""

    def __init__(self, outputs: int) -> None:
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, outputs, 3, padding=1),
        ).eval()
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        self.seen.append(frames.shape)
        with torch.inference_mode():
            planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 64 - 2
            return np.asarray(4 * self.network(planes).numpy(), np.float32)


@pytest.fixture
def local() -> Local:
    return Local(1)


# ------------------------------------------------------------------ the grid


@pytest.mark.parametrize("length", [65, 70, 100, 112, 113, 160, 161, 500, 1079])
def test_weights_add_up_to_one_and_tiles_overlap_by_a_quarter(length: int) -> None:
    grid = tiling.plan((length, 96), 1.0, PreprocessSettings(size_hw=NETWORK_HW))
    assert grid is not None
    axis = grid.rows
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert weights.dtype == np.float32
        total[start : start + axis.tile] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile == length
    assert max(np.diff(axis.starts)) <= 64 - 16
    assert (axis.weights[0][0], axis.weights[-1][-1]) == (1, 1)  # at the frame's own edge
    assert not axis.weights[0][-4:].any()  # the rim at an edge inside the frame
    assert not axis.weights[-1][:4].any()


def test_a_frame_gets_as_few_tiles_as_the_overlap_allows() -> None:
    settings = PreprocessSettings(size_hw=(512, 512))
    grids = [tiling.plan(size, 1.0, settings) for size in [(1080, 1920), (2160, 3840), (512, 513), (100, 2000)]]
    assert [grid and (len(grid.rows.starts), len(grid.columns.starts)) for grid in grids] == [
        (3, 5), (6, 10), (1, 2), (1, 5),
    ]  # fmt: skip
    half = tiling.plan((1080, 1920), 0.5, settings)
    assert half is not None
    assert half.placement.network_hw == (540, 960)
    assert len(half) == 2 * 3


@pytest.mark.parametrize("scale", [0.0, -1.0, 8.5, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(by_brightness: Predictor, scale: float) -> None:
    with pytest.raises(UserError, match="tiles at a scale"):
        Predictor(by_brightness.engine, by_brightness.card, tiles=scale)


# ------------------------------------------------------------------ equal to the whole image


@pytest.mark.parametrize("size", [(64, 96), (50, 60), (1, 1), (64, 20)])
def test_a_frame_that_fits_one_tile_is_predicted_as_ever(
    tiny_model: Path, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    plain = Predictor.open(tiny_model, "cpu")
    image = noise(rng, *size)
    expected, found = plain(image), Predictor(plain.engine, plain.card, tiles=1.0)(image)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.placement == expected.placement


@pytest.mark.parametrize("size", [(64, 97), (65, 96), (101, 157), (200, 96), (130, 331)])
@pytest.mark.parametrize("flips", [False, True])
def test_a_local_network_answers_as_if_it_saw_the_whole_frame(
    make_card: Callable[..., ModelCard], local: Local, rng: np.random.Generator, size: tuple[int, int], flips: bool
) -> None:
    image = noise(rng, *size)
    whole = special.expit(local(image[None]).astype(np.float64))[0]
    if flips:
        mirrored = np.ascontiguousarray(image[:, ::-1])[None]
        whole = (whole + special.expit(local(mirrored).astype(np.float64))[0][..., ::-1]) / 2
    local.seen.clear()
    found = Predictor(local, make_card(), tiles=1.0, flips=flips)(image)
    np.testing.assert_allclose(found.probabilities, whole, atol=1e-5)
    assert {shape[1:] for shape in local.seen} == {(64, 96, 3)}
    assert found.mask.mean() not in (0, 1)
    assert found.placement.native_hw == size
    np.testing.assert_allclose(special.expit(found.network_logits), whole, atol=1e-5)
    assert np.isnan(found.disagreement) != flips


def test_a_narrow_frame_is_padded_as_the_network_knows_it(
    make_card: Callable[..., ModelCard], local: Local, rng: np.random.Generator
) -> None:
    """Letterbox: black below. Squash: no black it never saw, but the frame mirrored."""
    image = noise(rng, 40, 300)
    for fit, border in (("letterbox", cv2.BORDER_CONSTANT), ("squash", cv2.BORDER_REFLECT)):
        card = make_card(preprocess=PreprocessSettings(size_hw=NETWORK_HW, fit=fit))
        padded = cv2.copyMakeBorder(image, 0, 24, 0, 0, border)
        whole = special.expit(local(padded[None]).astype(np.float64))[0, :, :40]
        np.testing.assert_allclose(Predictor(local, card, tiles=1.0)(image).probabilities, whole, atol=1e-5)


def test_several_classes_are_blended_and_sum_to_one(
    make_card: Callable[..., ModelCard], rng: np.random.Generator
) -> None:
    engine, image = Local(3), noise(rng, 140, 200)
    card = make_card(**PARTS)
    whole = special.softmax(engine(image[None])[0].astype(np.float64), axis=0)
    found = Predictor(engine, card, tiles=1.0)(image)
    np.testing.assert_allclose(found.probabilities, whole, atol=1e-5)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    clear = np.sort(whole, axis=0)
    sure = clear[-1] - clear[-2] > 1e-4
    np.testing.assert_array_equal(found.mask[sure], whole.argmax(axis=0)[sure])
    assert len(np.unique(found.mask)) == 3


def test_at_another_scale_it_is_the_resized_frame_that_is_cut(
    make_card: Callable[..., ModelCard], local: Local, rng: np.random.Generator
) -> None:
    image = noise(rng, 200, 300)
    small = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)
    whole = special.expit(local(small[None]).astype(np.float64))[0, 0]
    expected = cv2.resize(whole, (300, 200), interpolation=cv2.INTER_LINEAR)
    found = Predictor(local, make_card(), tiles=0.5)(image)
    np.testing.assert_allclose(found.probabilities[0], expected, atol=1e-5)
    assert found.network_logits.shape == (1, 100, 150)


def test_image_steps_see_the_whole_frame(
    make_card: Callable[..., ModelCard], local: Local, rng: np.random.Generator
) -> None:
    """Equalising tile by tile would give each its own greys."""
    steps = [{"step": "grey"}, {"step": "equalise"}]
    card = make_card(preprocess=PreprocessSettings(size_hw=NETWORK_HW, image_steps=steps))
    image = noise(rng, 112, 160)
    whole_card = PreprocessSettings(size_hw=(112, 160), image_steps=steps)
    whole = special.expit(local(prepare_image(image, whole_card)[0][None]).astype(np.float64))[0]
    np.testing.assert_allclose(Predictor(local, card, tiles=1.0)(image).probabilities, whole, atol=1e-5)


# ------------------------------------------------------------------ bounds


def test_few_tiles_at_a_time_and_little_memory(make_card: Callable[..., ModelCard], rng: np.random.Generator) -> None:
    shapes: list[tuple[int, ...]] = []

    def engine(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        shapes.append(frames.shape)
        return np.zeros((len(frames), 1, *frames.shape[1:3]), np.float32)

    predictor = Predictor(engine, make_card(), tiles=1.0)
    image = np.zeros((2000, 3000, 3), np.uint8)
    tracemalloc.start()
    predictor(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(shape[0] for shape in shapes) == tiling.TILES_AT_ONCE
    assert sum(shape[0] for shape in shapes) > 1500
    assert peak < 10 * 4 * 2000 * 3000  # some arrays of the frame's size, not one a tile


def test_threads_may_share_it(make_card: Callable[..., ModelCard], local: Local, rng: np.random.Generator) -> None:
    predictor = Predictor(local, make_card(), tiles=1.0)
    images = [noise(rng, 90 + 20 * number, 150) for number in range(6)]
    expected = [predictor(image).probabilities for image in images]
    with ThreadPoolExecutor(3) as pool:
        for found, one in zip(pool.map(predictor, images), expected, strict=True):
            np.testing.assert_array_equal(found.probabilities, one)
    for found, one in zip(predictor.predict_batch(images), expected, strict=True):
        np.testing.assert_array_equal(found.probabilities, one)


def test_tiles_at_network_size_are_the_whole_frames_logits(rng: np.random.Generator) -> None:
    """For figures taken there: probabilities averaged over the pixels that shrink into one, background around."""
    probabilities = rng.random((1, 128, 160)).astype(np.float32)
    logits = tiling.as_network_logits(probabilities, PreprocessSettings(size_hw=NETWORK_HW))
    expected = probabilities[0].reshape(64, 2, 80, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(special.expit(logits[0, :, :80]), expected, atol=1e-5)
    assert (logits[0, :, 80:] < -10).all()
    several = np.stack([1 - probabilities[0], probabilities[0]])
    logits = tiling.as_network_logits(
        np.concatenate([several, 0 * probabilities]), PreprocessSettings(size_hw=NETWORK_HW)
    )
    np.testing.assert_allclose(special.softmax(logits, axis=0)[1, :, :80], expected, atol=1e-5)
    assert (logits.argmax(axis=0)[:, 80:] == 0).all()
