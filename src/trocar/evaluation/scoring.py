"""Scoring: one record at a time, of which only small rows are kept, so that memory hardly grows with the frames.

A model predicts with all cores, so its records are scored one after the other. Masks on disk are read and scored by
several processes where asked for; rows come back in the order of the records.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import LossSettings, load_recipe
from trocar.data.preprocess import PreparedMask, fit_mask, loss_target
from trocar.data.records import IGNORE, ImageArray, MaskArray, Record
from trocar.errors import UserError, UserErrors
from trocar.evaluation.parts import Guess, Guesser, Part, Truth
from trocar.inference.predictor import sigmoid
from trocar.metrics.calibration import logit_histogram
from trocar.metrics.conventions import CONVENTIONS, Frame, Row
from trocar.metrics.frames import PIXELS, FrameScores, Ruler, score_frame
from trocar.metrics.instances import connected_instances
from trocar.metrics.likelihood import cross_entropy
from trocar.metrics.overlap import threshold_sweep
from trocar.metrics.stability import Stability
from trocar.metrics.traits import traits_of
from trocar.model_folder import ModelCard

FloatArray: TypeAlias = NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], None]  # called with (done, total)

LOSS_BATCH = 8  # frames a batch for the training loss, where the run's recipe is not there to say
CHUNK = 16  # records a worker process is given at once


@dataclass(frozen=True, eq=False)
class Scored:
    """What is kept of one frame."""

    row: FrameScores
    conventions: Mapping[str, Row | None]  # by name of the convention
    sweep: FloatArray | None = None  # Dice at every threshold of `metrics.overlap.THRESHOLDS`
    logits: FloatArray | None = None  # histogram of `metrics.calibration`


@dataclass
class Scores:
    """What is kept of all frames; by fold what depends on its model."""

    rows: list[FrameScores] = field(default_factory=list)
    conventions: dict[str, list[Row | None]] = field(default_factory=lambda: {name: [] for name in CONVENTIONS})
    sweeps: dict[str | None, list[FloatArray]] = field(default_factory=dict)
    logits: dict[str | None, FloatArray] = field(default_factory=dict)
    training_loss: float = math.nan  # mean over frames; NaN without a model
    engines: dict[str, None] = field(default_factory=dict)  # what ran the networks, in words, in order
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries that ran them

    def add(self, scored: Scored) -> None:
        """Take in one more frame."""
        fold = scored.row.fold
        self.rows.append(scored.row)
        for name, row in scored.conventions.items():
            self.conventions[name].append(row)
        if scored.sweep is not None:
            self.sweeps.setdefault(fold, []).append(scored.sweep)
        if scored.logits is not None:
            self.logits[fold] = self.logits[fold] + scored.logits if fold in self.logits else scored.logits


@dataclass(frozen=True)
class Judge:
    """What frames are judged by."""

    truth: Truth
    centreline: bool = False  # clDice too
    ruler: Ruler = PIXELS  # of outlines


def score(parts: Sequence[Part], judge: Judge, *, workers: int = 1, progress: Progress | None = None) -> Scores:
    """Score all parts. Raises `UserErrors` with every record that cannot be scored."""
    result, problems = Scores(), list[UserError]()
    total, done = sum(len(part.records) for part in parts), 0
    loss_sum, loss_frames = 0.0, 0
    for part in parts:
        if not part.records:
            continue
        loss = _TrainingLoss.of(part, judge.truth)
        for outcome in _outcomes(part, judge, loss, workers, result):
            if isinstance(outcome, Scored):
                result.add(outcome)
            else:
                problems += outcome.errors if isinstance(outcome, UserErrors) else [outcome]
            done += 1
            if progress is not None:
                progress(done, total)
        if loss is not None:
            loss_sum += loss.finish()
            loss_frames += loss.frames
    if problems:
        raise UserErrors(problems)
    result.training_loss = loss_sum / loss_frames if loss_frames else math.nan
    return result


def _outcomes(
    part: Part, judge: Judge, loss: _TrainingLoss | None, workers: int, result: Scores
) -> Iterator[Scored | UserError]:
    """One a record, in order. `result` is told what runs the network."""
    chunks = list(_chunks(part.records))
    if part.card is not None or min(workers, len(chunks)) < 2:
        guess = part.open()
        if guess.engine:
            result.engines[guess.engine] = None
        result.versions |= guess.versions
        yield from _score_records(part.records, guess, part.fold, part.card, judge, loss)
        return
    spawning = multiprocessing.get_context("spawn")  # forking would copy the locks of OpenCV's threads
    with ProcessPoolExecutor(min(workers, len(chunks)), spawning, initializer=_one_thread) as pool:
        for outcomes in pool.map(partial(_score_chunk, part.open, part.fold, judge), chunks):
            yield from outcomes


def _chunks(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """What one process is given at a time: a video whole, as its frames are followed; of stills a few."""
    for _, members in itertools.groupby(records, key=lambda record: record.frame is not None and record.group):
        own = list(members)
        size = len(own) if own[0].frame is not None else CHUNK
        yield from (own[start : start + size] for start in range(0, len(own), size))


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _score_chunk(
    opening: Callable[[], Guesser], fold: str | None, judge: Judge, records: Sequence[Record]
) -> list[Scored | UserError]:
    return list(_score_records(records, opening(), fold, None, judge, None))


def _score_records(
    records: Sequence[Record],
    guess: Guesser,
    fold: str | None,
    card: ModelCard | None,
    judge: Judge,
    loss: _TrainingLoss | None,
) -> Iterator[Scored | UserError]:
    video = _Video()
    for record in records:
        try:
            image, mask = judge.truth.read(record)
            guessed = guess(record, image)
            surprise = math.nan
            if loss is not None and guessed.logits is not None and card is not None:
                surprise = cross_entropy(guessed.logits, fit_mask(mask, card.preprocess))
                loss.add(guessed.logits, loss_target(mask, card.preprocess))
            steadiness = video.add(record, image, guessed.mask, mask)
            yield _score_frame(record, image, mask, guessed, fold, card, judge, surprise, steadiness)
        except UserError as problem:
            yield problem


def _score_frame(
    record: Record,
    image: ImageArray,
    mask: MaskArray,
    guess: Guess,
    fold: str | None,
    card: ModelCard | None,
    judge: Judge,
    surprise: float,
    steadiness: Mapping[str, float],
) -> Scored:
    labelled = record.instances() if record.instances is not None else None
    network = _at_network_size(guess, mask, card)
    pieces = None if labelled is None else connected_instances(guess.mask)
    frame = Frame(
        pred=guess.mask,
        truth=mask,
        classes=("background", *(judge.truth.classes or ("instrument",))),
        pred_instances=pieces,
        truth_instances=labelled,
        network=None if network is None else (sigmoid(network[0]), _nan_where_ignored(network[1])),
        missing=guess.missing,
    )
    row = score_frame(
        guess.mask,
        mask,
        record=record.name,
        group=record.group,
        fold=fold,
        classes=judge.truth.classes,
        instances=None if labelled is None or pieces is None else (pieces, labelled),
        centreline=judge.centreline,
        ruler=judge.ruler,
        missing=guess.missing,
        threshold=guess.threshold,
        cross_entropy=surprise,
        presence=_presence(guess),
        quality=guess.quality,
        disagreement=guess.disagreement,
        traits=traits_of(image, mask, labelled),
        steadiness=steadiness,
        joint=frame.joint,
        distances=frame.distances if judge.ruler.in_closed_pixels else None,
    )
    return Scored(
        row,
        {name: convention.per_frame(frame) for name, convention in CONVENTIONS.items()},
        sweep=None if guess.probability is None else threshold_sweep(guess.probability, mask),
        logits=None if network is None else logit_histogram(*network),
    )


class _Video:
    """Follows prediction and truth through the frames of one video after the other."""

    def __init__(self) -> None:
        self._last: Record | None = None
        self._gap: int | None = None  # frames between neighbours; where it changes a new sequence begins
        self._restart()

    def _restart(self) -> None:
        self._pred, self._true, self._gap = Stability(), Stability(), None

    def add(self, record: Record, image: ImageArray, pred: MaskArray, truth: MaskArray) -> dict[str, float]:
        """What changed since the frame before; empty for stills and for the first frame."""
        if record.frame is None:
            return {}
        gap = None
        if self._last is not None and self._last.frame is not None and self._last.group == record.group:
            gap = record.frame - self._last.frame
        if gap is None or gap < 1 or (self._gap is not None and gap != self._gap):
            self._restart()
        else:
            self._gap = gap
        self._last = record
        step, true_step = self._pred.add(image, pred), self._true.add(image, truth)
        if step is None or true_step is None:
            return {}
        return {
            "warped_iou": step.warped_iou,
            "flicker_rate": step.flicker_rate,
            "true_warped_iou": true_step.warped_iou,
            "true_flicker_rate": true_step.flicker_rate,
        }


def _presence(guess: Guess) -> float:
    """How sure it is that there is an instrument: the largest probability; of a mask, the share of the frame."""
    if guess.probability is not None:
        return float(guess.probability.max())
    return float(np.count_nonzero(guess.mask)) / guess.mask.size


def _at_network_size(
    guess: Guess, mask: MaskArray, card: ModelCard | None
) -> tuple[NDArray[np.float32], PreparedMask] | None:
    """Logits and truth of the instrument as the network has them; None without a network of two classes."""
    if card is None or not card.binary or guess.logits is None:
        return None
    return guess.logits[0], loss_target(mask, card.preprocess)


def _nan_where_ignored(target: PreparedMask) -> NDArray[np.float32]:
    return np.where(target == IGNORE, np.float32(math.nan), target.astype(np.float32))


class _TrainingLoss:
    """The loss a model was trained with, over batches as training counts it: region losses pool a batch."""

    def __init__(self, loss: Callable[[NDArray[np.float32], PreparedMask], float], batch_size: int) -> None:
        self.loss, self.batch_size = loss, batch_size
        self.frames, self.sum = 0, 0.0
        self.held: list[tuple[NDArray[np.float32], PreparedMask]] = []

    @classmethod
    def of(cls, part: Part, truth: Truth) -> _TrainingLoss | None:
        """None where there is no model, or where the truth does not know the model's classes."""
        if part.card is None or (truth.join and not part.card.binary):
            return None
        return cls(torch_loss(part.card.loss, len(part.card.classes)), _batch_size(part))

    def add(self, logits: NDArray[np.float32], target: PreparedMask) -> None:
        self.held.append((logits, target))
        if len(self.held) == self.batch_size:
            self._flush()

    def finish(self) -> float:
        """Sum over frames of the loss of their batch."""
        if self.held:
            self._flush()
        return self.sum

    def _flush(self) -> None:
        logits, targets = zip(*self.held, strict=True)
        self.sum += self.loss(np.stack(logits), np.stack(targets)) * len(self.held)
        self.frames += len(self.held)
        self.held = []


def torch_loss(settings: LossSettings, class_count: int) -> Callable[[NDArray[np.float32], PreparedMask], float]:
    """The loss of a recipe for arrays. Shapes: logits (N, C, h, w), target (N, h, w)."""
    import torch  # heavy, and needed only where a model is judged

    from trocar.losses import build_loss

    loss = build_loss(settings, class_count)
    return lambda logits, target: float(loss(torch.from_numpy(logits), torch.from_numpy(target)))


def _batch_size(part: Part) -> int:
    return LOSS_BATCH if part.run is None else load_recipe(part.run / "recipe.yaml").train.batch_size
