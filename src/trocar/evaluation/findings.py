"""From what was kept of the frames to what an evaluation finds besides their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trocar.data.records import Record
from trocar.evaluation.parts import Part, Truth
from trocar.evaluation.scoring import Scores
from trocar.metrics.calibration import (
    Calibration,
    ThresholdCurve,
    calibration,
    reliability_of_logits,
    threshold_curve,
)
from trocar.metrics.conventions import CONVENTIONS
from trocar.metrics.failure import DiceBound, FailureFinding, failure_finding
from trocar.metrics.findings import ConventionFigures, Presence, ThresholdChoice, VideoStability
from trocar.metrics.frames import FrameScores, Ruler, mean_of_defined
from trocar.metrics.intervals import Estimates, bootstrap
from trocar.metrics.noise import SHIFTS_PX, noise_ceiling
from trocar.metrics.presence import auroc, sensitivity_at_specificity
from trocar.model_folder import ModelCard
from trocar.plain import evenly

CEILING_FRAMES = 200
SPECIFICITIES = (0.9, 0.95, 0.99)


def by_conventions(scores: Scores) -> tuple[ConventionFigures, ...]:
    """The figures of every convention; of one that does not apply to all frames, why."""
    groups = [row.group for row in scores.rows]
    found = []
    for name, one in CONVENTIONS.items():
        rows = [row for row in scores.conventions[name] if row is not None]
        whole = len(rows) == len(groups)
        figures = one.figures(rows, groups) if whole else {}
        missing = "" if whole else one.needs
        found.append(ConventionFigures(name, one.title, one.source, one.definition, one.empty_rule, figures, missing))
    return tuple(found)


def noise_ceilings(truths: Sequence[tuple[Record, Truth]], ruler: Ruler) -> dict[int, tuple[Estimates, Estimates]]:
    """By shift in pixels: Dice and NSD of the truth against itself, over frames taken evenly."""
    chosen = evenly(truths, CEILING_FRAMES)
    ceilings = [
        noise_ceiling(truth.read(record)[1], tolerance=ruler.tolerance, spacing=ruler.spacing_mm, edge=ruler.edge)
        for record, truth in chosen
    ]
    groups = [record.group for record, _ in chosen]
    return {
        px: (bootstrap([one[px][0] for one in ceilings], groups), bootstrap([one[px][1] for one in ceilings], groups))
        for px in SHIFTS_PX
    }


def presence(rows: Sequence[FrameScores], *, of_masks: bool) -> Presence | None:
    """How well frames with an instrument are told from others; None where there are no others."""
    positives = np.array([not row.empty_truth for row in rows])
    if positives.all() or not positives.any():
        return None
    sureness = [row.presence for row in rows]
    return Presence(
        score="the share of the frame that is predicted" if of_masks else "the largest probability in the frame",
        with_instrument=int(positives.sum()),
        without=int((~positives).sum()),
        auroc=auroc(sureness, positives),
        sensitivity={share: sensitivity_at_specificity(sureness, positives, share) for share in SPECIFICITIES},
    )


def threshold_choices(scores: Scores, parts: Sequence[Part]) -> dict[str, ThresholdChoice]:
    """By fold: the threshold used, the curve it was chosen on, and that of the frames scored."""
    chosen = {row.fold: row.threshold for row in scores.rows if row.threshold is not None}
    cards = {part.fold: part.card for part in parts}
    return {
        fold or "": ThresholdChoice(chosen[fold], _validation_curve(cards[fold]), threshold_curve(sweeps))
        for fold, sweeps in scores.sweeps.items()
        if fold in chosen
    }


def _validation_curve(card: ModelCard | None) -> ThresholdCurve | None:
    if card is None or card.threshold_curve is None:
        return None
    curve = card.threshold_curve
    return ThresholdCurve(curve.thresholds, curve.dice, curve.frames)


def reliability(scores: Scores, parts: Sequence[Part]) -> Calibration | None:
    """Reliability over all models, each scaled by its own temperature; None without models of two classes."""
    if not scores.logits:
        return None
    temperatures = {part.fold: _temperature(part.card) for part in parts}
    table = sum((reliability_of_logits(logits) for logits in scores.logits.values()), start=np.zeros(()))
    if any(math.isnan(temperatures[fold]) for fold in scores.logits):
        return calibration(table)
    after = [reliability_of_logits(logits, temperatures[fold]) for fold, logits in scores.logits.items()]
    used = [temperatures[fold] for fold in scores.logits]
    return calibration(table, sum(after, start=np.zeros(())), sum(used) / len(used))


def _temperature(card: ModelCard | None) -> float:
    scaling = card.calibration if card is not None else None
    return math.nan if scaling is None or scaling.temperature is None else scaling.temperature


def failure(scores: Scores, parts: Sequence[Part]) -> FailureFinding | None:
    """How well quality finds bad frames, each model with its own limit; None where no frame has a quality."""
    if all(math.isnan(row.quality) for row in scores.rows):
        return None
    bounds = {part.fold: _bound(part.card) for part in parts}
    return failure_finding(
        [row.quality for row in scores.rows],
        [row.dice for row in scores.rows],
        limit=[bounds[row.fold].limit for row in scores.rows],
        promised=[bounds[row.fold].lower(row.quality) for row in scores.rows],
    )


def failure_by_disagreement(scores: Scores) -> FailureFinding | None:
    """How well agreement of the masks of image and mirror image finds bad frames; None where no frame has it."""
    agreement = [1 - row.disagreement for row in scores.rows]
    if all(map(math.isnan, agreement)):
        return None
    return failure_finding(agreement, [row.dice for row in scores.rows])


def _bound(card: ModelCard | None) -> DiceBound:
    kept = card.quality if card is not None else None
    if kept is None or kept.factor is None:
        return DiceBound(math.nan, math.nan, 0)
    return DiceBound(kept.factor, kept.alpha, kept.frames, kept.bad_dice)


def video_stability(rows: Sequence[FrameScores]) -> tuple[VideoStability, ...]:
    """The mean over each video of what changed from frame to frame; groups of stills are left out."""
    groups: dict[str, list[FrameScores]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return tuple(
        VideoStability(
            group,
            len(own),
            *(
                mean_of_defined([getattr(row, key) for row in own])
                for key in ("warped_iou", "flicker_rate", "true_warped_iou", "true_flicker_rate")
            ),
        )
        for group, own in groups.items()
        if any(not math.isnan(row.true_warped_iou) or not math.isnan(row.warped_iou) for row in own)
    )
