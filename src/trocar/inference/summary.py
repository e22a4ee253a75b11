"""What `predict` says it did: the content of predictions.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from trocar.config import Settings
from trocar.inference.predictor import Prediction


class PredictedInstance(Settings):
    """A connected piece of one class."""

    id: int = Field(description="its value in the image of ids")
    class_name: str
    area: int = Field(description="pixels")
    box: tuple[int, int, int, int] = Field(description="left, top, width, height in pixels")


class Predicted(Settings):
    """What was made of one input. Paths of outputs are relative to the folder of predictions.json."""

    file: str
    kind: Literal["image", "video"]
    mask: str | None = Field(description="null: not asked for; a folder of frames where video masks are PNGs")
    overlay: str | None
    probabilities: tuple[str, ...] = Field((), description="two classes: one file; several: one a class")
    instance_ids: str | None = Field(None, description="image of ids, where asked for; video: of each frame by itself")
    instances: tuple[PredictedInstance, ...] | None = Field(
        None, description="images, where asked for: the largest first, class by class; null: not asked for, or a video"
    )
    width: int
    height: int
    share: dict[str, float] = Field(description="share of the pixels by class; video: mean over frames")
    seconds: float = Field(description="reading, predicting and writing; images of one batch share its time evenly")
    frames: int = 1
    lost_frames: int = Field(0, description="video: could not be decoded; they are in no output")
    damaged_frames: int = Field(0, description="video: decoded with errors; predicted as they are")
    overlay_codec: str | None = None
    sound: str | None = Field(None, description="video: what became of its sound in the overlay; null: it has none")
    pixel_aspect: float = Field(1.0, description="video: width over height of a pixel as shown; the overlay keeps it")
    reconnections: int = Field(0, description="live source: how often a lost connection was made again")
    complete: bool = Field(True, description="video: false where it was stopped, or cannot be read to its end")
    quality: float | None = Field(
        None, description="how good the mask is likely to be, 0 to 1; null: nothing was found. Video: mean over frames"
    )
    look_at: bool | None = Field(
        None, description="whether quality is under the model's limit; null: no quality or no limit. Video: any frame"
    )
    disagreement: float | None = Field(None, description="with flips: 1 - Dice of image and mirror image. Video: mean")
    frame_quality: tuple[float | None, ...] = Field((), description="video: quality of each frame")
    frames_to_look_at: tuple[int, ...] = Field((), description="video: frames to look at; the first is 0")


class PredictionSummary(Settings):
    """What `predict` did: the content of predictions.json."""

    format: Literal[1] = 1
    complete: bool = Field(description="false while it runs, and for good where it was stopped")
    created: str
    model: str = Field(description="name of the model")
    weights: str | None = Field(description="SHA-256 of its weights")
    classes: tuple[str, ...]
    threshold: float | None = Field(description="probability from which a pixel is foreground; null: argmax")
    engine: str = Field("torch", description="what ran the network, and where")
    flips: bool = Field(False, description="whether the mirror image was predicted too and averaged")
    tiles: float | None = Field(None, description="scale at which larger frames were cut into tiles; null: they shrank")
    cleanup: str = Field("", description="what was changed in the masks after the network, in words; empty: nothing")
    smoothing: str = Field("none", description="how the masks of videos were smoothed over time; images never are")
    quality_limit: float | None = Field(None, description="frames of a lower quality are to be looked at")
    quality_promise: str = Field("none", description="what the limit promises, and on which assumption")
    unlike_fitting: tuple[str, ...] = Field(
        (), description="what was done otherwise than where the limit was fitted: it promises nothing then"
    )
    versions: dict[str, str] = Field(
        description="of what ran: trocar, the engine's library, numpy, opencv, av of videos"
    )
    predictions: tuple[Predicted, ...] = ()
    failed: tuple[dict[str, str | None], ...] = Field((), description="what, where and mend of each input not read")


@dataclass
class Trust:
    """Quality of the frames of one input, and which of them are to be looked at."""

    limit: float | None
    quality: list[float] = field(default_factory=list)
    disagreement: list[float] = field(default_factory=list)

    def add(self, prediction: Prediction) -> None:
        """Take one frame into the books."""
        self.quality.append(prediction.quality)
        self.disagreement.append(prediction.disagreement)

    def of_image(self) -> dict[str, Any]:
        """Fields of `Predicted` that an image has, and a video as a whole."""
        return {
            "quality": _rounded_mean(self.quality),
            "look_at": self._look_at(),
            "disagreement": _rounded_mean(self.disagreement),
        }

    def of_video(self) -> dict[str, Any]:
        """Fields of `Predicted` that a video has."""
        frames = tuple(_rounded_mean([value]) for value in self.quality)
        return {**self.of_image(), "frame_quality": frames, "frames_to_look_at": tuple(self._below())}

    def _below(self) -> list[int]:
        return [index for index, value in enumerate(self.quality) if self.limit is not None and value < self.limit]

    def _look_at(self) -> bool | None:
        if self.limit is None or all(map(math.isnan, self.quality)):
            return None
        return bool(self._below())


def _rounded_mean(values: Sequence[float]) -> float | None:
    """Mean of what is not NaN, to four digits; None where nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return round(sum(defined) / len(defined), 4) if defined else None
