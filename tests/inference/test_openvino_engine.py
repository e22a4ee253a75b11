"""The OpenVINO engine against the graph it was given, run by OpenVINO as it is."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trocar.inference.engines import openvino
from trocar.inference.engines.openvino import OpenVINOEngine, import_openvino, openvino_core


def graph(mode: str, half: str = "half_pixel") -> Any:
    """Logits of two classes at half the size of the frames, enlarged to it."""
    ov = import_openvino()
    from openvino import opset13 as ops

    frames = ops.parameter([1, 16, 24, 3], np.uint8)
    planes = ops.transpose(ops.convert(frames, np.float32), np.array([0, 3, 1, 2]))
    kernel = np.random.default_rng(0).normal(0, 0.1, (2, 3, 3, 3)).astype(np.float32)
    small = ops.convolution(planes, kernel, [2, 2], [1, 1], [1, 1], [1, 1])
    size, axes = np.array([16, 24]), np.array([2, 3])
    large = ops.interpolate(small, size, mode, "sizes", axes=axes, coordinate_transformation_mode=half)
    return ov.Model([large], [frames])


@pytest.mark.parametrize("how", [("linear", "half_pixel"), ("linear_onnx", "pytorch_half_pixel")])
def test_logits_enlarged_outside_the_graph_are_those_of_the_graph(how: tuple[str, str]) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    as_it_is = openvino_core().compile_model(graph(*how), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = np.concatenate([as_it_is([frame[None]])[0] for frame in frames])
    engine = OpenVINOEngine(graph(*how))
    assert engine._model.output(0).shape[2:] == [8, 12]
    np.testing.assert_allclose(engine(frames), expected, rtol=1e-5, atol=1e-4)


def test_calls_side_by_side_give_the_same_logits() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (8, 1, 16, 24, 3), dtype=np.uint8)
    one, many = (OpenVINOEngine(graph("linear"), aim=aim) for aim in ("latency", "throughput"))
    assert one.side_by_side == 1
    assert 1 <= many.side_by_side <= 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(many, frames))
    np.testing.assert_array_equal(together, [one(frame) for frame in frames])


@pytest.mark.parametrize("how", [("nearest", "half_pixel"), ("cubic", "half_pixel"), ("linear", "align_corners")])
def test_an_enlargement_that_opencv_does_otherwise_stays_in_the_graph(how: tuple[str, str]) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
    as_it_is = openvino_core().compile_model(graph(*how), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_array_equal(OpenVINOEngine(graph(*how))(frames), as_it_is([frames])[0])


SIGNALLED = """
import gc, os, signal
from trocar.inference.engines.openvino import OpenVINOEngine
from trocar.inference.predictor import Predictor
from trocar.box import DEFAULT, model_named

signal.signal(signal.SIGINT, lambda *_: print("stopped"))
first, second = (Predictor.open(model_named(DEFAULT), engine="openvino") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGINT)
"""


def test_threads_that_ask_at_once_get_the_same_core(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def make() -> object:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # time for the other thread to come here too
        return object()

    types = SimpleNamespace(u8=SimpleNamespace(to_dtype=lambda: None))
    monkeypatch.setattr(openvino, "import_openvino", lambda: SimpleNamespace(Core=make, Type=types))
    monkeypatch.setattr(openvino, "_core", functools.cache(openvino._core.__wrapped__))
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(openvino_core) for _ in range(2))
        assert first.result() is second.result()


FIRST_TOGETHER = """
import sys, threading
from trocar.inference.engines.openvino import import_openvino, openvino_core

openvino_core()
sys.setswitchinterval(1e-6)
together = threading.Barrier(4)

def ask():
    together.wait()
    sum(range(20_000))
    import_openvino().Type.u8.to_dtype()

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all asked")
"""


@pytest.mark.parametrize("attempt", range(2))
def test_threads_that_predict_first_at_once_do_not_wait_for_ever(attempt: int) -> None:
    """Where the bindings have not looked NumPy up before, four of five processes hang here."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_TOGETHER], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "all asked\n"), done.stderr


def test_a_signal_after_two_engines_have_gone_does_no_harm() -> None:
    """Fails on CPUs with AMX where each engine has a core of its own: exit code -11."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
