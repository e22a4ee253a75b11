"""The command line: each verb parses, calls the library function of its name, and prints what it made.

Results go to stdout (`--json`: one document and nothing else), progress and errors to stderr. Exit codes: 0 done;
1 `check` found errors or `split --audit` a leak; 2 something the user can mend; 130 Ctrl-C or SIGTERM.
Heavy imports happen inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, ParamSpec, TypeVar

import typer
from typer import Argument, Option

from trocar import __version__, console
from trocar.config import Recipe, default_of, known_keys, load_recipe, shipped_recipes
from trocar.errors import UserError
from trocar.stopping import terminated_as_stopped

if TYPE_CHECKING:
    from trocar.data.records import Source
    from trocar.inference.feeds import FeedOptions
    from trocar.inference.smoothing import SmoothSettings

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a defect keeps Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment medical instruments in endoscopic and surgical images and video. For research, not a medical device.",
)

SOURCE_HELP = "folder of labelled frames, or a recipe (.yaml) that names its data"
Json = Annotated[bool, Option("--json", help="print one JSON document on stdout and nothing else there")]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N or mps")]
ModelName = Annotated[
    Path | None,
    Option(
        metavar="MODEL",
        help="model folder, the run that made it, or a name that `trocar models` lists; by default the one that ships",
        show_default=False,
    ),
]
Engine = Annotated[
    Literal["auto", "torch", "openvino", "onnx"],
    Option(help="what runs the network; auto: on a CPU the fastest exported form of the model, else torch"),
]
Overrides = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="set one setting of the recipe; may be repeated")
]
Flips = Annotated[
    bool, Option("--flips", help="predict the mirror image too and average: twice the time, often better")
]
Tiles = Annotated[
    float | None,
    Option(
        metavar="SCALE",
        help="cut frames larger than the network's into overlapping tiles at this scale (1: native), not shrink them",
        show_default=False,
    ),
]
MinArea = Annotated[
    list[str] | None,
    Option(metavar="[CLASS=]AREA", help="drop smaller pieces; pixels, or % of the frame: 200, tip=50, 0.1%"),
]
FillHoles = Annotated[
    list[str] | None, Option(metavar="[CLASS=]AREA", help="fill holes up to this area; as --min-area; may be repeated")
]
DataOverrides = Annotated[
    list[str] | None,
    Option("--set", metavar="data.KEY=VALUE", help="how to read the data, as data.kind=folder; may be repeated"),
]

Rate = Annotated[
    float | None,
    Option(min=0.001, metavar="FPS", help="of folders, numbered files and raw frames; default 25", show_default=False),
]
RawSize = Annotated[str | None, Option(metavar="WxH", help="of raw frames on stdin, as 720x576", show_default=False)]
RawFormatName = Annotated[Literal["rgb24", "bgr24", "gray"], Option(help="of raw frames on stdin")]
Timeout = Annotated[float, Option(min=0.1, metavar="S", help="seconds to wait for a camera or URL")]
Reconnects = Annotated[int, Option(min=0, help="new tries, in a row, when a camera or URL is lost")]
Smooth = Annotated[
    Literal["none", "exponential", "flow"],
    Option(help="average the probabilities with those of the frames before, at the same place or along the motion"),
]
SmoothWeight = Annotated[float, Option(metavar="W", help="share of the frames before, 0 to below 1")]
Hysteresis = Annotated[
    str | None,
    Option(metavar="LOW,HIGH", help="a pixel turns on at HIGH and off below LOW, instead of at the threshold"),
]


def main() -> None:
    """Entry of the `trocar` command."""
    console.escape_what_cannot_be_printed()
    app()


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Register a verb, and end it on what a person can mend or stop: the error form, then exit code 2 or 130."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with terminated_as_stopped():
                return function(*args, **kwargs)
        except UserError as error:
            console.print_error(error, as_json=bool(kwargs.get("json")))
            _exit(2)
        except PermissionError as error:  # wherever it comes from, it is for the user to grant
            told = UserError(
                f"no permission: {error.strerror}", where=str(error.filename), mend="grant it, or choose another place"
            )
            console.print_error(told, as_json=bool(kwargs.get("json")))
            _exit(2)
        except KeyboardInterrupt as stopped:
            sys.stderr.write(f"\n{stopped if str(stopped) else 'stopped'}\n")
            _exit(130)

    app.command(name=function.__name__.replace("_", "-"))(run)
    return run


def _exit(code: int) -> NoReturn:
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, Option("--version", help="print the version and leave")] = False,
) -> None:
    if version:
        sys.stdout.write(f"trocar {__version__}\n")
        _exit(0)


def _open(source: Path, overrides: list[str] | None, run: Path | None = None) -> Source:
    """A source as it is to be read: a folder, or the data that a recipe names.

    Without overrides, a folder that a run was trained from is read as that run read it: of several sources, with their
    common classes and names.
    """
    from trocar.data.joining import open_data
    from trocar.data.sources import open_source

    if _is_recipe(source):
        return open_data(load_recipe(source, overrides or []).data)
    settings = load_recipe(None, overrides or []).data
    if not overrides and run is not None and (run / "recipe.yaml").is_file():
        trained = load_recipe(run / "recipe.yaml").data
        if trained.source is not None and Path(trained.source).resolve() == source.resolve():
            settings = trained
        for name, one in trained.sources.items():
            if Path(one.source).resolve() == source.resolve():
                exclude = tuple(text for text in trained.exclude if text.startswith(f"{name}/"))
                return open_data(trained.model_copy(update={"sources": {name: one}, "exclude": exclude}))
    return open_source(source, settings)


def _open_each(source: Path, overrides: list[str] | None) -> list[Source]:
    """As `_open`, but the sources of a recipe one by one."""
    from trocar.data.joining import open_parts

    settings = load_recipe(source, overrides or []).data if _is_recipe(source) else None
    return open_parts(settings) if settings and settings.sources else [_open(source, overrides)]


def _open_by(source: Path, recipe: Recipe, overrides: list[str] | None) -> Source:
    """A folder, read as a recipe says; or the data that `source` names, where it is a recipe itself."""
    from trocar.data.sources import open_source

    return _open(source, overrides) if _is_recipe(source) else open_source(source, recipe.data)


def _is_recipe(source: Path) -> bool:
    return source.suffix.lower() in (".yaml", ".yml") and source.is_file()


# ------------------------------------------------------------------ check


@verb
def check(
    sources: Annotated[
        list[Path], Argument(metavar="SOURCE...", help="folders of labelled frames, or recipes that name them")
    ],
    out: Annotated[Path | None, Option(help="write a page with pictures, check.html, and check.json there")] = None,
    pictures: Annotated[bool, Option(help="embed frames (of patients) in the page")] = True,
    cache: Annotated[
        bool, Option(help="do not read again what an earlier check read and has not changed since")
    ] = True,
    overrides: DataOverrides = None,
    json: Json = False,
) -> None:
    """Read every record and say what is wrong with the data and how to mend it. Exit code 1 where it found errors."""
    from trocar.console.check import show_check
    from trocar.data import checks

    opened = [source for path in sources for source in _open_each(path, overrides)]
    with console.counting("checking") as progress:
        report = checks.check(opened, progress=progress, remember=cache)
    page = None
    if out is not None:
        from trocar.reporting.doctor import write_check  # draws with matplotlib

        page = write_check(report, opened, out, pictures=pictures)
    if json:
        console.print_json({"page": None if page is None else str(page), **report.to_dict()})
    else:
        show_check(report, page)
    if not report.ok:
        _exit(1)


# ------------------------------------------------------------------ split


@verb
def split(
    source: Annotated[Path, Argument(help=SOURCE_HELP)],
    out: Annotated[
        Path | None, Option(help="split file that is written; with --audit the folder of its page, audit.html")
    ] = None,
    strategy: Annotated[
        Literal["official", "leave-one-group-out", "k-fold", "random-groups", "random-records"] | None,
        Option(help="who is held out for the test; as split.strategy, by default random-groups", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None, Option(metavar="RECIPE", help="divide as this recipe does, instead of by the defaults here")
    ] = None,
    folds: Annotated[int | None, Option(min=2, help="k-fold: number of folds, by default 5")] = None,
    test_share: Annotated[
        float | None, Option(min=0, max=1, help="random-...: share held out, by default 0.2", show_default=False)
    ] = None,
    val_from: Annotated[
        Literal["groups", "tail", "every-sixth", "random-records", "leaked-records"] | None,
        Option(help="where validation comes from, by default whole groups", show_default=False),
    ] = None,
    val_share: Annotated[
        float | None, Option(min=0, max=1, help="share of the rest for validation, by default 0.2", show_default=False)
    ] = None,
    seed: Annotated[int | None, Option(min=0, help="of all that is drawn, by default 0", show_default=False)] = None,
    stratify: Annotated[
        bool | None,
        Option(help="balance sides by foreground share and classes; on, unless a recipe is given", show_default=False),
    ] = None,
    join: Annotated[
        bool | None,
        Option(
            "--join-near-duplicates/--no-join-near-duplicates",
            help="keep near-duplicates on one side; on, unless a recipe is given",
            show_default=False,
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        Option(metavar="FILE", help="measure what leaks in this split, of whatever origin, instead of making one"),
    ] = None,
    pictures: Annotated[bool, Option(help="--audit: embed frames (of patients) in the page")] = True,
    cache: Annotated[bool, Option(help="do not read again what `trocar check` read and has not changed since")] = True,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Divide records into train, val and test without leaks, or measure the leaks of a split. Exit 1 where it leaks."""
    from trocar.errors import UserErrors

    drawing = {
        "strategy": strategy,
        "folds": folds,
        "test_share": test_share,
        "val_from": val_from,
        "val_share": val_share,
        "seed": seed,
        "stratify": stratify,
        "join_near_duplicates": join,
    }
    given = [f"split.{name}={value}" for name, value in drawing.items() if value is not None]
    if audit is not None and (given or recipe):
        raise UserError("--audit measures a split as it is", mend="leave out the options of how to draw one")
    recipe = recipe or (str(source) if _is_recipe(source) else None)
    defaults = [] if recipe else ["split.stratify=true", "split.join_near_duplicates=true"]
    chosen = load_recipe(recipe, [*defaults, *given, *(overrides or [])])
    opened = _open_by(source, chosen, overrides)
    if audit is not None:
        _audit(audit, opened, out, pictures=pictures, cache=cache, as_json=json)
        return
    if out is None:
        raise UserError("no file is named for the split", mend="give --out FILE, such as --out split.yaml")
    if opened.findings:
        raise UserErrors(opened.findings)
    from trocar.console.split import show_split
    from trocar.data.splits import make_split, write_split

    with console.counting("reading") as progress:
        made = make_split(opened, chosen.split, progress=progress, remember=cache)
    write_split(made, out)
    if json:
        tree = made.model_dump(mode="json", exclude={"file_bytes"})
        console.print_json({"split": str(out), "own_fingerprint": made.own_fingerprint(), **tree})
    else:
        show_split(made, out)


