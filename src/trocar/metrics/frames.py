"""The scores of one frame: a row of the per-image table.

The convention, `per-image`: each frame is scored by itself at its native size on a thresholded mask, pixels of 255
left out. A frame whose truth holds no instrument has no score, whatever was predicted: it stands on its own line, with
what was falsely found there. From rows to figures is `summary`; how others count is `conventions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trocar.data.records import IGNORE, MaskArray
from trocar.metrics.boundary import Distances, Edge, boundary_distances, boundary_iou
from trocar.metrics.centreline import centreline_dice
from trocar.metrics.instances import InstanceArray, match_instances
from trocar.metrics.overlap import BoolArray, JointCounts, joint_counts

CONVENTION = "per-image: each frame by itself, native size, thresholded mask, pixels of 255 left out; mean over frames"
EMPTY_RULE = (
    "a frame whose truth holds no instrument has no score, whatever was predicted; such frames are counted apart, "
    "with what was falsely found"
)
NSD_TOLERANCE_PX = 2.0  # of the normalised surface Dice: about what two annotators differ by
SCORES = (  # of every frame with an instrument, in the order they are shown
    "dice",
    "jaccard",
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "nsd",
    "hd95",
    "hausdorff",
    "average_distance",
    "boundary_iou",
)
INSTANCE_SCORES = ("panoptic_quality", "detection_f1", "instance_dice", "instance_nsd")  # where instances are labelled


@dataclass(frozen=True)
class Ruler:
    """In what unit outlines are measured, and how near is near: of NSD, Hausdorff and average distance."""

    tolerance: float = NSD_TOLERANCE_PX  # of the normalised surface Dice, in that unit
    spacing_mm: tuple[float, float] | None = None  # height and width of a pixel; None: distances are in pixels
    edge: Edge = "closed"  # whether the image's edge is contour where a mask meets it: `metrics.boundary`

    @property
    def unit(self) -> str:
        """`px` or `mm`."""
        return "px" if self.spacing_mm is None else "mm"

    @property
    def in_closed_pixels(self) -> bool:
        """Whether distances are those that `boundary_distances` gives by default."""
        return self.spacing_mm is None and self.edge == "closed"

    def __str__(self) -> str:
        return f"{self.tolerance:g} {self.unit}"

    def in_words(self) -> str:
        """For a reader who is to repeat it."""
        scale = "in pixels of the native image"
        if self.spacing_mm is not None:
            height, width = self.spacing_mm
            scale = f"in mm, a pixel being {height:g} mm high and {width:g} mm wide"
        edge = "counts as outline where a mask meets it" if self.edge == "closed" else "is no outline"
        return f"{scale}; normalised surface Dice at {self}; the image's edge {edge}"


PIXELS = Ruler()


@dataclass(frozen=True, slots=True)  # slots: a row is kept of every frame
class FrameScores:
    """One row of the per-image table. Undefined is NaN; distances are in the unit of the ruler, by default pixels."""

    record: str
    group: str
    fold: str | None
    dice: float  # of any instrument against background, also where there are several classes; so are all up to clDice
    jaccard: float
    precision: float
    recall: float
    truth_pixels: int
    predicted_pixels: int
    ignored_pixels: int
    height: int
    width: int
    empty_truth: bool
    missing: bool = False  # no prediction was there: scored as an empty one
    threshold: float | None = None
    specificity: float = math.nan
    accuracy: float = math.nan
    nsd: float = math.nan  # within the tolerance of the ruler
    hd95: float = math.nan
    hausdorff: float = math.nan
    average_distance: float = math.nan
    boundary_iou: float = math.nan
    centreline_dice: float = math.nan  # where asked for: skeletons take longer than all the rest
    panoptic_quality: float = math.nan  # these four: NaN where the data label no instances
    detection_f1: float = math.nan
    instance_dice: float = math.nan
    instance_nsd: float = math.nan
    cross_entropy: float = math.nan  # nats per pixel at network size; models only
    mean_class_dice: float = math.nan  # several classes: mean over those in prediction or truth
    mean_class_jaccard: float = math.nan
    presence: float = math.nan  # how sure there is an instrument: largest probability; of masks the share predicted
    quality: float = math.nan  # Dice as the model itself expects it; models only
    disagreement: float = math.nan  # 1 - Dice between the masks of image and mirror image; with flips only
    warped_iou: float = math.nan  # videos: these four are of the step from the frame before
    flicker_rate: float = math.nan
    true_warped_iou: float = math.nan  # the same of the true masks
    true_flicker_rate: float = math.nan
    class_dice: Mapping[str, float] = field(default_factory=dict)  # several classes: NaN where the truth lacks it
    traits: Mapping[str, float] = field(default_factory=dict)  # of image and truth, by which strata are made

    @property
    def false_share(self) -> float:
        """Share of the frame's counted pixels that is falsely instrument, in a frame without any; else NaN."""
        counted = self.height * self.width - self.ignored_pixels
        return self.predicted_pixels / counted if self.empty_truth and counted else math.nan


