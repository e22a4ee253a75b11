"""The ONNX Runtime engine: an exported model on the CPU, or on NVIDIA's GPUs where that build of it is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference.engines.hardware import lacks_int8
from trocar.model_folder import Export

GRAPH: Final = "model.onnx"
CPU: Final = "CPUExecutionProvider"
GPU: Final = ("TensorrtExecutionProvider", "CUDAExecutionProvider")  # the faster one first


def import_onnxruntime() -> Any:
    """ONNX Runtime, with its telemetry off: importing 1.32 starts that, on Linux too."""
    silence_onnxruntime()
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where somebody imported it before
    return onnxruntime


def silence_onnxruntime() -> None:
    """Keep its telemetry off, whoever imports it in this process: it reads this once, on import."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class ONNXEngine:
    """Runs an exported graph with ONNX Runtime. Safe to call from several threads."""

    def __init__(self, session: Any, *, precision: str = "f32", threads: int | None = None) -> None:
        """`session` is an `onnxruntime.InferenceSession`."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self._precision = precision
        self._threads = threads

    @classmethod
    def open(cls, folder: Path, export: Export, device: str = "auto", *, threads: int | None = None) -> ONNXEngine:
        """Read the exported form in `folder`. Raises `UserError` where ONNX Runtime, or the device, cannot."""
        session = open_session(folder / GRAPH, device, threads=threads)
        return cls(session, precision=export.precision, threads=threads)

    @property
    def about(self) -> str:
        """The engine in one line."""
        used = self._session.get_providers()[0]
        threads = [f"{self._threads} thread{'s' * (self._threads > 1)}"] if self._threads and used == CPU else []
        slowed = self._precision == "int8" and used == CPU and lacks_int8()
        slow = ["no int8 instructions here: slower"] if slowed else []
        words = {CPU: "CPU", GPU[0]: "TensorRT", GPU[1]: "CUDA"}
        return ", ".join([f"ONNX Runtime {self._precision}", words.get(used, used), *threads, *slow])

    @property
    def versions(self) -> dict[str, str]:
        """The library that runs it, and its version."""
        return {"onnxruntime": str(import_onnxruntime().__version__)}

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Shapes: frames (N, h, w, 3) uint8 -> logits (N, C, h, w) float32."""
        (logits,) = self._session.run(None, {self._input: np.ascontiguousarray(frames)})
        return np.asarray(logits, np.float32)


def open_session(graph: Path | bytes, device: str = "auto", *, threads: int | None = None) -> Any:
    """A session of ONNX Runtime on `device`: auto (a GPU where the build has one), cpu, cuda, cuda:N."""
    ort = import_onnxruntime()
    there = ort.get_available_providers()
    kind, _, number = device.partition(":")
    gpus = [(name, {"device_id": int(number or 0)}) for name in GPU if name in there]
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()) or (kind == "cuda" and not gpus):
        raise UserError(
            f"this ONNX Runtime cannot run on {device}: it has {', '.join(there)}",
            mend="use --device cpu, or install onnxruntime-gpu instead of onnxruntime",
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors: warnings go to stderr, past everything
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding needs these cores as well
    if threads:
        options.intra_op_num_threads = threads
    providers = [CPU] if kind == "cpu" else [*gpus, CPU]
    try:
        return ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options, providers=providers)
    except Exception as error:  # its exceptions have no common ancestor but this
        raise UserError(
            f"ONNX Runtime {ort.__version__} cannot open this export: {' '.join(str(error).split())[:300]}",
            where="" if isinstance(graph, bytes) else str(graph),
            mend="export the model again with the versions installed here, or use --engine torch",
        ) from None
