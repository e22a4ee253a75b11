"""The notebook's network, exact: DeepLabv3+ on a Keras ResNet-50 that is cut inside its fourth stage.

11,850,113 parameters with one output channel. It differs from the paper's (`models.deeplab`): the decoder has
neither batch norm nor biases, the pyramid pools with a bias, and the encoder sees values of 0..1 without mean and
deviation. Any input whose sides are divisible by 16 goes through; the notebook's graph was fixed to 512x512.

`stride_in` is where the ResNet halves its maps. "1x1" is Keras's v1: in the first 1x1 of a block, batch-norm epsilon
1.001e-5; only weights of Keras fit it. "3x3" is v1.5, what torch and timm have trained: to start from their weights
use it; convolution biases, which they lack, start at zero, and the epsilon is their 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

StrideIn: TypeAlias = Literal["1x1", "3x3"]

STAGES = ((2, 64, 3), (3, 128, 4), (4, 256, 6))  # number, width, blocks; the fifth stage is not used
RATES = (6, 12, 18)
WIDTH = 256  # channels of pyramid and decoder
LOW_LEVEL_WIDTH = 48
MOMENTUM = 0.01  # what Keras calls 0.99
KERAS_RESNET_EPSILON, TORCH_RESNET_EPSILON, KERAS_EPSILON = 1.001e-5, 1e-5, 1e-3
TRUNCATION = 0.87962566103423978  # deviation of a standard normal cut at 2, by which Keras divides


class ConvBlock(nn.Module):
    """A convolution that keeps height and width, batch norm (epsilon 1e-3), ReLU.

    Shapes: x (N, inputs, h, w) -> (N, outputs, h, w).
    """

    def __init__(
        self, inputs: int, outputs: int = WIDTH, kernel: int = 3, dilation: int = 1, *, bias: bool = False
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=bias)
        self.bn = nn.BatchNorm2d(outputs, eps=KERAS_EPSILON, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (N, inputs, h, w) -> (N, outputs, h, w)."""
        return F.relu(self.bn(self.conv(x)))


class DilatedSpatialPyramidPooling(nn.Module):
    """See one feature map whole, by itself, and through 3x3 convolutions of dilation 6, 12 and 18.

    Training needs N >= 2: the pooled branch normalises a single value per image and channel.

    Shapes: x (N, inputs, h, w) -> (N, 256, h, w).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.pooled = ConvBlock(inputs, kernel=1, bias=True)
        self.pointwise = ConvBlock(inputs, kernel=1)
        self.dilated = nn.ModuleList(ConvBlock(inputs, dilation=rate) for rate in RATES)
        self.project = ConvBlock(WIDTH * (len(RATES) + 2), kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (N, inputs, h, w) -> (N, 256, h, w)."""
        # Keras's bilinear upsampling of one value is that value everywhere.
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        views = [pooled, self.pointwise(x), *(branch(x) for branch in self.dilated)]
        projected: Tensor = self.project(torch.cat(views, dim=1))
        return projected


class Bottleneck(nn.Module):
    """A block of Keras's ResNet-50: 1x1, 3x3 and 1x1 convolutions with biases, added to a shortcut.

    `low_level` of `forward` is the map after the 3x3's ReLU, which the notebook taps. A `cut` block ends there.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, stride_in: StrideIn, epsilon: float, *, first: bool, cut: bool
    ) -> None:
        super().__init__()
        strides = (stride, 1) if stride_in == "1x1" else (1, stride)

        def norm(channels: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(channels, eps=epsilon, momentum=MOMENTUM)

        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, stride=strides[0]), norm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride=strides[1], padding=1), norm(width)
        if not cut:
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1), norm(4 * width)
        if first:
            self.conv0, self.bn0 = nn.Conv2d(inputs, 4 * width, 1, stride=stride), norm(4 * width)
        self.first, self.cut = first, cut

    def inside(self, x: Tensor) -> Tensor:
        """The map after the 3x3's ReLU. Shapes: x (N, inputs, h, w) -> (N, width, h / stride, w / stride)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the block gives and its inside; a cut block gives its inside twice."""
        inside = self.inside(x)
        if self.cut:
            return inside, inside
        shortcut = self.bn0(self.conv0(x)) if self.first else x
        return F.relu(shortcut + self.bn3(self.conv3(inside))), inside


