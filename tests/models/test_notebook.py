from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trocar.config import ModelSettings, PreprocessSettings, load_recipe
from trocar.errors import UserError
from trocar.models.build import build_model
from trocar.models.notebook import TRUNCATION, NotebookDeepLab

SMALL = PreprocessSettings(size_hw=(64, 96), mean=(0, 0, 0), std=(1, 1, 1))


def count(network: torch.nn.Module) -> int:
    """As Keras counts: weights and moving statistics."""
    return sum(tensor.numel() for name, tensor in network.state_dict().items() if not name.endswith("tracked"))


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_parameters_and_sizes(stride_in) -> None:
    network = NotebookDeepLab(1, stride_in).eval()
    assert count(network) == 11_850_113
    with torch.inference_mode():
        for size_hw in ((64, 64), (48, 112)):
            assert network(torch.zeros(1, 3, *size_hw)).shape == (1, 1, *size_hw)
            low_level, deep = network.encoder(torch.zeros(1, 3, *size_hw))
            assert low_level.shape == (1, 64, size_hw[0] // 4, size_hw[1] // 4)
            assert deep.shape == (1, 256, size_hw[0] // 16, size_hw[1] // 16)


def test_the_last_convolution_may_come_before_upsampling() -> None:
    torch.manual_seed(0)
    network = NotebookDeepLab(1, "1x1").eval()
    features = torch.randn(1, 256, 12, 20)
    upsample = torch.nn.Upsample(scale_factor=4, mode="bilinear")
    with torch.inference_mode():
        torch.testing.assert_close(
            upsample(network.classifier(features)), network.classifier(upsample(features)), rtol=1e-4, atol=1e-5
        )


def test_new_kernels_start_as_in_keras() -> None:
    torch.manual_seed(0)
    network = NotebookDeepLab(1, "1x1")
    kernel = network.decoder[0].weight
    deviation = (2 / (304 * 9)) ** 0.5
    assert kernel.std().item() == pytest.approx(deviation, rel=0.01)
    assert kernel.abs().max().item() <= 2 * deviation / TRUNCATION + 1e-6
    last = network.classifier
    assert last.weight.abs().max().item() <= (6 / 257) ** 0.5
    assert last.weight.abs().max().item() > 0.9 * (6 / 257) ** 0.5
    assert last.bias.tolist() == [0.0]
    norms = {type(m): (m.eps, m.momentum) for m in network.pyramid.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert list(norms.values()) == [(1e-3, 0.01)]
    assert network.encoder.bn1.eps == 1.001e-5


def timm_state(seed: int = 0) -> dict[str, torch.Tensor]:
    import timm

    torch.manual_seed(seed)
    state = timm.create_model("resnet50").state_dict()
    return {
        key: torch.rand_like(t) + 0.5 if "running" in key or ("bn" in key and t.ndim) else t for key, t in state.items()
    }


def test_timm_weights_start_the_encoder(tmp_path: Path) -> None:
    import timm

    state = timm_state()
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "resnet50.safetensors")
    settings = ModelSettings(architecture="notebook", encoder_weights=str(tmp_path / "resnet50.safetensors"))
    encoder = build_model(settings, SMALL, 2).eval().body.encoder
    reference = timm.create_model("resnet50").eval()
    reference.load_state_dict(state)
    seen = {}
    reference.layer1[2].act2.register_forward_hook(lambda *call: seen.update(low_level=call[2].clone()))
    reference.layer3[5].act2.register_forward_hook(lambda *call: seen.update(deep=call[2].clone()))
    x = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        reference(x)
        for value, name in zip(encoder(x), ("low_level", "deep"), strict=True):
            assert (value - seen[name]).abs().max() < 1e-4 * seen[name].abs().max()
    del state["layer2.1.conv2.weight"]
    state["layer3.6.conv1.weight"] = torch.zeros(256, 1024, 1, 1)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "resnet50.safetensors")
    with pytest.raises(UserError) as caught:
        build_model(settings, SMALL, 2)
    assert "layer2.1.conv2.weight (128, 128, 3, 3) is missing" in str(caught.value)
    assert "layer3.6.conv1.weight (256, 1024, 1, 1) has no place" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.output_stride=8", "model.dropout=0.3"], "leave out output_stride, dropout"),
        (["model.encoder=mobilenetv2_100"], "has a ResNet-50"),
        (["model.stride_in=1x1"], 'set stride_in "3x3"'),
        (["model.encoder_weights=resnet50.h5"], 'set stride_in "1x1"'),
        (["model.architecture=deeplabv3plus", "model.stride_in=1x1"], "is a setting of `notebook`"),
    ],
)
def test_settings_it_does_not_have_are_refused(settings: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("notebook", settings)
    assert words in str(caught.value)


def test_several_classes_and_a_step_of_training() -> None:
    network = build_model(ModelSettings(architecture="notebook", encoder_weights="none"), SMALL, 3)
    logits = network(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)))
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert len(list(network.encoder_parameters())) + len(list(network.decoder_parameters())) == len(
        list(network.parameters())
    )


@pytest.mark.real
def test_the_given_imagenet_weights_start_it(shared: Path) -> None:
    path = shared / "weights" / "resnet50_imagenet_pqf_fp16.safetensors"
    network = build_model(ModelSettings(architecture="notebook", encoder_weights=str(path)), SMALL, 2)
    assert network.body.encoder.conv1.weight.abs().mean() > 0.01
    assert network.body.encoder.get_submodule("conv4_block6.bn2").running_var.std() > 0
    assert not network.body.encoder.conv1.bias.any()
