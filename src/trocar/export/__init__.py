"""`export`: another form of a model's network for another engine, kept only where its masks are those of PyTorch.

    MODEL/openvino/model.xml, model.bin    float32; openvino-bf16/, openvino-int8/ likewise
    MODEL/onnx/model.onnx                  float32; onnx-int8/ likewise
    MODEL/.../agreement.csv                frame by frame, how far it agrees with PyTorch

The graph takes a batch of prepared uint8 frames (N, h, w, 3) and gives float32 logits (N, C, h, w), as every engine
does: normalising is in it. What is around it stays the Predictor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trocar import __version__
from trocar.data.preprocess import prepare_image
from trocar.data.records import Source
from trocar.errors import UserError
from trocar.export.convert import check_other_size, to_onnx, to_openvino, trace
from trocar.export.gate import TABLE, Gate, Limits, refusal, write_table
from trocar.export.graphs import Arithmetic, Graph, ONNXGraph, OpenVINOGraph
from trocar.export.quantise import Quantised, quantise
from trocar.export.samples import Samples, find_samples
from trocar.inference.engines.hardware import has_bf16
from trocar.inference.engines.torch import TorchEngine, load_network
from trocar.inference.predictor import Predictor
from trocar.model_folder import Agreement, Export, ModelCard, add_export, read_card, resolve_model
from trocar.progress import Watcher

DICE_LIMIT = {"f32": 0.002, "bf16": 0.002, "int8": 0.005}
PIXEL_LIMIT = 0.01
FRAMES = 100  # of each kind, validation and calibration


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    model: Path
    form: str  # its folder inside the model, and its key in `card.exports`
    export: Export
    bytes: int  # of its files

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        entry = self.export.model_dump(mode="json")
        return {"model": str(self.model), "form": self.form, "bytes": self.bytes, "export": entry}


def export(
    model: str | Path,
    *,
    to: Literal["openvino", "onnx"],
    precision: Arithmetic = "f32",
    data: Source | None = None,
    split: Path | None = None,
    size_hw: tuple[int, int] | None = None,
    dynamic: bool = False,
    dice_limit: float | None = None,
    pixel_limit: float = PIXEL_LIMIT,
    frames: int = FRAMES,
    watcher: Watcher | None = None,
) -> Exported:
    """Write an exported form of a model's network into the model's folder, replacing the one of the same kind.

    It is compared with PyTorch on validation records of the model's run (or of `data` and `split`), at most `frames` of
    them; int8 is calibrated on as many training records, and layers for which the masks suffer go back to float.
    `size_hw` is another size of its frames than the model's own; `dynamic` leaves the size open. Raises `UserError`,
    and writes nothing, where it agrees with PyTorch less than `dice_limit` (`DICE_LIMIT`) and `pixel_limit` ask for.
    """
    watcher = watcher or Watcher()
    form = to if precision == "f32" else f"{to}-{precision}"
    _refuse_what_cannot_be(to, precision)
    folder = resolve_model(model)
    card = read_card(folder)
    samples = find_samples(folder, card, data, split, frames)
    sized = card.at_size(size_hw)
    limits = Limits(DICE_LIMIT[precision] if dice_limit is None else dice_limit, pixel_limit)
    watcher.message(f"converting to {form}")
    graph = _convert(folder, sized, to, dynamic=dynamic)
    gate = Gate(
        Predictor(TorchEngine.open(folder, card, "cpu"), sized),
        samples.gate,
        samples.truth,
        limits,
        origin=samples.origin,
        watcher=watcher,
    )
    costs: tuple[tuple[str, float], ...] = ()
    in_float: tuple[str, ...] = ()
    if precision == "int8":
        made = _quantise(graph, gate, samples, sized, watcher)
        graph, in_float, costs = made.graph, made.in_float, made.costs
    agreement, each = gate.compare(Predictor(graph.engine(precision), sized))
    if not agreement.within:
        raise refusal(form, agreement, costs)
    entry = Export(
        engine=to,
        precision=precision,
        size_hw=None if dynamic else sized.preprocess.size_hw,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(to, precision),
        in_float=in_float,
        agreement=agreement,
    )

    def write(into: Path) -> None:
        graph.save(into, precision)
        write_table(each, into / TABLE)

    add_export(folder, form, entry, write)
    size = sum(path.stat().st_size for path in (folder / form).iterdir())
    return Exported(folder, form, entry, size)


def _refuse_what_cannot_be(to: str, precision: Arithmetic) -> None:
    if precision != "bf16":
        return
    if to == "onnx":
        raise UserError(
            "ONNX Runtime does not compute in bf16 on a CPU", mend="--to openvino, or leave --precision out"
        )
    if not has_bf16():
        raise UserError(
            "this CPU does not multiply in bf16: the gate would measure float32",
            mend="export on the machine that is to run it, or leave --precision out",
        )


def _convert(folder: Path, card: ModelCard, to: str, *, dynamic: bool) -> OpenVINOGraph | ONNXGraph:
    network = load_network(folder, card)
    size_hw = card.preprocess.size_hw
    program = trace(network, size_hw, dynamic=dynamic)
    if to == "onnx":
        graph: OpenVINOGraph | ONNXGraph = ONNXGraph.of(to_onnx(program))
    else:
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        graph = OpenVINOGraph.of(to_openvino(program, None if dynamic else size_hw), weights)
    if dynamic:
        check_other_size(network, graph.engine("f32"), size_hw)
    return graph


def _quantise(
    graph: OpenVINOGraph | ONNXGraph, gate: Gate, samples: Samples, card: ModelCard, watcher: Watcher
) -> Quantised[OpenVINOGraph] | Quantised[ONNXGraph]:
    def holds(candidate: Graph) -> bool:
        agreement: Agreement = gate.compare(Predictor(candidate.engine("int8"), card))[0]
        return agreement.within

    frames = _prepared(samples, card)
    if isinstance(graph, OpenVINOGraph):
        return quantise(graph, frames, holds, watcher=watcher)
    return quantise(graph, frames, holds, watcher=watcher)


def _prepared(samples: Samples, card: ModelCard) -> list[NDArray[np.uint8]]:
    """Calibration frames as an engine gets them. Shapes: -> (1, h, w, 3) each."""
    return [prepare_image(record.image(), card.preprocess)[0][None] for record in samples.calibration]


def _versions(to: str, precision: Arithmetic) -> dict[str, str]:
    names = ["torch", *{"openvino": ["openvino"], "onnx": ["onnx", "onnxscript", "onnxruntime"]}[to]]
    names += ["nncf"] if precision == "int8" else []
    return {"trocar": __version__} | {name: version(name) for name in names}
