"""The model that ships: whole, small, honest about itself, and it finds instruments without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest

import trocar
from trocar import box
from trocar.model_folder import read_card
from trocar.synthetic import write_dataset

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of a seed that no training saw."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    return write_dataset(
        folder, procedures=6, frames_per_procedure=2, empty_share=0.0, clip_frames=2, size_hw=(240, 320), seed=77
    )


def test_it_is_whole_and_under_twelve_megabytes() -> None:
    folder = box.model_named(None)
    card = read_card(folder)  # verifies every file by its digest
    assert card.name == box.DEFAULT
    assert "openvino-int8" in card.exports
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 12e6


def test_its_licence_and_its_limits_are_said_wherever_one_looks() -> None:
    folder = box.model_named(None)
    assert "non-commercial research" in (folder / "LICENSE").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "not a medical device" in readme
    assert "On frames it has not seen" in readme
    assert "src/trocar/box/" in (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "LicenseRef" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_it_finds_instruments_in_scenes_it_has_not_seen(scenes: Path, engine: str) -> None:
    predictor = trocar.load(device="cpu", engine=engine)
    overlaps = []
    for image_file in sorted((scenes / "images").rglob("*.png")):
        image = cv2.cvtColor(cv2.imread(str(image_file)), cv2.COLOR_BGR2RGB)
        truth = cv2.imread(str(scenes / "masks" / image_file.relative_to(scenes / "images")), cv2.IMREAD_GRAYSCALE) > 0
        found = predictor(image).mask > 0
        overlaps.append(2 * np.sum(found & truth) / (np.sum(found) + np.sum(truth)))
    assert len(overlaps) == 12
    assert np.mean(overlaps) > 0.8


def test_predicting_an_image_without_a_model_takes_it_and_neither_torch_nor_pyav(scenes: Path, tmp_path: Path) -> None:
    code = """
import sys
from trocar.cli import main
try:
    main()
finally:
    print(*{"torch", "av"}.intersection(sys.modules), file=sys.stderr)
"""
    image = next((scenes / "images").rglob("*.png"))
    command = [sys.executable, "-c", code, "predict", str(image), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "", "importing them takes longer than the image"
    summary = json.loads(done.stdout)
    ran = version("openvino")  # of the library itself, with its build behind it
    assert summary["versions"].pop("openvino").startswith(ran)
    assert set(summary["versions"]) == {"trocar", "numpy", "opencv"}
    assert summary["model"] == box.DEFAULT
    assert (tmp_path / "out" / summary["predictions"][0]["mask"]).is_file()