def _audit(file: Path, source: Source, out: Path | None, *, pictures: bool, cache: bool, as_json: bool) -> None:
    from trocar.console.split import show_audit
    from trocar.data import leakage

    with console.counting("comparing") as progress:
        found = leakage.audit(file, source, progress=progress, remember=cache)
    page = None
    if out is not None:
        from trocar.reporting.audit import write_audit

        page = write_audit(found, source, out, pictures=pictures)
    if as_json:
        console.print_json({"page": None if page is None else str(page), **found.to_dict()})
    else:
        show_audit(found, page)
    if found.leaks:
        _exit(1)


# ------------------------------------------------------------------ train


def _print_settings(show: bool) -> None:
    if not show:
        return
    for key, text in known_keys(Recipe).items():
        value = default_of(Recipe, key)
        sys.stdout.write(f"{key} = {'(must be given)' if value is ... else value}\n    {text}\n")
    _exit(0)


@verb
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

    with console.TrainingProgress() as watcher:
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


# ------------------------------------------------------------------ evaluate


@verb
def evaluate(
    source: Annotated[Path, Argument(help=SOURCE_HELP)],
    model: Annotated[Path | None, Option(help="model folder, the run that made it, or a run of several folds")] = None,
    predictions: Annotated[Path | None, Option(help="folder of masks made by any tool, instead of a model")] = None,
    split: Annotated[Path | None, Option(help="split file; without one every record is scored")] = None,
    side: Annotated[Literal["train", "val", "test"], Option(help="side of the split to score")] = "test",
    out: Annotated[Path, Option(help="where the report goes")] = Path("report"),
    threshold: Annotated[float | None, Option(min=0, max=1, help="instead of the model's own")] = None,
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

    opened = _open(source, overrides, run=model)
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
            workers=os.cpu_count() or 1,
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


# ------------------------------------------------------------------ compare


@verb
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


# ------------------------------------------------------------------ predict


@verb
def predict(
    inputs: Annotated[
        list[str],
        Argument(
            metavar="INPUT...",
            help="images, videos, folders, patterns; camera:0, rtsp:// or http:// URLs, frame_%04d.png, - (stdin)",
        ),
    ],
    model: ModelName = None,
    out: Annotated[Path, Option(help="where masks, overlays and predictions.json go")] = Path("predictions"),
    masks: Annotated[bool, Option(help="write masks")] = True,
    overlays: Annotated[bool, Option(help="write overlays for looking at")] = True,
    probabilities: Annotated[bool, Option("--probabilities", help="write probabilities as 16-bit PNG too")] = False,
    instances: Annotated[
        bool, Option("--instances", help="number the connected pieces of each class: images of ids, and a list")
    ] = False,
    video_masks: Annotated[
        Literal["video", "png"], Option(help="masks of a video: one lossless video, or a PNG for each frame")
    ] = "video",
    jsonl: Annotated[
        bool, Option("--jsonl", help="write frames.jsonl: a line for each frame, with run lengths as COCO has them")
    ] = False,
    to_stdout: Annotated[
        bool, Option("--to-stdout", help="write every mask to stdout too, as raw bytes, and nothing else there")
    ] = False,
    window: Annotated[bool, Option("--window", help="show overlays in a window; Esc ends")] = False,
    as_video: Annotated[bool, Option("--as-video", help="a folder of images is one video")] = False,
    rate: Rate = None,
    raw_size: RawSize = None,
    raw_format: RawFormatName = "rgb24",
    timeout: Timeout = 10.0,
    reconnects: Reconnects = 3,
    smooth: Smooth = "none",
    smooth_weight: SmoothWeight = 0.5,
    hysteresis: Hysteresis = None,
    threshold: Annotated[float | None, Option(min=0, max=1, help="instead of the model's own")] = None,
    flips: Flips = False,
    tiles: Tiles = None,
    min_area: MinArea = None,
    fill_holes: FillHoles = None,
    batch_size: Annotated[
        int | None, Option(min=1, help="predicted at once; default 4 images, 1 frame of a video", show_default=False)
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Segment images, videos and feeds: masks at the input's size, overlays, and a list of what was made."""
    from trocar.console.predict import show_predictions
    from trocar.inference.predict import predict as predict_all

    if to_stdout and json:
        raise UserError("--to-stdout and --json both want stdout for themselves", mend="leave one out")
    raw = open(1, "wb", buffering=0, closefd=False) if to_stdout else None  # noqa: SIM115 - stdout itself
    with console.counting("predicting") as progress:
        summary = predict_all(
            inputs,
            model,
            out,
            device=device,
            engine=engine,
            batch_size=batch_size,
            masks=masks,
            overlays=overlays,
            probabilities=probabilities,
            instances=instances,
            video_masks=video_masks,
            lines=jsonl,
            raw=raw,
            window=window,
            as_video=as_video,
            feeds=_feeds(rate, raw_size, raw_format, timeout, reconnects),
            smooth=_smoothing(smooth, smooth_weight, hysteresis),
            threshold=threshold,
            flips=flips,
            tiles=tiles,
            min_area=min_area or (),
            fill_holes=fill_holes or (),
            progress=progress,
            say=console.say,
        )
    if json:
        console.print_json(summary)
    else:
        show_predictions(summary, out, console.err if to_stdout else console.out)


def _feeds(rate: float | None, raw_size: str | None, raw_format: str, timeout: float, reconnects: int) -> FeedOptions:
    from fractions import Fraction

    from trocar.inference.feeds import FeedOptions, RawFormat

    return FeedOptions(
        rate=None if rate is None else Fraction(rate).limit_denominator(1001),
        raw=None if raw_size is None else RawFormat.parse(raw_size, raw_format),
        timeout_s=timeout,
        reconnects=reconnects,
    )


def _smoothing(kind: Literal["none", "exponential", "flow"], weight: float, hysteresis: str | None) -> SmoothSettings:
    from trocar.inference.smoothing import SmoothSettings, parse_hysteresis

    return SmoothSettings(kind, weight, parse_hysteresis(hysteresis))


# ------------------------------------------------------------------ live


@verb
def live(
    source: Annotated[
        str,
        Argument(help="camera:0, an rtsp or http URL, a video file, a folder or pattern of frames, - for raw frames"),
    ],
    model: ModelName = None,
    window: Annotated[bool, Option("--window", help="show it in a window instead of on a local page")] = False,
    headless: Annotated[bool, Option("--headless", help="show it nowhere: count, and record if told to")] = False,
    port: Annotated[
        int, Option(min=0, max=65535, metavar="PORT", help="of the page on 127.0.0.1; 0: any free one")
    ] = 8765,
    seconds: Annotated[float | None, Option(min=0, help="end after so long", show_default=False)] = None,
    loop: Annotated[bool, Option("--loop", help="a file: from its beginning again and again")] = False,
    record: Annotated[
        Path | None, Option(metavar="FILE", help="write what is shown to a new video file, such as seen.mp4")
    ] = None,
    late_ms: Annotated[float, Option(min=0, help="frames that are older when they are shown are counted")] = 200.0,
    smooth: Smooth = "none",
    smooth_weight: SmoothWeight = 0.5,
    hysteresis: Hysteresis = None,
    rate: Rate = None,
    raw_size: RawSize = None,
    raw_format: RawFormatName = "rgb24",
    timeout: Timeout = 10.0,
    reconnects: Reconnects = 3,
    threshold: Annotated[float | None, Option(min=0, max=1, help="instead of the model's own")] = None,
    min_area: MinArea = None,
    fill_holes: FillHoles = None,
    engine: Engine = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Show what a model finds in a feed, as it comes. Newest frame wins; Ctrl-C ends it properly, exit code 130."""
    from trocar.console.live import announce, show_live
    from trocar.live import live as run_live

    if window and headless:
        raise UserError("--window and --headless exclude each other", mend="give one of them")
    summary = run_live(
        source,
        model,
        view="window" if window else "headless" if headless else "page",
        port=port,
        late_ms=late_ms,
        seconds=seconds,
        loop=loop,
        record=record,
        smooth=_smoothing(smooth, smooth_weight, hysteresis),
        feeds=_feeds(rate, raw_size, raw_format, timeout, reconnects),
        ready=announce,
        threshold=threshold,
        min_area=min_area or (),
        fill_holes=fill_holes or (),
        engine=engine,
        device=device,
    )
    if json:
        console.print_json(summary)
    else:
        show_live(summary)
    if summary.error is not None:
        console.print_error(UserError(**summary.error), as_json=False)
        _exit(2)
    if summary.ended == "stopped":
        _exit(130)


# ------------------------------------------------------------------ bench


@verb
def bench(
    model: Annotated[
        Path | None,
        Argument(
            metavar="[MODEL]",
            help="model folder, run, or a name that `trocar models` lists; none: the one that ships",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        Option(
            "--input", metavar="VIDEO", help="a video or a folder of frames; none: a clip is drawn", show_default=False
        ),
    ] = None,
    size: Annotated[str, Option(metavar="WxH", help="of the drawn clip")] = "720x576",
    frames: Annotated[int, Option(min=1, help="of each pass; a shorter input begins anew")] = 200,
    seconds: Annotated[float | None, Option(min=0.1, help="ends a pass after this time", show_default=False)] = None,
    threads: Annotated[
        int | None, Option(min=1, help="of the engine; none: what it takes by itself", show_default=False)
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure what each part of predicting costs here, frames a second from end to end, memory and cold start."""
    from trocar import bench as measuring
    from trocar.console.bench import show_bench
    from trocar.sizes import parse_size

    with console.counting("measuring") as progress:
        result = measuring.bench(
            model,
            source=source,
            size_hw=parse_size(size),
            engine=engine,
            device=device,
            threads=threads,
            frames=frames,
            seconds=seconds,
            progress=progress,
            say=console.say,
        )
    if json:
        console.print_json(result)
    else:
        show_bench(result)


# ------------------------------------------------------------------ models


@verb
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


# ------------------------------------------------------------------ cache


@verb
def cache(
    action: Annotated[Literal["list", "clear"], Argument(metavar="[list|clear]", help="what to do")] = "list",
    older_than: Annotated[
        float | None, Option(min=0, metavar="DAYS", help="clear: only what was not used for so many days")
    ] = None,
    json: Json = False,
) -> None:
    """List or clear what is kept to save time: prepared frames of trainings, and what checks found out."""
    from trocar import caching
    from trocar.console.cache import show_cache, show_cleared

    if action == "list" and older_than is not None:
        raise UserError("--older-than is an option of clearing", mend=f"trocar cache clear --older-than {older_than:g}")
    found = caching.cache() if action == "list" else caching.clear_cache(older_than)
    if json:
        console.print_json(found.to_dict())
    else:
        (show_cache if action == "list" else show_cleared)(found)


# ------------------------------------------------------------------ export


@verb
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
    opened = None if data is None else _open(data, overrides, run=folder.parent)
    with console.TrainingProgress() as watcher:
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


# ------------------------------------------------------------------ figures


@verb
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
        list[float] | None, Option("--threshold", min=0, max=1, help="of a panel; repeatable")
    ] = None,
    frames: Annotated[int, Option(min=1, max=20, help="how many, evenly over the records")] = 4,
    out: Annotated[Path, Option(help="where the PNG files go")] = Path("figures"),
    overrides: Overrides = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Draw frames before and after preprocessing, and, with a model, its predictions at several thresholds."""
    from trocar.reporting.previews import draw_figures

    chosen = load_recipe(recipe or (source if _is_recipe(source) else None), overrides or [])
    made = draw_figures(
        _open_by(source, chosen, overrides),
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


# ------------------------------------------------------------------ fetch


@verb
def fetch(
    name: Annotated[str | None, Argument(metavar="[NAME]", help="a research set; none: list those known")] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="new folder of the set; default: its name")] = None,
    archive: Annotated[
        Path | None, Option(metavar="FILE", help="unpack this archive, downloaded by other means; no network is used")
    ] = None,
    json: Json = False,
) -> None:
    """Download a research set, check it and lay it out, or say how to get it. Goes online."""
    from trocar.console.fetch import show_fetched, show_known
    from trocar.data import fetching

    if name is None:
        if json:
            console.print_json({"sets": [one.to_dict() for one in fetching.KNOWN]})
        else:
            show_known(fetching.KNOWN)
        return
    with console.TrainingProgress() as watcher:
        fetched = fetching.fetch(name, out, archive=archive, watcher=watcher)
    if json:
        console.print_json(fetched.to_dict())
    else:
        show_fetched(fetched)


# ------------------------------------------------------------------ convert


@verb
def convert(
    source: Annotated[Path, Argument(help="folder of labelled frames, in any layout that `trocar check` reads")],
    to: Annotated[
        Literal["coco", "labelme", "cvat", "cvat-masks", "label-studio", "yolo", "png"],
        Option(help="format of the labels that are written"),
    ],
    out: Annotated[Path, Option(help="new folder for images and labels")],
    polygons: Annotated[
        bool, Option("--polygons", help="coco, labelme, cvat: polygons instead of run lengths or PNG masks")
    ] = False,
    link: Annotated[bool, Option("--link", help="hard links to the images instead of copies")] = False,
    overrides: DataOverrides = None,
    json: Json = False,
) -> None:
    """Write labelled frames in the format of an annotation tool. Nothing of the source is changed."""
    from trocar.console.convert import show_converted
    from trocar.data import convert as conversion

    opened = _open(source, overrides)
    with console.counting("converting") as progress:
        made = conversion.convert(opened, to, out, polygons=polygons, link=link, progress=progress)
    if json:
        console.print_json(made.to_dict())
    else:
        show_converted(made)


# ------------------------------------------------------------------ convert-keras


@verb
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


# ------------------------------------------------------------------ demo


@verb
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

    with console.TrainingProgress() as watcher:
        result = whole_way.demo(out, preset=preset, device=device, seed=seed, watcher=watcher)
    if json:
        console.print_json({**result.paths(), **result.evaluation.as_dict()})
    else:
        show_demo(result)
