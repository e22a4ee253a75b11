"""Scores of a network on one side of a split, while it is being trained.

Loss at network size, Dice and Jaccard per image at native size, frames without any instrument left out of the means:
the convention of `evaluation`, which judges finished models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trocar.data.loading import NativeMasks, PreparedSet, ordered_plan
from trocar.data.preprocess import restore
from trocar.data.records import MaskArray
from trocar.losses import Loss
from trocar.metrics.overlap import class_counts, threshold_sweep
from trocar.metrics.summary import mean_of_defined


@dataclass
class Judgement:
    """Scores of each image of one side, at native size."""

    loss: float
    dice: list[float] = field(default_factory=list)
    jaccard: list[float] = field(default_factory=list)
    sweeps: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def mean_dice(self) -> float:
        """Mean over images, frames whose truth is empty left out."""
        return mean_of_defined(self.dice)

    @property
    def mean_jaccard(self) -> float:
        """Mean over images, frames whose truth is empty left out."""
        return mean_of_defined(self.jaccard)


@torch.inference_mode()
def judge(
    network: nn.Module,
    prepared: PreparedSet,
    truths: NativeMasks,
    loss: Loss,
    *,
    device: torch.device,
    batch_size: int,
    threshold: float = 0.5,
    sweep: bool = False,
) -> Judgement:
    """Score a network on prepared records: loss at network size; Dice and Jaccard per image at native size.

    Several classes: the mean over instrument classes that occur. `sweep` adds the Dice at every threshold (binary).
    """
    network.eval()
    result, images, index = Judgement(0.0), 0, 0
    for batch in prepared.batches(ordered_plan(len(prepared), batch_size)):
        logits = network(batch.frames.to(device)).float()
        value = float(loss(logits, batch.masks.to(device)))
        result.loss = (result.loss * images + value * len(batch.names)) / (images + len(batch.names))
        images += len(batch.names)
        probabilities = (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)).cpu().numpy()
        for planes in probabilities:
            _score(result, restore(planes, truths.placements[index]), truths[index], threshold, sweep=sweep)
            index += 1
    return result


def _score(
    result: Judgement,
    planes: NDArray[np.float32],
    truth: MaskArray,
    threshold: float,
    *,
    sweep: bool,
) -> None:
    binary = len(planes) == 1
    pred = (planes[0] >= threshold).astype(np.uint8) if binary else planes.argmax(axis=0).astype(np.uint8)
    counts = class_counts(pred, truth, 2 if binary else len(planes))[1:]
    empty = not any(count.true for count in counts)
    result.dice.append(math.nan if empty else mean_of_defined([count.dice for count in counts]))
    result.jaccard.append(math.nan if empty else mean_of_defined([count.jaccard for count in counts]))
    if sweep and binary:
        result.sweeps.append(threshold_sweep(planes[0], truth))
