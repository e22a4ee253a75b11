"""Scoring: one record at a time, of which only the row of figures is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.config import LossSettings, load_recipe
from trocar.data.preprocess import PreparedMask, fit_mask, loss_target
from trocar.data.records import Record
from trocar.errors import UserError, UserErrors
from trocar.evaluation.parts import Guesser, Part, Truth
from trocar.metrics.likelihood import cross_entropy
from trocar.metrics.summary import FrameScores, score_frame

Progress: TypeAlias = Callable[[int, int], None]  # called with (done, total)

LOSS_BATCH = 8  # frames a batch for the training loss, where the run's recipe is not there to say


def score(
    parts: Sequence[Part], truth: Truth, *, progress: Progress | None = None
) -> tuple[tuple[FrameScores, ...], float]:
    """Rows of all parts, and the mean training loss. Raises `UserErrors` with every record that cannot be scored."""
    rows: list[FrameScores] = []
    problems: list[UserError] = []
    total, loss_sum, loss_frames = sum(len(part.records) for part in parts), 0.0, 0
    done = 0
    for part in parts:
        if not part.records:
            continue
        guess, loss = part.open(), _TrainingLoss.of(part, truth)
        for record in part.records:
            try:
                rows.append(_score_record(record, part, guess, loss, truth))
            except UserErrors as several:
                problems += several.errors
            except UserError as problem:
                problems.append(problem)
            done += 1
            if progress is not None:
                progress(done, total)
        if loss is not None:
            loss_sum += loss.finish()
            loss_frames += loss.frames
    if problems:
        raise UserErrors(problems)
    return tuple(rows), loss_sum / loss_frames if loss_frames else math.nan


def _score_record(record: Record, part: Part, guess: Guesser, loss: _TrainingLoss | None, truth: Truth) -> FrameScores:
    image, mask = truth.read(record)
    guessed = guess(record, image)
    surprise = math.nan
    if loss is not None and guessed.logits is not None and part.card is not None:
        surprise = cross_entropy(guessed.logits, fit_mask(mask, part.card.preprocess))
        loss.add(guessed.logits, loss_target(mask, part.card.preprocess))
    return score_frame(
        guessed.mask,
        mask,
        record=record.name,
        group=record.group,
        fold=part.fold,
        classes=truth.classes,
        missing=guessed.missing,
        threshold=guessed.threshold,
        cross_entropy=surprise,
    )


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
