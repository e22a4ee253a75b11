"""Which engine is taken, and what is said where it cannot be had. That all give the same masks is tests/export."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference import engines
from trocar.inference.engines import FORMS, choose_form, hardware, open_engine
from trocar.inference.predictor import Predictor
from trocar.model_folder import Agreement, Export, ModelCard

AGREEMENT = Agreement(
    frames=1, records="none", probability=0, pixels=0, dice_torch=1, dice=1, dice_limit=0.1, pixel_limit=0.1
)


def form(key: str, size_hw: tuple[int, int] | None = (64, 96)) -> Export:
    engine, _, precision = key.partition("-")
    facts = {"engine": engine, "precision": precision or "f32", "size_hw": size_hw, "created": "2026-01-01"}
    return Export(**facts, agreement=AGREEMENT)  # type: ignore[arg-type]


@pytest.fixture
def card(make_card: Callable[..., ModelCard]) -> Callable[..., ModelCard]:
    return lambda *keys, **sizes: make_card(exports={key: form(key, **sizes) for key in keys})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with every library, bf16 and no GPU; a test may take things away."""
    here = SimpleNamespace(gpu=False, bf16=True, packages={"openvino", "onnxruntime"})
    monkeypatch.setattr(engines, "has_gpu", lambda: here.gpu)
    monkeypatch.setattr(engines, "has_bf16", lambda: here.bf16)
    monkeypatch.setattr(engines, "find_spec", lambda name: name in here.packages or None)
    return here


def test_auto_takes_the_fastest_form_that_is_there(card: Callable[..., ModelCard]) -> None:
    for count in range(len(FORMS) + 1):
        for there in itertools.combinations(FORMS, count):
            wanted = next((key for key in FORMS if key in there), None)
            assert choose_form(card(*reversed(there)), engine="auto", device="auto") == wanted
            assert choose_form(card(*there), engine="auto", device="cpu") == wanted
            assert choose_form(card(*there), engine="torch", device="cpu") is None


def test_auto_passes_over_what_cannot_run_well(card: Callable[..., ModelCard], machine: SimpleNamespace) -> None:
    everything = card(*FORMS)
    machine.packages = {"onnxruntime"}
    assert choose_form(everything, engine="auto", device="cpu") == "onnx-int8"
    machine.packages = set()
    assert choose_form(everything, engine="auto", device="cpu") is None
    machine.packages, machine.bf16 = {"openvino"}, False
    assert choose_form(card("openvino", "openvino-bf16"), engine="auto", device="cpu") == "openvino"
    assert choose_form(card("openvino-int8", size_hw=(32, 32)), engine="auto", device="cpu") is None
    assert choose_form(card("openvino-int8", size_hw=None), engine="auto", device="cpu") == "openvino-int8"
    assert choose_form(everything, engine="auto", device="cpu", precision="bf16") is None


def test_auto_takes_torch_on_a_gpu(card: Callable[..., ModelCard], machine: SimpleNamespace) -> None:
    machine.gpu = True
    assert choose_form(card(*FORMS), engine="auto", device="auto") is None
    assert choose_form(card(*FORMS), engine="auto", device="cuda:1") is None
    assert choose_form(card(*FORMS), engine="auto", device="cpu") == "openvino-int8"
    assert choose_form(card(*FORMS), engine="onnx", device="auto") == "onnx-int8"


def test_an_engine_that_cannot_be_had_is_an_error_with_a_way_out(
    card: Callable[..., ModelCard], machine: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no engine is called 'abacus'") as caught:
        open_engine(tmp_path, card(), engine="abacus")
    assert "auto, torch, openvino, onnx" in str(caught.value.mend)
    with pytest.raises(UserError, match="not exported for the engine openvino: it has no exported form") as caught:
        open_engine(tmp_path, card(), engine="openvino")
    assert "trocar export MODEL --to openvino" in str(caught.value.mend)
    with pytest.raises(UserError, match="not exported for the engine openvino: it has onnx-int8, onnx"):
        open_engine(tmp_path, card("onnx", "onnx-int8"), engine="openvino")
    machine.packages = set()
    with pytest.raises(UserError, match="onnxruntime is not installed") as caught:
        open_engine(tmp_path, card("onnx"), engine="onnx")
    assert "pip install onnxruntime" in str(caught.value.mend)
    machine.packages = {"openvino"}
    with pytest.raises(UserError, match="runs on the CPU here, not on cuda"):
        open_engine(tmp_path, card("openvino"), engine="openvino", device="cuda")
    with pytest.raises(UserError, match="in the arithmetic it was exported with"):
        open_engine(tmp_path, card("openvino"), engine="openvino", precision="bf16")


def test_onnx_runtime_without_its_gpu_build_refuses_a_gpu(tmp_path: Path) -> None:
    from trocar.inference.engines.onnx import open_session

    for device in ("cuda", "cuda:3", "mps", "cuda:x"):
        with pytest.raises(UserError, match="cannot run on") as caught:
            open_session(tmp_path / "model.onnx", device)
        assert "onnxruntime-gpu" in str(caught.value.mend)


def test_a_function_that_stands_in_for_an_engine_has_a_name(make_card: Callable[..., ModelCard]) -> None:
    def darkness(frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        return -frames[..., 0][:, None].astype(np.float32)

    assert Predictor(darkness, make_card()).about == "darkness"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "int8", "bf16"),
    [
        ("flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni", True, False),
        ("flags\t\t: fpu avx2 avx_vnni", True, False),
        ("flags\t\t: fpu sse4_2 avx2 avx512f avx512bw", False, False),
        ("flags\t\t: fpu amx_int8 amx_bf16 avx512_bf16", True, True),
        ("Features\t: fp asimd asimddp bf16", True, True),
    ],
)
def test_what_the_cpu_can_do_is_read_off_its_flags(
    monkeypatch: pytest.MonkeyPatch, line: str, int8: bool, bf16: bool
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(line.partition(":")[2].split()))
    assert hardware.lacks_int8() is not int8
    assert hardware.has_bf16() is bf16
    monkeypatch.setattr(hardware, "cpu_flags", lambda: None)
    assert not hardware.lacks_int8()  # unknown is not said to be slow
    assert not hardware.has_bf16()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_flags_are_found_on_linux() -> None:
    flags = hardware.cpu_flags()
    assert flags
    assert all(flag == flag.strip() and " " not in flag for flag in flags)


def test_no_gpu_is_seen_where_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware._cuda_devices() == 0


def test_a_slow_int8_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from trocar.inference.engines import onnx

    session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(name="frames")], get_providers=lambda: [onnx.CPU])
    monkeypatch.setattr(onnx, "lacks_int8", lambda: True)
    assert (
        onnx.ONNXEngine(session, precision="int8").about == "ONNX Runtime int8, CPU, no int8 instructions here: slower"
    )
    assert onnx.ONNXEngine(session, threads=2).about == "ONNX Runtime f32, CPU, 2 threads"
