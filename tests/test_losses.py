from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from torch import Tensor

from trocar.config import LossSettings
from trocar.losses import build_loss

NAMES = ("cross-entropy", "dice", "cross-entropy+dice", "focal", "tversky")
CLASS_COUNTS = (2, 3)
EVERY_LOSS = list(product(NAMES, CLASS_COUNTS))


def loss(name: str, class_count: int = 2, **settings: Any) -> Any:
    return build_loss(LossSettings.model_validate({"name": name, **settings}), class_count)


def batch(class_count: int, ignored: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (2, C, 6, 7) and a target of all classes, a share of its pixels 255."""
    generator = np.random.default_rng(seed)
    channels = 1 if class_count == 2 else class_count
    logits = generator.normal(0, 2, (2, channels, 6, 7)).astype(np.float32)
    target = generator.integers(0, class_count, (2, 6, 7)).astype(np.uint8)
    target[generator.random(target.shape) < ignored] = 255
    return torch.from_numpy(logits), torch.from_numpy(target)


def valid_rows(logits: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (P, C) in float64 and labels (P,) of the pixels that count, by numpy alone."""
    rows = logits.numpy().astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, logits.shape[1])
    if rows.shape[1] == 1:
        rows = np.concatenate([np.zeros_like(rows), rows], axis=1)  # sigmoid is the softmax with a zero
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    labels = target.numpy().reshape(-1)
    return (exponentials / exponentials.sum(axis=1, keepdims=True))[labels != 255], labels[labels != 255]


def soft_tversky(probabilities: np.ndarray, labels: np.ndarray, alpha: float, beta: float) -> float:
    scores = []
    for index in range(1, probabilities.shape[1]):
        p, t = probabilities[:, index], (labels == index).astype(float)
        if t.any():
            hit = (p * t).sum()
            scores.append(hit / (hit + alpha * (p * (1 - t)).sum() + beta * ((1 - p) * t).sum()))
    return 1 - float(np.mean(scores))


@pytest.mark.parametrize("class_count", CLASS_COUNTS)
def test_cross_entropy_agrees_with_sklearn(class_count: int) -> None:
    logits, target = batch(class_count)
    probabilities, labels = valid_rows(logits, target)
    expected = log_loss(labels, probabilities, labels=range(class_count))
    assert loss("cross-entropy", class_count)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("class_count", CLASS_COUNTS)
def test_dice_of_sure_predictions_is_one_minus_f1(class_count: int) -> None:
    _, target = batch(class_count)
    _, guess = batch(class_count, ignored=0, seed=1)
    if class_count == 2:
        logits = torch.where(guess.unsqueeze(1) == 1, 50.0, -50.0)
    else:
        logits = torch.nn.functional.one_hot(guess.long(), class_count).permute(0, 3, 1, 2) * 100.0
    counted = (target != 255).numpy()
    score = f1_score(target.numpy()[counted], guess.numpy()[counted], labels=range(1, class_count), average="macro")
    assert loss("dice", class_count)(logits, target).item() == pytest.approx(1 - score, abs=1e-6)


@pytest.mark.parametrize("class_count", CLASS_COUNTS)
def test_region_losses_agree_with_numpy(class_count: int) -> None:
    logits, target = batch(class_count)
    rows = valid_rows(logits, target)
    assert loss("dice", class_count)(logits, target).item() == pytest.approx(soft_tversky(*rows, 0.5, 0.5), rel=1e-5)
    value = loss("tversky", class_count, tversky_alpha=0.2, tversky_beta=0.9)(logits, target)
    assert value.item() == pytest.approx(soft_tversky(*rows, 0.2, 0.9), rel=1e-5)


def test_a_case_worked_by_hand() -> None:
    # p = 3/4, 1/4, 1/2, (ignored); t = 1, 0, 1
    logits = torch.tensor([math.log(3), -math.log(3), 0.0, 9.0]).view(1, 1, 2, 2)
    target = torch.tensor([1, 0, 1, 255], dtype=torch.uint8).view(1, 2, 2)
    entropy = -(2 * math.log(3 / 4) + math.log(1 / 2)) / 3
    assert loss("cross-entropy")(logits, target).item() == pytest.approx(entropy, rel=1e-6)
    dice = 1 - 2 * 1.25 / (1.5 + 2)
    assert loss("dice")(logits, target).item() == pytest.approx(dice, rel=1e-6)
    both = loss("cross-entropy+dice", dice_weight=3.0)(logits, target).item()
    assert both == pytest.approx(entropy + 3 * dice, rel=1e-6)
    tversky = 1 - 1.25 / (1.25 + 0.3 * 0.25 + 0.7 * 0.75)
    assert loss("tversky")(logits, target).item() == pytest.approx(tversky, rel=1e-6)
    focal = -(2 * (1 / 4) ** 2 * math.log(3 / 4) + (1 / 2) ** 2 * math.log(1 / 2)) / 3
    assert loss("focal")(logits, target).item() == pytest.approx(focal, rel=1e-6)


