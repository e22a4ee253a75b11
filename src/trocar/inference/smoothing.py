"""Temporal smoothing: what the frames before say about this one, for masks that flicker less.

Works on the probabilities at network size, one frame after the other, with what lies behind only: no frame waits for a
later one. What it costs is its own computing time, and that a change shows later: at weight w, what jumps from 0 to 1
passes a threshold t at the n-th frame with 1 - w^n >= t, so at w = 0.5 and t = 0.5 at once, at w = 0.8 at the fourth.
Weights count frames, not seconds: one weight is a longer memory at fewer frames a second.

    exponential  s = (1 - w) p + w s', s' the mean of the frame before at the same place: trails what moves
    flow         the same, s' taken from where the motion seen in the frames (DIS optical flow) says the pixel was
    hysteresis   a pixel turns on at `high` and stays on down to `low` (two classes only; alone or with either)

A cut, a pause or a change of size forgets everything, so that nothing of one scene is seen in the next.
numpy and OpenCV only. Choosing whether to smooth is the user's: `benchmarks/smoothing.py` measures what it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.predictor import Prediction, Predictor, inside_padding

SmoothKind: TypeAlias = Literal["none", "exponential", "flow"]
Planes: TypeAlias = NDArray[np.float32]  # (C, h, w) probabilities at network size, without padding
GreyArray: TypeAlias = NDArray[np.uint8]  # (h, w)

WEIGHT = 0.5

THUMB_PX = 32  # a frame is compared with the one before as a grey square of this side
# Grey levels by which such squares differ in the mean. Frames of EndoVis 2015 robotic half a second apart differ by at
# most 8, frames of two procedures by at least 17.
CUT_LEVELS = 12.0
PAUSE_SECONDS = 1.0  # a feed that stalled, or was joined again
# Grey levels between a pixel and where the flow says it was: above it the flow is wrong or the place was hidden. True
# for 0.5 % of the pixels of neighbouring frames of EndoVis 2015 robotic.
FOLLOWED_LEVELS = 20
_SMALLEST_FLOW_PX = 16  # DIS takes no smaller frames


@dataclass(frozen=True)
class SmoothSettings:
    """What to smooth with. Weight 0 without hysteresis is no smoothing."""

    kind: SmoothKind = "none"
    weight: float = WEIGHT  # share of the past, 0 to below 1
    hysteresis: tuple[float, float] | None = None  # (low, high), probabilities

    def __post_init__(self) -> None:
        if not 0 <= self.weight < 1:
            raise UserError(
                f"a weight of {self.weight:g} for the frames before is out of range",
                mend="give --smooth-weight from 0 (no smoothing) to below 1 (nothing new would count)",
            )
        if self.hysteresis is not None:
            low, high = self.hysteresis
            if not 0 < low <= high <= 1:
                raise UserError(
                    f"hysteresis from {low:g} to {high:g} is no range of probabilities",
                    mend="give --hysteresis LOW,HIGH with 0 < LOW <= HIGH <= 1, such as 0.4,0.6",
                )

    @property
    def active(self) -> bool:
        """Whether masks can differ from those without smoothing."""
        return (self.kind != "none" and self.weight > 0) or self.hysteresis is not None

    @property
    def about(self) -> str:
        """In words, for summaries."""
        parts = [] if self.kind == "none" else [f"{self.kind}, weight {self.weight:g}"]
        if self.hysteresis is not None:
            parts.append("hysteresis {:g} to {:g}".format(*self.hysteresis))
        return ", ".join(parts) or "none"

    def check(self, predictor: Predictor) -> None:
        """Raise `UserError` where these do not fit the model."""
        if self.hysteresis is not None and not predictor.card.binary:
            raise UserError(
                "hysteresis needs a model of two classes: several are told apart by the largest probability",
                where=f"model {predictor.card.name}, classes {', '.join(predictor.classes)}",
                mend="leave --hysteresis out",
            )


NO_SMOOTHING = SmoothSettings()


def parse_hysteresis(text: str | None) -> tuple[float, float] | None:
    """(low, high) of `LOW,HIGH` as the command line takes it."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--hysteresis {text} is not two numbers", mend="give LOW,HIGH, such as 0.4,0.6") from None
    return low, high


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Probabilities after smoothing, and from where on a pixel is foreground."""

    probabilities: Planes
    # (h, w): the threshold of each place where there is hysteresis; None: the model's own
    thresholds: NDArray[np.float32] | None


class Smoother:
    """Smooths one stream; frames in the order they were shot. One instance a stream, used by one thread at a time.

    `smoother(probabilities, image)` gives planes, `smoother.prediction(...)` what a Predictor makes of them.
    """

    def __init__(self, settings: SmoothSettings) -> None:
        self.settings = settings
        self.cuts = 0  # how often everything was forgotten
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._thumb: NDArray[np.float32] | None = None
        self._seconds: Fraction | float | None = None
        self._grey: GreyArray | None = None
        self._mean: Planes | None = None  # probabilities of the frame before, smoothed
        self._on: NDArray[np.float32] | None = None  # (h, w) 1 where the frame before was foreground, else 0
        self._still = (np.empty((0, 0), np.float32),) * 2  # x and y of every pixel

    def __call__(self, probabilities: Planes, image: ImageArray, seconds: Fraction | float | None = None) -> Smoothed:
        """The next frame, with the frames before it taken into account.

        `seconds` is when the frame was shot; without it no pause is noticed.

        Shapes: probabilities (C, h, w) of what the image shows, C = 1 where there are two classes; image (H, W, 3)
        uint8 RGB, of any size.
        """
        if not self.settings.active:
            return Smoothed(probabilities, None)
        if self._begins_anew(probabilities, image, seconds):
            self._mean = self._on = self._grey = None
        if self.settings.kind == "flow":
            self._follow(image, probabilities)
        weight = 0.0 if self.settings.kind == "none" else self.settings.weight
        if self._mean is not None and weight:
            probabilities = (1 - np.float32(weight)) * probabilities + np.float32(weight) * self._mean
        self._mean = probabilities
        return Smoothed(probabilities, self._thresholds(probabilities))

    def prediction(
        self, predictor: Predictor, image: ImageArray, found: Prediction, seconds: Fraction | float | None = None
    ) -> Prediction:
        """What `predictor` found in the next frame, smoothed; its logits and its disagreement stay those of the frame.

        Its quality is that of the smoothed mask; a limit fitted without smoothing promises nothing for it.
        """
        if not self.settings.active:
            return found
        self.settings.check(predictor)
        planes = inside_padding(predictor.network_probabilities(found.network_logits), found.placement)
        smoothed = self(planes, image, seconds)
        made = predictor.finish(smoothed.probabilities, found.network_logits, found.placement, smoothed.thresholds)
        return replace(made, disagreement=found.disagreement)

    def _begins_anew(self, probabilities: Planes, image: ImageArray, seconds: Fraction | float | None) -> bool:
        thumb = _grey(image, (THUMB_PX, THUMB_PX)).astype(np.float32)
        before, self._thumb = self._thumb, thumb
        earlier, self._seconds = self._seconds, seconds
        if before is None or self._mean is None:
            return True
        paused = earlier is not None and seconds is not None and abs(float(seconds) - float(earlier)) > PAUSE_SECONDS
        changed = self._mean.shape != probabilities.shape
        anew = paused or changed or float(np.abs(thumb - before).mean()) > CUT_LEVELS
        self.cuts += anew
        return anew

    def _follow(self, image: ImageArray, probabilities: Planes) -> None:
        """Move what is known of the frame before to where it is in this one; what cannot be followed is taken from it.

        Where the flow leads to a place that looks different, or out of the frame, nothing is known: the mean is there
        what the network says now, and the pixel is off.
        """
        height, width = probabilities.shape[1:]
        grey = _grey(image, (max(height, _SMALLEST_FLOW_PX), max(width, _SMALLEST_FLOW_PX)))
        before, self._grey = self._grey, grey
        if before is None or self._mean is None:
            return
        back: NDArray[np.float32] = self._flow.calc(grey, before, None)  # type: ignore[call-overload]
        if self._still[0].shape != grey.shape:
            rows, columns = (np.arange(side, dtype=np.float32) for side in grey.shape)
            self._still = np.meshgrid(columns, rows)
        x, y = self._still[0] + back[..., 0], self._still[1] + back[..., 1]
        seen = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        unlike = cv2.absdiff(seen, grey) > FOLLOWED_LEVELS
        outside = (x < 0) | (y < 0) | (x > grey.shape[1] - 1) | (y > grey.shape[0] - 1)
        lost = (unlike | outside)[:height, :width]
        x, y = x[:height, :width], y[:height, :width]
        moved = np.stack([_moved(plane, x, y) for plane in self._mean])
        self._mean = np.where(lost, probabilities, moved)
        if self._on is not None:
            self._on = np.where(lost, np.float32(0), np.rint(_moved(self._on, x, y)))

    def _thresholds(self, probabilities: Planes) -> NDArray[np.float32] | None:
        if self.settings.hysteresis is None:
            return None
        assert len(probabilities) == 1, "hysteresis of several classes has no meaning; callers refuse it"
        low, high = (np.float32(limit) for limit in self.settings.hysteresis)
        thresholds = np.full(probabilities.shape[1:], high) if self._on is None else np.where(self._on > 0, low, high)
        self._on = (probabilities[0] >= thresholds).astype(np.float32)
        return thresholds.astype(np.float32)


def _grey(image: ImageArray, size_hw: tuple[int, int]) -> GreyArray:
    """Shapes: (H, W, 3) RGB -> size_hw."""
    shrunk = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(shrunk, cv2.COLOR_RGB2GRAY), np.uint8)


def _moved(plane: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values at these places, bilinearly. Shapes: (h, w) three times -> (h, w)."""
    moved = cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
