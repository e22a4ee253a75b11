"""Conventions that score class by class: of one frame, of a video, or of all frames as if they were one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.metrics.boundary import nearest_pixel
from trocar.metrics.conventions.base import Convention, Frame, Row, means
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.overlap import BoolArray

CLASS_IOU = "iou "  # with the name of a class: a row's key, and with several classes a figure's
SAR_RARP50_TOLERANCE = 10  # px
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def _isinet(frame: Frame) -> Row:
    per_class = frame.class_counts()
    return {
        "challenge_iou": mean_of_defined([one.jaccard for one in per_class if one.true]),
        "isi_iou": mean_of_defined([one.jaccard for one in per_class]),
        **{CLASS_IOU + name: one.jaccard for name, one in zip(frame.classes[1:], per_class, strict=True)},
    }


def _isinet_figures(rows: Sequence[Row], _groups: Sequence[str] | None = None, /) -> dict[str, float]:
    over_frames = means(rows)
    classes = {key: value for key, value in over_frames.items() if key.startswith(CLASS_IOU)}
    return {
        "challenge_iou": over_frames.get("challenge_iou", math.nan),
        "isi_iou": over_frames.get("isi_iou", math.nan),
        "mean_class_iou": mean_of_defined(list(classes.values())),
        **(classes if len(classes) > 1 else {}),
    }


ISINET = Convention(
    name="isinet",
    title="EndoVis 2017 and 2018 as ISINet scores them",
    source=("Gonzalez et al. 2020, arXiv:2007.05533; temp_consistency_module/main.py of BCV-Uniandes/ISINet"),
    definition=(
        "IoU of each class in each frame at native size. Challenge IoU: mean over the classes in the frame's truth, "
        "then over frames. ISI IoU: mean over the classes in its truth or prediction, then over frames. Mean class "
        "IoU: mean over the frames that have a class in either, then over classes."
    ),
    empty_rule=(
        "a frame empty in both is left out; a false find in an empty frame counts 0 for ISI and class IoU, and is left "
        "out of challenge IoU; a missed instrument counts 0 everywhere"
    ),
    per_frame=_isinet,
    figures=_isinet_figures,
)


def _sar_rarp50(frame: Frame) -> Row:
    if frame.missing:
        return {"mean_iou": 0.0, "mean_nsd": 0.0}
    ignored = frame.ignored
    if ignored.all():
        return {"mean_iou": math.nan, "mean_nsd": math.nan}
    ious, nsds = [], []
    for index, one in enumerate(frame.class_counts(), start=1):
        in_neither = not one.true and not one.predicted
        ious.append(1.0 if in_neither else one.jaccard)
        pred, truth = (frame.pred == index) & ~ignored, frame.truth == index
        nsds.append(1.0 if in_neither else rim_surface_dice(pred, truth, ignored, SAR_RARP50_TOLERANCE))
    return {"mean_iou": mean_of_defined(ious), "mean_nsd": mean_of_defined(nsds)}


def rim_surface_dice(pred: BoolArray, target: BoolArray, ignore: BoolArray, tolerance: float) -> float:
    """Share of the rim pixels of two masks no further than this from the other's rim, 0 to 1: MONAI's surface Dice.

    A rim is the pixels of a mask with one of four neighbours outside it, or outside the image; pixels count one each,
    whatever length of contour they stand for. Rim that only what is ignored makes does not count, but can be near.
    0 where one mask is empty; NaN where neither has a rim.

    Shapes: pred, target, ignore (H, W), no ignored pixel in a mask.
    """
    margin = 1 + math.ceil(tolerance)
    left, top, width, height = cv2.boundingRect((pred | target).view(np.uint8))
    rows = slice(max(top - margin, 0), top + height + margin)
    columns = slice(max(left - margin, 0), left + width + margin)
    pred, target, ignore = pred[rows, columns], target[rows, columns], ignore[rows, columns]
    # Beyond a margin around both masks nothing is a neighbour, so to cut there makes no rim that was none.
    near, total = 0, 0
    for mask, other in ((pred, target), (target, pred)):
        rim = _rim(mask, mask | ignore)
        total += int(np.count_nonzero(rim))
        near += int(np.count_nonzero(nearest_pixel(rim, _rim(other, other)) <= tolerance))
    return near / total if total else math.nan


def _rim(mask: BoolArray, solid: BoolArray) -> BoolArray:
    core = cv2.erode(solid.view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rim: BoolArray = mask & (core == 0)
    return rim


def _sar_rarp50_figures(rows: Sequence[Row], groups: Sequence[str] | None = None, /) -> dict[str, float]:
    videos: dict[str, list[Row]] = {}
    for row, video in zip(rows, groups or [""] * len(rows), strict=True):
        videos.setdefault(video, []).append(row)
    figures = {
        key: mean_of_defined([mean_of_defined([row[key] for row in own]) for own in videos.values()])
        for key in ("mean_iou", "mean_nsd")
    }
    return {**figures, "score": math.sqrt(figures["mean_iou"] * figures["mean_nsd"])}


SAR_RARP50 = Convention(
    name="sar-rarp50",
    title="SAR-RARP50, EndoVis 2022",
    source=(
        "Psychogyios et al. 2023, arXiv:2401.00496; sarrarp50/metrics/segmentation.py and scripts/evaluate.py of "
        "surgical-vision/SAR_RARP50-evaluation"
    ),
    definition=(
        f"IoU and surface Dice at {SAR_RARP50_TOLERANCE} px of each class in each frame at native size, the latter by "
        "MONAI's default, which counts rim pixels; mean over all classes, then over the frames of a video, then over "
        "videos. Score: the geometric mean of the two. One video where groups are not known."
    ),
    empty_rule=(
        "a class in neither mask counts 1, in one of them 0: the more classes a data set has, the higher everybody "
        "scores; a frame without prediction counts 0"
    ),
    per_frame=_sar_rarp50,
    figures=_sar_rarp50_figures,
)


def _pooled(frame: Frame) -> Row:
    matrix = _confusion(frame)
    return {f"{true},{pred}": float(matrix[true, pred]) for true, pred in np.ndindex(*matrix.shape)}


def _confusion(frame: Frame) -> NDArray[np.int64]:
    """Pixels by true class (rows) and predicted class; the last column is a prediction that is no class."""
    count = len(frame.classes)
    by_truth = frame.joint.table[:, :count].T
    return np.column_stack((by_truth[:, :count], by_truth[:, count:].sum(axis=1)))


def _pooled_figures(rows: Sequence[Row], _groups: Sequence[str] | None = None, /) -> dict[str, float]:
    matrix = _summed(rows)
    right = np.diagonal(matrix)
    either = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - right
    ious = [_ratio(r, e) for r, e in zip(right, either, strict=True)]
    dices = [_ratio(2 * r, r + e) for r, e in zip(right, either, strict=True)]
    found, false, missed = matrix[1:, 1:-1].sum(), matrix[0, 1:-1].sum(), matrix[1:, [0, -1]].sum()
    return {
        "jaccard": _ratio(found, found + false + missed),
        "dice": _ratio(2 * found, 2 * found + false + missed),
        "mean_iou": mean_of_defined(ious[1:]),
        "mean_iou_with_background": mean_of_defined(ious),
        "mean_dice": mean_of_defined(dices[1:]),
        "mean_dice_with_background": mean_of_defined(dices),
        "accuracy": _ratio(right.sum(), matrix.sum()),
    }


def _summed(rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    cells = {key: tuple(map(int, key.split(","))) for row in rows for key in row}
    classes = 1 + max((true for true, _ in cells.values()), default=1)
    matrix = np.zeros((classes, classes + 1))
    for row in rows:
        for key, pixels in row.items():
            matrix[cells[key]] += pixels
    return matrix


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else math.nan


POOLED = Convention(
    name="pooled",
    title="Pooled over all pixels",
    source="Everingham et al. 2010, doi:10.1007/s11263-009-0275-4 (Pascal VOC); common in semantic segmentation",
    definition=(
        "One confusion matrix over all pixels of all frames at native size. IoU and Dice of any instrument; their "
        "means over instrument classes, and with the background as one more class; share of pixels that are right."
    ),
    empty_rule="a frame has no score of its own: an empty one adds its false pixels; a class in no frame is left out",
    per_frame=_pooled,
    figures=_pooled_figures,
)
