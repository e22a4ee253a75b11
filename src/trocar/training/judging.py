"""Scores of a network on one side of a split while it is being trained, and what its card learns from validation.

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
from trocar.data.preprocess import Placement, restore
from trocar.data.records import MaskArray
from trocar.losses import Loss
from trocar.metrics.calibration import (
    LOGIT_BINS,
    calibration,
    fit_temperature,
    logit_histogram,
    reliability_of_logits,
    threshold_curve,
)
from trocar.metrics.failure import dice_bound, quality
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.overlap import class_counts, instrument_counts, threshold_sweep
from trocar.model_folder import QualityLimit, TemperatureScaling, ValidationCurve
from trocar.plain import none_for_nan


@dataclass
class Judgement:
    """Scores of each image of one side, at native size."""

    loss: float
    dice: list[float] = field(default_factory=list)
    jaccard: list[float] = field(default_factory=list)
    instrument_dice: list[float] = field(default_factory=list)  # of any instrument, where there are several classes
    quality: list[float] = field(default_factory=list)  # NaN where nothing was found
    sweeps: list[NDArray[np.float64]] = field(default_factory=list)
    logits: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, LOGIT_BINS, 2)))  # `logit_histogram`

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

    Several classes: the mean over instrument classes that occur. `sweep` adds the Dice at every threshold and the
    histogram of the logits (binary).
    """
    network.eval()
    result, images, index = Judgement(0.0), 0, 0
    for batch in prepared.batches(ordered_plan(len(prepared), batch_size)):
        logits = network(batch.frames.to(device)).float()
        value = float(loss(logits, batch.masks.to(device)))
        result.loss = (result.loss * images + value * len(batch.names)) / (images + len(batch.names))
        images += len(batch.names)
        probabilities = (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)).cpu().numpy()
        if sweep and logits.shape[1] == 1:
            result.logits += logit_histogram(logits[:, 0].cpu().numpy(), batch.masks.numpy())
        for planes in probabilities:
            _score(result, planes, truths.placements[index], truths[index], threshold, sweep=sweep)
            index += 1
    return result


def _score(
    result: Judgement,
    planes: NDArray[np.float32],
    placement: Placement,
    truth: MaskArray,
    threshold: float,
    *,
    sweep: bool,
) -> None:
    """Shapes: planes (C, h, w) probabilities at network size, truth (H, W) at native size."""
    binary = len(planes) == 1
    native = restore(planes, placement)
    pred = (native[0] >= threshold).astype(np.uint8) if binary else native.argmax(axis=0).astype(np.uint8)
    counts = class_counts(pred, truth, 2 if binary else len(planes))[1:]
    any_class = counts[0] if binary else instrument_counts(pred, truth)
    empty = not any_class.true
    result.dice.append(math.nan if empty else mean_of_defined([count.dice for count in counts]))
    result.jaccard.append(math.nan if empty else mean_of_defined([count.jaccard for count in counts]))
    result.instrument_dice.append(math.nan if empty else any_class.dice)
    inside = planes[:, : placement.height, : placement.width]
    result.quality.append(quality(inside, threshold if binary else None) if pred.any() else math.nan)
    if sweep and binary:
        result.sweeps.append(threshold_sweep(native[0], truth))


# ------------------------------------------------------------------ for the card, from validation frames only


def validation_curve(judged: Judgement) -> ValidationCurve:
    """Mean Dice against threshold. `judged` is of validation records, with its sweeps."""
    curve = threshold_curve(judged.sweeps)
    return ValidationCurve(thresholds=curve.thresholds, dice=curve.dice, frames=curve.frames)


def temperature_scaling(judged: Judgement) -> TemperatureScaling:
    """The temperature that suits these records best, with the calibration error before and after."""
    temperature = fit_temperature(judged.logits)
    before = reliability_of_logits(judged.logits)
    after = None if math.isnan(temperature) else reliability_of_logits(judged.logits, temperature)
    found = calibration(before, after, temperature)
    return TemperatureScaling(
        temperature=none_for_nan(found.temperature),
        ece=none_for_nan(found.ece),
        ece_after=none_for_nan(found.ece_after),
        frames=len(judged.dice),
    )


def quality_limit(judged: Judgement) -> QualityLimit:
    """From which quality on a mask of this model, at the threshold it was judged with, can be trusted."""
    bound = dice_bound(judged.quality, judged.instrument_dice)
    return QualityLimit(
        limit=none_for_nan(bound.limit),
        factor=none_for_nan(bound.factor),
        bad_dice=bound.bad_dice,
        alpha=bound.alpha,
        frames=bound.frames,
        assumption=bound.in_words(),
    )
