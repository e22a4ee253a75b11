"""Conventions that score what the network put out at its own size, against a truth that was resized with the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trocar.metrics.conventions.base import Convention, Frame, Row, means
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.notebook import DICE_SMOOTH, JACCARD_SMOOTH
from trocar.metrics.overlap import Counts, counts

NEEDS = "a model of one instrument class: masks made elsewhere have no probabilities at network size"
BATCH = 8


def _notebook(frame: Frame) -> Row | None:
    if frame.network is None:
        return None
    probability, target = frame.network
    known = ~np.isnan(target)
    p, t = probability[known].astype(np.float64), target[known].astype(np.float64)
    return {"both": float(t @ p), "target": float(t.sum()), "probability": float(p.sum())}


def _notebook_figures(rows: Sequence[Row], _groups: Sequence[str] | None = None, /) -> dict[str, float]:
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    dices, jaccards = [], []
    for batch in batches:
        both = sum(row["both"] for row in batch)
        total = sum(row["target"] + row["probability"] for row in batch)
        dices.append((2 * both + float(DICE_SMOOTH)) / (total + float(DICE_SMOOTH)))
        jaccards.append(both / (total - both + float(JACCARD_SMOOTH)))
    return {"soft_dice": mean_of_defined(dices), "soft_jaccard": mean_of_defined(jaccards)}


NOTEBOOK = Convention(
    name="notebook",
    title="The notebook's soft scores of batches",
    source="the Kaggle notebook trocar descends from; trocar.metrics.notebook",
    definition=(
        f"Probabilities unthresholded, at network size; all pixels of {BATCH} frames, in order, make one Dice "
        "(2 sum(t p) + 1) / (sum t + sum p + 1) and one Jaccard sum(t p) / (sum t + sum p - sum(t p) + 1e-6); "
        "unweighted mean over batches, the last of which may be short."
    ),
    empty_rule="an empty frame adds its false probability to its batch; a batch of nothing counts Dice 1, Jaccard 0",
    per_frame=_notebook,
    figures=_notebook_figures,
    needs=NEEDS,
)


def _kvasir(frame: Frame) -> Row | None:
    if frame.network is None:
        return None
    probability, target = frame.network
    one = counts(probability > 0.5, target > 0.5, np.isnan(target))
    if math.isnan(one.accuracy):
        return dict.fromkeys(("jaccard", "dice", "recall", "precision", "accuracy", "f2"), math.nan)
    return {
        "jaccard": _or(one.jaccard, 0),
        "dice": _or(one.dice, 0),
        "recall": _or(one.recall, 0),
        "precision": _or(one.precision, 1),
        "accuracy": one.accuracy,
        "f2": _f2(one),
    }


def _or(value: float, where_undefined: float) -> float:
    return float(where_undefined) if math.isnan(value) else value


def _f2(one: Counts) -> float:
    """The F-score that weighs recall four times as much as precision; 1 where both masks are empty."""
    total = 5 * one.found + 4 * one.missed + one.false
    return 5 * one.found / total if total else 1.0


KVASIR = Convention(
    name="kvasir",
    title="Kvasir-Instrument",
    source=(
        "Jha et al. 2021, arXiv:2011.08065, whose repository holds no code; followed: test.py of DebeshJha/NanoNet, by "
        "the same group (Jha et al. 2021, arXiv:2104.11138), which does as its ColonSegNet does"
    ),
    definition=(
        "Jaccard, Dice (F1), recall, precision, accuracy and F2 of each frame by itself at network size, probability > "
        "0.5 against resized truth > 0.5; mean over frames."
    ),
    empty_rule=(
        "as scikit-learn is asked to: Jaccard and Dice 0 where both are empty (F2: 1), recall 0 where the truth is "
        "empty, precision 1 where nothing is predicted"
    ),
    per_frame=_kvasir,
    figures=means,
    needs=NEEDS,
)
