from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from trocar import cli
from trocar import export as package
from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.records import Record, Source
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.errors import UserError
from trocar.export import export, graphs
from trocar.export.graphs import OpenVINOGraph
from trocar.export.samples import find_samples
from trocar.inference.predictor import Predictor
from trocar.model_folder import read_card

LOOSE = {"dice_limit": 0.1, "pixel_limit": 0.1}  # of a network that has learnt nothing: it is nowhere sure


@pytest.fixture(scope="session")
def exported(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with four forms."""
    run = Path(shutil.copytree(pristine_run, tmp_path_factory.mktemp("exported") / "run"))
    export(run, to="openvino")
    export(run, to="onnx")
    export(run, to="openvino", precision="int8", **LOOSE)
    export(run, to="onnx", precision="int8", **LOOSE)
    return run


@pytest.fixture(scope="session")
def exported_parts(pristine_parts_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(pristine_parts_run, tmp_path_factory.mktemp("parts") / "run"))
    export(run, to="openvino")
    export(run, to="onnx")
    return run


def noise(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ every engine, the same masks


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("which", ["exported", "exported_parts"])
def test_every_engine_gives_the_masks_of_torch(engine: str, which: str, request: pytest.FixtureRequest) -> None:
    run = Path(shutil.copytree(request.getfixturevalue(which), request.getfixturevalue("tmp_path") / "run"))
    _forget(run / "model", "openvino-int8", "onnx-int8")
    torch_one, other = (Predictor.open(run, "cpu", engine=name) for name in ("torch", engine))
    images = [noise(seed, *size) for seed, size in enumerate([(64, 80), (200, 97), (31, 301), (1, 1), (300, 300)])]
    for image, wanted, found in zip(images, torch_one.predict_batch(images), other.predict_batch(images), strict=True):
        assert found.mask.shape == image.shape[:2]
        np.testing.assert_allclose(found.network_logits, wanted.network_logits, atol=1e-4)
        ordered = np.sort(wanted.probabilities, axis=0)
        margin = ordered[-1] - ordered[-2] if len(ordered) > 1 else np.abs(ordered[0] - wanted.threshold)
        np.testing.assert_array_equal(found.mask[margin > 1e-4], wanted.mask[margin > 1e-4])
    assert other.about.startswith({"openvino": "OpenVINO f32, CPU", "onnx": "ONNX Runtime f32, CPU"}[engine])
    assert torch_one.about.startswith("torch f32, CPU")


def _forget(model: Path, *forms: str) -> None:
    """Take exported forms out of a card, which leaves their files without meaning."""
    card = json.loads((model / "model.json").read_text())
    for form in forms:
        card["exports"].pop(form, None)
    (model / "model.json").write_text(json.dumps(card))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 4), engine=st.sampled_from(["openvino", "onnx", "int8"]))
def test_a_batch_gives_what_its_frames_give_alone(
    engines: Callable[[str], Predictor], seed: int, count: int, engine: str
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 64, 80, 3), dtype=np.uint8)
    run = engines(engine).engine
    alone = np.concatenate([run(frame[None]) for frame in frames])
    np.testing.assert_allclose(run(frames), alone, atol=1e-4)
    if "int8" not in engines(engine).about:
        np.testing.assert_allclose(alone, engines("torch").engine(frames), atol=1e-4)


@pytest.fixture(scope="module")
def engines(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Predictor]:
    """By name; openvino and onnx in float."""
    run = Path(shutil.copytree(exported, tmp_path_factory.mktemp("float") / "run"))
    _forget(run / "model", "openvino-int8", "onnx-int8")
    opened = {name: Predictor.open(run, "cpu", engine=name) for name in ("torch", "openvino", "onnx")}
    opened["int8"] = Predictor.open(exported, "cpu")
    return opened.__getitem__


@pytest.mark.parametrize("engine", ["openvino", "onnx", "int8"])
def test_threads_may_share_an_engine(engines: Callable[[str], Predictor], engine: str) -> None:
    run = engines(engine).engine
    frames = [
        np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, 64, 80, 3), dtype=np.uint8) for seed in range(24)
    ]
    alone = [run(frame) for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, frames * 4))
    for wanted, found in zip(alone * 4, together, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_graph_of_open_size_takes_any(pristine_resnet_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pristine_resnet_run, tmp_path / "run"))
    made = export(run, to="openvino", dynamic=True)
    assert made.export.size_hw is None
    torch_one, other = (Predictor.open(run, "cpu", engine=name) for name in ("torch", "auto"))
    assert other.about.startswith("OpenVINO")
    for size in [(64, 80), (96, 64), (32, 128)]:
        frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        np.testing.assert_allclose(other.engine(frames), torch_one.engine(frames), atol=1e-4)


def test_what_cannot_be_open_in_size_is_said(run: Path) -> None:
    """This encoder pads by the size that it sees."""
    with pytest.raises(UserError, match="cannot be converted to OpenVINO") as caught:
        export(run, to="openvino", dynamic=True)
    assert "without --dynamic" in str(caught.value.mend)


def test_a_form_of_another_size_is_opened_only_where_it_is_asked_for(run: Path) -> None:
    export(run, to="openvino", size_hw=(32, 48))
    assert Predictor.open(run, "cpu").about.startswith("torch")
    small = Predictor.open(run, "cpu", engine="openvino")
    assert small.preprocess.size_hw == (32, 48)
    found = small(noise(0, 100, 130))
    assert found.mask.shape == (100, 130)
    assert found.network_logits.shape == (1, 32, 48)
    with pytest.raises(ValueError, match=r"exported for \(32, 48\)"):
        small.engine(np.zeros((1, 64, 80, 3), np.uint8))


# ------------------------------------------------------------------ the gate


def test_what_the_gate_measured_can_be_measured_again(exported: Path, drawn: Path) -> None:
    """By hand, with Predictors and boolean arithmetic."""
    split = read_split(exported / "split.yaml")
    found = read_card(exported / "model").exports["openvino-int8"].agreement
    torch_one, int8 = (Predictor.open(exported, "cpu", engine=name) for name in ("torch", "openvino"))
    assert int8.about.startswith("OpenVINO int8")
    dices: list[tuple[float, float]] = []
    pixels, apart = [], []
    for record in open_source(drawn).select(split.fold().val):
        image, truth = record.image(), record.mask()
        one, other = torch_one(image), int8(image)
        counted, true = truth != 255, (truth != 255) & (truth > 0)
        pixels.append(np.mean(one.mask != other.mask))
        apart.append(np.abs(1 / (1 + np.exp(-one.network_logits)) - 1 / (1 + np.exp(-other.network_logits))).max())
        if true.any():
            dices.append(
                tuple(
                    2 * np.sum((m > 0) & true) / (np.sum((m > 0) & counted) + true.sum())
                    for m in (one.mask, other.mask)
                )
            )
    assert found.frames == len(pixels) == len(split.fold().val)
    assert found.dice_torch == pytest.approx(np.mean([one for one, _ in dices]))
    assert found.dice == pytest.approx(np.mean([other for _, other in dices]))
    assert found.pixels == pytest.approx(np.mean(pixels))
    assert found.probability == pytest.approx(max(apart), abs=1e-4)
    assert found.probability > 0
    rows = list(csv.DictReader((exported / "model/openvino-int8/agreement.csv").read_text().splitlines()))
    assert [row["record"] for row in rows] == list(split.fold().val)
    assert [float(row["pixels"]) for row in rows] == pytest.approx(pixels)


def test_a_form_beyond_the_limits_is_not_written(run: Path) -> None:
    before = contents(run / "model")
    with pytest.raises(UserError) as caught:
        export(run, to="openvino", precision="int8", dice_limit=0, pixel_limit=0, frames=3)
    text = str(caught.value)
    assert "openvino-int8 is not written" in text
    assert "of the pixels differ (limit 0.00%)" in text
    assert "worst: procedure-" in text
    assert "layers that cost most: body." in text
    assert contents(run / "model") == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_layer_that_int8_spoils_is_found_and_put_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = "body.decoder.0.0"
    spoil = OpenVINOGraph.quantised

    def quantised(self: OpenVINOGraph, frames: Any) -> OpenVINOGraph:
        return _spoil(spoil(self, frames), spoilt)

    monkeypatch.setattr(OpenVINOGraph, "quantised", quantised)
    layers = _int8_layers(run)
    assert spoilt in layers, layers
    made = export(run, to="openvino", precision="int8", frames=4, **LOOSE)
    assert made.export.in_float == (spoilt,)
    assert made.export.agreement.within


def _spoil(graph: OpenVINOGraph, layer: str) -> OpenVINOGraph:
    """Mix up the output channels of one int8 layer."""
    ov = graphs.import_openvino()
    names = {name: node for node, name in graph._names.items()}
    node = next(node for node in graph.model.get_ordered_ops() if node.get_friendly_name() == names[layer])
    scale = node.input_value(1).get_node()
    values = np.array(scale.input_value(1).get_node().data)
    scale.input(1).replace_source_output(ov.opset13.constant(-3 * values).output(0))
    return graph


def _int8_layers(run: Path) -> list[str]:
    return package._convert(run / "model", read_card(run / "model"), "openvino", dynamic=False).layers()


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_layers_carry_the_names_of_the_network_and_can_all_go_back_to_float(run: Path, to: str) -> None:
    from trocar.inference.engines.torch import load_network

    card = read_card(run / "model")
    graph = package._convert(run / "model", card, to, dynamic=False)
    frames = [np.random.default_rng(seed).integers(0, 256, (1, 64, 80, 3), dtype=np.uint8) for seed in range(4)]
    int8 = graph.quantised(frames)  # type: ignore[arg-type]
    modules = dict(load_network(run / "model", card).named_modules())
    assert len(int8.layers()) > 20
    assert set(int8.layers()) <= set(graph.layers()) <= set(modules)
    wanted = graph.engine("f32")(frames[0])
    assert np.abs(int8.engine("int8")(frames[0]) - wanted).max() > 1e-3 * np.ptp(wanted)
    back = int8.without(int8.layers(), graph)  # type: ignore[arg-type]
    assert back.layers() == graph.layers()  # none is int8
    before, after = (np.mean((one.engine("int8")(frames[0]) - wanted) ** 2) for one in (int8, back))
    assert after < before  # by how much differs: quantisers of sums and resizings remain


def test_calibration_and_gate_read_no_test_record(run: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from trocar.export import samples

    read: list[str] = []
    source = open_source(drawn)

    def watched(name: str, reader: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        return lambda: (read.append(name), reader())[1]

    records = [dataclasses.replace(one, image=watched(one.name, one.image)) for one in source.records]
    monkeypatch.setattr(samples, "open_data", lambda _: dataclasses.replace(source, records=tuple(records)))
    export(run, to="openvino", precision="int8", **LOOSE)
    fold = read_split(run / "split.yaml").fold()
    assert set(read) == {*fold.train, *fold.val}
    assert fold.test


def test_frames_says_how_many_records_are_read(run: Path) -> None:
    assert export(run, to="openvino", frames=2).export.agreement.frames == 2


def test_without_records_to_measure_on_nothing_is_exported(run: Path, drawn: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(run / "model", tmp_path / "alone"))
    with pytest.raises(UserError, match="the gate needs labelled frames") as caught:
        export(model, to="openvino")
    assert "--data SOURCE" in str(caught.value.mend)
    with pytest.raises(UserError, match="the split that says which records are for testing") as caught:
        export(model, to="openvino", data=open_source(drawn))
    assert "--split FILE" in str(caught.value.mend)
    made = export(model, to="openvino", data=open_source(drawn), split=run / "split.yaml")
    assert made.export.agreement.frames == len(read_split(run / "split.yaml").fold().val)
    assert made.export.agreement.records == f"training and validation side of {run.name}/split.yaml"
    named = f"{run.parent.name}/{run.name}"  # and no more of the place on this machine
    assert export(run, to="openvino").export.agreement.records == f"training and validation side of {named}"


def test_other_data_is_halved(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trocar.synthetic import write_dataset

    other = write_dataset(
        tmp_path / "other", procedures=2, frames_per_procedure=3, empty_share=0, size_hw=(64, 80), seed=5
    )
    monkeypatch.chdir(other)
    made = export(run, to="openvino", data=open_source("."))  # named all the same
    assert made.export.agreement.frames == len(open_source(other)) // 2
    assert made.export.agreement.records == "other data than the model's own (drawn, other), record by record in turn"


def copied(records: Sequence[Record], data: Path, to: Path, *, flat: bool) -> Source:
    """A folder of its own with copies of some records, `flat` without the folders of their procedures."""
    for record in records:
        for kind, path in zip(("images", "masks"), record.files, strict=False):
            name = path.name if flat else path.relative_to(data / kind)
            (to / kind / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to / kind / name)
    for path in data.glob("*.json"):
        shutil.copy(path, to)
    return open_source(to, DataSettings(kind="folder" if flat else "auto"))


@pytest.mark.parametrize("split", ["beside the model", "given"])
def test_records_of_the_models_own_keep_their_sides_in_a_part_of_its_data(
    run: Path, drawn: Path, tmp_path: Path, split: str
) -> None:
    fold = read_split(run / "split.yaml").fold()
    chosen = [*fold.train[:3], *fold.val[:2], *fold.test[:2]]
    part = copied(open_source(drawn).select(chosen), drawn, tmp_path / "part", flat=False)
    model, given = run, None
    if split == "given":
        model, given = Path(shutil.copytree(run / "model", tmp_path / "alone")), run / "split.yaml"
    samples = find_samples(model if given else model / "model", read_card(run / "model"), part, given, most=100)
    assert [one.name for one in samples.calibration] == list(fold.train[:3])
    assert [one.name for one in samples.gate] == list(fold.val[:2])
    assert samples.origin.endswith(", which lists 7 of the 7 records given")


def test_records_for_testing_alone_are_refused(run: Path, drawn: Path, tmp_path: Path) -> None:
    fold = read_split(run / "split.yaml").fold()
    part = copied(open_source(drawn).select(fold.test), drawn, tmp_path / "part", flat=True)  # one procedure
    with pytest.raises(UserError, match="there are 0 and 0"):
        export(run, to="openvino", data=part)


def test_without_a_split_records_of_groups_that_it_was_trained_on_are_refused(
    run: Path, drawn: Path, tmp_path: Path
) -> None:
    source, fold, card = open_source(drawn), read_split(run / "split.yaml").fold(), read_card(run / "model")
    trained = tuple({record.group: None for record in source.select(fold.train)})
    card = card.model_copy(update={"provenance": card.provenance.model_copy(update={"groups": trained})})
    part = copied(source.select([*fold.train[:2], *fold.test[:2]]), drawn, tmp_path / "part", flat=False)
    bare = tmp_path / "alone"
    with pytest.raises(UserError, match="2 of these 4 records are of groups of the same names") as caught:
        find_samples(bare, card, part, None, most=100)
    assert "--split FILE" in str(caught.value.mend)
    unknown = copied(source.select(fold.test[:2]), drawn, tmp_path / "unknown", flat=False)
    assert find_samples(bare, card, unknown, None, most=100).origin.startswith("other data")


def test_frames_without_instruments_measure_nothing(run: Path, tmp_path: Path) -> None:
    for index in range(4):
        for kind in ("images", "masks"):
            (tmp_path / "empty" / kind).mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / "empty" / "images" / f"{index}.png", noise(index, 64, 80))
        write_png(tmp_path / "empty" / "masks" / f"{index}.png", np.zeros((64, 80), np.uint8))
    with pytest.raises(UserError, match="shows an instrument"):
        export(run, to="openvino", data=open_source(tmp_path / "empty"))


# ------------------------------------------------------------------ the model stays whole


def test_exporting_again_replaces_only_that_form(exported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    (run / "model" / "notes.txt").write_text("mine")
    before = contents(run / "model")
    made = export(run, to="openvino", frames=3)
    after = contents(run / "model")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"model.json", "README.md", "openvino/agreement.csv", "openvino/model.xml", "openvino/model.bin"}
    assert {"model.json", "README.md", "openvino/agreement.csv"} <= changed
    assert before.keys() == after.keys()
    card = read_card(run / "model")
    assert set(card.exports) == {"openvino", "openvino-int8", "onnx", "onnx-int8"}
    assert card.exports["openvino"] == made.export
    assert "| openvino-int8 | 80x64 |" in (run / "model" / "README.md").read_text()


@pytest.mark.parametrize("moment", ["write_table", "add_export", "_sync", "_swap"])
def test_stopped_at_any_moment_the_model_is_as_it_was(run: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    from trocar.model_folder import writing

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package if hasattr(package, moment) else writing, moment, stop)
    before = contents(run / "model")
    with pytest.raises(KeyboardInterrupt):
        export(run, to="openvino")
    assert contents(run / "model") == before
    read_card(run / "model")
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders at once")
def test_a_full_disk_is_said_and_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OpenVINOGraph, "save", full)
    before = contents(run / "model")
    with pytest.raises(UserError, match="No space left on device"):
        export(run, to="openvino")
    assert contents(run / "model") == before


def test_an_altered_or_missing_file_of_a_form_is_refused(exported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    weights = run / "model" / "openvino" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="SHA-256 differs"):
        Predictor.open(run, "cpu")
    weights.unlink()
    with pytest.raises(UserError, match=r"the model lacks openvino/model\.bin"):
        Predictor.open(run, "cpu")


@pytest.mark.parametrize(("form", "file"), [("openvino", "model.xml"), ("onnx", "model.onnx")])
def test_a_form_that_the_library_cannot_read_is_said(exported: Path, tmp_path: Path, form: str, file: str) -> None:
    """Such as one of a newer library: whole, by its digest, but not to be understood."""
    from trocar.model_folder.reading import digest

    run = Path(shutil.copytree(exported, tmp_path / "run"))
    _forget(run / "model", f"{form}-int8")
    (run / "model" / form / file).write_bytes(b"<net version='99'/>")
    card = json.loads((run / "model" / "model.json").read_text())
    card["files"][f"{form}/{file}"] = digest(run / "model" / form / file)
    (run / "model" / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="cannot open this export") as caught:
        Predictor.open(run, "cpu", engine=form)
    assert "export the model again" in str(caught.value.mend)


# ------------------------------------------------------------------ the command line


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whoever looks up or calls anything is listed and refused."""
    called: list[str] = []

    def refuse(*args: object, **_: object) -> None:
        called.append(str(args))
        raise OSError("no network in tests")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield called
    assert called == []


def test_the_verb_says_how_far_the_form_agrees(run: Path, no_network: list[str]) -> None:
    done = CliRunner().invoke(cli.app, ["export", str(run), "--to", "openvino", "--frames", "3"])
    assert done.exit_code == 0, done.output
    assert "compared with PyTorch on 3 frames" in done.stdout
    assert "PyTorch 0." in done.stdout
    done = CliRunner().invoke(cli.app, ["export", str(run), "--to", "onnx", "--int8", "--pixel-limit", "0", "--json"])
    assert done.exit_code == 2
    assert "onnx-int8 is not written" in json.loads(done.stdout)["error"]["what"]
    done = CliRunner().invoke(cli.app, ["export", str(run), "--to", "onnx", "--size", "64"])
    assert done.exit_code == 2
    assert "no size" in done.stderr


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "nncf", "lightning_fabric"}:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Blocked())
import socket
def refuse(*_, **__):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from trocar.cli import main
try:
    main()
