"""The OpenVINO engine: an exported model on the CPU, without torch.

The aim is `latency`, all threads for one frame, or `throughput`, several frames side by side, which waste no time on
waiting for each other. The graph is compiled for one frame of each size it is asked for, so a batch gives the same
logits as its frames one by one. Where its last step is to enlarge the logits, OpenCV does that: the same arithmetic in
a thirtieth of the time, which in OpenVINO is a tenth of a whole int8 DeepLabv3+. A call takes an infer request from a
pool and gives up Python's lock while it runs: threads may share the engine.
"""

from __future__ import annotations

import functools
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference.engines.hardware import lacks_int8
from trocar.model_folder import Export

if TYPE_CHECKING:
    from trocar.inference.predictor import Aim

GRAPH: Final = "model.xml"
MOST_AT_ONCE: Final = 4  # frames: more than decoding and drawing can keep up with
HINTS: Final = {"f32": "f32", "bf16": "bf16", "int8": "f32"}  # arithmetic of what is not int8
_CORE_LOCK: Final = threading.Lock()


def import_openvino(*, converter: bool = False) -> Any:
    """OpenVINO, with its telemetry off: importing it would report to a server that it was imported.

    Without `converter` the part that converts models is left out, which takes as long to import as all the rest.
    """
    telemetry: Any = sys.modules.get("openvino_telemetry")
    if telemetry is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it fails; a stub is used then
    elif getattr(telemetry, "Telemetry", None) is not None:  # somebody imported it before: nothing of ours is reported
        telemetry.Telemetry.send_event = lambda *_, **__: None
    name = "openvino.tools.ovc"
    leave_out = not converter and "openvino" not in sys.modules
    if leave_out:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if leave_out:
            del sys.modules[name]
    return openvino


def openvino_core() -> Any:
    """The one `openvino.Core` of this process, which lives as long as the process does.

    On a CPU with AMX every core gives the thread that compiles a stack for signal handlers, and takes it away when it
    goes. Two that go in another order than last to first leave the thread with a stack that is gone: the next signal,
    a Ctrl-C or the end of a child, would kill the process.

    The first question for a NumPy type makes OpenVINO's bindings look NumPy up, and two threads that ask it at once
    wait for each other for ever, one with Python's lock: it is asked here, by one.
    """
    with _CORE_LOCK:  # threads that ask at once would make one each
        return _core()


@functools.cache
def _core() -> Any:
    openvino = import_openvino()
    openvino.Type.u8.to_dtype()
    return openvino.Core()


