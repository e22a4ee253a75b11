"""From settings to a network that takes uint8 frames: architecture, encoder weights, normalising.

Architectures are `deeplabv3plus`, `notebook` and those of segmentation-models-pytorch as `smp/NAME`. Encoder weights
come from the hub of timm (or segmentation-models-pytorch), from a safetensors file, or not at all; `notebook` takes
Keras's .h5 too. A trained model is reopened with `load_encoder_weights=False`: then nothing is fetched or opened.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trocar.config import ModelSettings, PreprocessSettings, nearest
from trocar.errors import UserError
from trocar.models.deeplab import DeepLabV3Plus, check_timm_name, forward_shapes_only
from trocar.models.notebook import KerasResNet50, NotebookDeepLab, encoder_names
from trocar.sizes import shown_size

DEEPLAB, NOTEBOOK = "deeplabv3plus", "notebook"
SMP = "smp/"
NOTEBOOK_CUT = ("layer3.5.conv3.", "layer3.5.bn3.")  # of timm's ResNet-50, behind where the notebook cuts it
TIMM_IN_SMP = "tu-"  # how segmentation-models-pytorch marks the name of a timm encoder


class Network(nn.Module):
    """Logits from frames as they are shot: normalising is part of the graph, so engines cannot get it wrong.

    Mean and deviation are settings (model.json has them) and no part of the state dict.

    Shapes: frames (N, h, w, 3) uint8 RGB -> logits (N, C, h, w) float32, C = 1 where there are two classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, preprocess: PreprocessSettings) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Shapes: frames (N, h, w, 3) uint8 -> logits (N, C, h, w) float32."""
        x = frames.permute(0, 3, 1, 2).float()  # in memory still NHWC: channels_last, the fast layout on CPU and GPU
        logits: Tensor = self.body((x - self.mean) / self.std)
        return logits.float()

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder, which may come pretrained."""
        encoder = self.body.get_submodule("encoder")
        return encoder.parameters()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters: pyramid, decoder, classifier."""
        return (value for name, value in self.body.named_parameters() if not name.startswith("encoder."))


def build_model(
    model: ModelSettings, preprocess: PreprocessSettings, class_count: int, *, load_encoder_weights: bool = True
) -> Network:
    """The network of these settings, on the CPU in float32 and channels_last, in training mode.

    New layers draw from torch's global random state. Raises `UserError` for names that do not exist, parts that do
    not fit each other or the network size, and encoder weights that cannot be had.
    """
    channels = 1 if class_count == 2 else class_count
    body = _build_body(model, channels)
    _check_size(body, model, preprocess.size_hw, channels)
    if load_encoder_weights and model.encoder_weights == "imagenet":
        body = _fetch_pretrained(model, channels)
        _warn_of_other_normalising(model, preprocess)
    elif load_encoder_weights and model.encoder_weights != "none":
        load_encoder_file(body.get_submodule("encoder"), Path(model.encoder_weights).expanduser(), model.encoder)
    return Network(body, preprocess).to(memory_format=torch.channels_last)


def load_encoder_file(encoder: nn.Module, path: Path, name: str) -> None:
    """Fill every tensor of the encoder from a safetensors file of a timm state dict; half precision is widened.

    A classifier in the file is left out, and so are counts of batches. Raises `UserError` where a tensor is missing,
    of another shape or not finite, or where the file holds more encoder than this one: a deeper relative.
    """
    if isinstance(encoder, KerasResNet50) and path.suffix == ".h5":
        from trocar.interop.keras import load_resnet  # needs the extra `keras`

        load_resnet(encoder, path)
        return
    problems = fill_encoder(encoder, _read_safetensors(path))
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"these encoder weights are not of {name}: {len(problems)} tensors do not fit: "
            + "; ".join(problems[:10])
            + more,
            where=str(path),
            mend="set model.encoder to the timm encoder that the file is of "
            f"(smp/... architectures: {TIMM_IN_SMP}NAME), or give another file as model.encoder_weights",
        )


def fill_encoder(encoder: nn.Module, stored: Mapping[str, Tensor]) -> list[str]:
    """Fill every tensor of the encoder from timm's state dict, or none: returns what does not fit, in words."""
    by_name = {**stored, **{key.replace(".", "_", 1): value for key, value in stored.items()}}
    names = _names_in_timm(encoder)
    wanted = {key: tensor for key, tensor in encoder.state_dict().items() if key in names}
    problems = [problem for key, tensor in wanted.items() if (problem := _misfit(names[key], tensor, by_name))]
    spare = _left_over(stored, set(names.values()))
    if isinstance(encoder, KerasResNet50):
        spare = [line for line in spare if not line.startswith(NOTEBOOK_CUT)]
    if not problems and not spare:
        encoder.load_state_dict({key: by_name[names[key]] for key in wanted}, strict=False)
    return problems + spare


