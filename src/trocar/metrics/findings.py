"""What an evaluation finds besides the scores of single frames, as plain facts.

They are gathered by `evaluation` and shown by `reporting`; nothing here computes more than what follows from its own
fields. Undefined is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trocar.metrics.calibration import ThresholdCurve


@dataclass(frozen=True)
class ConventionFigures:
    """The same predictions by somebody else's convention."""

    name: str
    title: str
    source: str
    definition: str
    empty_rule: str
    figures: Mapping[str, float]
    missing: str = ""  # why it could not be computed; "" where it was


@dataclass(frozen=True)
class Presence:
    """How well frames with an instrument are told from frames without one."""

    score: str  # in words, what of a frame says how sure the model is
    with_instrument: int
    without: int
    auroc: float
    sensitivity: Mapping[float, float]  # by the specificity at which it is taken


@dataclass(frozen=True)
class ThresholdChoice:
    """The threshold used, and how Dice depends on it: on validation, where that is known, and on the side scored."""

    chosen: float
    validation: ThresholdCurve | None
    scored: ThresholdCurve

    @property
    def cost(self) -> float:
        """Mean Dice lost on the frames scored, against the best threshold for these very frames."""
        return self.scored.cost(self.chosen)


@dataclass(frozen=True)
class VideoStability:
    """How steady the masks of one procedure's video are, and for comparison the true ones. NaN: undefined."""

    group: str
    frames: int
    warped_iou: float  # 1 is steady
    flicker_rate: float  # 0 is steady
    true_warped_iou: float = math.nan
    true_flicker_rate: float = math.nan
