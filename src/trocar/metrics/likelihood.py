"""How surprised a model is by the truth: the cross-entropy of its probabilities, before any threshold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, MaskArray


def cross_entropy(logits: NDArray[np.float32], target: MaskArray) -> float:
    """Mean over counted pixels of -ln p(true class), in nats; 0 is certain and right, ln(classes) is a blind guess.

    The same for every model whatever it was trained with. Pixels of 255 are left out; NaN where nothing else is.
    Computed in float64.

    Shapes: logits (C, h, w), C = 1 where there are two classes; target (h, w) class indices.
    """
    if logits.shape[1:] != target.shape:
        raise ValueError(f"logits are {logits.shape} but target is {target.shape}")
    counted = target != IGNORE
    if not counted.any():
        return math.nan
    planes, truth = logits[:, counted].astype(np.float64), target[counted]
    if len(planes) == 1:
        planes = np.stack([np.zeros_like(planes[0]), planes[0]])  # a sigmoid is a softmax against 0
    log_sum = np.logaddexp.reduce(planes, axis=0)
    return float(np.mean(log_sum - planes[truth, np.arange(len(truth))]))
