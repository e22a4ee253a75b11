"""What runs a network: PyTorch, OpenVINO, ONNX Runtime. Which one a model is opened with is decided, and said, here.

Every engine maps prepared frames to logits (`predictor.Engine`) and is imported when it is opened: only the torch
engine imports torch. Exported forms are listed in the model's card (`export` makes them).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from trocar.errors import UserError
from trocar.inference.engines.hardware import has_bf16, has_gpu
from trocar.model_folder import Export, ModelCard

if TYPE_CHECKING:
    from trocar.inference.predictor import Aim, Engine, Precision

EngineName: TypeAlias = Literal["auto", "torch", "openvino", "onnx"]
ENGINES: Final[tuple[str, ...]] = get_args(EngineName)
FORMS: Final = ("openvino-int8", "openvino-bf16", "openvino", "onnx-int8", "onnx")  # best first, on a CPU
PACKAGES: Final = {"openvino": "openvino", "onnx": "onnxruntime"}


def open_engine(
    folder: Path,
    card: ModelCard,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: Precision = "32",
    threads: int | None = None,
    aim: Aim = "latency",
) -> Engine:
    """The engine of a model folder whose card was read (and thereby its files checked).

    `auto` takes on a CPU the first of `FORMS` that the model has and whose library is installed, else torch; with a
    GPU, Apple's too, or where bf16 is asked for, torch. An exported form of another size than the card's is passed
    over: it opens where its engine is named. `threads` limits those of the engine; None leaves it to the library. `aim`
    is throughput where frames follow each other and none is waited for, which matters to OpenVINO only. Raises
    `UserError` for an engine that is not there, not exported, or cannot run on `device`.
    """
    if engine not in ENGINES:
        raise UserError(f"no engine is called {engine!r}", mend=f"one of: {', '.join(ENGINES)}")
    form = choose_form(card, engine=engine, device=device, precision=precision)
    if form is None:
        from trocar.inference.engines.torch import TorchEngine  # imports torch

        return TorchEngine.open(folder, card, device, precision=precision, threads=threads)
    _refuse_other_precision(form, precision)
    export = card.exports[form]
    if export.engine == "openvino":
        from trocar.inference.engines.openvino import OpenVINOEngine

        return OpenVINOEngine.open(folder / form, export, device, threads=threads, aim=aim)
    from trocar.inference.engines.onnx import ONNXEngine

    return ONNXEngine.open(folder / form, export, device, threads=threads)


def choose_form(card: ModelCard, *, engine: str, device: str, precision: Precision = "32") -> str | None:
    """Which exported form `open_engine` takes, by its key in `card.exports`; None: torch."""
    if engine == "torch":
        return None
    if engine == "auto":
        if precision != "32" or not _on_cpu(device):
            return None
        fitting = [form for form in _forms(card) if card.exports[form].size_hw in (None, card.preprocess.size_hw)]
        return next((form for form in fitting if _is_installed(card.exports[form]) and _runs_well(form)), None)
    forms = [form for form in _forms(card) if card.exports[form].engine == engine]
    if not forms:
        has = f"it has {', '.join(_forms(card))}" if card.exports else "it has no exported form"
        raise UserError(
            f"the model {card.name} is not exported for the engine {engine}: {has}",
            mend=f"trocar export MODEL --to {engine}, or use --engine torch",
        )
    if not _is_installed(card.exports[forms[0]]):
        package = PACKAGES[engine]
        raise UserError(f"{package} is not installed", mend=f"pip install {package}, or use --engine torch")
    return forms[0]


def _forms(card: ModelCard) -> list[str]:
    return [form for form in FORMS if form in card.exports]


def _on_cpu(device: str) -> bool:
    return device == "cpu" or (device == "auto" and not has_gpu())


def _is_installed(export: Export) -> bool:
    return find_spec(PACKAGES[export.engine]) is not None


def _runs_well(form: str) -> bool:
    return form != "openvino-bf16" or has_bf16()


def _refuse_other_precision(form: str, precision: Precision) -> None:
    if precision != "32":
        raise UserError(
            f"an exported model runs in the arithmetic it was exported with, {form} here, not in {precision}",
            mend=f"trocar export MODEL --to openvino --precision {precision}, or use --engine torch",
        )