class OpenVINOEngine:
    """Runs an exported graph with OpenVINO. Safe to call from several threads."""

    def __init__(self, model: Any, *, precision: str = "f32", threads: int | None = None, aim: Aim = "latency") -> None:
        """`model` is an `openvino.Model`; `precision` the one it was exported in: f32, bf16 or int8."""
        self._ov = import_openvino()
        self._model = _without_last_resize(self._ov, model)
        self._settings = {
            "PERFORMANCE_HINT": aim.upper(),
            "PERFORMANCE_HINT_NUM_REQUESTS": str(MOST_AT_ONCE),
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "ENABLE_CPU_PINNING": "NO",  # the same cores decode and draw: a thread tied to one would wait for them
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._lock = threading.Lock()
        self._pools: dict[tuple[int, int], _Requests] = {}
        shape = model.input(0).partial_shape
        self.size_hw = None if shape[1].is_dynamic else (shape[1].get_length(), shape[2].get_length())
        self._precision = precision
        self._threads = threads
        if self.size_hw:
            self._pool(self.size_hw)  # a model that cannot be compiled is found now

    @classmethod
    def open(
        cls,
        folder: Path,
        export: Export,
        device: str = "auto",
        *,
        threads: int | None = None,
        aim: Aim = "latency",
    ) -> OpenVINOEngine:
        """Read the exported form in `folder`. Raises `UserError` where this OpenVINO cannot."""
        if device not in ("auto", "cpu"):
            raise UserError(
                f"the engine openvino runs on the CPU here, not on {device}", mend="use --device cpu, or --engine torch"
            )
        ov = import_openvino()
        try:
            return cls(openvino_core().read_model(folder / GRAPH), precision=export.precision, threads=threads, aim=aim)
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO {ov.__version__} cannot open this export: {_last_line(error)}",
                where=str(folder / GRAPH),
                mend="export the model again with the versions installed here, or use --engine torch",
            ) from None

    @property
    def about(self) -> str:
        """The engine in one line."""
        count = self._threads or next((pool.threads for pool in self._pools.values()), None)
        threads = [] if count is None else [f"{count} thread{'s' * (count > 1)}"]
        at_once = [f"{self.side_by_side} frames side by side"] if self.side_by_side > 1 else []
        slow = ["no int8 instructions here: slower"] if self._precision == "int8" and lacks_int8() else []
        return ", ".join([f"OpenVINO {self._precision}", "CPU", *threads, *at_once, *slow])

    @property
    def versions(self) -> dict[str, str]:
        """The library that runs it, and its version."""
        return {"openvino": str(self._ov.__version__)}

    @property
    def side_by_side(self) -> int:
        """How many calls run at the same time, each with its share of the threads."""
        return next((pool.streams for pool in self._pools.values()), 1)

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Shapes: frames (N, h, w, 3) uint8 -> logits (N, C, h, w) float32."""
        pool = self._pool((frames.shape[1], frames.shape[2]))
        frames = np.ascontiguousarray(frames)
        with pool as request:
            logits = [pool.run(request, frames[index : index + 1]) for index in range(len(frames))]
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def _pool(self, size_hw: tuple[int, int]) -> _Requests:
        with self._lock:
            if size_hw not in self._pools:
                if self.size_hw not in (None, size_hw):
                    raise ValueError(f"this model was exported for {self.size_hw}, not for frames of {size_hw}")
                fixed = self._model.clone()
                fixed.reshape([1, *size_hw, 3])
                self._pools[size_hw] = _Requests(openvino_core().compile_model(fixed, "CPU", self._settings))
            return self._pools[size_hw]


class _Requests:
    """Infer requests of one compiled graph, as many as threads ever ran at once; `with` lends one."""

    def __init__(self, compiled: Any) -> None:
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self.streams = int(compiled.get_property("NUM_STREAMS"))
        self._compiled = compiled
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lent = threading.local()

    def __enter__(self) -> Any:
        try:
            self._lent.request = self._idle.get_nowait()
        except queue.Empty:
            self._lent.request = self._compiled.create_infer_request()
        return self._lent.request

    def __exit__(self, *_: object) -> None:
        self._idle.put(self._lent.request)

    @staticmethod
    def run(request: Any, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Shapes: frame (1, h, w, 3) -> logits (1, C, h, w), a copy of the request's own memory."""
        request.infer([frame], share_inputs=True)
        logits: NDArray[np.float32] = np.asarray(request.get_output_tensor(0).data, np.float32)
        if logits.shape[2:] == frame.shape[1:3]:
            return logits.copy()
        enlarged = np.empty((1, logits.shape[1], *frame.shape[1:3]), np.float32)
        for plane, target in zip(logits[0], enlarged[0], strict=True):
            cv2.resize(plane, target.shape[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
        return enlarged


def _without_last_resize(ov: Any, model: Any) -> Any:
    """The graph that ends before a bilinear enlargement which OpenCV does alike; where there is none, as it is."""
    resize = model.output(0).get_node().input_value(0).get_node()
    how = resize.get_attributes()
    alike = (
        resize.get_type_name() == "Interpolate"
        and how["mode"] in ("linear", "linear_onnx")
        and how["coordinate_transformation_mode"] in ("half_pixel", "pytorch_half_pixel")
        and not (how["antialias"] or any(how["pads_begin"]) or any(how["pads_end"]))
    )
    return ov.Model([resize.input_value(0)], model.get_parameters(), model.get_friendly_name()) if alike else model


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
