import copy

import pytest
import torch
from torch import Tensor, nn

from trocar.config import ModelSettings, PreprocessSettings
from trocar.models.build import build_model
from trocar.training.depthwise import slow_depthwise_in_float32

SLOW = {"stride": {"stride": 2}, "dilation": {"dilation": 2, "padding": 2}}
FAST = {"plain depthwise": {"groups": 8, "padding": 1}, "strided, not depthwise": {"stride": 2}}


class Seen(nn.Module):
    """Remembers the type that the convolution in it was given to compute in."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.kinds: list[torch.dtype] = []
        plain = conv._conv_forward

        def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            out = plain(x, weight, bias)
            self.kinds.append(out.dtype)
            return out

        conv._conv_forward = noted  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def run(module: Seen) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return module(torch.ones(2, 8, 12, 12, dtype=torch.bfloat16))


@pytest.mark.parametrize("options", SLOW.values(), ids=SLOW)
def test_slow_kinds_compute_in_float32_and_return_what_came_in(options: dict[str, int]) -> None:
    module = Seen(nn.Conv2d(8, 8, 3, groups=8, **options))
    slow_depthwise_in_float32(module)
    assert run(module).dtype == torch.bfloat16
    assert module.kinds == [torch.float32]


@pytest.mark.parametrize("options", FAST.values(), ids=FAST)
def test_other_kinds_are_left_to_autocast(options: dict[str, int]) -> None:
    module = Seen(nn.Conv2d(8, 8, 3, **options))
    slow_depthwise_in_float32(module)
    run(module)
    assert module.kinds == [torch.bfloat16]


def test_gradients_are_those_of_float32() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False)
    x = torch.randn(2, 8, 40, 40).bfloat16().float()

    def gradient(one: nn.Module, *, enabled: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (made,) = torch.autograd.grad(one(x).float().sum(), one.parameters())
        return made

    exact, rounded = gradient(conv, enabled=False), gradient(conv, enabled=True)
    slow_depthwise_in_float32(conv)
    torch.testing.assert_close(gradient(conv, enabled=True), exact, rtol=1e-6, atol=1e-5)
    assert (rounded - exact).abs().max() > 1e-3


def test_a_network_keeps_its_tensors() -> None:
    settings = ModelSettings(encoder="mobilenetv2_100", encoder_weights="none")
    network = build_model(settings, PreprocessSettings(size_hw=(64, 96)), 2)
    names = list(network.state_dict())
    slow_depthwise_in_float32(network)
    assert list(network.state_dict()) == names
    changed = [name for name, module in network.named_modules() if "forward" in vars(module)]
    assert len(changed) == 9  # 3 with stride 2, 3 dilated of the last stage, 3 of the pyramid


def test_a_copy_computes_with_its_own_weights() -> None:
    conv = nn.Conv2d(8, 8, 3, stride=2, groups=8)
    slow_depthwise_in_float32(conv)
    average = copy.deepcopy(conv)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()  # type: ignore[union-attr]
    x = torch.ones(1, 8, 12, 12)
    assert not conv(x).any()
    assert average(x).all()
