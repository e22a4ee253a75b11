from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from trocar.config import ModelSettings, PreprocessSettings
from trocar.errors import UserError
from trocar.models.build import Network, build_model, load_encoder_file
from trocar.models.deeplab import create_encoder

SMALL = {"encoder_weights": "none", "pyramid_width": 32, "low_level_width": 8, "decoder_width": 24}


def settings(encoder: str = "test_resnet", **changes: Any) -> ModelSettings:
    return ModelSettings.model_validate({"encoder": encoder, **SMALL, **changes})


def preprocess(height: int = 48, width: int = 80, **changes: Any) -> PreprocessSettings:
    return PreprocessSettings(size_hw=(height, width), **changes)


def frames(count: int = 2, height: int = 48, width: int = 80) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def random_timm_file(name: str, path: Path, half: bool = False) -> dict[str, Tensor]:
    """A file of random weights of timm's full model, statistics of its norms included, and what it holds."""
    torch.manual_seed(7)
    tensors = {
        key: torch.rand_like(tensor) + 0.5 if tensor.is_floating_point() else tensor
        for key, tensor in timm.create_model(name).state_dict().items()
    }
    tensors = {key: tensor.half() if half and tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    save_file(tensors, path)
    return tensors


def no_network(*_: Any, **__: Any) -> Any:
    raise LocalEntryNotFoundError("cannot find the requested files\nin the local cache")


# ------------------------------------------------------------------ the network around a body


def test_logits_are_those_of_the_body_on_normalised_images() -> None:
    torch.manual_seed(0)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    network = build_model(settings(), preprocess(mean=mean, std=std), class_count=2).eval()
    array = frames().numpy().astype(np.float64)
    by_hand = torch.from_numpy(((array / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(network(frames()), network.body(by_hand), rtol=1e-4, atol=1e-5)


def test_the_body_sees_channels_last() -> None:
    network = build_model(settings(), preprocess(), class_count=2)
    seen: list[bool] = []
    network.body.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    network(frames())
    assert seen == [True]


@pytest.mark.parametrize(("class_count", "channels"), [(2, 1), (3, 3), (5, 5)])
@pytest.mark.parametrize("architecture", ["deeplabv3plus", "smp/Unet"])
def test_two_classes_have_one_logit(architecture: str, class_count: int, channels: int) -> None:
    encoder = "test_resnet" if architecture == "deeplabv3plus" else "tu-test_resnet"
    network = build_model(settings(encoder, architecture=architecture), preprocess(64, 96), class_count)
    assert network(frames(2, 64, 96)).shape == (2, channels, 64, 96)


@pytest.mark.parametrize(
    ("architecture", "encoder"), [("deeplabv3plus", "test_resnet"), ("smp/Unet", "tu-test_resnet")]
)
def test_logits_are_float32_under_autocast(architecture: str, encoder: str) -> None:
    torch.manual_seed(0)
    network = build_model(settings(encoder, architecture=architecture), preprocess(64, 64), class_count=3).eval()
    with torch.no_grad():
        exact = network(frames(2, 64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(frames(2, 64, 64))
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    assert not torch.equal(logits, exact)


def test_the_state_dict_holds_no_settings() -> None:
    network = build_model(settings(), preprocess(), class_count=2)
    assert {key.partition(".")[0] for key in network.state_dict()} == {"body"}


@pytest.mark.parametrize(("architecture", "encoder"), [("deeplabv3plus", "test_resnet"), ("smp/FPN", "resnet18")])
def test_encoder_and_decoder_parameters_are_the_whole(architecture: str, encoder: str) -> None:
    network = build_model(settings(encoder, architecture=architecture), preprocess(64, 64), class_count=2)
    parts = [*network.encoder_parameters()], [*network.decoder_parameters()]
    assert all(parts)
    assert [id(p) for part in parts for p in part] == [id(p) for p in network.parameters()]
    encoder_body = network.body.get_submodule("encoder")
    assert sum(p.numel() for p in parts[0]) == sum(p.numel() for p in encoder_body.parameters())


def test_building_checks_sizes_without_touching_the_network() -> None:
    torch.manual_seed(0)
    network = build_model(settings(), preprocess(), class_count=2)
    assert network.training
    assert all(module.training for module in network.modules())
    for name, tensor in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert tensor.device.type == "cpu"
            assert tensor == 0


def test_the_seed_decides_the_first_weights() -> None:
    def build() -> Network:
        torch.manual_seed(3)
        return build_model(settings(), preprocess(), class_count=2)

    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_importing_switches_the_reports_of_the_hub_library_off() -> None:
    code = "import trocar.models, huggingface_hub.constants as c; raise SystemExit(not c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_TELEMETRY"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


# ------------------------------------------------------------------ other architectures


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        *((f"smp/{name}", "resnet18") for name in ("UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN")),
        *((f"smp/{name}", "tu-test_resnet") for name in ("Unet", "DeepLabV3", "DeepLabV3Plus", "UPerNet")),
        ("smp/Segformer", "mit_b0"),
        ("smp/unet", "mobilenet_v2"),
        ("smp/DPT", "tu-test_vit"),
    ],
)
def test_every_other_architecture_builds_and_runs(architecture: str, encoder: str) -> None:
    side = 160 if architecture == "smp/DPT" else 128  # DPT takes the input size of its transformer and no other
    network = build_model(settings(encoder, architecture=architecture), preprocess(side, side), class_count=3).eval()
    with torch.no_grad():
        assert network(frames(1, side, side)).shape == (1, 3, side, side)


def test_every_architecture_of_the_library_is_tried_above() -> None:
    tried = {"unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "unet", "deeplabv3", "deeplabv3plus"}
    assert set(smp.MODEL_ARCHITECTURES_MAPPING) == tried | {"upernet", "segformer", "dpt"}


def refused(model: ModelSettings, preprocess_settings: PreprocessSettings | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        build_model(model, preprocess_settings or preprocess(), class_count=2)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "what", "mend"),
    [
        ({"architecture": "deeplabv3plu"}, "unknown architecture", "deeplabv3plus"),
        ({"architecture": "Unet"}, "unknown architecture", "smp/Unet"),
        ({"architecture": "smp/Unettt"}, "no architecture Unettt", "smp/UnetPlusPlus"),
        ({"encoder": "resnet_18"}, "no encoder resnet_18", "resnet18"),
        ({"architecture": "smp/Unet", "encoder": "resnet_18"}, "no encoder resnet_18", "resnet18"),
        ({"architecture": "smp/Unet", "encoder": "mobilenetv2_100"}, "no encoder", "tu-mobilenetv2_100"),
        ({"architecture": "smp/Unet", "encoder": "tu-resnet_18"}, "no encoder resnet_18", "tu-resnet18"),
        ({"architecture": "smp/Linknet", "encoder": "mit_b0"}, "cannot be built", "model.encoder"),
    ],
)
def test_names_that_do_not_exist_or_fit_are_refused(changes: dict[str, Any], what: str, mend: str) -> None:
    error = refused(settings(**changes))
    assert what in error.what
    assert mend in (error.mend or "")


def test_a_size_the_architecture_cannot_take_is_refused_before_weights_are_fetched() -> None:
    model = settings("resnet18", architecture="smp/UnetPlusPlus", encoder_weights="/no/such.safetensors")
    error = refused(model, preprocess(48, 80))
    assert "80x48" in error.what
    assert "divisible by 32" in (error.where or "")
    assert "preprocess.size_hw" in (error.mend or "")


# ------------------------------------------------------------------ encoder weights from a file


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("resnet18", False),
        ("resnet18", True),
        ("test_efficientnet", True),
        ("mobilenetv3_small_050", False),
        ("test_convnext", False),  # timm's feature wrapper renames stages.0 to stages_0
        ("test_byobnet", True),
        ("cspnext_tiny", False),  # wrapped, as `model.`
        ("xception41", True),  # its stem is a list, renamed to stem_0
    ],
)
def test_a_file_of_timms_full_model_fills_the_encoder(name: str, half: bool, tmp_path: Path) -> None:
    tensors = random_timm_file(name, tmp_path / "weights.safetensors", half)
    encoder = create_encoder(name, 16)
    load_encoder_file(encoder, tmp_path / "weights.safetensors", name)
    loaded = {key.split(".", 1)[1] if key.startswith("model.") else key: tensor
              for key, tensor in encoder.state_dict().items()}  # fmt: skip
    flat = {key.replace(".", "_", 1): tensor for key, tensor in tensors.items()}
    assert loaded
    for key, tensor in loaded.items():
        assert torch.equal(tensor, (tensors | flat)[key].to(tensor.dtype)), key


def test_a_file_fills_an_encoder_that_timm_wraps_as_body(tmp_path: Path) -> None:
    tensors = random_timm_file("pit_ti_224", tmp_path / "w.safetensors")
    encoder = timm.create_model("pit_ti_224", features_only=True)  # smp/... architectures may use such encoders
    load_encoder_file(encoder, tmp_path / "w.safetensors", "pit_ti_224")
    loaded = encoder.state_dict()
    assert all(key.startswith("body.") for key in loaded)
    assert all(torch.equal(tensor, tensors[key.removeprefix("body.")]) for key, tensor in loaded.items())


def test_features_of_a_loaded_encoder_are_those_of_the_full_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("resnet18", output_stride=16)
    whole.train()(torch.randn(2, 3, 64, 64))  # statistics that are not the initial ones
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    model = settings("resnet18", encoder_weights=str(tmp_path / "w.safetensors"))
    network = build_model(model, preprocess(), class_count=2).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        deepest = network.body.get_submodule("encoder")(x)[-1]
        torch.testing.assert_close(deepest, whole.eval().forward_features(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_a_file_fills_the_encoder_of_other_architectures(encoder: str, tmp_path: Path) -> None:
    tensors = random_timm_file("resnet18", tmp_path / "w.safetensors")
    model = settings(encoder, architecture="smp/Unet", encoder_weights=str(tmp_path / "w.safetensors"))
    loaded = build_model(model, preprocess(64, 64), class_count=2).body.get_submodule("encoder").state_dict()
    for key, tensor in loaded.items():
        assert torch.equal(tensor, tensors[key.removeprefix("model.")]), key


def test_a_file_without_classifier_or_batch_counts_will_do(tmp_path: Path) -> None:
    tensors = random_timm_file("resnet18", tmp_path / "full.safetensors")
    spare = ("fc.weight", "fc.bias")
    kept = {k: v for k, v in tensors.items() if k not in spare and not k.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "w.safetensors")
    encoder = create_encoder("resnet18", 16)
    load_encoder_file(encoder, tmp_path / "w.safetensors", "resnet18")
    assert torch.equal(encoder.state_dict()["layer4.1.bn2.running_var"], tensors["layer4.1.bn2.running_var"])


def without_some(tensors: dict[str, Tensor]) -> None:
    for key in [key for key in tensors if key.startswith("layer3")]:
        del tensors[key]


def of_another_shape(tensors: dict[str, Tensor]) -> None:
    tensors["conv1.weight"] = torch.zeros(64, 1, 7, 7)


def not_finite(tensors: dict[str, Tensor]) -> None:
    tensors["layer1.0.bn1.running_var"][3] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (without_some, ["25 tensors", "layer3.0.conv1.weight (256, 128, 3, 3) is missing", "; and 15 more"]),
        (of_another_shape, ["1 tensors do not fit", "conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)"]),
        (not_finite, ["layer1.0.bn1.running_var holds values that are not finite"]),
    ],
)
def test_a_file_that_does_not_fit_names_the_tensors(
    spoil: Callable[[dict[str, Tensor]], None], named: list[str], tmp_path: Path
) -> None:
    tensors = random_timm_file("resnet18", tmp_path / "w.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "w.safetensors")
    error = refused(settings("resnet18", encoder_weights=str(tmp_path / "w.safetensors")))
    assert "not of resnet18" in error.what
    assert error.where == str(tmp_path / "w.safetensors")
    for text in named:
        assert text in error.what


@pytest.mark.parametrize(
    ("stored", "wanted", "named"),
    [
        ("resnet18", "resnet34", "layer1.2.conv1.weight (64, 64, 3, 3) is missing"),
        ("resnet34", "resnet18", "layer1.2.bn1.bias (64,) has no place"),  # would load, and be the wrong network
        ("resnet18", "resnet50", "layer1.0.conv1.weight is (64, 64, 3, 3), not (64, 64, 1, 1)"),
        ("test_convnext2", "test_convnext", "stages"),
    ],
)
def test_weights_of_another_encoder_are_refused(stored: str, wanted: str, named: str, tmp_path: Path) -> None:
    random_timm_file(stored, tmp_path / "w.safetensors")
    error = refused(settings(wanted, encoder_weights=str(tmp_path / "w.safetensors")))
    assert f"not of {wanted}" in error.what
    assert named in error.what


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "w.safetensors"
    random_timm_file("test_resnet", whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1000])
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    (tmp_path / "empty.safetensors").touch()
    torch.save({"a": torch.zeros(3)}, tmp_path / "pickle.pth")
    for name in ("cut.safetensors", "text.safetensors", "empty.safetensors", "pickle.pth"):
        error = refused(settings(encoder_weights=str(tmp_path / name)))
        assert "cannot read the encoder weights" in error.what, name
        assert error.where == str(tmp_path / name)
    for name in ("missing.safetensors", ""):
        assert "no file of encoder weights" in refused(settings(encoder_weights=str(tmp_path / name))).what


@pytest.mark.real
@pytest.mark.parametrize(
    ("encoder", "file"),
    [
        ("resnet50", "resnet50_imagenet_pqf_fp16.safetensors"),
        ("mobilenetv2_100", "mobilenetv2_100_imagenet.safetensors"),
    ],
)
def test_the_real_files_load(encoder: str, file: str, shared: Path) -> None:
    model = settings(encoder, encoder_weights=str(shared / "weights" / file))
    network = build_model(model, preprocess(), class_count=2).eval()
    with torch.no_grad():
        assert network(frames()).isfinite().all()
    smp_model = settings(f"tu-{encoder}", architecture="smp/FPN", encoder_weights=model.encoder_weights)
    build_model(smp_model, preprocess(64, 64), class_count=2)


# ------------------------------------------------------------------ encoder weights from the hub


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("deeplabv3plus", "resnet18"), ("smp/Unet", "resnet18"), ("smp/Unet", "tu-resnet18")],
)
def test_an_unreachable_hub_says_how_to_go_on(architecture: str, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", no_network)
    model = settings(encoder, architecture=architecture, encoder_weights="imagenet")
    error = refused(model, preprocess(64, 64))
    assert f"cannot get the ImageNet weights of the encoder {encoder}" in error.what
    assert error.where == "LocalEntryNotFoundError: cannot find the requested files in the local cache"
    assert "--set model.encoder_weights=PATH" in (error.mend or "")
    assert "--set model.encoder_weights=none" in (error.mend or "")
    assert build_model(model, preprocess(64, 64), class_count=2, load_encoder_weights=False)


def test_an_encoder_that_has_no_weights_anywhere_says_so() -> None:
    error = refused(settings("darknet17", encoder_weights="imagenet"))
    assert "cannot get the ImageNet weights" in error.what
    assert "No pretrained weights exist" in (error.where or "")


def test_weights_of_the_hub_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = random_timm_file("resnet18", tmp_path / "w.safetensors")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(tensors))
    network = build_model(settings("resnet18", encoder_weights="imagenet"), preprocess(), class_count=2)
    loaded = network.body.get_submodule("encoder").state_dict()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in loaded.items())


def test_weights_that_expect_another_mean_are_announced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = random_timm_file("test_resnet", tmp_path / "w.safetensors")  # trained with mean and std 0.5
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(tensors))
    model = settings("test_resnet", encoder_weights="imagenet")
    with pytest.warns(UserWarning, match=r"trained with mean \(0.5, 0.5, 0.5\)"):
        build_model(model, preprocess(), class_count=2)
    half = (0.5, 0.5, 0.5)
    build_model(model, preprocess(mean=half, std=half), class_count=2)


def test_reopening_opens_no_file_and_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", no_network)
    for weights in ("imagenet", "/no/such/file.safetensors"):
        build_model(settings(encoder_weights=weights), preprocess(), class_count=2, load_encoder_weights=False)
