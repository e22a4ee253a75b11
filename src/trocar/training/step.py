"""One optimiser step and what belongs to it: the running scores, the learning rate, the optimiser, the average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trocar.config import TrainSettings
from trocar.data.loading import Batch
from trocar.errors import UserError
from trocar.losses import Loss
from trocar.models.build import Network


@dataclass
class Tally:
    """Running sums of one epoch: means over images, undefined (NaN) Dice left out. Survives in checkpoints."""

    images: int = 0
    loss: float = 0.0
    scored: int = 0
    dice: float = 0.0
    jaccard: float = 0.0

    def add(self, loss: float, dice: Sequence[float], jaccard: Sequence[float]) -> None:
        """Add a batch: its mean loss, and Dice and Jaccard of each image."""
        defined = [(d, j) for d, j in zip(dice, jaccard, strict=True) if not math.isnan(d)]
        self.images += len(dice)
        self.loss += loss * len(dice)
        self.scored += len(defined)
        self.dice += sum(d for d, _ in defined)
        self.jaccard += sum(j for _, j in defined)

    @property
    def means(self) -> tuple[float, float, float]:
        """Mean loss, Dice and Jaccard; NaN where nothing was counted."""
        loss = self.loss / self.images if self.images else math.nan
        if not self.scored:
            return loss, math.nan, math.nan
        return loss, self.dice / self.scored, self.jaccard / self.scored


def train_step(
    fabric: Fabric,
    model: nn.Module,
    batches: Sequence[Batch],
    loss: Loss,
    optimizer: Any,
    *,
    clip_norm: float | None,
    tally: Tally,
) -> float:
    """One optimiser step over one or several batches (accumulation, weighted by images); returns the mean loss.

    A loss that is not finite stops here, before it can reach the weights: `UserError` with the records' names.
    """
    optimizer.zero_grad(set_to_none=True)
    images = sum(len(batch.names) for batch in batches)
    total = 0.0
    for batch in batches:
        frames, masks = fabric.to_device((batch.frames, batch.masks))
        logits = model(frames)
        value = loss(logits, masks)
        number = float(value.detach())
        if not math.isfinite(number):
            raise UserError(
                f"the loss is not finite ({number})",
                where=f"records {', '.join(batch.names)}",
                mend="look at those records with `trocar check`; else lower train.learning_rate or set "
                "train.precision=fp32",
            )
        fabric.backward(value * (len(batch.names) / images))
        tally.add(number, *(values.tolist() for values in batch_overlap(logits.detach(), masks)))
        total += number * len(batch.names) / images
    if clip_norm is not None:
        fabric.clip_gradients(model, optimizer, max_norm=clip_norm, error_if_nonfinite=False)
    optimizer.step()
    return total


def batch_overlap(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and Jaccard of each image at threshold 0.5 or by argmax, at network size, 255 left out.

    Several classes: the mean over classes that occur in prediction or truth. NaN where nothing is either. Where masks
    are shares, a pixel is instrument from one half on.

    Shapes: logits (N, C, h, w), masks (N, h, w) uint8 or shares -> two of (N,).
    """
    counted = masks != 255
    if masks.is_floating_point():
        masks = (masks >= 0.5).to(torch.uint8)
    if logits.shape[1] == 1:
        pred, classes = (logits[:, 0] >= 0).to(torch.uint8), 2
    else:
        pred, classes = logits.argmax(dim=1).to(torch.uint8), logits.shape[1]
    dice, jaccard = [], []
    for index in range(1, classes):
        p, t = (pred == index) & counted, (masks == index) & counted
        both, total = (p & t).sum(dim=(1, 2)).double(), (p.sum(dim=(1, 2)) + t.sum(dim=(1, 2))).double()
        dice.append(2 * both / total)  # 0 / 0 is NaN, as meant
        jaccard.append(both / (total - both))
    return torch.stack(dice).nanmean(dim=0), torch.stack(jaccard).nanmean(dim=0)


def learning_rate_at(step: int, total: int, settings: TrainSettings) -> float:
    """Rate of the decoder at an optimiser step: linear warm-up from 0, then half a cosine to 0, or constant."""
    warmup = round(total * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(network: Network, settings: TrainSettings) -> torch.optim.Optimizer:
    """Adam or AdamW over four groups: encoder and decoder, each with and without decay. `rate_factor` scales each."""
    groups = []
    for parameters, factor in (
        (list(network.encoder_parameters()), settings.encoder_rate_factor),
        (list(network.decoder_parameters()), 1.0),
    ):
        if factor == 0:
            for parameter in parameters:
                parameter.requires_grad_(False)
            continue
        for decay in (True, False):
            chosen = [parameter for parameter in parameters if (parameter.ndim > 1) == decay]
            weight_decay = settings.weight_decay if decay else 0.0
            groups.append({"params": chosen, "weight_decay": weight_decay, "rate_factor": factor})
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optimizer]
    optimizer: torch.optim.Optimizer = kind(groups, lr=settings.learning_rate, eps=settings.epsilon)
    return optimizer


def average_update(decay: float) -> Callable[..., None]:
    """Exponential moving average whose decay rises from 0.1 to `decay`, as in TensorFlow."""

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        number = int(count)
        weight = 1 - min(decay, (1 + number) / (10 + number))
        for average, value in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    return update
