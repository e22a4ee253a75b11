"""Which folder a person means by the name of a model, a run or nothing at all; and the folds of a run."""

from __future__ import annotations

import csv
from pathlib import Path

from trocar.box import model_named
from trocar.documents import read_json, read_yaml, reason
from trocar.errors import UserError
from trocar.model_folder.card import CARD


def resolve_model(path: str | Path | None) -> Path:
    """The model folder meant by `path`: itself, the `model/` of a run, or a model that ships with trocar, by its name.

    None means the default one that ships.

    Raises `UserError` for a run without a model yet (how far it is, how to go on), a run of several folds (which
    there are), and anything else.
    """
    try:
        return _found(model_named(path))
    except OSError as error:  # a name longer than the system takes, a folder that may not be entered
        raise UserError(
            f"cannot look for a model: {reason(error)}", where=str(error.filename or path), mend="mend the path"
        ) from None


def _found(path: Path) -> Path:
    for folder in (path, path / "model"):
        if (folder / CARD).is_file():
            return folder
    if not path.exists():
        raise UserError(
            "no such model",
            where=str(path),
            mend="give a model folder, the run that made it, or a name that `trocar models` lists",
        )
    if not path.is_dir():
        raise UserError("a model is a folder, not a file", where=str(path), mend="give the folder of model.json")
    if folds := fold_folders(path):
        raise _choose_a_fold(path, [str(folder) for folder in folds.values()])
    if (path / "recipe.yaml").is_file():
        raise UserError(
            f"this run has no model yet: {_progress(path)}",
            where=str(path),
            mend=f"go on with `trocar train --resume {path}`",
        )
    raise UserError(f"no {CARD} here", where=str(path), mend="give a model folder, or the run that made it")


def fold_folders(run: Path) -> dict[str | None, Path]:
    """Folder of the run of each fold; empty where `run` is no run of several folds.

    Raises `UserError` where the list of folds cannot be read.
    """
    path = run / "folds.json"
    try:
        if not path.is_file():
            return {}
    except OSError:  # as `resolve_model` will say
        return {}
    try:
        folds = read_json(path, "the list of folds", mend="name a fold's folder")["folds"]
        return {str(fold): run / folder for fold, folder in folds.items()}
    except (LookupError, AttributeError, TypeError) as error:
        raise UserError(
            f"the list of folds cannot be read: {error}", where=str(path), mend="name a fold's folder"
        ) from None


def _choose_a_fold(run: Path, choices: list[str]) -> UserError:
    ready = [choice for choice in choices if (Path(choice) / "model" / CARD).is_file()]
    mend = f"give one of: {', '.join(ready)}" if ready else f"finish one with `trocar train --resume {run}`"
    return UserError(f"this run has {len(choices)} folds, {len(ready)} with a model", where=str(run), mend=mend)


def _progress(run: Path) -> str:
    """How far a run is, in words: it may have been stopped before the first line of its log."""
    try:
        with (run / "log.csv").open(encoding="utf-8", newline="") as file:
            done = sum(1 for _ in csv.DictReader(file))
        epochs = read_yaml(run / "recipe.yaml", "the recipe", mend="mend the YAML")["train"]["epochs"]
    except (UserError, OSError, ValueError, LookupError, TypeError, csv.Error):
        return "no epoch is finished"
    return f"{done} of {epochs} epochs are finished"
