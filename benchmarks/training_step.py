"""One training step of DeepLabv3+ on a CPU in bfloat16: with slow depthwise convolutions in float32, and without.

Run: python benchmarks/training_step.py [--size-hw 288 384] [--encoder mobilenetv2_100]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from trocar.config import ModelSettings, PreprocessSettings
from trocar.models.build import Network, build_model
from trocar.training.depthwise import slow_depthwise_in_float32


def main() -> None:
    """Time the three in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--size-hw", type=int, nargs=2, default=(288, 384))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    steps = {}
    for name in ("bf16", "bf16, slow depthwise in float32", "float32"):
        network = _network(options.encoder, options.size_hw)
        if "depthwise" in name:
            slow_depthwise_in_float32(network)
        steps[name] = _step(network, options.batch, options.size_hw, autocast=name != "float32")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + 2):
        for name, step in steps.items():  # in turn, so that a drift of the machine meets all alike
            started = time.perf_counter()
            step()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) / options.batch for name, values in seconds.items()}
    height, width = options.size_hw
    print(f"{options.encoder}, {width}x{height}, batch {options.batch}, {torch.get_num_threads()} threads, per image:")
    for name, value in medians.items():
        print(f"  {name:34} {value:.3f} s   {medians['bf16'] / value:.2f}x")


def _network(encoder: str, size_hw: tuple[int, int]) -> Network:
    settings = ModelSettings(encoder=encoder, encoder_weights="none")
    return build_model(settings, PreprocessSettings(size_hw=tuple(size_hw)), 2).train()


def _step(network: nn.Module, batch: int, size_hw: tuple[int, int], *, autocast: bool) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters())
    frames = torch.randint(0, 256, (batch, *size_hw, 3), dtype=torch.uint8)
    masks = torch.rand(batch, 1, *size_hw).round()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(frames)
        nn.functional.binary_cross_entropy_with_logits(logits, masks).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
