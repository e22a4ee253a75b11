"""Conventions that score each frame by itself from the overlap of two thresholded masks at native size, then average.

They differ in what a frame without instrument counts: nothing, 1, or the share of background rightly left alone.
"""

from __future__ import annotations

from trocar.metrics.conventions.base import Convention, Frame, Row, means
from trocar.metrics.frames import EMPTY_RULE, mean_of_defined
from trocar.metrics.overlap import Counts


def _per_image(frame: Frame) -> Row:
    counts = frame.joint.instrument
    if not counts.true:
        counts = Counts(0, 0, 0)
    return {"dice": counts.dice, "jaccard": counts.jaccard, "precision": counts.precision, "recall": counts.recall}


PER_IMAGE = Convention(
    name="per-image",
    title="Per image",
    source="trocar",
    definition="Each frame by itself at its native size, any instrument against background; mean over frames.",
    empty_rule=EMPTY_RULE,
    per_frame=_per_image,
    figures=means,
)


def _endovis2015(frame: Frame) -> Row:
    counts = frame.joint.instrument
    return {"dice": counts.dice, "precision": counts.precision, "recall": counts.recall}


ENDOVIS2015 = Convention(
    name="endovis2015",
    title="EndoVis 2015, instrument segmentation and tracking",
    source="Bodenstedt et al. 2018, arXiv:1805.02475; the challenge's code was not found",
    definition="Dice, precision and recall of each frame by itself, any instrument against background; mean over them.",
    empty_rule=(
        "not found; assumed: a ratio of nothing to nothing is left out, so a frame without instrument in which some is "
        "found counts Dice and precision 0 and has no recall"
    ),
    per_frame=_endovis2015,
    figures=means,
)


def _medai2021(frame: Frame) -> Row:
    counts = frame.joint.instrument
    if not counts.true:
        counts = Counts(counts.rejected, counts.missed, counts.false, counts.ignored, counts.found)
    nothing_predicted = counts.true and not counts.predicted
    return {
        "jaccard": counts.jaccard,
        "dice": counts.dice,
        "precision": 0.0 if nothing_predicted else counts.precision,
        "recall": counts.recall,
        "accuracy": counts.accuracy,
    }


MEDAI2021 = Convention(
    name="medai2021",
    title="MedAI 2021",
    source=(
        "Hicks et al. 2021, Nordic Machine Intelligence 1(1); evaluation/segmentation_evaluation.py of "
        "Nordic-Machine-Intelligence/MedAI-Transparency-in-Medical-Image-Segmentation"
    ),
    definition=(
        "Jaccard (by which teams were ranked), Dice, precision, recall and accuracy of each frame by itself at native "
        "size; mean over frames."
    ),
    empty_rule=(
        "where the truth is empty both masks are inverted: the frame scores how much of the background was left alone, "
        "so 1 where nothing is found, and nearly 1 where little is; precision is 0 where nothing is predicted"
    ),
    per_frame=_medai2021,
    figures=means,
)


def _ternaus(frame: Frame) -> Row:
    counts = frame.joint.instrument
    both_empty = not counts.true and not counts.predicted and counts.rejected
    row = {"jaccard": 1.0 if both_empty else counts.jaccard, "dice": 1.0 if both_empty else counts.dice}
    if not frame.several_classes:
        return row
    present = [one for one in frame.class_counts() if one.true]
    row["mean_class_jaccard"] = mean_of_defined([one.jaccard for one in present]) if present else row["jaccard"]
    row["mean_class_dice"] = mean_of_defined([one.dice for one in present]) if present else row["dice"]
    return row


TERNAUS = Convention(
    name="ternaus",
    title="EndoVis 2017, code of Shvets et al.",
    source="Shvets et al. 2018, arXiv:1803.01207; evaluate.py of ternaus/robot-surgery-segmentation",
    definition=(
        "Jaccard and Dice of each frame by itself at native size, any instrument against background; with several "
        "classes also the mean over those that the frame's truth holds, so that to find a class that is not there "
        "costs nothing by itself. Mean over frames."
    ),
    empty_rule="empty truth and empty prediction count 1; empty truth and any prediction count 0",
    per_frame=_ternaus,
    figures=means,
)
