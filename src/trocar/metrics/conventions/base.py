"""What a convention is: what it asks of a frame, which few numbers it keeps of it, and the figures they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, MaskArray
from trocar.metrics.boundary import Distances, boundary_distances
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.instances import InstanceArray
from trocar.metrics.overlap import BoolArray, Counts, JointCounts, joint_counts

Row: TypeAlias = Mapping[str, float]  # of one frame; an undefined number is NaN


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as conventions see it. Pixels of 255 in `truth` count in none of them."""

    pred: MaskArray  # (H, W) class indices at native size, thresholded or argmax
    truth: MaskArray  # (H, W) class indices, 255 ignored
    classes: tuple[str, ...] = ("background", "instrument")  # name of each class index
    pred_instances: InstanceArray | None = None  # (H, W), 0 background, then one index an instrument
    truth_instances: InstanceArray | None = None
    network: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """(h, w) probability of an instrument and share of a pixel that is one, at network size; in the latter padding and
    ignored pixels are NaN. Two classes only."""
    missing: bool = False  # nobody predicted this frame: `pred` is empty

    @cached_property
    def joint(self) -> JointCounts:
        """Counts of all classes."""
        return joint_counts(self.pred, self.truth)

    @cached_property
    def distances(self) -> Distances:
        """Between the outlines of any instrument, in pixels."""
        found, true = (self.pred != 0) & (self.pred != IGNORE), (self.truth != 0) & ~self.ignored
        return boundary_distances(found, true, self.ignored)

    @cached_property
    def ignored(self) -> BoolArray:
        """Where the truth says 255. Shapes: (H, W)."""
        ignored: BoolArray = self.truth == IGNORE
        return ignored

    def class_counts(self) -> list[Counts]:
        """Of every class but the background."""
        return [self.joint.of_class(index) for index in range(1, len(self.classes))]

    @property
    def several_classes(self) -> bool:
        """Whether there is more to tell apart than instrument and background."""
        return len(self.classes) > 2


class Figures(Protocol):
    """Makes the figures of an evaluation from the rows of its frames."""

    def __call__(self, rows: Sequence[Row], groups: Sequence[str] | None = None, /) -> dict[str, float]:
        """Rows in the order of the frames; `groups` names the video or patient of each, for conventions that care."""
        ...


@dataclass(frozen=True)
class Convention:
    """A way to turn masks into published figures: not only a formula, but a size, a threshold, an average, a rule."""

    name: str
    title: str
    source: str  # who defined it, with the code that was followed, or that it was not found
    definition: str
    empty_rule: str  # what frames without instrument in truth or prediction count
    per_frame: Callable[[Frame], Row | None]
    """A few numbers of one frame, which is all that need be kept of it; None where it does not apply."""
    figures: Figures
    needs: str = (
        ""  # what `per_frame` asks for beyond two masks: the reason where there is None, or figures are lacking
    )


def means(rows: Sequence[Row], _groups: Sequence[str] | None = None, /) -> dict[str, float]:
    """Mean over the frames in which a number is defined, number by number; groups play no part."""
    return {key: mean_of_defined([row.get(key, math.nan) for row in rows]) for key in dict.fromkeys(_keys(rows))}


def _keys(rows: Sequence[Row]) -> list[str]:
    return [key for row in rows for key in row]
