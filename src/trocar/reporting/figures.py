"""Figures of a training and of an evaluation, drawn with matplotlib's object interface.

No pyplot: nothing is switched globally, and figures can be drawn beside a user's own. Each function draws one figure
and writes it to a path or a buffer.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trocar.data.files import atomic_write_bytes

# Two colours of Okabe and Ito (2008), told apart by people with any colour vision and in grey print.
TRAIN_COLOUR, VAL_COLOUR = "#0072B2", "#D55E00"

_CURVES = (("loss", "Loss"), ("dice", "Dice"), ("jaccard", "Jaccard"))


def plot_curves(log_rows: Sequence[Mapping[str, Any]], out: Path | IO[bytes]) -> None:
    """Draw loss, Dice and Jaccard of train and validation against the epoch, one panel each, as PNG or SVG.

    Rows are those of a run's log.csv, as numbers or as text: `epoch`, then `train_` and `val_` with `loss`, `dice`
    and `jaccard`. A missing or undefined value leaves a gap. A path ending in .svg gives SVG, else PNG.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    epochs = [_number(row.get("epoch")) for row in log_rows]
    for axes, (key, title) in zip(panels, _CURVES, strict=True):
        for side, label, colour in (("train", "train", TRAIN_COLOUR), ("val", "validation", VAL_COLOUR)):
            values = [_number(row.get(f"{side}_{key}")) for row in log_rows]
            marker = "o" if len(values) < 30 else None
            style = "-" if side == "train" else "--"
            axes.plot(epochs, values, style, color=colour, label=label, marker=marker, markersize=3)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
        if key != "loss":
            axes.set_ylim(0, 1.02)
    panels[0].legend(frameon=False)
    save(figure, out)


def save(figure: Figure, out: Path | IO[bytes]) -> None:
    """Write a figure to a buffer (PNG), or to a path by its ending (.svg, else PNG), whole or not at all."""
    if not isinstance(out, Path):
        FigureCanvasAgg(figure)
        figure.savefig(out, format="png", dpi=130)
        return
    buffer = io.BytesIO()
    kind = "svg" if out.suffix == ".svg" else "png"
    figure.savefig(buffer, format=kind, dpi=130)
    atomic_write_bytes(out, buffer.getvalue())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _number(value: Any) -> float:
    if value is None or value == "":
        return math.nan
    return float(value)
