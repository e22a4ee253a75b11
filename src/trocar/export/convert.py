"""From a network of PyTorch to graphs of OpenVINO and ONNX that take the same frames and give the same logits.

Both go through `torch.export`. The batch is left open; height and width are fixed, or left open on request.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from trocar.errors import UserError
from trocar.inference.engines.onnx import silence_onnxruntime
from trocar.inference.engines.openvino import import_openvino
from trocar.models.build import Network
from trocar.sizes import shown_size

if TYPE_CHECKING:
    from trocar.inference.predictor import Engine

OPSET: Final = 20  # of ONNX: read by ONNX Runtime 1.17 and newer, TensorRT 10
INPUT, OUTPUT = "frames", "logits"


def trace(network: Network, size_hw: tuple[int, int], *, dynamic: bool = False) -> ExportedProgram:
    """The network as a graph of PyTorch, for batches of any length, in frames of `size_hw`, with `dynamic` of any size.

    Raises `UserError` where the architecture cannot be traced so.
    """
    frames = torch.zeros((2, *size_hw, 3), dtype=torch.uint8)  # 2: what is true of 1 only would be built in
    shapes: dict[int, Any] = {0: Dim("batch", min=1, max=1024)}
    if dynamic:
        shapes |= {1: Dim.AUTO, 2: Dim.AUTO}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(network.eval(), (frames,), dynamic_shapes=(shapes,))
    except Exception as error:  # what a graph cannot hold shows in exceptions of every kind
        raise UserError(
            f"this architecture cannot be exported{' for frames of any size' if dynamic else ''}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            mend="export for a fixed size (without --dynamic)" if dynamic else "predict with --engine torch",
        ) from error


def to_openvino(program: ExportedProgram, size_hw: tuple[int, int] | None) -> Any:
    """The graph as an `openvino.Model`, batch open; `size_hw` None: height and width open too."""
    ov = import_openvino(converter=True)
    from openvino.tools.ovc import convert_model

    try:
        with _quiet():
            model = convert_model(program)
    except Exception as error:
        raise _cannot_convert("OpenVINO", error) from error
    height, width = size_hw or (-1, -1)
    model.reshape(ov.PartialShape([-1, height, width, 3]))
    model.input(0).tensor.set_names({INPUT})
    model.output(0).tensor.set_names({OUTPUT})
    return model


def to_onnx(program: ExportedProgram) -> bytes:
    """The graph as an ONNX file of one piece."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed", mend="pip install 'trocar[export]'")
    silence_onnxruntime()
    names = {"input_names": [INPUT], "output_names": [OUTPUT]}
    try:
        with _quiet():
            made = torch.onnx.export(program, opset_version=OPSET, dynamo=True, **names)  # type: ignore[arg-type]
    except Exception as error:
        raise _cannot_convert("ONNX", error) from error
    assert made is not None
    return bytes(made.model_proto.SerializeToString())


def check_other_size(network: Network, engine: Engine, size_hw: tuple[int, int]) -> None:
    """Refuse a graph of open size that is one for `size_hw` all the same: some architectures count on their size."""
    other = (2 * size_hw[0], size_hw[1])
    frames = np.random.default_rng(0).integers(0, 256, (1, *other, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(frames)).numpy()
    try:
        found = engine(frames)
        agrees = found.shape == wanted.shape and bool(np.allclose(found, wanted, atol=1e-2 * np.ptp(wanted)))
    except Exception:  # engines refuse shapes in many ways
        agrees = False
    if not agrees:
        raise UserError(
            f"this architecture gives other results in frames of another size than {shown_size(size_hw)}",
            mend="export for a fixed size (without --dynamic)",
        )


def _cannot_convert(what: str, error: Exception) -> UserError:
    return UserError(
        f"this architecture cannot be converted to {what}: {' '.join(str(error).split())[:300]}",
        mend="export for a fixed size (without --dynamic), to the other engine, or predict with --engine torch",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress lines and the warnings about the converters' own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
