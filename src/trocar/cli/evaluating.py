"""Verbs that judge: evaluate, compare, and figures to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from trocar import console
from trocar.cli.opening import is_recipe, open_by, open_records
from trocar.cli.options import (
    SOURCE_HELP,
    DataOverrides,
    Device,
    Engine,
    FillHoles,
    Flips,
    Json,
    MinArea,
    Overrides,
    Threshold,
    Tiles,
)
from trocar.config import load_recipe
from trocar.cores import usable_cores
from trocar.errors import UserError


def evaluate(
    source: Annotated[Path, Argument(help=SOURCE_HELP)],
    model: Annotated[Path | None, Option(help="model folder, the run that made it, or a run of several folds")] = None,
    predictions: Annotated[Path | None, Option(help="folder of masks made by any tool, instead of a model")] = None,
    split: Annotated[Path | None, Option(help="split file; without one every record is scored")] = None,
    side: Annotated[Literal["train", "val", "test"], Option(help="side of the split to score")] = "test",
    out: Annotated[Path, Option(help="where the report goes")] = Path("report"),
    threshold: Threshold = None,
    flips: Flips = False,
    tiles: Tiles = None,
    min_area: MinArea = None,
    fill_holes: FillHoles = None,
    as_labelled: Annotated[
        bool,
        Option("--as-labelled", help="leave the masks alone where the model's recipe (the notebook's) alters them"),
    ] = False,
    centreline: Annotated[
        bool, Option("--centreline", help="score clDice too, for thin tools: takes longer than all other scores")
    ] = False,
    nsd_tolerance: Annotated[
        float | None,
        Option(
            min=0,
            metavar="T",
            help="of the normalised surface Dice: px, by default 2; with --spacing-mm, mm",
            show_default=False,
        ),
    ] = None,
    spacing_mm: Annotated[
        str | None,
        Option(metavar="Y,X", help="height and width of a pixel: scores of outlines are then in mm; needs a tolerance"),
    ] = None,
    edge: Annotated[
        Literal["closed", "open"], Option(help="closed: the image's edge is outline where a mask meets it; open: not")
    ] = "closed",
    pictures: Annotated[bool, Option(help="embed frames (of patients) in the report")] = True,
    to_card: Annotated[
        bool, Option("--to-card", help="write the scores into the model's card too, if no frame took part in training")
    ] = False,
    overrides: DataOverrides = None,
    engine: Engine = "torch",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score a model, or masks made elsewhere, against the truth, and write a report."""
    from trocar import evaluation
    from trocar.console.evaluate import show_evaluation
    from trocar.reporting.report import write_report

    opened = open_records(source, overrides, model=model)
    with console.counting("scoring") as progress:
        result = evaluation.evaluate(
            opened,
            model=model,
            predictions=predictions,
            split=split,
            side=side,
            device=device,
            engine=engine,
            threshold=threshold,
            flips=flips,
            tiles=tiles,
            min_area=tuple(min_area or ()),
            fill_holes=tuple(fill_holes or ()),
            as_labelled=as_labelled,
            centreline=centreline,
            nsd_tolerance=nsd_tolerance,
            spacing_mm=_spacing(spacing_mm),
            edge=edge,
            workers=usable_cores(),
            progress=progress,
        )
    report = write_report(result, out, pictures=pictures)
    card = evaluation.to_card(result) if to_card else None
    if json:
        console.print_json({"report": str(report), "card": card and str(card), **result.as_dict()})
    else:
        show_evaluation(result, report, card)


def _spacing(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        height, width = map(float, text.split(","))
    except ValueError:
        raise UserError(
            f"{text!r} is no spacing", mend="give height and width of a pixel in mm, as 0.12,0.12"
        ) from None
    return height, width


def compare(
    reports: Annotated[
        list[Path],
        Argument(
            metavar="REPORT...", help="reports of `trocar evaluate`; a folder of several is one result of many runs"
        ),
    ],
    score: Annotated[str, Option(help="column of per_image.csv that is compared")] = "dice",
    higher_is_better: Annotated[
        bool | None,
        Option("--higher-is-better/--lower-is-better", help="else by the name of the score", show_default=False),
    ] = None,
    common: Annotated[
        bool, Option("--common", help="go on with the common frames where the reports are not of the same ones")
    ] = False,
    published: Annotated[
        list[str] | None,
        Option(metavar="NAME=DICE/JACCARD", help="check whether published means can be of one set; may be repeated"),
    ] = None,
    out: Annotated[Path | None, Option(help="write compare.html and compare.json there")] = None,
    pictures: Annotated[bool, Option(help="embed the frames (of patients) that changed most in the page")] = True,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compare reports on the same frames: differences with intervals, tests, ranks, and what may be said of them."""
    from trocar import comparing
    from trocar.console.compare import show_comparison

    result = comparing.compare(
        reports, score=score, higher_is_better=higher_is_better, common=common, published=published or ()
    )
    page = None
    if out is not None:
        from trocar.reporting.comparison import write_comparison  # draws with matplotlib

        page = write_comparison(result, out, pictures=pictures, device=device)
    if json:
        console.print_json({"page": None if page is None else str(page), **result.as_dict()})
    else:
        show_comparison(result, page)


def figures(
    source: Annotated[Path, Argument(help=SOURCE_HELP)],
    recipe: Annotated[
        str | None, Option(metavar="RECIPE", help="whose preprocessing is shown; with a model, the model's own is")
    ] = None,
    model: Annotated[
        Path | None, Option(help="model folder, or the run that made it: adds panels of predictions")
    ] = None,
    split: Annotated[Path | None, Option(help="split file; without one frames are taken from all records")] = None,
    side: Annotated[Literal["train", "val", "test"], Option(help="side of the split that is shown")] = "test",
    thresholds: Annotated[
        list[float] | None, Option("--threshold", min=0, max=1, help="of a panel; may be repeated")
    ] = None,
    frames: Annotated[int, Option(min=1, max=20, help="how many, evenly over the records")] = 4,
    out: Annotated[Path, Option(help="where the PNG files go")] = Path("figures"),
    overrides: Overrides = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw frames before and after preprocessing, and, with a model, its predictions at several thresholds."""
    from trocar.reporting.previews import draw_figures

    chosen = load_recipe(recipe or (source if is_recipe(source) else None), overrides or [])
    made = draw_figures(
        open_by(source, chosen, overrides),
        chosen,
        out,
        model=model,
        split=split,
        side=side,
        thresholds=tuple(thresholds or (0.3, 0.99)),
        frames=frames,
        device=device,
    )
    if json:
        console.print_json({"figures": [str(path) for path in made]})
    else:
        console.show_files(made)
