"""The Predictor: everything between a native image and its mask, the same whatever runs the network.

Prepare (image steps, resize), run the engine, turn logits into probabilities, bring these to the image's size, then
threshold or argmax; and say how far the mask is to be trusted. numpy and OpenCV only: torch is imported by the torch
engine, when a model is opened. Files, folders and videos are `predict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from trocar.config import PreprocessSettings
from trocar.data.preprocess import Placement, prepare_image, restore
from trocar.data.records import ImageArray, MaskArray
from trocar.errors import UserError
from trocar.inference import tiling
from trocar.inference.engines import open_engine
from trocar.inference.postprocess import Cleanup, clean
from trocar.metrics.failure import disagreement, quality
from trocar.model_folder import ModelCard, read_card, resolve_model

Precision: TypeAlias = Literal["32", "bf16"]
Aim: TypeAlias = Literal["latency", "throughput"]
T = TypeVar("T", np.uint8, np.float32)

_SUREST = 80.0  # beyond it a sigmoid is 0 in float32


class Engine(Protocol):
    """What runs the network. Safe to call from several threads. `about` says in one line what and where it is.

    Shapes: frames (N, h, w, 3) uint8 RGB at network size -> logits (N, C, h, w) float32; C = 1 where there are two
    classes, else one a class.
    """

    @property
    def about(self) -> str:
        """What and where it is, in one line: `OpenVINO int8, CPU, 2 threads`."""
        ...

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Logits of a batch."""
        ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one image, at the image's own size; what the network said is kept beside it."""

    mask: MaskArray  # (H, W) class indices; two classes: 0 and 1
    probabilities: NDArray[np.float32]  # (C, H, W); two classes: C = 1, the foreground; several: sum to 1 over C
    classes: tuple[str, ...]  # name of each index of the mask; [0] is the background
    threshold: float | None  # probability from which a pixel is foreground; None: argmax
    network_logits: NDArray[np.float32]  # (C, h, w), with the padding; with flips or tiles: of the mean probabilities
    placement: Placement  # where the image lies in the network's frame; in tiles: in the frame that they cover
    quality: float = math.nan  # 0 to 1, from the probabilities (`metrics.failure`); NaN where the mask is empty
    disagreement: float = math.nan  # 1 - Dice between the masks of image and mirror image; NaN without flips


