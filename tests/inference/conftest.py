"""Models for the tests of inference: a real but tiny network, and engines that answer by brightness at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiny import PARTS, brightness, tiny_card
from trocar.inference.predictor import Predictor
from trocar.model_folder import ModelCard, write_model


@pytest.fixture(scope="session")
def make_card() -> Callable[..., ModelCard]:
    return tiny_card


def _write_tiny(folder: Path, of: ModelCard) -> Path:
    import torch

    from trocar.models.build import build_model

    torch.manual_seed(0)
    network = build_model(of.model, of.preprocess, len(of.classes), load_encoder_weights=False)
    network(torch.randint(0, 256, (4, 64, 96, 3), dtype=torch.uint8))  # batch norms see something: logits spread
    write_model(folder, of, network.state_dict(), "none")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary model with random weights."""
    return _write_tiny(tmp_path_factory.mktemp("binary") / "model", tiny_card())


@pytest.fixture(scope="session")
def tiny_parts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three classes with random weights."""
    return _write_tiny(tmp_path_factory.mktemp("parts") / "model", tiny_card(**PARTS))


def _channels(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    """The strongest of red, green and blue is the class."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32) / 16


@pytest.fixture
def by_brightness() -> Predictor:
    return Predictor(brightness, tiny_card())


@pytest.fixture
def by_channel() -> Predictor:
    return Predictor(_channels, tiny_card(**PARTS))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
