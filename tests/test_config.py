from pathlib import Path

import pytest

from trocar.config import Recipe, known_keys, load_recipe, shipped_recipes
from trocar.errors import UserError, UserErrors


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_come_back_equal_from_yaml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    path = tmp_path / "copy.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe


def test_every_setting_is_described() -> None:
    assert [key for key, text in known_keys(Recipe).items() if not text] == []


def test_overrides_are_typed() -> None:
    recipe = load_recipe(
        None, ["train.epochs=5", "train.learning_rate=1e-4", "preprocess.size_hw=[64, 96]", "train.clip_norm=null"]
    )
    assert recipe.train.epochs == 5
    assert recipe.train.learning_rate == 1e-4
    assert recipe.preprocess.size_hw == (64, 96)
    assert recipe.train.clip_norm is None


def test_all_wrong_settings_are_listed_with_near_keys() -> None:
    with pytest.raises(UserErrors) as caught:
        load_recipe(
            None, ["train.epoch=5", "train.lerning_rate=1", "train.batch_size=1", "preprocess.size_hw=[100, 64]"]
        )
    text = str(caught.value)
    assert "unknown setting train.epoch" in text
    assert "did you mean train.epochs" in text
    assert "train.learning_rate" in text
    assert "train.accumulate" in text
    assert "multiples of 16" in text
    assert len(caught.value.errors) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["train.epochs"], "key=value"), (["train.epochs=[1"], "YAML"), (["train.epochs.x=1", "train=3"], "train")],
)
def test_bad_overrides_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(None, overrides)


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="kvasir-instrument"):
        load_recipe("nonesuch")


@pytest.mark.parametrize("text", ["- a list", "train: {epochs: ", "\x00"])
def test_a_broken_recipe_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"r\.yaml"):
        load_recipe(path)
