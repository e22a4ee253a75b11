"""The card of a tiny model, and an engine that answers by brightness at once: for tests that need no network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trocar.config import LossSettings, ModelSettings, PreprocessSettings
from trocar.model_folder import ModelCard, Provenance

PARTS: dict[str, Any] = {  # what a card of several classes says otherwise
    "classes": ("background", "shaft", "tip"),
    "target": "parts",
    "threshold": None,
    "threshold_from": "argmax",
}


def tiny_card(**changes: Any) -> ModelCard:
    """Of a network with random weights for frames of 96x64. `changes` are fields of the card or of its provenance."""
    origin: dict[str, Any] = {
        "recipe": "test",
        "dataset": "none",
        "data_fingerprint": "sha256:0",
        "created": "2026-01-01T00:00:00+00:00",
        "epochs": 1,
        "best_epoch": 1,
        "seed": 0,
        "device": "cpu",
        "precision": "32",
    }
    facts: dict[str, Any] = {
        "name": "tiny",
        "classes": ("background", "instrument"),
        "target": "instrument",
        "model": ModelSettings(encoder="mobilenetv2_100", encoder_weights="none", pyramid_width=16, decoder_width=16),
        "preprocess": PreprocessSettings(size_hw=(64, 96)),
        "loss": LossSettings(),
        "threshold": 0.5,
        "threshold_from": "nothing",
    }
    for name, value in changes.items():
        (origin if name in Provenance.model_fields else facts)[name] = value
    return ModelCard(**({"provenance": Provenance(**origin)} | facts))


def brightness(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
    """Bright is instrument: 128 is a logit of 0."""
    return (frames.astype(np.float32).mean(axis=-1, dtype=np.float32)[:, None] - 128) / 16
