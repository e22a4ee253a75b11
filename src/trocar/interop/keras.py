"""A model trained with the notebook becomes a model folder: its weights are read, mapped and written; nothing is run.

The notebook never saved its model, and Keras 3 cannot load its classes back; weights are enough, as the graph is known
(`models.notebook`). Layers of the ResNet are matched by Keras's names where the file has them, else by their order,
which is that of Keras's functional graph; the others by shape and by where they stand. Every tensor of the graph must
be filled and every stored one used: anything else is refused with the tensors that differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from trocar import __version__
from trocar.config import Recipe, load_recipe
from trocar.errors import UserError, UserErrors
from trocar.interop.keras_files import CONV, NORM, StoredLayer, natural, read_layers
from trocar.model_folder import LICENCE_HEADING, ModelCard, Provenance, write_model
from trocar.models.build import build_model
from trocar.models.notebook import LOW_LEVEL_WIDTH, RATES, WIDTH, KerasResNet50, encoder_names

if TYPE_CHECKING:
    from torch import Tensor

_TORCH_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_POINT, _SQUARE = (1, 1, WIDTH, WIDTH), (3, 3, WIDTH, WIDTH)
# The convolutions outside the ResNet that their shape and bias alone tell apart: kernel, whether it has a bias.
_UNIQUE = {
    "pyramid.pooled": (_POINT, True),
    "pyramid.pointwise": (_POINT, False),
    "pyramid.project": ((1, 1, (len(RATES) + 2) * WIDTH, WIDTH), False),
    "low_level": ((1, 1, 64, LOW_LEVEL_WIDTH), False),
    "decoder.0": ((3, 3, WIDTH + LOW_LEVEL_WIDTH, WIDTH), False),
    "classifier": ((1, 1, WIDTH, 1), True),
}


@dataclass(frozen=True)
class Conversion:
    """What a conversion made, and how the tensors were found, in words."""

    model: Path
    card: ModelCard
    notes: tuple[str, ...]


def convert_keras(
    file: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    threshold: float = 0.5,
    pyramid: Sequence[str] = (),
) -> Conversion:
    """Write the model folder of weights that Keras trained with the notebook's graph.

    `recipe` gives the preprocessing they were trained with (the notebook's unless given). `pyramid` names the layers
    of rates 6, 12 and 18 where the file does not tell. Raises `UserError` for another graph and unreadable files.
    """
    recipe = recipe or load_recipe("notebook")
    settings = recipe.model.model_copy(
        update={"architecture": "notebook", "encoder": "resnet50", "encoder_weights": "none", "stride_in": "1x1"}
    )
    notes: list[str] = []
    tensors = arrange(read_layers(file), where=str(file), pyramid=pyramid, notes=notes)
    network = build_model(settings, recipe.preprocess, 2, load_encoder_weights=False)
    missing = network.load_state_dict(
        {f"body.{name}": torch.from_numpy(t) for name, t in tensors.items()}, strict=False
    )
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys), missing
    card = ModelCard(
        name=f"{recipe.name}-from-keras",
        classes=("background", "instrument"),
        target="instrument",
        model=settings,
        preprocess=recipe.preprocess,
        loss=recipe.loss,
        threshold=threshold,
        threshold_from="given at conversion; the notebook scored without a threshold and showed 0.3 and 0.99",
        provenance=_provenance(file, recipe),
    )
    licence = (
        f"{LICENCE_HEADING}\n\n"
        f"Converted from {file.name}, trained elsewhere with Keras. Whoever trained them says under which licence\n"
        "they may be used; they derive from their training data and, where they started from it, from ImageNet.\n"
    )
    return Conversion(out, write_model(out, card, network.state_dict(), licence), tuple(notes))


def load_resnet(encoder: KerasResNet50, path: Path) -> None:
    """Fill the encoder from a legacy .h5 of Keras's ResNet50 (with or without its top), by layer names."""
    by_name = {layer.name: layer for layer in read_layers(path)}
    state: dict[str, Tensor] = {}
    problems = []
    for here, there, _ in encoder_names():
        wanted = _wanted(encoder.state_dict(), here)
        found = by_name[there].shapes if there in by_name else {}
        if found != wanted:
            problems.append(f"{there} is {_in_words(found)}, not {_in_words(wanted)}")
        else:
            state |= {f"{here}.{key}": torch.from_numpy(array) for key, array in _as_torch(by_name[there]).items()}
    if problems:
        mend = "give Keras's resnet50 weights (.h5), or set model.stride_in=3x3 and take timm's"
        raise UserError(_listed("these are no weights of Keras's ResNet-50", problems), where=str(path), mend=mend)
    encoder.load_state_dict(state, strict=False)


def arrange(
    layers: Sequence[StoredLayer], *, where: str, pyramid: Sequence[str] = (), notes: list[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """The notebook network's tensors, by their names in torch, from the layers of a file.

    What was concluded and not read off names is added to `notes`. Raises `UserError` where it is another graph.
    """
    notes = [] if notes is None else notes
    places: dict[str, StoredLayer] = {}
    problems: list[str] = []
    convs = [layer for layer in layers if set(layer.tensors) <= set(CONV) and "kernel" in layer.tensors]
    norms = [layer for layer in layers if set(layer.tensors) == set(NORM)]
    _place_encoder(convs, norms, places, notes)
    _place_head(convs, norms, places, pyramid, notes, where)
    reference = _reference()
    for name in _module_names(reference):
        wanted = _wanted(reference, name)
        found = places[name].shapes if name in places else {}
        if found != wanted:
            stands = f" ({places[name].path})" if name in places else ""
            problems.append(f"{_keras_name(name)}{stands} is {_in_words(found)}, not {_in_words(wanted)}")
    used = {id(layer) for layer in places.values()}
    spare = [f"{layer.path} {_in_words(layer.shapes)} has no place" for layer in layers if id(layer) not in used]
    if problems or spare:
        mend = "only weights of the notebook's own graph can be brought over; docs/from-the-notebook.md draws it"
        what = "these are weights of another graph"
        raise UserErrors(
            [UserError(_listed(what, lines), where=where, mend=mend) for lines in (problems, spare) if lines]
        )
    return {f"{name}.{key}": array for name, layer in places.items() for key, array in _as_torch(layer).items()}


# ------------------------------------------------------------------ the ResNet


def _place_encoder(
    convs: list[StoredLayer], norms: list[StoredLayer], places: dict[str, StoredLayer], notes: list[str]
) -> None:
    """Take the ResNet's layers out of both lists: by Keras's names, or, where the file has none, by order."""
    names = {there: f"encoder.{here}" for here, there, _ in encoder_names()}
    by_name = {layer.name: layer for layer in (*convs, *norms) if layer.name in names}
    if by_name:
        for there, layer in by_name.items():
            places[names[there]] = layer
    else:
        notes.append("the file has no layer names: the ResNet's layers were taken in the order of Keras's graph")
        biased = [layer for layer in convs if "bias" in layer.tensors and not _is_of_head(layer)]
        places.update(zip(_in_keras_order("conv"), biased, strict=False))
        outer = sorted(norms, key=lambda layer: (layer.path.count("/"), natural(layer.path)))
        places.update(zip(_in_keras_order("bn"), outer, strict=False))
    used = {id(layer) for layer in places.values()}
    convs[:] = [layer for layer in convs if id(layer) not in used]
    norms[:] = [layer for layer in norms if id(layer) not in used]


def _in_keras_order(kind: str) -> list[str]:
    """Names of the ResNet's convolutions or norms as Keras orders its layers: a shortcut stands before the third."""

    def position(name: str) -> tuple[object, int]:
        block, _, part = name.rpartition(".")
        return natural(block), {"1": 0, "2": 1, "0": 2, "3": 3}[part[-1]]

    names = [f"encoder.{here}" for here, _, _ in encoder_names() if re.search(rf"\b{kind}\d$", here)]
    return names[:1] + sorted(names[1:], key=position)


def _is_of_head(layer: StoredLayer) -> bool:
    return any(_fits(layer, *signature) for signature in _UNIQUE.values())


# ------------------------------------------------------------------ pyramid and decoder


def _place_head(
    convs: list[StoredLayer],
    norms: list[StoredLayer],
    places: dict[str, StoredLayer],
    pyramid: Sequence[str],
    notes: list[str],
    where: str,
) -> None:
    found: dict[str, StoredLayer] = {}
    for name, signature in _UNIQUE.items():
        fitting = [layer for layer in convs if _fits(layer, *signature)]
        if len(fitting) == 1:
            found[name] = fitting[0]
    squares = [layer for layer in convs if _fits(layer, _SQUARE, False)]
    beside = found.get("decoder.0") or found.get("low_level")  # of another graph either may be missing
    if len(squares) == len(RATES) + 1 and beside is not None:
        found["decoder.1"] = _second_of_decoder(squares, beside)
        squares.remove(found["decoder.1"])
        for index, layer in enumerate(_by_rate(squares, pyramid, notes, where)):
            found[f"pyramid.dilated.{index}"] = layer
    with_norm = {name: layer for name, layer in found.items() if name.startswith("pyramid.")}
    for name, layer in found.items():
        places[f"{name}.conv" if name in with_norm else name] = layer
    if len(norms) == len(with_norm):
        for name, norm in _norms_of(with_norm, norms).items():
            places[f"{name}.bn"] = norm


def _second_of_decoder(squares: Sequence[StoredLayer], beside: StoredLayer) -> StoredLayer:
    """The one that stands nearest to the decoder's first convolution; in a flat graph the last one."""
    return min(reversed(squares), key=lambda layer: _distance(layer.path, beside.path))


def _by_rate(squares: Sequence[StoredLayer], pyramid: Sequence[str], notes: list[str], where: str) -> list[StoredLayer]:
    """The dilated convolutions in the order of their rates: as given, by a 6, 12 and 18 in their names, by number."""
    if pyramid:
        chosen = [next((layer for layer in squares if name in layer.path.split("/")), None) for name in pyramid]
        found = [layer for layer in chosen if layer is not None]
        if len({id(layer) for layer in found}) == len(squares) == len(pyramid):
            return found
        raise UserError(
            f"--pyramid {','.join(pyramid)} does not name the three dilated convolutions",
            where=where,
            mend=f"name a part of each path, in the order of the rates: {', '.join(layer.path for layer in squares)}",
        )
    of_rate = [[layer for layer in squares if rate in _own_numbers(layer)] for rate in RATES]
    if all(len(found) == 1 for found in of_rate):
        return [found[0] for found in of_rate]
    names = [layer.name for layer in squares]
    if not _numbered(names):
        names = [layer.path for layer in squares]
    if not _numbered(names):
        raise UserError(
            "the file does not tell which dilated convolution has which rate",
            where=", ".join(layer.path for layer in squares),
            mend="name those of rates 6, 12 and 18 in this order with --pyramid A,B,C (a part of each path)",
        )
    order = sorted(range(len(squares)), key=lambda index: natural(names[index]))
    notes.append("rates 6, 12 and 18 were taken in the order of: " + ", ".join(squares[index].path for index in order))
    return [squares[index] for index in order]


def _numbered(names: Sequence[str]) -> bool:
    """Whether names differ in their numbers alone: conv2d, conv2d_1, conv2d_2."""
    return len(set(names)) == len(names) and len({re.sub(r"_?\d+", "", name) for name in names}) == 1


def _own_numbers(layer: StoredLayer) -> set[int]:
    """Numbers in the names that its author gave: those that Keras counts by itself (conv2d_6) tell no rate."""
    own = [part for part in layer.path.split("/") if not re.fullmatch(r"(conv2d|conv_block|sequential)(_\d+)?", part)]
    return {int(number) for part in own for number in re.findall(r"\d+", part)}


def _norms_of(convs: dict[str, StoredLayer], norms: Sequence[StoredLayer]) -> dict[str, StoredLayer]:
    """The batch norm of each convolution: the one that stands beside it; in a flat graph the one of its rank."""
    nearest = {}
    for name, conv in convs.items():
        distances = sorted((_distance(conv.path, norm.path), index) for index, norm in enumerate(norms))
        if len(distances) == 1 or distances[0][0] < distances[1][0]:
            nearest[name] = norms[distances[0][1]]
    if len({id(norm) for norm in nearest.values()}) == len(convs):
        return nearest
    ranked = sorted(convs, key=lambda name: natural(convs[name].path))
    return dict(zip(ranked, sorted(norms, key=lambda norm: natural(norm.path)), strict=True))


def _fits(layer: StoredLayer, kernel: tuple[int, ...], bias: bool) -> bool:
    return layer.tensors["kernel"].shape == kernel and ("bias" in layer.tensors) == bias


def _distance(one: str, other: str) -> int:
    """Steps from one place in the tree of layers to another."""
    a, b = one.split("/"), other.split("/")
    common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return len(a) + len(b) - 2 * common


# ------------------------------------------------------------------ shapes and words


def _reference() -> dict[str, Tensor]:
    """The state dict that must be filled, as meta tensors."""
    from trocar.models.notebook import NotebookDeepLab

    with torch.device("meta"):
        return dict(NotebookDeepLab(1, "1x1").state_dict())


def _module_names(state: dict[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in state))


def _wanted(state: dict[str, Tensor], module: str) -> dict[str, tuple[int, ...]]:
    """What Keras must have for a module: its variables with their shapes there."""
    own = {
        key.removeprefix(f"{module}."): tuple(tensor.shape)
        for key, tensor in state.items()
        if key.startswith(f"{module}.")
    }
    names = NORM if "running_mean" in own else CONV
    shapes = {name: own[_TORCH_NAMES[name]] for name in names if _TORCH_NAMES[name] in own}
    return {name: (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape for name, shape in shapes.items()}


def _as_torch(layer: StoredLayer) -> dict[str, NDArray[np.float32]]:
    """Arrays under torch's names; kernels (height, width, in, out) become (out, in, height, width)."""
    arrays = {_TORCH_NAMES[key]: tensor for key, tensor in layer.tensors.items()}
    return {
        key: np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        for key, array in arrays.items()
    }


def _keras_name(module: str) -> str:
    names = {f"encoder.{here}": there for here, there, _ in encoder_names()}
    return names.get(module, module)


def _in_words(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "missing"


def _listed(what: str, problems: Sequence[str], most: int = 12) -> str:
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return f"{what}, {len(problems)} layers differ: {'; '.join(problems[:most])}{more}"


def _provenance(file: Path, recipe: Recipe) -> Provenance:
    versions: dict[str, Any] = {"trocar": __version__, "torch": str(torch.__version__)}
    return Provenance(
        recipe=recipe.name,
        dataset=f"unknown: trained elsewhere with Keras, converted from {file.name}",
        data_fingerprint=_fingerprint(file),
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        epochs=0,
        best_epoch=0,
        seed=0,
        device="unknown",
        precision="unknown",
        versions=versions,
    )


def _fingerprint(file: Path) -> str:
    """Of the file converted, as the data are unknown."""
    if file.is_dir():
        file = file / "variables" / "variables.index"
    with file.open("rb") as content:
        return f"unknown; of the converted file: sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
