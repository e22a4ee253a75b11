"""Figures of a training and of an evaluation, drawn with matplotlib's object interface.

No pyplot: nothing is switched globally, and figures can be drawn beside a user's own. Curves go to a file of their
own or, one panel each, into the report; figures in the report take their ink from the page, light or dark.
"""

from __future__ import annotations

import io
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from trocar.data.files import atomic_write_bytes
from trocar.metrics.calibration import Calibration
from trocar.metrics.failure import FailureFinding
from trocar.metrics.findings import ThresholdChoice

# Of Okabe and Ito (2008): told apart by people with any colour vision, and in grey print by their lightness.
TRAIN_COLOUR, VAL_COLOUR = "#56B4E9", "#D55E00"
BAR_COLOUR = "#3D94CC"  # between its two blues: seen on a white and on a dark page
INK = "#010203"  # replaced by the page's text colour in SVG

CURVES = {"loss": "Loss", "dice": "Dice", "jaccard": "Jaccard"}
MOST_GROUPS = 25  # of a strip plot: more would not be legible


def plot_curves(log_rows: Sequence[Mapping[str, Any]], out: Path | IO[bytes]) -> None:
    """Draw loss, Dice and Jaccard of train and validation against the epoch as one PNG, a panel each.

    Rows are those of a run's log.csv, as numbers or as text: `epoch`, then `train_` and `val_` with `loss`, `dice`
    and `jaccard`. A missing or undefined value leaves a gap. A path is written whole or not at all.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    for key, axes in zip(CURVES, figure.subplots(1, 3), strict=True):
        _draw_curve(axes, log_rows, key)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    if isinstance(out, Path):
        atomic_write_bytes(out, buffer.getvalue())
    else:
        out.write(buffer.getvalue())


def curve_svgs(log_rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same three panels as SVG elements for a page, to be laid out side by side or below each other."""
    svgs = []
    for key in CURVES:
        figure = Figure(figsize=(4.0, 2.9), layout="constrained")
        _draw_curve(figure.subplots(), log_rows, key)
        svgs.append(as_svg(figure, f"{CURVES[key]} of train and validation against the epoch"))
    return svgs


def histogram_svg(values: Sequence[float], title: str) -> str:
    """How many frames reach which score, in bins of 0.05, with mean and median, as an SVG element. NaN is left out."""
    defined = np.array([value for value in values if not math.isnan(value)])
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.hist(defined, bins=[n / 20 for n in range(21)], color=BAR_COLOUR, edgecolor="white", linewidth=0.5)
    for name, value, style in (("mean", defined.mean(), "-"), ("median", np.median(defined), ":")):
        axes.axvline(float(value), color=INK, linestyle=style, linewidth=1.6, label=f"{name} {value:.3f}")
    axes.set(xlim=(0, 1), xlabel=title, ylabel="frames", title=f"{title} of {len(defined)} frames")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    _legend(axes, loc="upper left")
    return as_svg(figure, f"Histogram of {title} over {len(defined)} frames")


