"""Options that several verbs take, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

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
Threshold = Annotated[float | None, Option(min=0, max=1, help="instead of the model's own")]
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
