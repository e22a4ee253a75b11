"""How well quality and disagreement find bad frames of unseen groups, and whether the promise on Dice holds there.

    python benchmarks/failure_finding.py RUN SOURCE

RUN is a run of several folds. Of each fold the bound is fitted on validation frames and judged on the test group; the
frames of all folds are then pooled. Prints the figures of docs/metrics.md and docs/predict.md.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trocar.config import load_recipe
from trocar.data.records import Record, join_classes
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.inference.predictor import Prediction, Predictor
from trocar.metrics.failure import BAD_DICE, FailureFinding, dice_bound, failure_finding
from trocar.metrics.overlap import instrument_counts

ALPHA = 0.1


@dataclass
class Table:
    """One entry a test frame."""

    dice: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)  # mean probability inside the mask
    flipped_dice: list[float] = field(default_factory=list)
    disagreement: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    promised: list[float] = field(default_factory=list)
    risk_limit: list[float] = field(default_factory=list)


def main(run: Path, data: Path) -> None:
    """Judge every fold, then all frames together."""
    folds = json.loads((run / "folds.json").read_text(encoding="utf-8"))["folds"]
    recipe = load_recipe(run / next(iter(folds.values())) / "recipe.yaml")
    source, split, table = open_source(data, recipe.data), read_split(run / "split.yaml"), Table()
    for name, folder in folds.items():
        fold = split.fold(name)
        add_fold(table, run / folder, source.select(fold.val), source.select(fold.test), name)
    print(f"mean Dice {np.nanmean(table.dice):.3f}, with flips {np.nanmean(table.flipped_dice):.3f}")
    show("quality", failure_finding(table.quality, table.dice, limit=table.limit, promised=table.promised))
    show("quality, risk control", failure_finding(table.quality, table.dice, limit=table.risk_limit))
    show("mean p inside the mask", failure_finding(table.inside, table.dice))
    show("1 - disagreement", failure_finding(1 - np.array(table.disagreement), table.dice))


def add_fold(table: Table, folder: Path, val: list[Record], test: list[Record], name: str) -> None:
    """Fit the bound on validation frames and add the test frames of one fold."""
    predictor, flipped = (Predictor.open(folder, "cpu", flips=flips) for flips in (False, True))
    known = [(found.quality, dice(found, truth)) for found, truth in (look(predictor, one) for one in val)]
    bound, risk_limit = dice_bound(*zip(*known, strict=True), alpha=ALPHA), risk_control(known)
    below = 0
    for record in test:
        found, truth = look(predictor, record)
        twice, _ = look(flipped, record)
        value, promised = dice(found, truth), bound.lower(found.quality)
        inside = found.probabilities[0][found.mask == 1]
        table.dice.append(value)
        table.quality.append(found.quality)
        table.inside.append(float(inside.mean()) if inside.size else math.nan)
        table.flipped_dice.append(dice(twice, truth))
        table.disagreement.append(twice.disagreement)
        table.limit.append(bound.limit)
        table.promised.append(promised)
        table.risk_limit.append(risk_limit)
        below += value < promised
    print(f"{name}: {bound.frames} validation frames, factor {bound.factor:.2f}, limit {bound.limit:.3f}; ", end="")
    print(f"{below} of {len(test)} test frames below their promise")


def look(predictor: Predictor, record: Record) -> tuple[Prediction, np.ndarray]:
    """What is predicted, and the truth."""
    image, mask = record.read()
    return predictor(image), join_classes(mask)


def dice(found: Prediction, truth: np.ndarray) -> float:
    """NaN where the truth is empty."""
    counts = instrument_counts(found.mask, truth)
    return counts.dice if counts.true else math.nan


def risk_control(known: list[tuple[float, float]]) -> float:
    """The least limit with (bad and passed + 1) / (n + 1) <= alpha (Angelopoulos et al. 2022, arXiv:2208.02814)."""
    scored = [(quality, not value >= BAD_DICE) for quality, value in known if not math.isnan(quality)]
    for limit in [0.0, *sorted(math.nextafter(quality, 2) for quality, _ in scored)]:
        if sum(bad and quality >= limit for quality, bad in scored) + 1 <= ALPHA * (len(scored) + 1):
            return limit
    return math.nan


def show(name: str, found: FailureFinding) -> None:
    """Print the figures of one score."""
    print(
        f"{name}: AUROC {found.auroc:.3f}; AURC {found.aurc:.4f} (best {found.aurc_best:.4f}, "
        f"random {found.aurc_random:.4f}); {found.marked} of {found.frames} marked, {found.bad_marked} of "
        f"{found.bad} bad ones; bad and passed {found.bad_passed_share:.1%}; "
        f"below promise {found.below_promise_share:.1%}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
