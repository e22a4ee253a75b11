"""Depthwise convolutions that train fast on a CPU in bfloat16."""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn


def slow_depthwise_in_float32(network: nn.Module) -> None:
    """Let depthwise convolutions with a stride or a dilation compute in float32, whatever autocast says; in place.

    oneDNN has no fast backward pass for these in bfloat16: one of MobileNetV2's takes 4 to 6 times as long as in
    float32, a whole training step of DeepLabv3+ 1.3 to 1.4 times (`benchmarks/training_step.py`). Weights, state dict
    and the type of what comes out stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            module.forward = MethodType(_forward_in_float32, module)  # type: ignore[method-assign]


def _is_slow(conv: nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels > 1
    return depthwise and (max(conv.stride) > 1 or max(int(d) for d in conv.dilation) > 1)


def _forward_in_float32(conv: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return type(conv).forward(conv, x.float()).to(x.dtype)
