"""Models for the tests of inference: a real but tiny network, and engines that answer by brightness at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trocar.config import LossSettings, ModelSettings, PreprocessSettings
from trocar.inference.predictor import Predictor
from trocar.model_folder import ModelCard, Provenance, write_model

PARTS = ("background", "shaft", "tip")


def _card(**changes: Any) -> ModelCard:
    provenance = Provenance(
        recipe="test",
        dataset="none",
        data_fingerprint="sha256:0",
        created="2026-01-01T00:00:00+00:00",
        epochs=1,
        best_epoch=1,
        seed=0,
        device="cpu",
        precision="32",
    )
    facts: dict[str, Any] = {
        "name": "tiny",
        "classes": ("background", "instrument"),
        "target": "instrument",
        "model": ModelSettings(encoder="mobilenetv2_100", encoder_weights="none", pyramid_width=16, decoder_width=16),
        "preprocess": PreprocessSettings(size_hw=(64, 96)),
        "loss": LossSettings(),
        "threshold": 0.5,
        "threshold_from": "nothing",
        "provenance": provenance,
    }
    return ModelCard(**(facts | changes))


@pytest.fixture(scope="session")
def make_card() -> Callable[..., ModelCard]:
    return _card


def _write_tiny(folder: Path, card: ModelCard) -> Path:
    import torch

    from trocar.models.build import build_model

    torch.manual_seed(0)
    network = build_model(card.model, card.preprocess, len(card.classes), load_encoder_weights=False)
    network(torch.randint(0, 256, (4, 64, 96, 3), dtype=torch.uint8))  # batch norms see something: logits spread
    write_model(folder, card, network.state_dict(), "none")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary model with random weights."""
    return _write_tiny(tmp_path_factory.mktemp("binary") / "model", _card())


@pytest.fixture(scope="session")
def tiny_parts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three classes with random weights."""
    card = _card(classes=PARTS, target="parts", threshold=None, threshold_from="argmax")
    return _write_tiny(tmp_path_factory.mktemp("parts") / "model", card)


def _brightness(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    """Bright is instrument: 128 is a logit of 0."""
    return (frames.astype(np.float32).mean(axis=-1, dtype=np.float32)[:, None] - 128) / 16


def _channels(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    """The strongest of red, green and blue is the class."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32) / 16


@pytest.fixture
def by_brightness() -> Predictor:
    return Predictor(_brightness, _card())


@pytest.fixture
def by_channel() -> Predictor:
    card = _card(classes=PARTS, target="parts", threshold=None, threshold_from="argmax")
    return Predictor(_channels, card)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