def _build_body(model: ModelSettings, channels: int, *, pretrained: bool = False) -> nn.Module:
    if model.architecture == DEEPLAB:
        return DeepLabV3Plus(model, channels, pretrained=pretrained)
    if model.architecture == NOTEBOOK:
        return _build_notebook(model, channels, pretrained=pretrained)
    if model.architecture.startswith(SMP):
        return _build_smp(model, channels, pretrained=pretrained)
    known = _architectures()
    raise UserError(
        f"unknown architecture {model.architecture}",
        where="model.architecture",
        mend=f"one of: {', '.join(nearest(model.architecture, known) or known)}",
    )


def _architectures() -> list[str]:
    return [DEEPLAB, NOTEBOOK, *(SMP + kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values())]


def _build_notebook(model: ModelSettings, channels: int, *, pretrained: bool) -> NotebookDeepLab:
    body = NotebookDeepLab(channels, model.stride_in)
    if pretrained:
        check_timm_name(model.encoder)
        problems = fill_encoder(body.encoder, timm.create_model(model.encoder, pretrained=True).state_dict())
        assert not problems, problems
    return body


def _build_smp(model: ModelSettings, channels: int, *, pretrained: bool) -> nn.Module:
    name = model.architecture.removeprefix(SMP)
    if name.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise UserError(
            f"segmentation-models-pytorch has no architecture {name}",
            where="model.architecture",
            mend=f"one of: {', '.join(name for name in _architectures() if name.startswith(SMP))}",
        )
    _check_smp_encoder(model.encoder)
    weights: str | bool | None = None
    if pretrained:  # of a timm encoder the name says which weights: tu-resnet50.a1_in1k
        weights = True if model.encoder.startswith(TIMM_IN_SMP) else "imagenet"
    try:
        body: nn.Module = smp.create_model(name, model.encoder, encoder_weights=weights, classes=channels)
    except Exception as error:  # decoders refuse encoders in many ways: ValueError, RuntimeError, AttributeError, ...
        if pretrained:
            raise
        raise UserError(
            f"{model.architecture} cannot be built with the encoder {model.encoder}",
            where=f"{type(error).__name__}: {error}",
            mend="set model.encoder to another one, or model.architecture to smp/Unet, which takes most",
        ) from error
    return body


def _check_smp_encoder(name: str) -> None:
    own = smp.encoders.get_encoder_names()
    if name in own:
        return
    if name.startswith(TIMM_IN_SMP):
        check_timm_name(name.removeprefix(TIMM_IN_SMP), prefix=TIMM_IN_SMP)
        return
    near = nearest(name, [*own, *(TIMM_IN_SMP + known for known in timm.list_models())], count=5)
    if timm.is_model(name.partition(".")[0]):
        near = list(dict.fromkeys([TIMM_IN_SMP + name, *near]))
    raise UserError(
        f"segmentation-models-pytorch has no encoder {name}",
        where="model.encoder",
        mend=f"nearest: {', '.join(near or own)}; any timm encoder goes as {TIMM_IN_SMP}NAME",
    )


