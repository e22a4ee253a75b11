"""The command line as a stranger meets it: every verb in a process of its own, on a small drawn set."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trocar import bench, comparing, demo, evaluation, export, training
from trocar.cli import VERBS, app
from trocar.data import checks, convert
from trocar.inference.predict import predict
from trocar.interop.keras import convert_keras
from trocar.live import live
from trocar.reporting.previews import draw_figures

DOCS = Path(__file__).resolve().parents[1] / "docs"

TINY = [
    "preprocess.size_hw=[32, 48]",
    "model.encoder=resnet18",
    "model.encoder_weights=none",
    "model.pyramid_width=16",
    "model.decoder_width=16",
    "train.batch_size=4",
    "train.epochs=1",
]

# Every connection but a local one fails: nothing may leave the machine.
CLOSED_NETWORK = """
import socket, sys
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise AssertionError(f"a connection to {address} was tried")
    return _connect(self, address, *rest)
_connect = socket.socket.connect
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
def no_names(*args, **kwargs):
    raise AssertionError(f"a name was looked up: {args}")
socket.getaddrinfo = no_names
sys.argv[0] = "trocar"
from trocar.cli import main
main()
"""


def trocar(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that cannot reach a network."""
    command = [sys.executable, "-c", CLOSED_NETWORK, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240, check=False)