def strip_svg(values_of: Mapping[str, Sequence[float]], title: str) -> str:
    """Every frame's score as a dot, a line a group (lowest median first), its median as a bar, as an SVG element.

    Of more than 25 groups the lowest are drawn. NaN is left out, and groups of nothing else with it.
    """
    groups = {name: [v for v in values if not math.isnan(v)] for name, values in values_of.items()}
    ranked = sorted((name for name in groups if groups[name]), key=lambda name: float(np.median(groups[name])))
    drawn = ranked[:MOST_GROUPS]
    figure = Figure(figsize=(5.2, 1.1 + 0.32 * max(len(drawn), 4)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)  # spreads the dots of a line so that equal ones are seen
    for line, name in enumerate(drawn):
        spread = rng.uniform(-0.25, 0.25, len(groups[name]))
        axes.plot(groups[name], line + spread, "o", color=BAR_COLOUR, alpha=0.75, markersize=4, markeredgewidth=0)
        axes.plot([np.median(groups[name])] * 2, [line - 0.36, line + 0.36], color=VAL_COLOUR, linewidth=2.4)
    axes.set_yticks(range(len(drawn)), [_short(name) for name in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    shown = "by group" if len(drawn) == len(ranked) else f"of the {len(drawn)} lowest of {len(ranked)} groups"
    axes.set(xlim=(-0.02, 1.02), xlabel=title, title=f"{title} {shown}")
    _plain(axes)
    return as_svg(figure, f"{title} {shown}: a dot a frame, a bar the median")


def threshold_svg(choice: ThresholdChoice, side: str) -> str:
    """Mean Dice against the threshold on validation and on the side scored, best ones marked, as an SVG element."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")
    axes = figure.subplots()
    if choice.validation is not None:
        axes.plot(choice.validation.thresholds, choice.validation.dice, "--", color=VAL_COLOUR, label="validation side")
        axes.plot(*choice.validation.best, "o", color=VAL_COLOUR, markersize=5)
    axes.plot(choice.scored.thresholds, choice.scored.dice, "-", color=TRAIN_COLOUR, label=side)
    axes.plot(*choice.scored.best, "o", color=TRAIN_COLOUR, markersize=5)
    axes.axvline(choice.chosen, color=INK, linestyle=":", linewidth=1.6, label=f"used: {choice.chosen:g}")
    axes.set(xlim=(0, 1), xlabel="threshold (dots: best)", title="Mean Dice against threshold")
    _plain(axes)
    _legend(axes, loc="lower left")
    return as_svg(figure, f"Mean Dice against threshold; {choice.chosen:g} was used")


def reliability_svg(calibration: Calibration) -> str:
    """Reliability diagram: share of the pixels given each probability that is instrument, as an SVG element.

    Before and, where a temperature is known, after scaling. Below it how many pixels each bin holds, on a logarithmic
    scale, as most are certain.
    """
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes, pixels = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="perfect")
    for bins, style, colour, label in (
        (calibration.bins, "o-", BAR_COLOUR, "as they come"),
        (calibration.bins_after, "s--", VAL_COLOUR, f"temperature {calibration.temperature:.2f}"),
    ):
        held = [each for each in bins if each.pixels]
        if held:
            x, y = [each.probability for each in held], [each.true for each in held]
            axes.plot(x, y, style, color=colour, markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is instrument", title="Reliability of the probabilities")
    middles = [(each.low + each.high) / 2 for each in calibration.bins]
    width = 0.8 / max(len(calibration.bins), 1)
    pixels.bar(middles, [each.pixels for each in calibration.bins], width=width, color=BAR_COLOUR)
    pixels.set(ylabel="pixels", xlabel="predicted probability")
    if calibration.pixels:
        pixels.set(yscale="log", ylim=(1, None))
        pixels.yaxis.set_minor_formatter(NullFormatter())
    for each_axes in (axes, pixels):
        _plain(each_axes)
    _legend(axes, loc="upper left")
    return as_svg(figure, "Share of pixels that is instrument against the probability predicted for them")


def risk_coverage_svg(finding: FailureFinding) -> str:
    """Mean loss, 1 - Dice, of the frames kept when the least trusted are set aside first, as an SVG element."""
    figure = Figure(figsize=(5.2, 2.9), layout="constrained")
    axes = figure.subplots()
    coverage, risk = zip(*finding.risk_coverage, strict=True) if finding.risk_coverage else ((), ())
    axes.plot(coverage, risk, color=BAR_COLOUR, label="least trusted set aside")
    axes.axhline(finding.aurc_random, color=INK, linestyle=":", linewidth=1.4, label="any set aside")
    axes.set(xlim=(0, 1), xlabel="share of frames kept", ylabel="mean of 1 - Dice", title="Risk against coverage")
    axes.set_ylim(bottom=0)
    _plain(axes)
    _legend(axes, loc="lower right")
    return as_svg(figure, "Mean of 1 - Dice of the frames kept against the share of frames kept")


def as_svg(figure: Figure, description: str) -> str:
    """A figure as an SVG element for inlining: transparent, no outside reference, ink in the page's text colour."""
    for axes in figure.axes:
        _ink(axes)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # HTML knows both by itself
    mark = secrets.token_hex(4)  # identifiers of several figures must not meet in one page
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{_escaped(description)}"', svg, count=1)
    return svg.replace(INK, "currentColor")


def _draw_curve(axes: Axes, log_rows: Sequence[Mapping[str, Any]], key: str) -> None:
    epochs = [_number(row.get("epoch")) for row in log_rows]
    marker = "o" if len(log_rows) < 30 else None
    for side, label, colour, style in (("train", "train", TRAIN_COLOUR, "-"), ("val", "validation", VAL_COLOUR, "--")):
        values = [_number(row.get(f"{side}_{key}")) for row in log_rows]
        axes.plot(epochs, values, style, color=colour, label=label, marker=marker, markersize=3)
    axes.set(title=CURVES[key], xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if key != "loss":
        axes.set_ylim(0, 1.02)
    _plain(axes)
    _legend(axes, loc="upper right" if key == "loss" else "lower right")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes, loc: Literal["upper left", "upper right", "lower left", "lower right"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc=loc, fontsize="small")


def _ink(axes: Axes) -> None:
    """Everything that is not data takes the colour that stands for the page's text."""
    axes.tick_params(colors=INK, which="both")
    axes.tick_params(axis="y", length=0)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
    for spine in axes.spines.values():
        spine.set_edgecolor(INK)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend is not None else ():
        text.set_color(INK)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)
