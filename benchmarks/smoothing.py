"""What temporal smoothing does to Dice and to flicker, on the robotic clips of EndoVis 2015.

    python benchmarks/smoothing.py --data ENDOVIS15/robotic --model Dataset1=RUN1 --model Dataset2=RUN2 ...

Each clip is predicted with a model that has not seen it (a run of leave-one-group-out; a lone `--model RUN` is taken
for all clips), frame after frame, and every way of smoothing is applied to the same probabilities. For each: mean Dice
per frame at native size, flicker rate and flow-warped IoU (`trocar.metrics.stability`), as means over clips with the
lowest and highest clip, and the milliseconds that it adds to a frame. The true masks' own steadiness stands in the last
line. To choose a way to smooth, give models of other folds, so that the clips are validation data to them: what is
chosen on the clips that it is reported on is flattered.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trocar.config import DataSettings
from trocar.data.records import IGNORE, ImageArray, MaskArray, Record, join_classes
from trocar.data.sources import open_source
from trocar.inference.predictor import Prediction, Predictor
from trocar.inference.smoothing import Smoother, SmoothKind, SmoothSettings
from trocar.metrics.overlap import dice
from trocar.metrics.stability import Stability

WEIGHTS = (0.3, 0.5, 0.7)
HALF_GAP = 0.1  # of the hysteresis around the model's threshold


def main() -> None:
    """Predict the clips and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips: robotic/ of EndoVis 2015")
    parser.add_argument("--model", action="append", required=True, help="GROUP=RUN, repeatable; or one RUN for all")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--frames", type=int, default=0, help="of each clip; 0: all")
    parser.add_argument("--json", type=Path, help="write the figures of every clip there too")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clips = clips_of(options.data)
    models = models_of(options.model, list(clips))
    results: dict[str, dict[str, Figures]] = {}
    for group, run in models.items():
        records = clips[group][: options.frames or None]
        print(f"{group}: {len(records)} frames, {run}", flush=True)
        results[group] = measure(Predictor.open(run, "cpu", engine=options.engine), records)
    print_table(results)
    if options.json:
        tree = {group: {name: one.as_dict() for name, one in rows.items()} for group, rows in results.items()}
        options.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def clips_of(data: Path) -> dict[str, list[Record]]:
    """Records of each clip in order; a clip is known by the last part of its group."""
    clips: dict[str, list[Record]] = {}
    for record in open_source(data, DataSettings()).records:
        if record.frame is not None:
            clips.setdefault(record.group.rsplit("/")[-1], []).append(record)
    return {group: sorted(records, key=lambda record: record.frame or 0) for group, records in clips.items()}


def models_of(given: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    """Which run predicts which clip."""
    if len(given) == 1 and "=" not in given[0]:
        return dict.fromkeys(groups, given[0])
    pairs = dict(text.split("=", 1) for text in given)
    if unknown := set(pairs) - set(groups):
        raise SystemExit(f"no such clip: {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    return pairs


# ------------------------------------------------------------------ measuring


@dataclass
class Figures:
    """Of one clip, smoothed in one way."""

    smoother: Smoother | None
    stability: Stability = field(default_factory=Stability)
    dices: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, image: ImageArray, mask: MaskArray, true: MaskArray, took_ms: float = math.nan) -> None:
        """Take a frame. Shapes: (H, W, 3), (H, W), (H, W)."""
        known = true != IGNORE
        self.dices.append(dice((mask == 1) & known, (true == 1) & known))
        self.stability.add(image, mask)
        self.milliseconds.append(took_ms)

    def as_dict(self) -> dict[str, Any]:
        """The clip's figures; NaN, which JSON lacks, becomes null."""
        figures = {
            "dice": float(np.nanmean(self.dices)),
            "flicker_rate": self.stability.flicker_rate,
            "warped_iou": self.stability.warped_iou,
            "added_ms": float(np.median(self.milliseconds)),
            "cuts": self.smoother.cuts if self.smoother else 0,
            "frames": len(self.dices),
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()
        }


def ways(threshold: float) -> dict[str, SmoothSettings]:
    """The ways to smooth that are compared."""
    limits = (max(0.01, round(threshold - HALF_GAP, 3)), min(1.0, round(threshold + HALF_GAP, 3)))
    kinds: tuple[SmoothKind, ...] = ("exponential", "flow")
    found = {"none": SmoothSettings()}
    found |= {f"{kind}, {weight:g}": SmoothSettings(kind, weight) for kind in kinds for weight in WEIGHTS}
    found["hysteresis"] = SmoothSettings("none", 0.0, limits)
    found |= {f"{kind}, 0.5, hysteresis": SmoothSettings(kind, 0.5, limits) for kind in kinds}
    return found


def measure(predictor: Predictor, records: Sequence[Record]) -> dict[str, Figures]:
    """Every way on one clip, and the true masks."""
    assert predictor.threshold is not None, "models of several classes are not measured here"
    rows = {name: Figures(Smoother(settings)) for name, settings in ways(predictor.threshold).items()}
    rows["the true masks"] = Figures(None)
    for record in records:
        image, mask = record.read()
        true = join_classes(mask)
        found = predictor(image)
        for figures in rows.values():
            if figures.smoother is None:
                figures.add(image, np.where(true == IGNORE, np.uint8(0), true), true)
            else:
                add_smoothed(figures, figures.smoother, predictor, image, found, true)
    return rows


def add_smoothed(
    figures: Figures, smoother: Smoother, predictor: Predictor, image: ImageArray, found: Prediction, true: MaskArray
) -> None:
    """One frame in one way. Clips have 25 frames a second and no pauses, so times are not given."""
    begun = time.perf_counter()
    made = smoother.prediction(predictor, image, found)
    figures.add(image, made.mask, true, 1000 * (time.perf_counter() - begun))


# ------------------------------------------------------------------ table


def print_table(results: dict[str, dict[str, Figures]]) -> None:
    """Means over clips, as Markdown; in brackets the lowest and the highest clip."""
    print(f"\n{len(results)} clips: {', '.join(results)}\n")
    print("| smoothing | Dice | flicker rate, % | flow-warped IoU | adds, ms |\n|---|---|---|---|---|")
    for name in next(iter(results.values())):
        rows = [figures[name].as_dict() for figures in results.values()]
        cells = [
            spread([row["dice"] for row in rows], "{:.4f}"),
            spread([None if row["flicker_rate"] is None else 100 * row["flicker_rate"] for row in rows], "{:.3f}"),
            spread([row["warped_iou"] for row in rows], "{:.4f}"),
            spread([row["added_ms"] for row in rows], "{:.1f}"),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def spread(values: Sequence[float | None], form: str) -> str:
    """Mean (lowest to highest); a dash where one is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    mean, low, high = (form.format(value) for value in (float(np.mean(known)), min(known), max(known)))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main()
