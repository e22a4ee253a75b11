"""Models at hand, by name and by folder; `trocar models`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from test_model_folder import make_card
from trocar import box, inventory
from trocar.cli import app
from trocar.errors import UserError
from trocar.model_folder import derived_licence, resolve_model, write_model


def write(folder: Path, licence: str = "\nResearch only\nsecond line\n") -> Path:
    write_model(folder, make_card(name=folder.name), {"kernel": np.zeros(1000, np.float32)}, licence)
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box with two models, instead of what this installation ships."""
    folder = tmp_path / "box"
    write(folder / "another")
    write(folder / box.DEFAULT)
    (folder / "no-model").mkdir()
    monkeypatch.setattr(box, "__file__", str(folder / "__init__.py"))
    return folder


def test_the_default_comes_first_and_what_is_no_model_is_not_listed(shipped: Path) -> None:
    assert list(box.shipped_models()) == [box.DEFAULT, "another"]
    assert box.shipped_models()["another"] == shipped / "another"


def test_a_model_is_found_by_name_and_without_one(shipped: Path) -> None:
    assert resolve_model(None) == shipped / box.DEFAULT
    assert resolve_model("another") == shipped / "another"
    assert resolve_model(Path("another")) == shipped / "another"


def test_what_exists_goes_before_a_shipped_name(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write(tmp_path / "here" / "another")
    monkeypatch.chdir(own.parent)
    assert resolve_model("another").resolve() == own
    assert resolve_model(box.DEFAULT) == shipped / box.DEFAULT


def test_an_installation_without_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match="brings none"):
        resolve_model(None)


def test_models_below_folders_are_listed_once_with_their_facts(shipped: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    model = write(run / "model")
    write(tmp_path / "runs" / ".first.scratch" / "new")  # of a writing under way
    entries = inventory.models([tmp_path / "runs", run])
    assert [(entry.name, entry.shipped, entry.default) for entry in entries] == [
        (box.DEFAULT, True, True),
        ("another", True, False),
        (str(model), False, False),
    ]
    last = entries[-1]
    assert last.licence == "Research only"
    assert last.size_mb == pytest.approx(sum(len(path.read_bytes()) for path in model.iterdir()) / 1e6)
    assert last.card is not None
    assert last.card.name == "model"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            derived_licence("mydata", "none", "none"),
            "These weights were trained on the data mydata, starting from random",
        ),
        ("Licence of these weights: research only\n\nThey were", "research only"),
        ("\n\n", ""),
    ],
)
def test_of_a_licence_its_first_line_after_the_heading_is_told(tmp_path: Path, text: str, said: str) -> None:
    folder = write(tmp_path / "model", text)
    told = inventory.ModelEntry("model", folder, False, None).licence
    assert told.startswith(said)
    assert bool(told) == bool(said)


def test_a_damaged_model_is_listed_with_its_problem(shipped: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    (model / "weights.safetensors").unlink()
    entry = inventory.models([model])[-1]
    assert entry.card is None
    assert "weights.safetensors" in str(entry.problem)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        inventory.models([tmp_path / "nowhere"])


def test_the_verb_shows_models_and_damage(shipped: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    (model / "LICENSE").write_text("changed")
    text = CliRunner().invoke(app, ["models", str(tmp_path / "model")])
    assert text.exit_code == 0, text.output
    assert box.DEFAULT in text.output
    assert "(default)" in text.output
    assert f"licence: {box.DEFAULT}: Research only" in text.output.splitlines()
    assert "LICENSE is not what the model was written with" in text.output
    document = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert [one["name"] for one in document["models"]] == [box.DEFAULT, "another"]
    assert document["models"][0]["card"]["scores"]["val"]["dice"] == 0.875
