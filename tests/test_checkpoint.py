import json
from pathlib import Path

import pytest
import torch

from trocar.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from trocar.errors import UserError


def test_a_checkpoint_comes_back_equal_and_replaces_the_older(tmp_path: Path) -> None:
    tensors = {"model": {"a.weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}, "best": {}}
    save_checkpoint(tmp_path, Checkpoint(tensors, {"position": {"step": 1}}), step=1)
    save_checkpoint(tmp_path, Checkpoint(tensors, {"position": {"step": 20, "dice": 0.1 + 0.2}}), step=20)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000020"]
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    back = load_checkpoint(latest)
    assert torch.equal(back.tensors["model"]["a.weight"], tensors["model"]["a.weight"])
    assert back.state["position"] == {"step": 20, "dice": 0.1 + 0.2}


def test_an_unfinished_one_is_not_taken(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint({"model": {"a": torch.ones(1)}}, {}), step=1)
    (tmp_path / ".step-00000002.part").mkdir()
    (tmp_path / "step-00000003").mkdir()  # as if the rename had come before the files
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "step-00000001"


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, Checkpoint({"model": {"a": torch.ones(1)}}, {}), step=1)
    (path / "state.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(path)


def test_an_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.AdamW(network.parameters(), lr=0.01)

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        network(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()

    straight, straight_optimizer = make()
    for seed in range(4):
        step(straight, straight_optimizer, seed)
    first, first_optimizer = make()
    for seed in range(2):
        step(first, first_optimizer, seed)
    groups = {"model": dict(first.state_dict()), "optimizer": optimizer_tensors(first_optimizer)}
    saved = load_checkpoint(save_checkpoint(tmp_path, Checkpoint(groups, {}), step=2))
    second, second_optimizer = make()
    second.load_state_dict(saved.tensors["model"])
    restore_optimizer(second_optimizer, saved.tensors["optimizer"])
    for seed in range(2, 4):
        step(second, second_optimizer, seed)
    assert torch.equal(straight.weight, second.weight)
