from __future__ import annotations

from pathlib import Path

import pytest

from trocar.cli.opening import open_records
from trocar.config import load_recipe


@pytest.mark.parametrize("named", ["run", "run/model", "model in the run"])
def test_data_is_read_as_the_run_of_a_model_read_it(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.json").touch()
    (run / "recipe.yaml").write_text(load_recipe(None, [f"data.source={drawn}", "data.target=parts"]).to_yaml())
    model = run if named == "run" else run / "model"
    if named == "model in the run":
        monkeypatch.chdir(run)
        model = Path("model")
    assert open_records(drawn, None, model).settings == load_recipe(run / "recipe.yaml").data
    assert open_records(drawn, ["data.target=instrument"], model).settings.target == "instrument"
    assert open_records(drawn, None, tmp_path / "another").settings.target == "instrument"