def score_frame(
    pred: MaskArray,
    truth: MaskArray,
    *,
    record: str,
    group: str,
    fold: str | None = None,
    classes: Sequence[str] = (),
    instances: tuple[InstanceArray, InstanceArray] | None = None,
    centreline: bool = False,
    ruler: Ruler = PIXELS,
    missing: bool = False,
    threshold: float | None = None,
    cross_entropy: float = math.nan,
    presence: float = math.nan,
    quality: float = math.nan,
    disagreement: float = math.nan,
    traits: Mapping[str, float] | None = None,
    steadiness: Mapping[str, float] | None = None,
    joint: JointCounts | None = None,
    distances: Distances | None = None,
) -> FrameScores:
    """Score one predicted mask. `classes` names the indices from 1 on where each is to be scored by itself.

    Shapes: pred, truth (H, W) class indices at native size, 255 in the truth: ignored; `instances` is a pair of
    (H, W), predicted and true, 0 background, then an index an instrument. `centreline` adds clDice.
    `joint` and `distances` (of any instrument, by the ruler) are those of these masks, where they are known already.
    """
    joint = joint or joint_counts(pred, truth)
    counts = joint.instrument
    empty = counts.true == 0
    per_class = [joint.of_class(index) for index in range(1, len(classes) + 1)]
    ignore = truth == IGNORE
    found, true = (pred != 0) & (pred != IGNORE), (truth != 0) & ~ignore
    return FrameScores(
        record=record,
        group=group,
        fold=fold,
        dice=math.nan if empty else counts.dice,
        jaccard=math.nan if empty else counts.jaccard,
        precision=math.nan if empty else counts.precision,
        recall=counts.recall,
        truth_pixels=counts.true,
        predicted_pixels=counts.predicted,
        ignored_pixels=counts.ignored,
        height=truth.shape[0],
        width=truth.shape[1],
        empty_truth=empty,
        missing=missing,
        threshold=threshold,
        specificity=math.nan if empty else counts.specificity,
        accuracy=math.nan if empty else counts.accuracy,
        **({} if empty else _outline_scores(found, true, ignore, ruler, distances)),
        centreline_dice=centreline_dice(found, true, ignore) if centreline and not empty else math.nan,
        **({} if empty or instances is None else _instance_scores(*instances, ignore, ruler)),
        cross_entropy=cross_entropy,
        mean_class_dice=math.nan if empty else mean_of_defined([one.dice for one in per_class]),
        mean_class_jaccard=math.nan if empty else mean_of_defined([one.jaccard for one in per_class]),
        presence=presence,
        quality=quality,
        disagreement=disagreement,
        **(steadiness or {}),
        class_dice={name: one.dice if one.true else math.nan for name, one in zip(classes, per_class, strict=True)},
        traits=dict(traits or {}),
    )


def _outline_scores(
    pred: BoolArray, truth: BoolArray, ignore: BoolArray, ruler: Ruler, distances: Distances | None
) -> dict[str, float]:
    """Scores of the outline of any instrument."""
    distances = distances or boundary_distances(pred, truth, ignore, spacing=ruler.spacing_mm, edge=ruler.edge)
    return {
        "nsd": distances.surface_dice(ruler.tolerance),
        "hd95": distances.hausdorff(95),
        "hausdorff": distances.hausdorff(),
        "average_distance": distances.average,
        "boundary_iou": boundary_iou(pred, truth, ignore, edge=ruler.edge),
    }


def _instance_scores(pred: InstanceArray, truth: InstanceArray, ignore: BoolArray, ruler: Ruler) -> dict[str, float]:
    matched = match_instances(pred, truth, ignore)
    return {
        "panoptic_quality": matched.panoptic_quality,
        "detection_f1": matched.detection_f1,
        "instance_dice": matched.dice,
        "instance_nsd": matched.nsd(ruler.tolerance, ruler.spacing_mm, ruler.edge),
    }


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
