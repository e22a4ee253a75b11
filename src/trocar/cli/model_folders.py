"""Verbs around model folders: models lists them, export adds forms for other engines, convert-keras makes one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from trocar import console
from trocar.cli.opening import open_records
from trocar.cli.options import (
    DataOverrides,
    Json,
    Overrides,
)
from trocar.config import load_recipe
from trocar.errors import UserError


def models(
    folders: Annotated[
        list[Path] | None, Argument(metavar="[FOLDER...]", help="list what lies below these too")
    ] = None,
    json: Json = False,
) -> None:
    """List the models that ship with trocar, and those below folders: what they find, their size, scores, licence."""
    from trocar import inventory
    from trocar.console.models import show_models

    entries = inventory.models(folders or ())
    if json:
        console.print_json({"models": [entry.to_dict() for entry in entries]})
    else:
        show_models(entries)


def export(
    model: Annotated[str, Argument(help="model folder, or the run that made it")],
    to: Annotated[Literal["openvino", "onnx"], Option(help="engine that is to run it")],
    int8: Annotated[bool, Option("--int8", help="in int8, calibrated on training records")] = False,
    precision: Annotated[Literal["f32", "bf16"], Option(help="arithmetic otherwise; bf16: openvino only")] = "f32",
    data: Annotated[
        Path | None,
        Option(metavar="SOURCE", help="labelled frames to calibrate and judge with; default: those of the model's run"),
    ] = None,
    split: Annotated[Path | None, Option(help="split file of that data; default: that of the model's run")] = None,
    size: Annotated[
        str | None, Option(metavar="WxH", help="of its frames; default: the size the model was trained with")
    ] = None,
    dynamic: Annotated[bool, Option("--dynamic", help="leave height and width of its frames open")] = False,
    dice_limit: Annotated[
        float | None,
        Option(min=0, help="by how much the mean Dice may fall; 0.002, in int8 0.005", show_default=False),
    ] = None,
    pixel_limit: Annotated[float, Option(min=0, max=1, help="share of the pixels that may differ")] = 0.01,
    frames: Annotated[int, Option(min=1, help="at most so many records judge it, and as many calibrate int8")] = 100,
    overrides: DataOverrides = None,
    json: Json = False,
) -> None:
    """Write the model's network for another engine, if its masks are those of PyTorch on validation records."""
    from trocar.console.export import show_exported
    from trocar.export import export as export_model
    from trocar.model_folder import resolve_model
    from trocar.sizes import parse_size

    if int8 and precision != "f32":
        raise UserError("--int8 and --precision name two arithmetics", mend="leave one of them out")
    folder = resolve_model(model)
    opened = None if data is None else open_records(data, overrides, model=folder)
    with console.Bars() as watcher:
        made = export_model(
            folder,
            to=to,
            precision="int8" if int8 else precision,
            data=opened,
            split=split,
            size_hw=None if size is None else parse_size(size),
            dynamic=dynamic,
            dice_limit=dice_limit,
            pixel_limit=pixel_limit,
            frames=frames,
            watcher=watcher,
        )
    if json:
        console.print_json(made.as_dict())
    else:
        show_exported(made)


def convert_keras(
    file: Annotated[Path, Argument(help=".weights.h5, .keras or .h5 file, or the folder of a SavedModel")],
    out: Annotated[Path, Option(help="folder of the model that is written")],
    recipe: Annotated[str, Option(help="recipe whose preprocessing the weights were trained with")] = "notebook",
    overrides: Overrides = None,
    threshold: Annotated[float, Option(min=0, max=1, help="probability from which a pixel is instrument")] = 0.5,
    pyramid: Annotated[
        str | None, Option(metavar="A,B,C", help="names of the convolutions of rates 6, 12, 18, if the file hides them")
    ] = None,
    json: Json = False,
) -> None:
    """Bring over weights that the notebook's network was given by Keras. Runs nothing that the file holds."""
    from trocar.console.convert import show_conversion
    from trocar.interop.keras import convert_keras as convert

    order = tuple(name.strip() for name in pyramid.split(",")) if pyramid else ()
    made = convert(file, out, recipe=load_recipe(recipe, overrides or []), threshold=threshold, pyramid=order)
    if json:
        console.print_json({"model": str(made.model), "notes": list(made.notes), "card": made.card})
    else:
        show_conversion(made.model, made.notes)
