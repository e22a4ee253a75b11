"""Checkpoints of a training: everything needed to go on as if it had never stopped. Tensors and JSON, no pickle.

A checkpoint is a folder `step-00000123` with `tensors.safetensors` and `state.json`. It is written under a hidden name
and renamed when complete, and only then are older ones removed: whatever happens, the last complete one survives.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trocar.errors import UserError

FORMAT = 1
TENSORS, STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors (`model`, `average`, `optimizer`, `kept`, `random`) and plain JSON state."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, step: int) -> Path:
    """Write a checkpoint into `folder`, whole or not at all, then remove the older ones there.

    Raises `UserError` where it cannot be written (disk full, no permission); earlier checkpoints then remain.
    """
    target = folder / f"step-{step:08d}"
    scratch = folder / f".{target.name}.part"
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in checkpoint.tensors.items()
        for name, tensor in tensors.items()
    }
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write_tensors(flat, scratch / TENSORS)
        (scratch / STATE).write_text(json.dumps({"format": FORMAT, **checkpoint.state}, indent=1), encoding="utf-8")
        for path in scratch.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # the rename must not reach the disk before the content
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        last = latest_checkpoint(folder)
        raise UserError(
            f"cannot write a checkpoint: {error}",
            where=f"{target}; the last good one is {last.name if last else 'none'}",
            mend="free space there, or allow writing, then go on with `trocar train --resume`",
        ) from error
    for old in _complete(folder):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    return max(_complete(folder), default=None)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back. Raises `UserError` where it is damaged or of another format."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        flat = load_file(path / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"cannot read the checkpoint: {error}", where=str(path), mend="start the training anew in another folder"
        ) from None
    if state.get("format") != FORMAT:
        raise UserError(
            f"the checkpoint is of format {state.get('format')}, this trocar reads {FORMAT}",
            where=str(path),
            mend="resume with the version of trocar that began the run",
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        group, _, name = key.partition("/")
        tensors.setdefault(group, {})[name] = tensor
    return Checkpoint(tensors, state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by `index.key`; its groups are rebuilt from the recipe, not stored."""
    return {
        f"{index}.{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put stored state back, in the memory layout of the parameters it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape and tensor.ndim:
            tensor = torch.empty_like(like, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_tensors() -> dict[str, Tensor]:
    """States of torch's generators (dropout draws from them); everything else random here is seeded by position."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's generators back to stored states."""
    torch.set_rng_state(tensors["cpu"])
    cuda = [tensors[name] for name in sorted(tensors) if name.startswith("cuda")]
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)


def _complete(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if (path / STATE).is_file() and (path / TENSORS).is_file()]
