"""The notebook's scores, exact, to compare with: soft, pooled over a batch, smoothed. No figure of a report is one.

They flatter and blur: probabilities are not thresholded, one batch is one number (a large instrument hides a missed
small one), `+1` lifts empty frames to a perfect score, and the mean of batches weighs the frames of a short last batch
more. `metrics.overlap` has what trocar reports. Everything is float32, as TensorFlow computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DICE_SMOOTH, JACCARD_SMOOTH = np.float32(1), np.float32(1e-6)


def soft_batch_dice(target: NDArray[Any], probability: NDArray[Any]) -> float:
    """(2 sum(t p) + 1) / (sum t + sum p + 1) over every pixel of a batch, from 0 to 1; two empty batches give 1.

    Shapes: target, probability (N, h, w), 0 to 1; shares of blurred masks count as they are.
    """
    t, p = _flat(target, probability)
    return float((2 * np.sum(t * p) + DICE_SMOOTH) / (np.sum(t) + np.sum(p) + DICE_SMOOTH))


def soft_batch_jaccard(target: NDArray[Any], probability: NDArray[Any]) -> float:
    """sum(t p) / (sum t + sum p - sum(t p) + 1e-6) over every pixel of a batch; two empty batches give 0.

    Shapes: target, probability (N, h, w), 0 to 1.
    """
    t, p = _flat(target, probability)
    both = np.sum(t * p)
    return float(both / (np.sum(t) + np.sum(p) - both + JACCARD_SMOOTH))


def soft_batch_dice_loss(target: NDArray[Any], probability: NDArray[Any]) -> float:
    """1 - `soft_batch_dice`. Shapes: target, probability (N, h, w), 0 to 1."""
    t, p = _flat(target, probability)
    return float(1 - (2 * np.sum(t * p) + DICE_SMOOTH) / (np.sum(t) + np.sum(p) + DICE_SMOOTH))


def mean_of_batches(
    score: Callable[[NDArray[Any], NDArray[Any]], float],
    targets: Sequence[NDArray[Any]],
    probabilities: Sequence[NDArray[Any]],
    batch_size: int = 8,
) -> float:
    """The unweighted mean of a score over batches in this order, the last of which may be short.

    Shapes: targets, probabilities: sequences of (h, w).
    """
    scores = [
        score(np.stack(targets[start : start + batch_size]), np.stack(probabilities[start : start + batch_size]))
        for start in range(0, len(targets), batch_size)
    ]
    return float(np.mean(scores))


def _flat(target: NDArray[Any], probability: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if target.shape != probability.shape:
        raise ValueError(f"target is {target.shape} but probability is {probability.shape}; metrics do not broadcast")
    return target.astype(np.float32).ravel(), probability.astype(np.float32).ravel()