@pytest.mark.parametrize("class_count", CLASS_COUNTS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_agrees_with_numpy_and_is_cross_entropy_at_zero(class_count: int, gamma: float) -> None:
    logits, target = batch(class_count)
    probabilities, labels = valid_rows(logits, target)
    p = probabilities[np.arange(len(labels)), labels]
    expected = float((-((1 - p) ** gamma) * np.log(p)).mean())
    value = loss("focal", class_count, focal_gamma=gamma)(logits, target).item()
    assert value == pytest.approx(expected, rel=1e-4)
    if gamma == 0:
        assert value == pytest.approx(loss("cross-entropy", class_count)(logits, target).item(), rel=1e-6)


def test_dice_pools_the_batch_and_leaves_out_absent_classes() -> None:
    logits, target = batch(3, ignored=0)
    target[target == 2] = 0  # class 2 absent from the whole batch
    target[1] = 0  # and no instrument at all in the second image
    probabilities, labels = valid_rows(logits, target)
    assert set(labels) == {0, 1}
    hit = probabilities[labels == 1, 1].sum()
    expected = 1 - 2 * hit / (probabilities[:, 1].sum() + (labels == 1).sum())
    assert loss("dice", 3)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_false_positives_on_an_empty_frame_weigh_in_the_pool() -> None:
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    target[0, :2] = 1
    logits = torch.where(target.unsqueeze(1) == 1, 20.0, -20.0)
    clean = loss("dice")(logits, target)
    logits[1] = 20.0
    assert clean < 1e-6
    assert loss("dice")(logits, target).item() == pytest.approx(1 - 2 * 8 / (24 + 8), abs=1e-6)


@pytest.mark.parametrize("name", ["dice", "tversky"])
@pytest.mark.parametrize("class_count", CLASS_COUNTS)
def test_a_batch_without_any_instrument_has_no_region_loss(name: str, class_count: int) -> None:
    logits, target = batch(class_count)
    target[target != 255] = 0
    logits.requires_grad_()
    value = loss(name, class_count)(logits, target)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
def test_ignored_pixels_have_neither_value_nor_gradient(name: str, class_count: int) -> None:
    logits, target = batch(class_count)
    ignored = (target == 255).unsqueeze(1).expand_as(logits)
    assert ignored.any()
    compute = loss(name, class_count)
    value = compute(logits, target)
    for wild in (-30.0, 1e4, torch.inf, torch.nan):
        changed = torch.where(ignored, wild, logits).requires_grad_()
        again = compute(changed, target)
        again.backward()
        assert torch.equal(again, value)
        assert changed.grad is not None
        assert not changed.grad[ignored].any()
        assert changed.grad[~ignored].all()


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
def test_a_batch_of_ignored_pixels_gives_zero(name: str, class_count: int) -> None:
    logits, target = batch(class_count)
    logits.requires_grad_()
    value = loss(name, class_count)(logits, torch.full_like(target, 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_have_finite_values_and_gradients(name: str, class_count: int, dtype: torch.dtype) -> None:
    logits, target = batch(class_count)
    for extreme in (logits.sign() * 1e4, torch.full_like(logits, 1e4), torch.full_like(logits, -1e4)):
        for gamma in (0.0, 0.5, 2.0) if name == "focal" else (2.0,):
            extreme = extreme.detach().to(dtype).requires_grad_()
            value = loss(name, class_count, focal_gamma=gamma)(extreme, target)
            value.backward()
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert extreme.grad is not None
            assert extreme.grad.isfinite().all()


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
def test_half_precision_does_not_overflow_or_round(name: str, class_count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    channels = 1 if class_count == 2 else class_count
    logits = torch.randn(2, channels, 400, 400, generator=generator).half()  # 320000 pixels; float16 ends at 65504
    target = torch.randint(0, class_count, (2, 400, 400), generator=generator)
    compute = loss(name, class_count)
    expected = compute(logits.double().float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute(logits, target), expected)
    assert torch.equal(compute(logits, target), expected)


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
def test_gradient_is_that_of_finite_differences(name: str, class_count: int) -> None:
    logits, target = batch(class_count)
    compute = loss(name, class_count)
    logits.requires_grad_()
    compute(logits, target).backward()
    assert logits.grad is not None
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = 1e-2
        slope = (compute(logits + step * direction, target) - compute(logits - step * direction, target)) / (2 * step)
    assert slope.item() == pytest.approx((logits.grad * direction).sum().item(), rel=0.02, abs=1e-3)


@pytest.mark.parametrize(("name", "class_count"), EVERY_LOSS)
def test_perfect_is_zero_and_wrong_is_large(name: str, class_count: int) -> None:
    _, target = batch(class_count)
    truth = torch.where(target == 255, 0, target).long()
    if class_count == 2:
        logits = (truth.unsqueeze(1) * 2 - 1) * 30.0
    else:
        logits = torch.nn.functional.one_hot(truth, class_count).permute(0, 3, 1, 2) * 30.0
    assert loss(name, class_count)(logits, target) < 1e-5
    assert loss(name, class_count)(-logits, target) > 0.5


def test_a_non_finite_logit_stays_visible() -> None:
    logits, target = batch(2, ignored=0)
    logits[0, 0, 0, 0] = torch.nan
    for name in NAMES:
        assert loss(name)(logits, target).isnan()


@pytest.mark.parametrize("shape", [(2, 2, 6, 7), (2, 1, 6, 8)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        loss("cross-entropy")(torch.zeros(shape), torch.zeros(2, 6, 7, dtype=torch.uint8))
