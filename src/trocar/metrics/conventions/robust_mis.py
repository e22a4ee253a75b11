"""ROBUST-MIS 2019: how well instruments are segmented all together, one by one, and in the worst frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trocar.metrics.boundary import boundary_distances
from trocar.metrics.conventions.base import Convention, Frame, Row, means
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.instances import InstanceArray, consecutive

TOLERANCE = 13  # px
WORST = 5  # percent of the frames
BACKGROUND = 0


def _per_frame(frame: Frame) -> Row:
    counts = frame.joint.instrument
    row = {"dice": counts.dice if counts.true else math.nan, "nsd": frame.distances.surface_dice(TOLERANCE)}
    if frame.pred_instances is None or frame.truth_instances is None:
        return row
    mi_dice, mi_nsd = _one_by_one(frame, frame.pred_instances, frame.truth_instances)
    return {**row, "mi_dice": mi_dice, "mi_nsd": mi_nsd}


def _one_by_one(frame: Frame, pred: InstanceArray, truth: InstanceArray) -> tuple[float, float]:
    """Mean Dice and NSD over matched instruments, each unmatched one, missed or false, counting 0.

    The background takes part in the matching and its own score is left out, as in the challenge's code. NaN where
    there is no instrument at all.
    """
    known = ~frame.ignored
    table, true_labels, pred_labels = _dices(pred[known], truth[known])
    rows, columns = linear_sum_assignment(table, maximize=True)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))[1:]
    unmatched = [0.0] * (max(table.shape) - len(rows))
    nsds = [
        boundary_distances(pred == pred_labels[j], truth == true_labels[i], frame.ignored).surface_dice(TOLERANCE)
        for i, j in pairs
    ]
    return mean_of_defined([float(table[i, j]) for i, j in pairs] + unmatched), mean_of_defined(nsds + unmatched)


def _dices(
    pred: InstanceArray, truth: InstanceArray
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Dice of every true with every predicted label, the background first, and the labels. Shapes: pred, truth (P,)."""
    (t, true_labels), (p, pred_labels) = consecutive(truth), consecutive(pred)
    shape = (len(true_labels), len(pred_labels))
    both = np.bincount(t * shape[1] + p, minlength=math.prod(shape)).reshape(shape)
    total = both.sum(axis=1)[:, None] + both.sum(axis=0)
    return 2 * both / np.maximum(total, 1), true_labels, pred_labels


def _figures(rows: Sequence[Row], _groups: Sequence[str] | None = None, /) -> dict[str, float]:
    averages = means(rows)
    return averages | {f"{key}_p{WORST}": _worst([row.get(key, math.nan) for row in rows]) for key in averages}


def _worst(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.percentile(defined, WORST)) if defined else math.nan


ROBUST_MIS = Convention(
    name="robust-mis",
    title="ROBUST-MIS 2019",
    source=(
        "Ross et al. 2021, doi:10.1016/j.media.2020.101920 (arXiv:2003.10299). The challenge's own code was not found; "
        "followed is what looks like a participant's copy of it, evaluation/dice_calculations.py of "
        "EmmaSRH/Contour-aware_Amodal_Segmentation. Not in it, and assumed: the tolerance, which was derived from how "
        "far annotators differ, and that instances are matched by Dice for NSD as well"
    ),
    definition=(
        f"Dice and NSD at {TOLERANCE} px of each frame by itself at native size, any instrument against background; "
        "and of instruments one by one, matched for the highest summed Dice (Hungarian method), missed and false ones "
        f"counting 0, mean over those of the frame. Mean over frames, and for robustness the {WORST}th percentile."
    ),
    empty_rule=(
        "a frame without true instrument has no Dice, whatever was predicted (so the code; its tests expect 0 for a "
        "false find); NSD and the multi-instance figures count 0 for a false find and leave out what is empty in both"
    ),
    per_frame=_per_frame,
    figures=_figures,
    needs="its multi-instance figures need instance masks of truth and prediction",
)
