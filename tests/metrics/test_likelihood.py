from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from trocar.metrics.likelihood import cross_entropy


@pytest.mark.parametrize("classes", [2, 3])
def test_agrees_with_torch_and_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (1 if classes == 2 else classes, 12, 15)).astype(np.float32)
    target = rng.integers(0, classes, (12, 15), dtype=np.uint8)
    planes = np.concatenate([np.zeros_like(logits), logits]) if classes == 2 else logits
    oracle = torch.nn.functional.cross_entropy(
        torch.from_numpy(planes).double()[None], torch.from_numpy(target).long()[None]
    )
    assert cross_entropy(logits, target) == pytest.approx(float(oracle), rel=1e-12)
    probabilities = torch.from_numpy(planes).double().softmax(dim=0).numpy().reshape(classes, -1).T
    assert cross_entropy(logits, target) == pytest.approx(log_loss(target.ravel(), probabilities), rel=1e-9)


def test_a_blind_guess_costs_ln_2() -> None:
    assert cross_entropy(np.zeros((1, 4, 4), np.float32), np.eye(4, dtype=np.uint8)) == pytest.approx(math.log(2))


def test_ignored_pixels_count_nowhere() -> None:
    logits = np.array([[[3.0, -2.0, 50.0]]], np.float32)
    with_ignored = cross_entropy(logits, np.array([[1, 0, 255]], np.uint8))
    assert with_ignored == cross_entropy(logits[..., :2], np.array([[1, 0]], np.uint8))
    assert math.isnan(cross_entropy(logits, np.full((1, 3), 255, np.uint8)))


def test_sure_and_wrong_is_large_and_finite() -> None:
    wrong = np.full((1, 1, 1), 1e4, np.float32)
    assert cross_entropy(wrong, np.zeros((1, 1), np.uint8)) == pytest.approx(1e4)


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="target is"):
        cross_entropy(np.zeros((1, 4, 4), np.float32), np.zeros((4, 5), np.uint8))
