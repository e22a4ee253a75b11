"""The notebook's figures, for any data and model: frames before and after preprocessing, and panels of predictions.

Each says which records it shows: those of the side of the split that was asked for, or all. They show frames of
patients.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trocar.config import PreprocessSettings, Recipe
from trocar.data.files import atomic_write_bytes
from trocar.data.preprocess import prepare_image, prepare_mask
from trocar.data.records import IGNORE, MaskArray, Record, Side, Source, join_classes
from trocar.data.splits import read_split
from trocar.errors import UserError, UserErrors
from trocar.metrics.overlap import instrument_counts
from trocar.model_folder import read_card, resolve_model
from trocar.plain import evenly


def draw_figures(
    source: Source,
    recipe: Recipe,
    out: Path,
    *,
    model: Path | None = None,
    split: Path | None = None,
    side: Side = "test",
    thresholds: Sequence[float] = (0.3, 0.99),
    frames: int = 4,
    device: str = "auto",
) -> list[Path]:
    """Write `preprocessing.png` and, with a model, `panels.png` into `out`; returns their paths.

    Preprocessing is the model's own, or the recipe's. Frames are taken evenly over the records of the split's side.
    Raises `UserError` / `UserErrors` for faulty data, a split of other data, and a model of several classes.
    """
    if source.findings:
        raise UserErrors(source.findings)
    records, shown = _records(source, split, side, model)
    chosen = evenly(records, frames)
    preprocess = recipe.preprocess if model is None else read_card(resolve_model(model)).preprocess
    made = [plot_preprocessing(chosen, preprocess, out / "preprocessing.png", title=shown)]
    if model is not None:
        made.append(plot_panels(chosen, model, thresholds, out / "panels.png", title=shown, device=device))
    return made


def plot_preprocessing(records: Sequence[Record], settings: PreprocessSettings, out: Path, *, title: str) -> Path:
    """A row a record: image and mask as labelled, then as a network in training sees them, and instrument shares."""
    figure, table = _table(len(records), 4, title)
    for axes, record in zip(table, records, strict=True):
        image, mask = record.read()
        mask = join_classes(mask)
        prepared = prepare_mask(mask, settings, training=True)
        _show(axes[0], image, f"{record.name}\nimage")
        _show(axes[1], _visible(mask), f"mask\n{foreground_share(mask):.2%} instrument")
        _show(axes[2], prepare_image(image, settings)[0], "image, prepared")
        _show(axes[3], _visible(prepared), f"mask, prepared for training\n{foreground_share(prepared):.2%} instrument")
    return _write(figure, out)


def plot_panels(
    records: Sequence[Record], model: Path, thresholds: Sequence[float], out: Path, *, title: str, device: str
) -> Path:
    """A row a record: image, mask as labelled, and the prediction at each threshold with its Dice at native size.

    Raises `UserError` where the model knows several classes: those have no threshold.
    """
    from trocar.inference.predictor import Predictor  # imports torch

    predictor = Predictor.open(model, device)
    if not predictor.card.binary:
        raise UserError("panels at thresholds need a model of two classes", where=str(model))
    figure, table = _table(len(records), 2 + len(thresholds), title)
    for axes, record in zip(table, records, strict=True):
        image, mask = record.read()
        mask = join_classes(mask)
        probability = predictor(image).probabilities[0]
        _show(axes[0], image, f"{record.name}\nimage")
        _show(axes[1], _visible(mask), "mask")
        for place, threshold in zip(axes[2:], thresholds, strict=True):
            pred = (probability >= threshold).astype(np.uint8)
            counts = instrument_counts(pred, mask)
            found = f"Dice {counts.dice:.3f}" if counts.true else f"{counts.predicted} pixels found, none is true"
            _show(place, _visible(pred), f"prediction at {threshold:g}\n{found}")
    return _write(figure, out)


def foreground_share(mask: NDArray[np.uint8] | NDArray[np.float32]) -> float:
    """Share of instrument among the pixels that count, from 0 to 1; NaN where none does.

    Shapes: (H, W), class indices or shares, 255 ignore.
    """
    counted = mask[mask != IGNORE]
    return float(np.mean(np.minimum(counted, 1), dtype=np.float64)) if counted.size else float("nan")


def _records(source: Source, split: Path | None, side: Side, model: Path | None) -> tuple[list[Record], str]:
    """The records to choose from, and what they are, in words."""
    if split is None:
        return list(source.records), f"{source.dataset}, all {len(source)} records"
    division = read_split(split)
    division.check_against(source)
    own = None if model is None else read_card(resolve_model(model)).provenance.fold
    records = source.select(division.fold(own if own in division.folds else None).side(side))
    if not records:
        raise UserError(f"the split has no {side} records", where=str(split), mend="choose another --side")
    leak = f"\n{division.shared_records}" if division.shared_records and side != "test" else ""
    return records, f"{source.dataset}, {len(records)} records of side {side}{leak}"


def _table(rows: int, columns: int, title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(2.9 * columns, 2.7 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axes: Any, picture: NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize="small")
    axes.axis("off")


def _visible(mask: MaskArray | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Instrument white, shares in between, ignored pixels dark grey."""
    shown = np.rint(np.minimum(mask, 1) * 255.0)
    return np.where(mask == IGNORE, 64, shown).astype(np.uint8)


def _write(figure: Figure, out: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    atomic_write_bytes(out, buffer.getvalue())
    return out