class Predictor:
    """Turns images into predictions with one model. It keeps nothing between calls: threads may share it.

    `predictor(image)` takes uint8 RGB (H, W, 3) of any size and gives a `Prediction` of that size. With `flips` the
    network sees every image a second time, mirrored left to right, and the mean of both probabilities counts: twice
    the time, often a somewhat better mask, and `Prediction.disagreement` as a second sign of failure.

    With `tiles` a frame that is larger than the network's at that scale (1: native) goes through it in overlapping
    tiles (`tiling`) instead of shrunk; one that is not is predicted as ever. `cleanup` changes the masks, not the
    probabilities (`postprocess`).
    """

    def __init__(
        self,
        engine: Engine,
        card: ModelCard,
        *,
        threshold: float | None = None,
        flips: bool = False,
        tiles: float | None = None,
        cleanup: Cleanup | None = None,
    ) -> None:
        self.engine = engine
        self.card = card
        self.threshold = _checked_threshold(card, threshold)
        self.flips = flips
        self.tiles = tiling.checked_scale(tiles)
        self.cleanup = cleanup

    @classmethod
    def open(
        cls,
        model: str | Path | None,
        device: str = "auto",
        *,
        engine: str = "auto",
        precision: Precision = "32",
        threads: int | None = None,
        aim: Aim = "latency",
        threshold: float | None = None,
        flips: bool = False,
        tiles: float | None = None,
        min_area: Sequence[str] = (),
        fill_holes: Sequence[str] = (),
    ) -> Predictor:
        """Open a model folder, the run that made it, or a model that ships (None: the default one), on `device`.

        `engine` is torch, openvino, onnx, or auto: the best that is there, on a CPU an exported form, which agrees with
        torch as far as `card.exports` says. torch runs in float32 unless bf16 is asked for. `threads` limits those of
        the engine; with the `aim` throughput it works on several frames side by side where that is faster for many and
        slower for each. `threshold` replaces the model's own; `min_area` and `fill_holes` are areas, `AREA` or
        `CLASS=AREA`, in pixels or % of the frame. Raises `UserError` for a model with a missing or altered file, and
        for an engine or device that is not there.
        """
        folder = resolve_model(model)
        card = read_card(folder)
        _checked_threshold(card, threshold)  # before the weights are loaded
        tiling.checked_scale(tiles)
        cleanup = Cleanup.parse(card.classes, min_area, fill_holes)
        how = {"engine": engine, "device": device}
        opened = open_engine(folder, card, **how, precision=precision, threads=threads, aim=aim)
        card = card.at_size(getattr(opened, "size_hw", None))
        return cls(opened, card, threshold=threshold, flips=flips, tiles=tiles, cleanup=cleanup or None)

    @property
    def about(self) -> str:
        """The engine in one line; of a function that stands in for one, its name."""
        return str(getattr(self.engine, "about", getattr(self.engine, "__name__", type(self.engine).__name__)))

    @property
    def versions(self) -> dict[str, str]:
        """The library that runs the network, and its version; empty of a function that stands in for an engine."""
        return dict(getattr(self.engine, "versions", {}))

    @property
    def side_by_side(self) -> int:
        """How many calls its engine runs at the same time."""
        return int(getattr(self.engine, "side_by_side", 1))

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class index; [0] is the background."""
        return self.card.classes

    @property
    def preprocess(self) -> PreprocessSettings:
        """What is done to an image before the network sees it."""
        return self.card.preprocess

    @property
    def quality_limit(self) -> float | None:
        """Frames of a lower quality are to be looked at; None where the model has no limit."""
        return None if self.card.quality is None else self.card.quality.limit

    def unlike_fitting(self, *, smoothed: bool = False) -> tuple[str, ...]:
        """What is done otherwise than where the quality limit was fitted, in words: then it promises nothing."""
        ways = {
            "at this threshold": self.threshold != self.card.threshold,
            "with flips": self.flips,
            "in tiles": self.tiles is not None,
            "with clean-up": self.cleanup is not None,
            "with smoothing": smoothed,
        }
        return tuple(way for way, taken in ways.items() if taken and self.quality_limit is not None)

    def quality_promise(self, *, smoothed: bool = False) -> str:
        """What the limit promises and on which assumption, in words; or why it promises nothing."""
        if self.card.quality is None:
            return "none: the model brings no quality limit"
        otherwise = self.unlike_fitting(smoothed=smoothed)
        if not otherwise:
            return self.card.quality.assumption
        plainly = "at the model's own threshold, on whole frames by themselves, without flips or clean-up"
        return f"none {' and '.join(otherwise)}: the limit was fitted {plainly}; it is a hint here"

    def __call__(self, image: ImageArray) -> Prediction:
        """What is in one image."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[ImageArray], *, batch_size: int | None = None) -> list[Prediction]:
        """Predictions in the order of the images, which may differ in size.

        All go through the network at once unless `batch_size` says how many at a time; in tiles, a few of one image.
        """
        for image in images:
            _check_image(image)
        if self.tiles is not None:
            return [self._predict_in_tiles(image, self.tiles) for image in images]
        size = batch_size or max(1, len(images))
        return [
            prediction
            for start in range(0, len(images), size)
            for prediction in self._predict_together(images[start : start + size])
        ]

    def _predict_together(self, images: Sequence[ImageArray]) -> list[Prediction]:
        prepared = [prepare_image(image, self.preprocess) for image in images]
        frames, placements = np.stack([frame for frame, _ in prepared]), [placement for _, placement in prepared]
        logits = self.engine(frames)
        if not self.flips:
            return [self._finish(planes, placement) for planes, placement in zip(logits, placements, strict=True)]
        mirrored = _mirrored_back(self.engine(_mirrored(frames, placements)), placements)
        return [
            self._finish_both(planes, other, placement)
            for planes, other, placement in zip(logits, mirrored, placements, strict=True)
        ]

    def _predict_in_tiles(self, image: ImageArray, scale: float) -> Prediction:
        grid = tiling.plan((image.shape[0], image.shape[1]), scale, self.preprocess)
        if grid is None:
            return self._predict_together([image])[0]
        views = tiling.predict_in_tiles(image, grid, self.preprocess, partial(self._tile_views, grid.tile_placement))
        mean = np.asarray(sum(views) / len(views), np.float32)
        found = self.finish(mean, tiling.log_odds(mean, binary=self.card.binary), grid.placement)
        return replace(found, disagreement=disagreement(views, self.threshold)) if self.flips else found

    def _tile_views(self, placement: Placement, frames: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Probabilities of tiles, and with flips those of their mirror images. Shapes: (N, h, w, 3) -> (N, C, h, w)."""
        views = [self.engine(frames)]
        if self.flips:
            placements = [placement] * len(frames)
            views.append(_mirrored_back(self.engine(_mirrored(frames, placements)), placements))
        return [np.stack([self.network_probabilities(planes) for planes in logits]) for logits in views]

    def _finish_both(
        self, logits: NDArray[np.float32], mirrored: NDArray[np.float32], placement: Placement
    ) -> Prediction:
        """Shapes: logits of the image and of its mirror image, mirrored back, (C, h, w)."""
        views = [inside_padding(self.network_probabilities(planes), placement) for planes in (logits, mirrored)]
        mean = mean_logits(logits, mirrored, binary=self.card.binary)
        return replace(self._finish(mean, placement), disagreement=disagreement(views, self.threshold))

    def _finish(self, logits: NDArray[np.float32], placement: Placement) -> Prediction:
        """Shapes: logits (C, h, w) -> a prediction at placement.native_hw."""
        return self.finish(self.network_probabilities(inside_padding(logits, placement)), logits, placement)

    def finish(
        self,
        small: NDArray[np.float32],
        logits: NDArray[np.float32],
        placement: Placement,
        thresholds: NDArray[np.float32] | None = None,
    ) -> Prediction:
        """From probabilities at network size, with or without the padding, to a prediction at the image's own.

        `thresholds` are those of each place where they differ from place to place (hysteresis); two classes only.

        Shapes: small (C, h, w); logits (C, h, w) as they are to be kept; thresholds (height, width) of the placement.
        """
        inside = inside_padding(small, placement)
        probabilities = restore(inside, placement)
        if thresholds is not None:
            mask = (probabilities[0] >= restore(thresholds[None], placement)[0]).view(np.uint8)
        elif self.threshold is None:
            mask = np.argmax(probabilities, axis=0).astype(np.uint8)
        else:
            mask = (probabilities[0] >= self.threshold).view(np.uint8)  # a quarter of the time of astype
        if self.cleanup is not None:
            mask = clean(mask, self.cleanup)
        # at network size, where the limit was fitted, and cheap whatever the size of the image
        limits = self.threshold if thresholds is None else thresholds
        sureness = quality(inside, limits) if mask.any() else math.nan
        return Prediction(mask, probabilities, self.classes, self.threshold, logits, placement, sureness)

    def network_probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """What logits of this model mean. Shapes: (C, h, w) -> the same; several classes: sum to 1 over C."""
        return sigmoid(logits) if self.card.binary else softmax(logits)


def inside_padding(planes: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Without the padding. Shapes: (C, h, w) -> (C, height, width) of the placement."""
    return planes[:, : placement.height, : placement.width]


def _mirrored(batch: NDArray[T], placements: Sequence[Placement]) -> NDArray[T]:
    """Each image mirrored left to right where it lies; the padding stays where the network knows it.

    Shapes: batch (N, h, w, C) -> the same.
    """
    result = batch.copy()
    for item, source, placement in zip(result, batch, placements, strict=True):
        height, width = placement.height, placement.width
        item[:height, :width] = source[:height, :width][:, ::-1]
    return result


def _mirrored_back(logits: NDArray[np.float32], placements: Sequence[Placement]) -> NDArray[np.float32]:
    """Shapes: (N, C, h, w) -> the same."""
    return _mirrored(logits.transpose(0, 2, 3, 1), placements).transpose(0, 3, 1, 2)


def mean_logits(one: NDArray[np.float32], other: NDArray[np.float32], *, binary: bool) -> NDArray[np.float32]:
    """The logits whose probabilities are the mean of both's. Shapes: (C, h, w) twice -> (C, h, w)."""
    if not binary:
        total = softmax(one) + softmax(other)
        return np.asarray(np.log(np.maximum(total, np.finfo(np.float32).tiny)), np.float32)
    one, other = np.clip(one, -_SUREST, _SUREST), np.clip(other, -_SUREST, _SUREST)
    return np.asarray(np.log((sigmoid(one) + sigmoid(other)) / (sigmoid(-one) + sigmoid(-other))), np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits to probabilities of the foreground. Shapes: any -> the same."""
    result: NDArray[np.float32] = np.negative(logits, dtype=np.float32)  # one array for all steps: half the time
    with np.errstate(over="ignore"):  # exp is infinite there, and 1 over it the 0 that is meant
        np.exp(result, out=result)
    result += 1
    return np.reciprocal(result, out=result)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits to probabilities of the classes, without overflow. Shapes: (C, h, w) -> (C, h, w), sums to 1 over C."""
    grown = np.exp(logits - logits.max(axis=0, keepdims=True))
    return np.asarray(grown / grown.sum(axis=0, keepdims=True), np.float32)


def _checked_threshold(card: ModelCard, threshold: float | None) -> float | None:
    if threshold is None:
        return card.threshold
    if not card.binary:
        raise UserError(
            "this model tells several classes apart by the largest probability; it has no threshold",
            where=f"model {card.name}, classes {', '.join(card.classes)}",
            mend="leave the threshold out",
        )
    if not 0.0 <= threshold <= 1.0:
        raise UserError(f"threshold {threshold} is no probability", mend="give a number from 0 to 1")
    return threshold


def _check_image(image: ImageArray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is a uint8 array with values 0 to 255, not {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image is RGB of shape (height, width, 3), not {image.shape}")
