"""Beginning, resuming and multiplying runs: the folders that trainings write."""

from __future__ import annotations

import json
from pathlib import Path

from trocar.config import Recipe, load_recipe
from trocar.data.files import atomic_write_text
from trocar.data.joining import open_data, rooted
from trocar.data.records import Source
from trocar.data.splits import Split, make_split, read_split, write_split
from trocar.errors import UserError, UserErrors
from trocar.model_folder import Ancestor, fold_folders, read_card, resolve_model
from trocar.progress import Watcher
from trocar.training.finishing import RunResult
from trocar.training.guards import Interrupted
from trocar.training.loop import Training


def train(
    recipe: Recipe,
    *,
    out: Path,
    fold: str | None = None,
    device: str = "auto",
    start_from: Path | None = None,
    watcher: Watcher | None = None,
) -> RunResult:
    """Train one model: fold `fold` of the recipe's split (needed where there are several) into the new folder `out`.

    `start_from` is a model, or a run of several folds: then its fold of the same name, which left out the same groups.

    Raises `UserError` / `UserErrors` for anything in recipe, data or machine that a person can mend, `Interrupted`
    after a stop from outside once the state is saved.
    """
    source, split = _open_data(recipe)
    split.fold(fold)  # an open or unknown choice is refused before a folder is made
    _begin_run(out, recipe, split, fold=fold, device=device, start_from=start_from)
    return Training(out, source, watcher or Watcher()).run()


def train_folds(
    recipe: Recipe,
    *,
    out: Path,
    device: str = "auto",
    start_from: Path | None = None,
    watcher: Watcher | None = None,
) -> list[RunResult]:
    """Train every fold of the recipe's split, one run each in `out/fold-NAME`, and list them in `out/folds.json`.

    `start_from`, and what is raised, as for `train`.
    """
    _, split = _open_data(recipe)
    if start_from is not None:
        for model in dict.fromkeys(_start_of_fold(start_from, name) for name in split.folds):
            read_card(model)  # refused before a folder is made
    _make_new_folder(out)
    atomic_write_text(out / "recipe.yaml", _rooted(recipe).to_yaml())
    write_split(split, out / "split.yaml")
    folders = {name: "fold-" + name.replace("/", "-") for name in split.folds}
    facts = {"format": 1, "device": device, "start_from": _absolute(start_from), "folds": folders}
    atomic_write_text(out / "folds.json", json.dumps(facts, indent=1))
    return _train_missing_folds(out, watcher or Watcher())


def resume(run: Path, *, watcher: Watcher | None = None) -> list[RunResult]:
    """Go on with a stopped run, or with what a run of several folds has left; finished parts are not repeated.

    Raises `UserError` where `run` is none, or its data has changed, and what `train` raises.
    """
    watcher = watcher or Watcher()
    if (run / "folds.json").is_file():
        return _train_missing_folds(run, watcher)
    if not (run / "run.json").is_file() or not (run / "recipe.yaml").is_file():
        raise UserError("no run to resume", where=str(run), mend="give the folder that `trocar train` wrote")
    return [_resume_one(run, watcher)]


def _train_missing_folds(out: Path, watcher: Watcher) -> list[RunResult]:
    facts = json.loads((out / "folds.json").read_text(encoding="utf-8"))
    recipe, split = load_recipe(out / "recipe.yaml"), read_split(out / "split.yaml")
    results = []
    for number, (name, folder) in enumerate(facts["folds"].items(), start=1):
        run = out / folder
        watcher.message(f"fold {name}, {number} of {len(facts['folds'])}")
        if not (run / "run.json").is_file():
            start_from = Path(facts["start_from"]) if facts["start_from"] else None
            _begin_run(run, recipe, split, fold=name, device=facts["device"], start_from=start_from)
        try:
            results.append(_resume_one(run, watcher))
        except Interrupted:
            raise Interrupted(f"stopped in fold {name}; go on with: trocar train --resume {out}") from None
    return results


def _resume_one(run: Path, watcher: Watcher) -> RunResult:
    if (run / "model" / "model.json").is_file():
        watcher.message(f"{run} is finished")
        return RunResult(run, run / "model", read_card(run / "model"))
    recipe, split = load_recipe(run / "recipe.yaml"), read_split(run / "split.yaml")
    source = _open_source(recipe)
    split.check_against(source)
    return Training(run, source, watcher).run()


def _open_data(recipe: Recipe) -> tuple[Source, Split]:
    source = _open_source(recipe)
    return source, make_split(source, recipe.split)


def _open_source(recipe: Recipe) -> Source:
    source = open_data(rooted(recipe.data))  # as `resume` will: prepared frames are known by absolute paths
    if source.findings:
        raise UserErrors(source.findings)
    return source


def _rooted(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that a run can be resumed from anywhere."""
    model = recipe.model
    if model.encoder_weights not in ("imagenet", "none"):
        model = model.model_copy(update={"encoder_weights": _absolute(model.encoder_weights)})
    return recipe.model_copy(update={"data": rooted(recipe.data), "model": model})


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


def _make_new_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            "the folder of the run is not empty",
            where=str(folder),
            mend=f"give another with --out, or go on with that run: trocar train --resume {folder}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder of the run: {error.strerror}", where=str(folder)) from None


def _start_of_fold(start_from: Path, fold: str | None) -> Path:
    """Folder of the model that a fold starts from. Raises `UserError` where there is none."""
    folders = fold_folders(start_from)
    if folders and fold not in folders:
        raise UserError(
            f"the run to start from has no fold {fold}" if fold else "the run to start from has several folds",
            where=str(start_from),
            mend=f"name the run of one of them: {', '.join(folder.name for folder in folders.values())}",
        )
    return resolve_model(folders[fold] if folders else start_from)


def _ancestors(model: Path) -> tuple[Ancestor, ...]:
    """A model, and what it began from. Raises `UserError` where its card cannot be read."""
    card = read_card(model)
    made = card.provenance
    parent = Ancestor(name=card.name, dataset=made.dataset, data_fingerprint=made.data_fingerprint, groups=made.groups)
    return (parent, *made.began_from)


def _begin_run(
    out: Path, recipe: Recipe, split: Split, *, fold: str | None, device: str, start_from: Path | None
) -> None:
    ancestors = []
    if start_from is not None:
        start_from = _start_of_fold(start_from, fold)
        ancestors = [one.model_dump(mode="json") for one in _ancestors(start_from)]
    _make_new_folder(out)
    atomic_write_text(out / "recipe.yaml", _rooted(recipe).to_yaml())
    write_split(split, out / "split.yaml")
    facts = {"format": 1, "fold": fold, "device": device, "start_from": _absolute(start_from), "began_from": ancestors}
    atomic_write_text(out / "run.json", json.dumps(facts, indent=1))
