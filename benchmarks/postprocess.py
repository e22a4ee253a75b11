"""What clean-up does to masks: Dice, NSD and false alarms on the validation side, for many areas at once.

    python benchmarks/postprocess.py RUN [SOURCE] [--side val] [--areas 0.01% 0.1% 1%]

RUN is a run, or a run of several folds, SOURCE its data where that is not where it was. Each frame is predicted once;
then pieces below each area are dropped, holes up to it filled, and both. Choose on the validation side; what was chosen
is judged by `trocar evaluate` on the test side.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trocar.config import load_recipe
from trocar.data.joining import open_data
from trocar.data.records import IGNORE, MaskArray, join_classes
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.inference.postprocess import Cleanup, clean
from trocar.inference.predictor import Predictor
from trocar.metrics.boundary import boundary_distances
from trocar.metrics.frames import NSD_TOLERANCE_PX, mean_of_defined
from trocar.metrics.overlap import instrument_counts
from trocar.model_folder import fold_folders

AREAS = ("0.01%", "0.03%", "0.1%", "0.3%", "1%")


def main() -> None:
    """Predict, clean, score, and print a line for each way to clean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--side", choices=("train", "val", "test"), default="val")
    parser.add_argument("--areas", nargs="+", default=AREAS)
    options = parser.parse_args()
    ways = {"nothing": ((), ())}
    ways |= {f"pieces under {area}": ((area,), ()) for area in options.areas}
    ways |= {f"holes up to {area}": ((), (area,)) for area in options.areas}
    ways |= {f"both, {area}": ((area,), (area,)) for area in options.areas}
    scores: dict[str, list[tuple[float, float, bool]]] = {way: [] for way in ways}
    for classes, mask, truth in predicted(options.run, options.source, options.side):
        for way, (least, most) in ways.items():
            scores[way].append(scored(clean(mask, Cleanup.parse(classes, least, most)), truth))
    before = [dice for dice, _, _ in scores["nothing"]]
    print(f"{len(before)} frames, side {options.side}")
    print("| cleaned | Dice | NSD at 2 px | frames better, worse | empty frames with a find |\n|---|---|---|---|---|")
    for way, rows in scores.items():
        change = np.array([dice for dice, _, _ in rows]) - before
        dice, nsd = (mean_of_defined([row[place] for row in rows]) for place in (0, 1))
        counted = f"{np.count_nonzero(change > 1e-9)}, {np.count_nonzero(change < -1e-9)}"
        print(f"| {way} | {dice:.4f} | {nsd:.4f} | {counted} | {sum(row[2] for row in rows)} |")


def predicted(run: Path, source: Path | None, side: str) -> Iterator[tuple[tuple[str, ...], MaskArray, MaskArray]]:
    """Class names, mask and truth of each frame, each fold by its own model."""
    folders = fold_folders(run) or {None: run}
    recipe = load_recipe(next(iter(folders.values())) / "recipe.yaml")
    opened = open_data(recipe.data) if source is None else open_source(source, recipe.data)
    split = read_split(run / "split.yaml")
    for name, folder in folders.items():
        predictor = Predictor.open(folder, "cpu")
        for record in opened.select(split.fold(name or predictor.card.provenance.fold).side(side)):
            image, mask = record.read()
            truth = join_classes(mask) if predictor.card.binary else mask
            yield predictor.classes, predictor(image).mask, truth


def scored(mask: MaskArray, truth: MaskArray) -> tuple[float, float, bool]:
    """Dice and NSD of any instrument, NaN where the truth has none; and whether something is found there then."""
    counts = instrument_counts(mask, truth)
    if not counts.true:
        return math.nan, math.nan, counts.predicted > 0
    ignore = truth == IGNORE
    distances = boundary_distances(mask > 0, (truth > 0) & ~ignore, ignore)
    return counts.dice, distances.surface_dice(NSD_TOLERANCE_PX), False


if __name__ == "__main__":
    main()