def settings(*more: str) -> list[str]:
    return [part for setting in (*TINY, *more) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = trocar("train", "--data", drawn, "--out", folder, "--json", *settings())
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["runs"][0]["run"] == str(folder)
    return folder


def test_help_of_every_verb_imports_no_torch() -> None:
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    code = """
import sys, trocar, typer.testing
from trocar.cli import app
for verb in sys.argv[1:]:
    result = typer.testing.CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0, (verb, result.output)
heavy = {"torch", "torchvision", "timm", "segmentation_models_pytorch", "lightning_fabric", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, *verbs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in app.registered_commands if c.callback], ids=lambda c: c.name)
def test_every_verb_has_its_page(command) -> None:
    name = command.name
    page = DOCS / f"{name}.md"
    assert page.is_file(), f"docs/{name}.md is missing"
    assert f"trocar {name}" in page.read_text()


LIBRARY = {
    "check": checks.check,
    "convert": convert.convert,
    "train": training.train,
    "demo": demo.demo,
    "evaluate": evaluation.evaluate,
    "compare": comparing.compare,
    "figures": draw_figures,
    "predict": predict,
    "live": live,
    "bench": bench.bench,
    "export": export.export,
    "convert_keras": convert_keras,
}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.__name__ in LIBRARY], ids=lambda verb: verb.__name__)
def test_a_verb_has_the_defaults_of_its_library_function(verb) -> None:
    ours, theirs = (inspect.signature(one).parameters for one in (verb, LIBRARY[verb.__name__]))
    other_words = {"smooth", "recipe"}  # of several options one setting is made; a name stands for a recipe
    shared = [name for name in ours if name in theirs and name not in other_words and ours[name].default is not None]
    assert shared
    for name in shared:
        if inspect.Parameter.empty not in (ours[name].default, theirs[name].default):
            assert ours[name].default == theirs[name].default, name


def test_check_counts_and_exits_by_what_it_found(drawn: Path, tmp_path: Path) -> None:
    good = trocar("check", drawn, "--json")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["sources"][0]["records"] == 20
    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    next((data / "masks").rglob("*.png")).unlink()
    bad = trocar("check", data)
    assert bad.returncode == 1
    assert "mend:" in bad.stdout


def test_evaluate_and_predict_with_a_run(run: Path, drawn: Path, tmp_path: Path) -> None:
    judged = trocar(
        "evaluate", drawn, "--model", run, "--split", run / "split.yaml", "--out", tmp_path / "report", "--json"
    )
    assert judged.returncode == 0, judged.stderr
    document = json.loads(judged.stdout)
    assert document["side"] == "test"
    assert (tmp_path / "report" / "report.html").is_file()
    images = next((drawn / "images").iterdir())
    done = trocar("predict", images, "--model", run, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 5
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 5
    table = trocar("evaluate", drawn, "--model", run, "--out", tmp_path / "all", "--no-pictures")
    assert table.returncode == 0, table.stderr
    assert "Mean Dice" in " ".join(table.stdout.split())


def test_with_to_stdout_nothing_but_masks_is_there(run: Path, drawn: Path, tmp_path: Path) -> None:
    images = next((drawn / "images").iterdir())
    command = [sys.executable, "-c", CLOSED_NETWORK, "predict", images, "--as-video", "--rate", "10", "--model", run]
    command += ["--to-stdout", "--jsonl", "--video-masks", "png", "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "masks" / images.name
    files = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    assert len(files) == 5
    assert done.stdout == b"".join(mask.tobytes() for mask in files)
    assert b"1 video, 5 frames" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [0, 0.1, 0.2, 0.3, 0.4]
    both = trocar("predict", images, "--model", run, "--to-stdout", "--json")
    assert both.returncode == 2
    assert "both want stdout" in both.stderr


def test_live_plays_a_clip_as_a_feed_and_says_what_it_did(run: Path, drawn: Path, tmp_path: Path) -> None:
    clip, seen = next((drawn / "clip").iterdir()), tmp_path / "seen.mp4"
    done = trocar("live", clip, "--model", run, "--port", "0", "--record", seen, "--smooth", "flow", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ended"] == "the source ended"
    assert document["read"] == 4 == document["shown"] + document["dropped"]
    assert seen.is_file()
    assert "http://127.0.0.1:" in done.stderr
    assert "Not a medical device" in done.stderr
    table = trocar("live", clip, "--model", run, "--headless")
    assert table.returncode == 0, table.stderr
    assert "4 came" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["live", "nowhere.mp4", "--window", "--headless"], ["exclude each other"]),
        (["live", "camera:0", "--loop"], ["only files can be repeated"]),
        (["live", "x.mp4", "--smooth", "flow", "--smooth-weight", "1"], ["weight", "mend:"]),
        (["live", "x.mp4", "--hysteresis", "0.6,0.4"], ["hysteresis", "mend:"]),
        (["check", "nowhere"], ["no folder nowhere", "mend:"]),
        (["train", "--data", "nowhere"], ["no folder ", "/nowhere"]),
        (["train", "nonesuch"], ["no recipe nonesuch", "kvasir-instrument"]),
        (["train", "--set", "train.epoch=5"], ["unknown setting train.epoch", "train.epochs"]),
        (["train", "--set", "train.batch_size=1"], ["train.accumulate"]),
        (["train"], ["no data is named", "--data"]),
        (["train", "--resume", "nowhere"], ["no run to resume"]),
        (["train", "demo", "--resume", "x"], ["leave all other options out"]),
        (["evaluate", "nowhere", "--model", "x"], ["no folder nowhere"]),
        (["predict", "nowhere.png", "--model", "nomodel"], ["nowhere.png"]),
    ],
)
def test_what_a_person_can_mend_takes_the_error_form(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    done = trocar(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_json_document_too(tmp_path: Path) -> None:
    done = trocar("check", "nowhere", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "no folder nowhere" in json.loads(done.stdout)["error"]["what"]


def test_an_altered_model_is_refused(run: Path, drawn: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    done = trocar("predict", drawn / "images", "--model", model, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "weights.safetensors" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ctrl_c_saves_and_exits_130(drawn: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", drawn, "--out", tmp_path / "run", *settings("train.epochs=500")]
    child = subprocess.Popen(
        [sys.executable, "-c", CLOSED_NETWORK, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.csv").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert f"trocar train --resume {tmp_path / 'run'}" in stderr
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.skipif(os.name == "nt", reason="a process that is terminated there has no say")
def test_sigterm_closes_the_files_of_predict(run: Path, tmp_path: Path) -> None:
    arguments = ["predict", "-", "--raw-size", "64x48", "--model", run, "--jsonl", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", CLOSED_NETWORK, *map(str, arguments)]
    lines = tmp_path / "out" / "frames.jsonl"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(bytes(64 * 48 * 3) * 12)
        child.stdin.flush()  # and it is not closed: more frames are waited for
        deadline = time.monotonic() + 120
        while not (lines.is_file() and lines.read_text().count("\n") > 5) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.terminate()
        assert child.wait(60) == 130
        told = child.stderr.read().decode()
    assert f"stopped; what is done is closed, and listed in {tmp_path / 'out' / 'predictions.json'}" in told
    assert "Traceback" not in told
    (entry,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert 5 < entry["frames"] <= 12
    assert not entry["complete"]
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {
        "frames.jsonl",
        "predictions.json",
        "stdin.mkv",
        "stdin.mp4",
    }


def test_a_place_that_cannot_be_written_to_is_said(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")  # root may write into every folder, but not below a file
    done = trocar("train", "--data", drawn, "--out", tmp_path / "file" / "run", *settings())
    assert done.returncode == 2
    assert "cannot make the folder" in done.stderr


@pytest.mark.parametrize("text", ["0.1", "a,b", "1,2,3"])
def test_a_spacing_is_two_numbers(drawn: Path, text: str) -> None:
    done = trocar("evaluate", drawn, "--predictions", drawn / "masks", "--spacing-mm", text, "--nsd-tolerance", 1)
    assert done.returncode == 2
    assert "is no spacing" in done.stderr


def test_settings_are_all_listed() -> None:
    done = trocar("train", "--settings")
    assert done.returncode == 0
    assert "train.learning_rate = 0.001" in done.stdout


def test_module_and_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trocar", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.startswith("trocar 0.")
