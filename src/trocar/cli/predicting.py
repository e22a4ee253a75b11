"""Verbs that run a model: predict, live, bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from trocar import console
from trocar.cli.ending import leave
from trocar.cli.options import (
    Device,
    Engine,
    FillHoles,
    Flips,
    Hysteresis,
    Json,
    MinArea,
    ModelName,
    Rate,
    RawFormatName,
    RawSize,
    Reconnects,
    Smooth,
    SmoothWeight,
    Threshold,
    Tiles,
    Timeout,
)
from trocar.errors import UserError

if TYPE_CHECKING:
    from trocar.inference.feeds import FeedOptions
    from trocar.inference.smoothing import SmoothSettings


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
    threshold: Threshold = None,
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
    threshold: Threshold = None,
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
        leave(2)
    if summary.ended == "stopped":
        leave(130)


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
