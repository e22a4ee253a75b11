"""DeepLabv3+ on a timm encoder: one encoder-decoder that sees a scene at several scales and keeps thin edges.

Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
arXiv:1802.02611. Covered: output stride 8 or 16, separable or plain 3x3 convolutions, any rates and widths. Not
covered: the paper's multi-grid and its inference at several scales. The notebook's own variant is a module of its own.

The encoder is timm's `features_only` network and stays the child `encoder`; all else is new and starts from He's
normal distribution (arXiv:1502.01852).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trocar.config import ModelSettings, nearest
from trocar.errors import UserError

LOW_LEVEL_STRIDE = 4  # of the features that bring edges to the decoder, as in the paper

# A sample for messages; the tests build each at stride 8 and 16. Of timm 1.0.31's 1371 encoders 491 work.
ENCODERS = (
    "resnet18",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "regnety_008",
    "convnext_tiny",
)


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps height and width (no bias: the norm has one), batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def conv3x3(inputs: int, outputs: int, dilation: int = 1, *, separable: bool) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU, plain or separable.

    Separable is a depthwise 3x3, then a pointwise 1x1, each with its own batch norm and ReLU, as in section 3.2.
    """
    if not separable:
        return conv_bn_relu(inputs, outputs, kernel=3, dilation=dilation)
    depthwise = conv_bn_relu(inputs, inputs, kernel=3, dilation=dilation, groups=inputs)
    return nn.Sequential(depthwise, conv_bn_relu(inputs, outputs))


class ASPP(nn.Module):
    """See one feature map through several receptive fields at once.

    One 1x1, one dilated 3x3 a rate, and one whole-image branch, joined by a 1x1. Training needs N >= 2: the
    whole-image branch normalises a single value per image and channel.

    Shapes: x (N, inputs, h, w) -> (N, width, h, w), where h, w = image side / output stride.
    """

    def __init__(self, inputs: int, width: int, rates: Sequence[int], *, separable: bool, dropout: float) -> None:
        super().__init__()
        self.pointwise = conv_bn_relu(inputs, width)
        self.dilated = nn.ModuleList(conv3x3(inputs, width, rate, separable=separable) for rate in rates)
        self.whole_image = conv_bn_relu(inputs, width)
        self.project = conv_bn_relu(width * (len(rates) + 2), width)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (N, inputs, h, w) -> (N, width, h, w)."""
        # The bilinear upsampling of the paper, of one value, is that value everywhere.
        summary = self.whole_image(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        views = [self.pointwise(x), *(branch(x) for branch in self.dilated), summary]
        projected: Tensor = self.dropout(self.project(torch.cat(views, dim=1)))
        return projected


class DeepLabV3Plus(nn.Module):
    """Logits from normalised images: encoder, pyramid, and a decoder that joins in the stride-4 features.

    Shapes: x (N, 3, h, w) float, h and w multiples of 16 -> logits (N, channels, h, w) float32.
    """

    def __init__(self, settings: ModelSettings, channels: int, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = encoder = create_encoder(settings.encoder, settings.output_stride, pretrained=pretrained)
        reductions, widths = encoder.feature_info.reduction(), encoder.feature_info.channels()
        self.low_level_index = reductions.index(LOW_LEVEL_STRIDE)
        rates = [rate * 16 // settings.output_stride for rate in settings.rates]  # section 4: doubled at stride 8
        separable, width = settings.separable, settings.decoder_width
        self.pyramid = ASPP(widths[-1], settings.pyramid_width, rates, separable=separable, dropout=settings.dropout)
        self.low_level = conv_bn_relu(widths[self.low_level_index], settings.low_level_width)
        self.decoder = nn.Sequential(
            conv3x3(settings.pyramid_width + settings.low_level_width, width, separable=separable),
            conv3x3(width, width, separable=separable),
        )
        self.classifier = nn.Conv2d(width, channels, 1)
        for part in (self.pyramid, self.low_level, self.decoder, self.classifier):
            part.apply(_he_normal)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x (N, 3, h, w) -> logits (N, channels, h, w) float32."""
        features = self.encoder(x)
        low_level = self.low_level(features[self.low_level_index])
        pyramid = _resize(self.pyramid(features[-1]), low_level.shape[2:])
        logits = self.classifier(self.decoder(torch.cat([pyramid, low_level], dim=1)))
        return _resize(logits.float(), x.shape[2:])  # under autocast too, thresholds see float32


def create_encoder(name: str, output_stride: int, *, pretrained: bool = False) -> Any:
    """A timm network that returns its feature maps, shallow to deep; `.feature_info` has their widths and strides.

    Refused with `UserError`: a name timm does not know, and an encoder without a stride-4 map or whose deepest map
    cannot be brought to `output_stride`. With `pretrained`, what goes wrong on the way to the hub is raised as it is.
    """
    check_timm_name(name)
    if pretrained:
        return timm.create_model(name, pretrained=True, features_only=True, output_stride=output_stride)
    try:
        encoder: Any = timm.create_model(name, features_only=True, output_stride=output_stride)
        strides = _measured_strides(encoder)
    except Exception as error:  # each family refuses in its own way: TypeError, AssertionError, RuntimeError, ...
        raise _unfit_encoder(name, output_stride, f"{type(error).__name__} {error}".strip()) from error
    if strides != encoder.feature_info.reduction() or strides[-1] != output_stride or LOW_LEVEL_STRIDE not in strides:
        raise _unfit_encoder(name, output_stride, f"its feature maps have the strides {strides}")
    return encoder


def check_timm_name(name: str, *, prefix: str = "") -> None:
    """Raise `UserError` with the nearest names unless timm has this encoder, with or without a `.tag` of weights."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):  # also refuses names such as hf-hub:..., which would be fetched
        near = nearest(architecture, timm.list_models(), count=5) or ENCODERS
        raise UserError(f"timm has no encoder {name}", where="model.encoder", mend=f"nearest: {_join(near, prefix)}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")] if tag else []
    if tag and tag not in tags:
        known = [f"{architecture}.{known}" for known in tags] or [architecture]
        raise UserError(
            f"timm has no weights {tag} for {architecture}",
            where="model.encoder",
            mend=f"one of: {_join(known, prefix)}",
        )


def forward_shapes_only(module: nn.Module, size_hw: tuple[int, int]) -> Any:
    """What `module` would return for one image of this size, as meta tensors: shapes, no arithmetic, no change."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    ghosts = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return torch.func.functional_call(module, ghosts, (torch.empty(1, 3, *size_hw, device="meta"),))
    finally:
        module.train(was_training)


def _measured_strides(encoder: nn.Module, side: int = 128) -> list[int]:
    """Strides of the feature maps as they come: some encoders take an output stride and ignore it."""
    return [side // feature.shape[2] for feature in forward_shapes_only(encoder, (side, side))]


def _unfit_encoder(name: str, output_stride: int, reason: str) -> UserError:
    return UserError(
        f"encoder {name} does not suit deeplabv3plus: it needs a stride-4 map and output stride {output_stride}",
        where=f"model.encoder: {reason}",
        mend=f"encoders that work: {', '.join(ENCODERS)}, and their relatives; smp/NAME architectures take others",
    )


def _join(names: Sequence[str], prefix: str) -> str:
    return ", ".join(prefix + name for name in names)


def _resize(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size_hw), mode="bilinear", align_corners=False)


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        # fan-in, because fan-out of a depthwise kernel counts every channel though each output sees only one
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
