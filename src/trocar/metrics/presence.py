"""Whether a model can tell frames with an instrument from frames without one.

Dice is undefined where the truth is empty, so a model that paints instruments into empty frames loses nothing by it.
Here each frame is one yes or no and one score: what says how sure the model is that anything is there, such as the
highest probability in the frame or, of masks alone, the predicted area. Covers a list of frames; how much is falsely
painted is `FrameScores.false_share`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_HAIR = 1e-9  # of a count: 0.55 of 100 frames are 55, though 0.55 x 100 > 55 in floating point


def auroc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Chance that a frame with an instrument scores above one without, a tie counting half; from 0 to 1, 0.5 is blind.

    The area under the ROC curve (Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747), exact with ties. NaN
    where either kind of frame is missing.

    Shapes: scores (N,), higher = surer of an instrument; positives (N,), True = the truth holds one.
    """
    with_one, without = _by_kind(scores, positives)
    if not len(with_one) or not len(without):
        return math.nan
    below = np.searchsorted(without, with_one, side="left").sum()
    not_above = np.searchsorted(without, with_one, side="right").sum()
    return float(below + not_above) / (2 * len(with_one) * len(without))


def sensitivity_at_specificity(scores: ArrayLike, positives: ArrayLike, specificity: float) -> float:
    """Largest share of frames with an instrument that a threshold finds which passes over this share of the others.

    A frame is called positive where its score is at or above the threshold, so tied frames go together; nothing is
    interpolated. From 0 to 1; NaN where either kind of frame is missing. The threshold is the best one for these very
    frames: it says what the scores could do, not what a threshold chosen elsewhere will do.

    Shapes: scores (N,), higher = surer of an instrument; positives (N,), True = the truth holds one.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"a specificity of {specificity}; it must be from 0 to 1")
    with_one, without = _by_kind(scores, positives)
    if not len(with_one) or not len(without):
        return math.nan
    passed_over = math.ceil(specificity * len(without) - _HAIR)
    if not passed_over:
        return 1.0
    return float(np.count_nonzero(with_one > without[passed_over - 1])) / len(with_one)


def _by_kind(scores: ArrayLike, positives: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of frames with an instrument and of frames without, each rising."""
    values, kinds = np.asarray(scores, np.float64), np.asarray(positives)
    if values.ndim != 1 or values.shape != kinds.shape:
        raise ValueError(f"scores are {values.shape} but positives are {kinds.shape}; give one of each a frame")
    if kinds.size and kinds.dtype != np.bool_:
        raise ValueError(f"positives of {kinds.dtype}; give booleans, True = the truth holds an instrument")
    if np.isnan(values).any():
        raise ValueError("a score is NaN; leave such frames out, and count them")
    return np.sort(values[kinds.astype(bool)]), np.sort(values[~kinds.astype(bool)])
