"""Which device and which arithmetic: from the words of the command line to what torch and Fabric take."""

from __future__ import annotations

from typing import Literal

import torch

from trocar.errors import UserError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes a CUDA GPU, then Apple's, then the CPU; else `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises `UserError` where the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device is called {name!r}", mend="use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {name} is not there: {count} CUDA devices found", mend="use --device cpu or auto")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps is not there", mend="use --device cpu or auto")
    if device.type not in ("cpu", "mps"):
        raise UserError(f"device {name} is not supported", mend="use auto, cpu, cuda, cuda:N or mps")
    return device


def choose_precision(setting: str, device: torch.device) -> Precision:
    """The arithmetic of a forward pass; `auto` takes half precision only where the device is fast at it."""
    if setting == "auto":
        setting = _fast_precision(device)
    if setting == "fp16" and device.type == "cpu":
        raise UserError("fp16 is no training arithmetic for a CPU", mend="set train.precision to auto, bf16 or fp32")
    choices: dict[str, Precision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    return choices[setting]


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():  # no public question exists in older torch
        return "bf16"
    return "fp32"
