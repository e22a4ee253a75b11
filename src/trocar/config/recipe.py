"""The recipe: all settings in one tree, read from YAML and changed by `key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from trocar.config.base import Settings
from trocar.config.data import DataSettings, SplitSettings
from trocar.config.keys import description_of, known_keys, nearest
from trocar.config.preprocess import AugmentSettings, PreprocessSettings
from trocar.config.training import LossSettings, ModelSettings, TrainSettings
from trocar.documents import parse_yaml, read_yaml
from trocar.errors import UserError, UserErrors

S = TypeVar("S", bound=BaseModel)


class Recipe(Settings):
    """The whole settings tree of one training."""

    name: str = Field("recipe", description="name of the recipe; the model's provenance carries it")
    about: str = Field("", description="one sentence for people")
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _shares_are_of_one_class(self) -> Recipe:
        if self.preprocess.mask_resize == "bilinear" and self.data.target != "instrument":
            raise ValueError("preprocess.mask_resize=bilinear mixes class indices: set data.target=instrument")
        return self

    @model_validator(mode="after")
    def _weights_need_fresh_batches(self) -> Recipe:
        weighed = [name for name, one in self.data.sources.items() if one.weight != 1]
        if weighed and self.train.batches == "shuffled-batches":
            raise ValueError(
                f"train.batches=shuffled-batches forms batches once, so sources cannot be weighed "
                f"({', '.join(weighed)}): set train.batches=shuffled-records, or leave the weights out"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> dict[str, Path]:
    """Name and path of the recipes that come with trocar."""
    folder = Path(str(resources.files("trocar"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the name of a shipped one or by path, then apply `key.sub=value` overrides.

    None gives the defaults. Values of overrides are YAML (`train.epochs=5`, `preprocess.size_hw=[256, 320]`,
    `train.patience=null`). Raises `UserErrors` with every wrong key and value at once.
    """
    tree: dict[str, Any] = {}
    where = "the default recipe"
    if name_or_path is not None:
        path = _find_recipe(name_or_path)
        where = str(path)
        tree = _read_yaml_mapping(path)
    for override in overrides:
        _apply_override(tree, override)
    return validate(Recipe, tree, where=where)


def validate(kind: type[S], tree: Any, *, where: str) -> S:
    """Build settings from plain data; pydantic's errors become `UserErrors`, all of them at once."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserErrors([_explain(kind, detail, where) for detail in error.errors()]) from None


def _find_recipe(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    shipped = shipped_recipes()
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise UserError(
        f"no recipe {name_or_path}",
        where="neither a file nor the name of a shipped recipe",
        mend=f"give the path of a YAML file, or one of: {', '.join(shipped)}",
    )


def _read_yaml_mapping(path: Path) -> dict[str, Any]:
    tree = read_yaml(path, "the recipe", mend="mend the YAML")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError("a recipe must be a mapping of settings", where=str(path), mend="see docs/recipes.md")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override!r} is not of the form key=value", mend="for example --set train.epochs=5")
    try:
        value = parse_yaml(text)
    except ValueError:
        raise UserError(f"--set {override!r}: the value is not YAML", mend="quote it, or mend its brackets") from None
    if isinstance(value, str):
        value = _number_or_text(value)
    node = tree
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {key}: {parent} is a value, not a group of settings")
        node = child
    node[leaf] = value


def _number_or_text(text: str) -> float | str:
    """YAML 1.1 reads `1e-3` as text; people mean a number."""
    try:
        return float(text) if text[:1] in "0123456789.+-" else text
    except ValueError:
        return text


def _explain(kind: type[BaseModel], detail: Any, where: str) -> UserError:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        near = nearest(key, known_keys(kind))
        mend = f"did you mean {' or '.join(near)}?" if near else "`trocar train --settings` lists every key"
        return UserError(f"unknown setting {key}", where=where, mend=mend)
    message = str(detail["msg"]).removeprefix("Value error, ")
    description = description_of(kind, location)
    return UserError(f"setting {key or 'recipe'}: {message}", where=where, mend=description)
