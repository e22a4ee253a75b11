"""Training, going on, judging and comparing on several sources at once, through the command line's own calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_runs import TINY, StopAfter
from typer.testing import CliRunner

from trocar.cli import app
from trocar.config import Recipe, load_recipe
from trocar.data.splits import read_split
from trocar.model_folder import read_card
from trocar.synthetic import write_dataset
from trocar.training import Interrupted, resume, train


@pytest.fixture(scope="module")
def file(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two drawn sets, one of them for training only, drawn half as often again."""
    root = tmp_path_factory.mktemp("several")
    other = write_dataset(root / "other", procedures=3, frames_per_procedure=3, clip_frames=2, size_hw=(64, 80), seed=9)
    given = [
        *(text for text in TINY if "epochs" not in text),
        "train.epochs=2",
        "name=several",
        f"data.sources.real.source={drawn}",
        f"data.sources.extra.source={other}",
        "data.sources.extra.side=train",
        "data.sources.extra.weight=1.5",
        "split.strategy=k-fold",
        "split.folds=2",
    ]
    path = root / "several.yaml"
    path.write_text(load_recipe(None, given).to_yaml())
    return path


@pytest.fixture(scope="module")
def recipe(file: Path) -> Recipe:
    return load_recipe(file)


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    train(recipe, out=run, fold="1of2")
    return run


def test_a_run_on_several_sources_says_so(finished: Path) -> None:
    card = read_card(finished / "model")
    split = read_split(finished / "split.yaml")
    extra = [name for name in split.fold("1of2").train if name.startswith("extra/")]
    assert len(extra) == 9
    assert card.provenance.dataset == "drawn"
    assert any(group.startswith("extra/") for group in card.provenance.groups)
    assert all(name.startswith("real/") for name in (*split.fold("1of2").val, *split.fold("1of2").test))


def test_an_epoch_draws_by_weight(finished: Path) -> None:
    """Two epochs of batches of four: 10 or so real frames once, 9 drawn ones one and a half times."""
    split = read_split(finished / "split.yaml").fold("1of2")
    real = sum(name.startswith("real/") for name in split.train)
    steps = (finished / "log.csv").read_text().splitlines()[1].split(",")[1]
    assert int(steps) == -(-(real + round(9 * 1.5)) // 4)


def test_stopped_and_resumed_it_ends_with_the_same_weights(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(recipe, out=tmp_path / "run", fold="1of2", watcher=StopAfter(7))
    resume(tmp_path / "run")
    for name, tensor in load_file(finished / "model/weights.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "run/model/weights.safetensors")[name])


def run(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, object] = json.loads(result.stdout)
    return told


def test_check_split_and_evaluate_take_the_recipe(file: Path, finished: Path, drawn: Path, tmp_path: Path) -> None:
    checked = run("check", file)
    assert len(checked["sources"]) == 2  # type: ignore[arg-type]
    made = run("split", file, "--out", tmp_path / "split.yaml")
    assert made["own_fingerprint"] == read_split(finished / "split.yaml").own_fingerprint()
    run("evaluate", file, "--model", finished, "--split", finished / "split.yaml", "--out", tmp_path / "one")
    run(
        "evaluate", finished / "recipe.yaml", "--model", finished, "--split", tmp_path / "split.yaml", "--out",
        tmp_path / "two",
    )  # fmt: skip
    assert (tmp_path / "one/per_image.csv").read_text() == (tmp_path / "two/per_image.csv").read_text()
    run(
        "evaluate",
        file,
        "--model",
        finished,
        "--threshold",
        "0.9",
        "--split",
        tmp_path / "split.yaml",
        "--out",
        tmp_path / "three",
    )
    run("compare", tmp_path / "one", tmp_path / "three", "--out", tmp_path / "compared")
    assert "data:image" in (tmp_path / "compared/compare.html").read_text()
    # the folder of one source is read as the run read it, and known to the model
    alone = run("evaluate", drawn, "--model", finished, "--out", tmp_path / "alone")
    assert "real/" in (tmp_path / "alone/per_image.csv").read_text()
    seen = [name for name in read_split(finished / "split.yaml").fold("1of2").train if name.startswith("real/")]
    warnings = " ".join(alone["warnings"])  # type: ignore[arg-type]
    assert f"the model was trained on {len(seen)} of the " in warnings
    assert "was trained on data of the same kind" not in warnings, "every frame was found in the split"


def test_data_beside_sources_is_refused(file: Path, drawn: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(file), "--data", str(drawn), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "give one of the two" in result.output
