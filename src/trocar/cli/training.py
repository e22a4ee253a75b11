"""Verbs that train: train, and demo, the whole way on drawn scenes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from trocar import console
from trocar.cli.ending import leave
from trocar.cli.options import Device, Json, Overrides
from trocar.config import Recipe, default_of, known_keys, load_recipe, shipped_recipes
from trocar.errors import UserError


def _print_settings(show: bool) -> None:
    if not show:
        return
    for key, text in known_keys(Recipe).items():
        value = default_of(Recipe, key)
        sys.stdout.write(f"{key} = {'(must be given)' if value is ... else value}\n    {text}\n")
    leave(0)


def train(
    recipe: Annotated[
        str | None,
        Argument(metavar="[RECIPE]", help=f"a YAML file, or one of: {', '.join(shipped_recipes())}; none: defaults"),
    ] = None,
    data: Annotated[Path | None, Option(metavar="SOURCE", help="folder of labelled frames (data.source)")] = None,
    overrides: Overrides = None,
    fold: Annotated[str | None, Option(metavar="NAME|all", help="which fold of the split, or all of them")] = None,
    out: Annotated[Path | None, Option(help="folder of the run; default: runs/RECIPE, numbered")] = None,
    start_from: Annotated[
        Path | None, Option(metavar="MODEL", help="fine-tune: start from this model's weights")
    ] = None,
    resume: Annotated[
        Path | None, Option(metavar="RUN", help="go on with a stopped run; takes no other option")
    ] = None,
    device: Device = "auto",
    _settings: Annotated[
        bool,
        Option("--settings", callback=_print_settings, is_eager=True, help="print every setting with its default"),
    ] = False,
    json: Json = False,
) -> None:
    """Train a model from a recipe. Stopped with Ctrl-C it saves its state and says how to go on."""
    from trocar import training
    from trocar.console.train import show_training

    with console.Bars() as watcher:
        if resume is not None:
            if any((recipe, data, overrides, fold, out, start_from)):
                raise UserError("--resume goes on with a run as it was begun", mend="leave all other options out")
            results = training.resume(resume, watcher=watcher)
        else:
            given = list(overrides or [])
            if data is not None:
                given.append(f"data.source={_quoted(data)}")
            chosen = load_recipe(recipe, given)
            out = out or _free_folder(Path("runs") / chosen.name)
            if fold == "all":
                results = training.train_folds(chosen, out=out, device=device, start_from=start_from, watcher=watcher)
            else:
                single = training.train(
                    chosen, out=out, fold=fold, device=device, start_from=start_from, watcher=watcher
                )
                results = [single]
    if json:
        console.print_json({"runs": [{"run": str(r.run), "model": str(r.model), "card": r.card} for r in results]})
    else:
        show_training(results)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"  # as YAML text, whatever the path looks like


def _free_folder(wanted: Path) -> Path:
    candidates = (wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}") for number in range(1, 10_000))
    return next(path for path in candidates if not path.exists())


def demo(
    out: Annotated[Path, Option(help="folder for all that is made; an earlier demo there is replaced")] = Path("demo"),
    preset: Annotated[Literal["demo", "varied"], Option(help="mild scenes, or every disturbance")] = "demo",
    seed: Annotated[int, Option(min=0, help="of scenes and training")] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The whole way on drawn scenes: draw, check, train, evaluate, predict. Needs no download and a few minutes."""
    from trocar import demo as whole_way
    from trocar.console.evaluate import show_demo

    with console.Bars() as watcher:
        result = whole_way.demo(out, preset=preset, device=device, seed=seed, watcher=watcher)
    if json:
        console.print_json({**result.paths(), **result.evaluation.as_dict()})
    else:
        show_demo(result)