class KerasResNet50(nn.Module):
    """ResNet-50 with Keras's numerics up to `conv4_block6_2_relu`; its modules bear Keras's names.

    Shapes: x (N, 3, h, w) -> conv2_block3_2_relu (N, 64, h/4, w/4) and conv4_block6_2_relu (N, 256, h/16, w/16).
    """

    def __init__(self, stride_in: StrideIn) -> None:
        super().__init__()
        epsilon = KERAS_RESNET_EPSILON if stride_in == "1x1" else TORCH_RESNET_EPSILON
        self.stride_in = stride_in
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64, eps=epsilon, momentum=MOMENTUM)
        inputs = 64
        for stage, width, blocks in STAGES:
            for number in range(1, blocks + 1):
                block = Bottleneck(
                    inputs,
                    width,
                    stride=2 if number == 1 and stage > 2 else 1,
                    stride_in=stride_in,
                    epsilon=epsilon,
                    first=number == 1,
                    cut=(stage, number) == (4, 6),
                )
                self.add_module(f"conv{stage}_block{number}", block)
                inputs = 4 * width

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: x (N, 3, h, w) -> (N, 64, h/4, w/4), (N, 256, h/16, w/16)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)  # Keras pads with 0: the same, as nothing is below 0
        low_level = x
        for name, block in self.named_children():
            if isinstance(block, Bottleneck):
                x, inside = block(x)
                low_level = inside if name == "conv2_block3" else low_level
        return low_level, x


class NotebookDeepLab(nn.Module):
    """Logits from images of 0..1: the notebook's graph up to its sigmoid.

    The notebook upsamples 256 channels by 4 and then takes the last 1x1; here the 1x1 comes first. Both are linear and
    bilinear weights sum to 1, so the result is the same, for a 256th of the work at full size.

    Shapes: x (N, 3, h, w) float, h and w multiples of 16 -> logits (N, channels, h, w) float32.
    """

    def __init__(self, channels: int, stride_in: StrideIn) -> None:
        super().__init__()
        self.encoder = KerasResNet50(stride_in)
        self.pyramid = DilatedSpatialPyramidPooling(256)
        self.low_level = nn.Conv2d(64, LOW_LEVEL_WIDTH, 1, bias=False)
        self.decoder = nn.ModuleList(
            nn.Conv2d(inputs, WIDTH, 3, padding=1, bias=False) for inputs in (WIDTH + LOW_LEVEL_WIDTH, WIDTH)
        )
        self.classifier = nn.Conv2d(WIDTH, channels, 1)
        for part in (self.pyramid, self.low_level, self.decoder):
            part.apply(_he_normal)
        self.encoder.apply(_glorot_uniform)
        self.classifier.apply(_glorot_uniform)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (N, 3, h, w) -> logits (N, channels, h, w) float32."""
        low_level, deep = self.encoder(x)
        joined = torch.cat([_upsample(self.pyramid(deep), 4), F.relu(self.low_level(low_level))], dim=1)
        for conv in self.decoder:
            joined = F.relu(conv(joined))
        return _upsample(self.classifier(joined).float(), 4)  # under autocast too, thresholds see float32


def encoder_names() -> Iterator[tuple[str, str, str]]:
    """Of each convolution and norm of the encoder: its name here, in Keras, and in torch and timm."""
    yield "conv1", "conv1_conv", "conv1"
    yield "bn1", "conv1_bn", "bn1"
    for stage, _, blocks in STAGES:
        for block in range(1, blocks + 1):
            here, there = f"conv{stage}_block{block}", f"layer{stage - 1}.{block - 1}"
            parts = [1, 2] if (stage, block) == (4, 6) else [1, 2, 3]
            for part in ([0] if block == 1 else []) + parts:
                torch_names = (f"conv{part}", f"bn{part}") if part else ("downsample.0", "downsample.1")
                yield f"{here}.conv{part}", f"{here}_{part}_conv", f"{there}.{torch_names[0]}"
                yield f"{here}.bn{part}", f"{here}_{part}_bn", f"{there}.{torch_names[1]}"


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _he_normal(module: nn.Module) -> None:
    """He's normal distribution cut at two deviations, as Keras draws it (arXiv:1502.01852)."""
    if isinstance(module, nn.Conv2d):
        deviation = math.sqrt(2 / _fan_in(module.weight.shape)) / TRUNCATION
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _glorot_uniform(module: nn.Module) -> None:
    """What Keras starts convolutions from unless told otherwise."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _fan_in(shape: Sequence[int]) -> int:
    return math.prod(shape[1:])
