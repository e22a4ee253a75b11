"""The data that a verb is given: a folder of labelled frames, or a recipe that names its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trocar.config import Recipe, load_recipe

if TYPE_CHECKING:
    from trocar.data.records import Source


def open_records(source: Path, overrides: list[str] | None, model: Path | None = None) -> Source:
    """A source as it is to be read: a folder, or the data that a recipe names.

    Without overrides, a folder that `model` (a run, or the model in it) was trained from is read as that run read it:
    of several sources, with their common classes and names.
    """
    from trocar.data.joining import open_data
    from trocar.data.sources import open_source

    if is_recipe(source):
        return open_data(load_recipe(source, overrides or []).data)
    settings = load_recipe(None, overrides or []).data
    recipe = None if overrides or model is None else _recipe_of(model)
    if recipe is not None:
        trained = load_recipe(recipe).data
        if trained.source is not None and Path(trained.source).resolve() == source.resolve():
            settings = trained
        for name, one in trained.sources.items():
            if Path(one.source).resolve() == source.resolve():
                exclude = tuple(text for text in trained.exclude if text.startswith(f"{name}/"))
                return open_data(trained.model_copy(update={"sources": {name: one}, "exclude": exclude}))
    return open_source(source, settings)


def _recipe_of(model: Path) -> Path | None:
    """Recipe of a run, or of the run that a model folder lies in; None where there is none."""
    run = model.absolute().parent if (model / "model.json").is_file() else model
    return run / "recipe.yaml" if (run / "recipe.yaml").is_file() else None


def open_each(source: Path, overrides: list[str] | None) -> list[Source]:
    """As `open_records`, but the sources of a recipe one by one."""
    from trocar.data.joining import open_parts

    settings = load_recipe(source, overrides or []).data if is_recipe(source) else None
    return open_parts(settings) if settings and settings.sources else [open_records(source, overrides)]


def open_by(source: Path, recipe: Recipe, overrides: list[str] | None) -> Source:
    """A folder, read as a recipe says; or the data that `source` names, where it is a recipe itself."""
    from trocar.data.sources import open_source

    return open_records(source, overrides) if is_recipe(source) else open_source(source, recipe.data)


def is_recipe(source: Path) -> bool:
    """Whether a verb's SOURCE is a recipe, and no folder."""
    return source.suffix.lower() in (".yaml", ".yml") and source.is_file()