def _check_size(body: nn.Module, model: ModelSettings, size_hw: tuple[int, int], channels: int) -> None:
    """Refuse a network size that the architecture cannot take, before anything is fetched or trained."""
    try:
        shape = tuple(forward_shapes_only(body, size_hw).shape)
    except Exception as error:  # from a RuntimeError about divisible sides to an AssertionError of a fixed input size
        shape, reason = None, f"{type(error).__name__}: {error}"
    else:
        reason = f"it gives {shape}"
    if shape != (1, channels, *size_hw):
        raise UserError(
            f"{model.architecture} on {model.encoder} cannot take images of {shown_size(size_hw)}",
            where=reason,
            mend="set preprocess.size_hw to (larger) multiples of 32, or take deeplabv3plus, which takes those of 16",
        )


def _warn_of_other_normalising(model: ModelSettings, preprocess: PreprocessSettings) -> None:
    """Some of timm's weights expect another mean than ImageNet's; they train, but start worse than they could."""
    if model.architecture != DEEPLAB and not model.encoder.startswith(TIMM_IN_SMP):
        return  # for its own encoders segmentation-models-pytorch keeps this fact on the hub
    name = model.encoder.removeprefix(TIMM_IN_SMP)
    card = timm.get_pretrained_cfg(name)
    assert card is not None, "its weights were just loaded"
    if tuple(card.mean) != preprocess.mean or tuple(card.std) != preprocess.std:
        warnings.warn(
            f"the weights of {name} were trained with mean {card.mean} and std {card.std}, but preprocess has "
            f"{preprocess.mean} and {preprocess.std}: set preprocess.mean and preprocess.std",
            stacklevel=3,
        )


def _fetch_pretrained(model: ModelSettings, channels: int) -> nn.Module:
    try:
        return _build_body(model, channels, pretrained=True)
    except Exception as error:  # network, hub, cache, disk, a missing entry: to the user all are "not to be had"
        raise UserError(
            f"cannot get the ImageNet weights of the encoder {model.encoder}",
            where=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            mend="give a safetensors file of timm's weights with --set model.encoder_weights=PATH, start without any "
            "with --set model.encoder_weights=none, or try again with the network up",
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    mend = "model.encoder_weights is imagenet, none, or the path of a safetensors file"
    if not path.is_file():
        raise UserError(f"no file of encoder weights {path}", where="model.encoder_weights", mend=mend)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the encoder weights: {error}", where=str(path), mend=mend) from error


def _names_in_timm(encoder: nn.Module) -> dict[str, str]:
    """Of each tensor that must be filled: its name here and in timm's full model."""
    keys = [key for key in encoder.state_dict() if not key.endswith("num_batches_tracked")]
    if not isinstance(encoder, KerasResNet50):
        return {key: _name_in_timm(key) for key in keys}
    modules = {here: there for here, _, there in encoder_names()}
    names = {key: f"{modules[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}" for key in keys}
    # timm's convolutions have no biases: those of Keras's graph stay at zero
    return {key: name for key, name in names.items() if not re.search(r"conv\d\.bias$", key)}


def _name_in_timm(key: str) -> str:
    """A tensor's name in timm's full model; timm's and smp's feature wrappers put these in front of it."""
    for wrapper in ("model.", "body."):
        key = key.removeprefix(wrapper)
    return key


def _misfit(name: str, tensor: Tensor, stored: Mapping[str, Tensor]) -> str | None:
    shape = tuple(tensor.shape)
    if name not in stored:
        return f"{name} {shape} is missing"
    found = stored[name]
    if found.shape != tensor.shape:
        return f"{name} is {tuple(found.shape)}, not {shape}"
    return None if bool(torch.isfinite(found).all()) else f"{name} holds values that are not finite"


def _left_over(stored: Mapping[str, Any], used: set[str]) -> list[str]:
    """Tensors of the file in parts that the encoder has but beyond what it has there: layer3.6 of a ResNet-101."""
    parts = {name.partition(".")[0] for name in used}
    spare = []
    for key, tensor in stored.items():
        flat = key.replace(".", "_", 1)  # timm's feature wrapper turns stages.0.x into stages_0.x
        part_is_used = key.partition(".")[0] in parts or flat.partition(".")[0] in parts
        if part_is_used and key not in used and flat not in used and not key.endswith("num_batches_tracked"):
            spare.append(f"{key} {tuple(tensor.shape)} has no place")
    return spare
