from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trocar.config import ModelSettings
from trocar.errors import UserError
from trocar.models.deeplab import ASPP, ENCODERS, DeepLabV3Plus, check_timm_name, conv3x3, create_encoder

WIDTHS = {"pyramid_width": 32, "low_level_width": 8, "decoder_width": 24}


def small(encoder: str = "test_resnet", **settings: object) -> ModelSettings:
    return ModelSettings.model_validate({"encoder": encoder, **WIDTHS, **settings})


def randomise_norms(module: nn.Module) -> None:
    """Give batch norms statistics and affine values that show if one of them is left out or misplaced."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2)):
                assert tensor is not None
                tensor.uniform_(low, high)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)


def functional_block(x: Tensor, block: nn.Sequential, padding: int = 0, dilation: int = 1, groups: int = 1) -> Tensor:
    conv, norm = block[0], block[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.eps == 1e-5
    x = F.conv2d(x, conv.weight, None, 1, padding, dilation, groups)
    shape = (1, -1, 1, 1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = (x - norm.running_mean.view(shape)) / torch.sqrt(norm.running_var.view(shape) + 1e-5)
    return (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp_min(0)


@pytest.mark.parametrize("separable", [True, False])
def test_pyramid_agrees_with_functional_calls(separable: bool) -> None:
    torch.manual_seed(0)
    aspp = ASPP(12, 16, (2, 5), separable=separable, dropout=0.5).eval()
    randomise_norms(aspp)
    x = torch.randn(2, 12, 9, 13)
    views = [functional_block(x, aspp.pointwise)]
    for rate, branch in zip((2, 5), aspp.dilated, strict=True):
        if separable:
            depthwise = functional_block(x, branch[0], padding=rate, dilation=rate, groups=12)
            views.append(functional_block(depthwise, branch[1]))
        else:
            views.append(functional_block(x, branch, padding=rate, dilation=rate))
    pooled = functional_block(F.adaptive_avg_pool2d(x, 1), aspp.whole_image)
    views.append(F.interpolate(pooled, size=(9, 13), mode="bilinear", align_corners=False))
    expected = functional_block(torch.cat(views, 1), aspp.project)
    with torch.no_grad():
        torch.testing.assert_close(aspp(x), expected, rtol=1e-4, atol=1e-5)


def test_pyramid_drops_channels_in_training_only() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, 64, (1,), separable=True, dropout=0.5)
    x = torch.randn(4, 4, 8, 8)
    dropped = (aspp(x) == 0).all(dim=(2, 3)).float().mean()
    assert 0.3 < dropped < 0.7
    assert (aspp.eval()(x) == 0).all(dim=(2, 3)).float().mean() < 0.2


def test_a_dilated_convolution_reaches_exactly_its_rate() -> None:
    conv = conv3x3(1, 1, dilation=3, separable=False)[0]
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    reached = conv(x)[0, 0].nonzero().tolist()
    assert reached == [[row, column] for row in (4, 7, 10) for column in (4, 7, 10)]


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("size_hw", [(48, 80), (256, 320)])
def test_logits_have_the_size_of_the_input(output_stride: int, separable: bool, size_hw: tuple[int, int]) -> None:
    network = DeepLabV3Plus(small(output_stride=output_stride, separable=separable), channels=3)
    x = torch.randn(2, 3, *size_hw)
    for training in (True, False):
        with torch.no_grad():
            logits = network.train(training)(x)
        assert logits.shape == (2, 3, *size_hw)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_the_whole_network_agrees_with_its_parts_put_together_by_hand() -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus(small("resnet18"), channels=1).eval()
    randomise_norms(network)
    whole = timm.create_model("resnet18", output_stride=16)
    whole.load_state_dict(network.encoder.state_dict(), strict=False)
    whole.eval()
    x = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        stem = whole.maxpool(whole.act1(whole.bn1(whole.conv1(x))))
        low = whole.layer1(stem)
        deep = whole.layer4(whole.layer3(whole.layer2(low)))
        assert (low.shape, deep.shape) == ((1, 64, 12, 20), (1, 512, 3, 5))
        joined = torch.cat(
            [
                F.interpolate(network.pyramid(deep), size=(12, 20), mode="bilinear", align_corners=False),
                functional_block(low, network.low_level),
            ],
            dim=1,
        )
        coarse = F.conv2d(network.decoder(joined), network.classifier.weight, network.classifier.bias)
        expected = F.interpolate(coarse, size=(48, 80), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_logits_of_a_half_precision_network_are_float32() -> None:
    network = DeepLabV3Plus(small(), channels=1).bfloat16().eval()
    logits = network(torch.randn(1, 3, 48, 80).bfloat16())
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())  # upsampled after widening, not before


def test_rates_double_at_stride_8_and_count_follows_settings() -> None:
    for output_stride, expected in ((16, [6, 12, 18, 24]), (8, [12, 24, 36, 48])):
        network = DeepLabV3Plus(small(output_stride=output_stride, rates=[6, 12, 18, 24]), channels=1)
        dilations = [
            module.dilation[0]
            for module in network.pyramid.modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        ]
        assert dilations == expected


def parameters_of_conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> int:
    return inputs // groups * outputs * kernel**2 + 2 * outputs


@pytest.mark.parametrize("separable", [True, False])
def test_parameter_count_is_the_one_worked_out_by_hand(separable: bool) -> None:
    def conv3(inputs: int, outputs: int) -> int:
        if not separable:
            return parameters_of_conv(inputs, outputs, 3)
        return parameters_of_conv(inputs, inputs, 3, groups=inputs) + parameters_of_conv(inputs, outputs, 1)

    network = DeepLabV3Plus(ModelSettings(encoder="resnet50", separable=separable), channels=1)
    new = 2 * parameters_of_conv(2048, 256, 1) + 3 * conv3(2048, 256) + parameters_of_conv(5 * 256, 256, 1)
    new += parameters_of_conv(256, 48, 1) + conv3(304, 256) + conv3(256, 256) + 256 + 1
    classifier_of_1000 = 2048 * 1000 + 1000
    encoder = sum(p.numel() for p in timm.create_model("resnet50").parameters()) - classifier_of_1000
    assert sum(p.numel() for p in network.parameters()) == encoder + new


def test_new_convolutions_start_from_he_normal() -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus(ModelSettings(encoder="test_resnet"), channels=1)
    depthwise, pointwise = network.decoder[0][0][0], network.decoder[0][1][0]
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert pointwise.weight.std().item() == pytest.approx((2 / 304) ** 0.5, rel=0.02)
    assert not network.classifier.bias.any()


def test_training_reaches_every_parameter() -> None:
    network = DeepLabV3Plus(small("mobilenetv2_100"), channels=2)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_named_in_messages_works(name: str, output_stride: int) -> None:
    # Shapes without arithmetic. That the deepest map has the output stride is checked while building.
    with torch.device("meta"):
        network = DeepLabV3Plus(ModelSettings(encoder=name, output_stride=output_stride), channels=3).eval()
        assert network(torch.empty(1, 3, 48, 80)).shape == (1, 3, 48, 80)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vgg11", "AssertionError"),  # its output stride cannot be set
        ("ghostnet_050", "dilation not supported"),
        ("swin_tiny_patch4_window7_224", "output_stride"),
        ("vit_tiny_patch16_224", "output_stride"),
    ],
)
def test_an_encoder_that_does_not_suit_is_refused_with_the_list(name: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        create_encoder(name, 16)
    assert name in caught.value.what
    assert why in (caught.value.where or "")
    assert all(known in (caught.value.mend or "") for known in ENCODERS)


def test_an_encoder_that_ignores_the_stride_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **_: create(name, features_only=True, output_stride=32))
    with pytest.raises(UserError, match="does not suit") as caught:
        create_encoder("test_resnet", 16)
    assert "32]" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet_50", "resnet50"), ("mobilenet_v2_100", "mobilenetv2_100"), ("resnet50.a1_in2k", "resnet50.a1_in1k")],
)
def test_an_unknown_encoder_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        check_timm_name(name)
    assert near in (caught.value.mend or "")


def test_a_name_that_would_be_fetched_is_no_encoder() -> None:
    with pytest.raises(UserError, match="timm has no encoder hf-hub:timm/resnet50"):
        check_timm_name("hf-hub:timm/resnet50")
    with pytest.raises(UserError, match="timm has no encoder"):
        check_timm_name("")
