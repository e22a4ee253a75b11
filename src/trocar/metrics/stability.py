"""How steady the masks of a video are: flow-warped IoU and flicker rate. No truth is needed.

A mask is followed along the motion that can be seen in the frames (DIS optical flow, Kroeger et al. 2016,
arXiv:1603.03590, as OpenCV has it), so an instrument that moves is no change and one that is drawn anew in each frame
is. Steady is not right: empty masks, and an error that stays, are perfectly steady. Read it beside Dice, and beside the
same figures of the true masks where there are any. Covers one video; intervals over procedures are elsewhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, ImageArray, MaskArray
from trocar.metrics.overlap import class_counts

FlowArray: TypeAlias = NDArray[np.float32]  # (H, W, 2), x and y in pixels, unless said otherwise

FLOW_SIDE_PX = 640  # frames are shrunk to this longer side for the flow: a fifth of the time at 1280x1024, 0.2 px off
CUT_SHARE = 0.5  # less of a frame is followed: a cut, or a blind camera. Of real neighbours it was 0.85 and more
_SMALLEST_SIDE_PX = 12  # of what OpenCV's flow takes


class Step(NamedTuple):
    """What one frame changed. NaN: undefined, at a cut too."""

    warped_iou: float  # mask against the one before it, warped; mean over classes in either
    flicker_rate: float  # share of the instrument that changed a frame ago and has changed back
    followed: float  # share of the frame that could be followed to the frame before; the rest counts nowhere


class Stability:
    """Takes a video frame by frame, and holds no more than the last.

    One instance per video or procedure, frames in the order they were shot, at one frame rate: figures of different
    frame rates do not compare.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._image: NDArray[np.uint8] | None = None  # the last frame, grey, as the flow sees it
        self._mask: MaskArray | None = None
        self._earlier: MaskArray | None = None  # the mask before it, at the places of the last one; 255: not known
        self._ious = _Mean()
        self._flickers = _Mean()
        self._cuts = 0

    @property
    def warped_iou(self) -> float:
        """Mean over neighbouring frames of the IoU of a mask with the warped one before it, 0 to 1, 1 is steady.

        The temporal consistency of Liu et al. 2020 (arXiv:2002.11433), by frame rather than pooled, without what cannot
        be followed. NaN where no two neighbouring masks show an instrument.
        """
        return self._ious.value

    @property
    def flicker_rate(self) -> float:
        """Mean over three neighbouring frames of the share of the instrument that flickers, 0 to 1, 0 is steady.

        A place flickers if, followed along the motion, its class is the same in the first and the third mask and
        another in the second; the share is of places that are instrument in any of the three. So what appears and
        stays, or leaves, does not count. The definition is ours; it follows the warping error of Lai et al. 2018
        (arXiv:1808.00449), which compares two frames over the whole picture. NaN where no three neighbouring masks
        show an instrument.
        """
        return self._flickers.value

    @property
    def pairs(self) -> int:
        """How many pairs of frames the warped IoU is the mean of: pairs without an instrument are left out."""
        return self._ious.count

    @property
    def triples(self) -> int:
        """How many triples of frames the flicker rate is the mean of."""
        return self._flickers.count

    @property
    def cuts(self) -> int:
        """How many frames could not be followed to the one before, over less than half: nothing is compared there."""
        return self._cuts

    def add(self, image: ImageArray, mask: MaskArray) -> Step | None:
        """Take the next frame and its mask; says what changed since the last, None for the first frame.

        Pixels of 255 in a mask (truths may have them) count nowhere.

        Shapes: image (H, W, 3) uint8 RGB; mask (H, W) uint8 class indices; of one size throughout.
        """
        if image.shape[:2] != mask.shape or min(mask.shape) < _SMALLEST_SIDE_PX:
            raise ValueError(f"image is {image.shape}, mask {mask.shape}; they must agree and be 12 px or more")
        if self._mask is not None and self._mask.shape != mask.shape:
            raise ValueError(f"mask is {mask.shape} but those before it {self._mask.shape}; one video has one size")
        if mask.dtype != np.uint8:
            raise ValueError(f"a mask of {mask.dtype}; give uint8 class indices")
        now = _grey(image)
        step = None if self._image is None else self._compare(self._way_back(now, mask.shape), mask)
        self._image, self._mask = now, mask.copy()
        return step

    def _compare(self, back: FlowArray, mask: MaskArray) -> Step:
        assert self._mask is not None
        followed = 1 - float(np.isnan(back[..., 0]).mean())
        if followed < CUT_SHARE:
            self._cuts += 1
            self._earlier = None
            return Step(math.nan, math.nan, followed)
        before = _warp(self._mask, back)
        flicker_rate = math.nan if self._earlier is None else _flicker(_warp(self._earlier, back), before, mask)
        step = Step(_mean_iou(before, mask), flicker_rate, followed)
        self._ious.add(step.warped_iou)
        self._flickers.add(step.flicker_rate)
        self._earlier = before
        return step

    def _way_back(self, now: NDArray[np.uint8], shape: tuple[int, ...]) -> FlowArray:
        """Where each pixel was in the last frame, as (x, y); NaN where that cannot be told.

        Told by following the flow there and back again: where that leads elsewhere, something was hidden or the flow
        is wrong (Sundaram et al. 2010, doi:10.1007/978-3-642-15549-9_32, and their bounds).

        Shapes: now (h, w) grey; shape: (H, W) of the mask -> (H, W, 2).
        """
        assert self._image is not None
        back, there = self._motion(now, self._image), self._motion(self._image, now)
        x, y = cv2.split(_places(back))
        returned: FlowArray = cv2.remap(there, x, y, cv2.INTER_LINEAR, borderValue=(math.nan, math.nan))  # type: ignore[assignment]
        off = _square(back + returned)
        lost = ~(off <= 0.01 * (_square(back) + _square(returned)) + 0.5)  # also where it left the frame: NaN
        height, width = shape
        scale = np.array([width / now.shape[1], height / now.shape[0]], np.float32)
        places = _places((cv2.resize(back, (width, height)) * scale).astype(np.float32))
        lost_there = cv2.resize(lost.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        places[lost_there != 0] = math.nan
        return places

    def _motion(self, start: NDArray[np.uint8], end: NDArray[np.uint8]) -> FlowArray:
        flow: FlowArray = self._flow.calc(start, end, None)  # type: ignore[call-overload]
        return flow


class _Mean:
    """A running mean of what is not NaN."""

    def __init__(self) -> None:
        self.count, self._total = 0, 0.0

    @property
    def value(self) -> float:
        return self._total / self.count if self.count else math.nan

    def add(self, value: float) -> None:
        if not math.isnan(value):
            self.count, self._total = self.count + 1, self._total + value


def _grey(image: ImageArray) -> NDArray[np.uint8]:
    """A frame as the flow sees it. Shapes: (H, W, 3) RGB -> (h, w)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = min(1.0, FLOW_SIDE_PX / max(height, width))
    size = [max(round(side * scale), min(side, _SMALLEST_SIDE_PX)) for side in (width, height)]
    shrunk = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    return shrunk.astype(np.uint8, copy=False)


def _places(flow: FlowArray) -> FlowArray:
    """Where the pixels come from, as `cv2.remap` wants it. Shapes: (H, W, 2) -> (H, W, 2), (x, y)."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return flow + np.dstack((x, y))


def _warp(mask: MaskArray, places: FlowArray) -> MaskArray:
    """Classes at the nearest pixels to these places; 255 where a place is NaN or outside. Shapes: (H, W) -> (H, W)."""
    x, y = cv2.split(np.nan_to_num(places, nan=-2))  # outside
    warped = cv2.remap(mask, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE)
    return warped.astype(np.uint8, copy=False)


def _mean_iou(before: MaskArray, mask: MaskArray) -> float:
    """Mean IoU of the classes that either shows, background apart, where both are known; NaN where there are none."""
    target = np.where(before == IGNORE, IGNORE, mask).astype(np.uint8)
    known = target != IGNORE
    classes = int(max(before.max(where=known, initial=0), target.max(where=known, initial=0)))
    scores = [one.jaccard for one in class_counts(before, target, classes + 1)[1:]]
    defined = [score for score in scores if not math.isnan(score)]
    return sum(defined) / len(defined) if defined else math.nan


def _flicker(earlier: MaskArray, before: MaskArray, mask: MaskArray) -> float:
    known = (earlier != IGNORE) & (before != IGNORE) & (mask != IGNORE)
    instrument = known & ((earlier | before | mask) != 0)
    total = int(np.count_nonzero(instrument))
    returned = instrument & (earlier == mask) & (before != mask)
    return int(np.count_nonzero(returned)) / total if total else math.nan


def _square(flow: FlowArray) -> FlowArray:
    """Squared lengths. Shapes: (H, W, 2) -> (H, W)."""
    lengths: FlowArray = np.square(flow).sum(axis=2)
    return lengths
