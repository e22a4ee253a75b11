"""What training minimises: cross-entropy, soft Dice, their sum, focal and Tversky, binary and multi-class.

Every loss leaves out pixels labelled 255: logits below them neither change the value nor get a gradient, and a batch
of nothing else gives 0 with zero gradients. Every loss computes in float32, under autocast and for half logits too.

Cross-entropies are torch's. Region and focal losses are our own, because those of segmentation-models-pytorch (0.6)
- average over all classes, with 0 for a class the batch lacks, so that the loss falls with each absent class,
- find the intersection as a difference of sums over all pixels, which cancels in float32 for small instruments,
- give NaN (focal) where every pixel is ignored, and where a confident pixel meets an exponent below 1,
- score classes one against the rest with sigmoids (focal), while prediction takes a softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from trocar.config import LossSettings
from trocar.data.records import IGNORE

# logits (N, C, h, w), C = 1 where there are two classes; target (N, h, w) class indices, 255 ignore -> float32 scalar
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def build_loss(settings: LossSettings, class_count: int) -> Loss:
    """The loss a recipe names, for logits of one channel (two classes) or of `class_count` channels.

    With two classes the target may also be shares of the instrument, float32 from 0 to 1: what blurred masks give.

    Shapes: logits (N, C, h, w) of any float type, target (N, h, w) integers or shares -> float32 scalar.
    """
    channels = 1 if class_count == 2 else class_count
    terms = _terms(settings)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        n, c, h, w = logits.shape
        if c != channels or target.shape != (n, h, w):
            raise ValueError(
                f"logits are {tuple(logits.shape)} and the target {tuple(target.shape)}; "
                f"expected (N, {channels}, h, w) and (N, h, w)"
            )
        if target.is_floating_point() and channels > 1:
            raise ValueError("a target of shares needs two classes")
        valid = target != IGNORE
        # Replaced before anything is computed: not even an infinite logit reaches the sum or the gradient.
        # In float32 from here on: none of the operations below is one that autocast lowers.
        logits = torch.where(valid.unsqueeze(1), logits.float(), 0.0)
        target = torch.where(valid, target, 0)
        target = target if target.is_floating_point() else target.long()
        return torch.stack([weight * term(logits, target, valid) for weight, term in terms]).sum()

    return loss


def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid pixels of -log p(true class); 0 where no pixel is valid."""
    return _mean(_pixel_cross_entropy(logits, target), valid)


def focal(logits: Tensor, target: Tensor, valid: Tensor, *, gamma: float) -> Tensor:
    """Mean over valid pixels of -(1 - p)^gamma log p, p of the true class (Lin et al. 2017, arXiv:1708.02002).

    No class weights (alpha). gamma 0 is cross-entropy.
    """
    pixels = _pixel_cross_entropy(logits, target)
    missed = -torch.expm1(-pixels)  # 1 - p without cancellation
    # Below the bound the slope of x^gamma, infinite at 0 where gamma < 1, would make inf * 0 of a sure pixel.
    return _mean(missed.clamp_min(1e-6) ** gamma * pixels, valid)


def tversky(logits: Tensor, target: Tensor, valid: Tensor, *, alpha: float, beta: float) -> Tensor:
    """1 - TP / (TP + alpha FP + beta FN) of soft counts (Salehi et al. 2017, arXiv:1706.05721); 1/2, 1/2 is Dice.

    Counts are pooled over the batch: an image without the class has no Dice of its own, but its false positives then
    weigh in the same sum, and a handful of pixels at an image's border does not count as much as a whole instrument.
    The mean is over the classes that the batch contains: for an absent class the ratio is 0 whatever is predicted,
    which teaches nothing (a batch with none gives 0). The background is no term: with two classes there is only the
    instrument, several classes follow it, and what is wrong about the background is an instrument's FP or FN.
    """
    if logits.shape[1] == 1:
        probabilities, truth = logits.sigmoid(), target.unsqueeze(1)
    else:
        classes = torch.arange(1, logits.shape[1], device=target.device).view(1, -1, 1, 1)
        probabilities, truth = logits.softmax(dim=1)[:, 1:], target.unsqueeze(1) == classes
    truth = truth.float()
    probabilities = probabilities * valid.unsqueeze(1)
    pixels = (0, 2, 3)
    hit, predicted, true = (probabilities * truth).sum(pixels), probabilities.sum(pixels), truth.sum(pixels)
    score = hit / (hit + alpha * (predicted - hit) + beta * (true - hit)).clamp_min(1e-6)
    return _mean(1 - score, true > 0)


def _terms(settings: LossSettings) -> list[tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]]:
    """The weighted terms of a loss; each takes logits, target and valid, ignored pixels already neutral."""

    def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return tversky(logits, target, valid, alpha=0.5, beta=0.5)

    def focal_term(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return focal(logits, target, valid, gamma=settings.focal_gamma)

    def tversky_term(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return tversky(logits, target, valid, alpha=settings.tversky_alpha, beta=settings.tversky_beta)

    match settings.name:
        case "cross-entropy":
            return [(1.0, cross_entropy)]
        case "dice":
            return [(1.0, dice)]
        case "cross-entropy+dice":
            return [(1.0, cross_entropy), (settings.dice_weight, dice)]
        case "focal":
            return [(1.0, focal_term)]
        case "tversky":
            return [(1.0, tversky_term)]


def _pixel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Shapes: logits (N, C, h, w), target (N, h, w) -> (N, h, w)."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.float(), reduction="none")
    return F.cross_entropy(logits, target, reduction="none")


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted values, 0 where there is none."""
    return (values * counted).sum() / counted.sum().clamp_min(1)
