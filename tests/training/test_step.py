import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trocar.config import LossSettings, ModelSettings, PreprocessSettings, TrainSettings
from trocar.data.loading import Batch
from trocar.errors import UserError
from trocar.losses import build_loss
from trocar.models.build import build_model
from trocar.training.step import (
    Tally,
    average_update,
    batch_overlap,
    build_optimizer,
    learning_rate_at,
    train_step,
)


class PerPixel(nn.Module):
    """A network small enough to work out by hand: one logit a pixel from its three colours."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.linear(frames.float() / 255).permute(0, 3, 1, 2)


def make_batch(count: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(rng.integers(0, 256, (count, 8, 8, 3), np.uint8))
    return Batch(frames, (frames[..., 0] > 128).to(torch.uint8), [f"r{index}" for index in range(count)])


def test_accumulated_batches_give_the_gradient_of_one_large_batch() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    loss = build_loss(LossSettings(name="cross-entropy"), 2)
    small, large = make_batch(2, 0), make_batch(6, 1)
    joined = Batch(torch.cat([small.frames, large.frames]), torch.cat([small.masks, large.masks]), ["x"] * 8)
    weights = []
    for batches in ([small, large], [joined]):
        torch.manual_seed(0)
        network = PerPixel()
        model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.1))
        tally = Tally()
        train_step(fabric, model, batches, loss, optimizer, clip_norm=None, tally=tally)
        assert tally.images == 8
        weights.append(network.linear.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-8)


def test_a_loss_that_is_not_finite_names_the_records_and_leaves_the_weights() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    network = PerPixel()
    before = network.linear.weight.detach().clone()
    model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.1))

    def broken(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits.sum() * math.nan

    with pytest.raises(UserError, match=r"not finite.*\n.*r0, r1"):
        train_step(fabric, model, [make_batch(2, 0)], broken, optimizer, clip_norm=1.0, tally=Tally())
    assert torch.equal(network.linear.weight, before)


def test_gradients_are_clipped_to_the_norm() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    network = PerPixel()
    model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.0))
    loss = build_loss(LossSettings(), 2)
    train_step(fabric, model, [make_batch(4, 0)], loss, optimizer, clip_norm=1e-3, tally=Tally())
    norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_overlap_of_a_batch_by_hand() -> None:
    masks = torch.tensor([[[1, 1], [0, 255]], [[0, 0], [0, 255]]], dtype=torch.uint8)
    logits = torch.tensor([[[[5.0, -5], [5, 5]]], [[[-5.0, -5], [-5, 5]]]])
    dice, jaccard = batch_overlap(logits, masks)
    assert dice.tolist()[0] == pytest.approx(2 * 1 / (2 + 2))
    assert jaccard.tolist()[0] == pytest.approx(1 / 3)
    assert math.isnan(dice.tolist()[1])  # nothing there and nothing found: the ignored pixel counts nowhere


def test_overlap_of_several_classes_is_the_mean_over_those_that_occur() -> None:
    masks = torch.tensor([[[1, 1], [2, 0]]], dtype=torch.uint8)
    pred = torch.tensor([[[1, 0], [2, 0]]])
    logits = torch.nn.functional.one_hot(pred, 4).permute(0, 3, 1, 2).float()
    dice, _ = batch_overlap(logits, masks)
    assert float(dice[0]) == pytest.approx((2 / 3 + 1) / 2)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    settings = TrainSettings(learning_rate=0.1, warmup_share=0.1)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.05, rel=0.01)  # half way down the cosine
    assert rates[99] < 1e-4
    constant = TrainSettings(learning_rate=0.1, warmup_share=0, schedule="constant")
    assert {learning_rate_at(step, 100, constant) for step in range(100)} == {0.1}


def test_the_optimizer_decays_kernels_only_and_may_freeze_the_encoder() -> None:
    model = ModelSettings(encoder="resnet18", encoder_weights="none", pyramid_width=16, decoder_width=16)
    network = build_model(model, PreprocessSettings(size_hw=(64, 64)), 2)
    optimizer = build_optimizer(network, TrainSettings())
    assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == sum(
        p.numel() for p in network.parameters()
    )
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    frozen = build_optimizer(network, TrainSettings(encoder_rate_factor=0))
    held = {id(p) for g in frozen.param_groups for p in g["params"]}
    assert not any(id(p) in held or p.requires_grad for p in network.encoder_parameters())


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, multi_avg_fn=average_update(0.9))
    expected = None
    for step in range(50):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update_parameters(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-5)
