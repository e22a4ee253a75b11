"""Training with frames kept on disk: the same weights, and no frame read twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_runs import TINY, StopAfter

from trocar.config import load_recipe
from trocar.data.loading import PreparedSet
from trocar.progress import Watcher
from trocar.training import Interrupted, resume, train, train_folds


class Listen(Watcher):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawn: Path) -> list[str]:
    """Names of the records that are read and prepared for training, as they are."""
    monkeypatch.setenv("TROCAR_CACHE", str(tmp_path / "cache"))
    before = time.time() - 60
    for path in drawn.rglob("*.png"):
        os.utime(path, (before, before))
    names: list[str] = []
    read = PreparedSet._read

    def counted(self: PreparedSet, record):  # type: ignore[no-untyped-def]
        names.append(record.name)
        return read(self, record)

    monkeypatch.setattr(PreparedSet, "_read", counted)
    return names


def test_weights_are_those_without_and_frames_are_prepared_once(
    drawn: Path, tmp_path: Path, prepared: list[str]
) -> None:
    given = [f"data.source={drawn}", *(text for text in TINY if "epochs" not in text), "train.epochs=2"]
    weights = []
    for name, more in {"without": ["train.prepared_gb=0", "train.memory_mb=0"], "first": [], "again": []}.items():
        prepared.clear()
        result = train(load_recipe(None, [*given, *more]), out=tmp_path / name)
        weights.append(load_file(result.model / "weights.safetensors"))
        assert (len(prepared) == len(set(prepared))) == (name != "without")
        assert (not prepared) == (name == "again")
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key])
        assert torch.equal(tensor, weights[2][key])


def test_a_relative_path_and_going_on_find_the_same_frames(
    drawn: Path, tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn.parent)
    given = [f"data.source={drawn.name}", *(text for text in TINY if "epochs" not in text), "train.epochs=1"]
    with pytest.raises(Interrupted):
        train(load_recipe(None, given), out=tmp_path / "run", watcher=StopAfter(1))
    assert len(prepared) == len(set(prepared)) > 0
    prepared.clear()
    resume(tmp_path / "run")
    assert prepared == []


def test_folds_prepare_each_frame_once(drawn: Path, tmp_path: Path, prepared: list[str]) -> None:
    given = [f"data.source={drawn}", *(text for text in TINY if "epochs" not in text), "train.epochs=1"]
    train_folds(load_recipe(None, [*given, "split.strategy=k-fold", "split.folds=2"]), out=tmp_path / "folds")
    assert len(prepared) == len(set(prepared)) == 20


def test_a_cache_that_cannot_be_written_is_said_and_training_goes_on(
    drawn: Path, tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TROCAR_CACHE", str(tmp_path / "file"))
    watcher = Listen()
    given = [f"data.source={drawn}", *(text for text in TINY if "epochs" not in text), "train.epochs=1"]
    train(load_recipe(None, given), out=tmp_path / "run", watcher=watcher)
    assert any("cannot be kept" in text for text in watcher.told)