finally:
    telemetry = sys.modules.get("openvino_telemetry")
    assert telemetry is None, "OpenVINO reports"
"""


@pytest.mark.parametrize("engine", ["auto", "openvino", "onnx"])
def test_predicting_with_an_exported_form_imports_no_torch(exported: Path, tmp_path: Path, engine: str) -> None:
    write_png(tmp_path / "frame.png", noise(0, 90, 70))
    command = [sys.executable, "-W", "error", "-c", BLOCKED, "predict", str(tmp_path / "frame.png"), "--json"]
    command += ["--model", str(exported), "--out", str(tmp_path / "out"), "--engine", engine, "--device", "cpu"]
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("ORT_DISABLE_TELEMETRY")  # of conftest.py: trocar sees to it by itself
    (tmp_path / "home").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    name = {"auto": "OpenVINO int8", "openvino": "OpenVINO int8", "onnx": "ONNX Runtime int8"}[engine]
    assert summary["engine"].startswith(f"{name}, CPU")
    assert f"engine: {name}" in done.stderr
    library = "onnxruntime" if engine == "onnx" else "openvino"
    assert summary["versions"].keys() == {"trocar", library, "numpy", "opencv"}
    assert summary["versions"][library].startswith(version(library))
    assert (tmp_path / "out" / "masks" / "frame.png").is_file()
    assert list((tmp_path / "home").iterdir()) == []  # nothing is left behind by a library


def test_evaluate_takes_torch_unless_asked_and_names_what_ran(exported: Path, drawn: Path, tmp_path: Path) -> None:
    said = {}
    for engine in ("torch", "onnx", "auto"):
        asked = [] if engine == "torch" else ["--engine", engine]
        command = ["evaluate", str(drawn), "--model", str(exported), "--split", str(exported / "split.yaml"), *asked]
        done = CliRunner().invoke(cli.app, [*command, "--out", str(tmp_path / engine), "--no-pictures", "--json"])
        assert done.exit_code == 0, done.output
        said[engine] = json.loads((tmp_path / engine / "report.json").read_text())["protocol"]
    assert re.fullmatch(r"torch f32, CPU, \d+ threads?", said["torch"]["engine"])
    assert said["torch"]["versions"].endswith(f", torch {torch.__version__}")
    assert said["onnx"]["engine"].startswith("ONNX Runtime")
    assert said["onnx"]["engine"].endswith(": an exported form of the network, not the weights in PyTorch")
    assert said["onnx"]["versions"].endswith(f", onnxruntime {version('onnxruntime')}")
    assert said["auto"]["engine"].startswith("OpenVINO int8, CPU")
    assert f", openvino {version('openvino')}" in said["auto"]["versions"]
