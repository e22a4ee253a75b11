"""The gate: an exported form is kept only where its masks of validation records are those of PyTorch, within limits."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trocar.data.records import MaskArray, Record
from trocar.errors import UserError
from trocar.evaluation.parts import Truth
from trocar.inference.predictor import Prediction, Predictor, sigmoid, softmax
from trocar.metrics.frames import mean_of_defined
from trocar.metrics.overlap import class_counts, instrument_counts
from trocar.model_folder import Agreement, FrameAgreement
from trocar.plain import none_for_nan
from trocar.progress import Watcher

WORST = 5  # frames named in the card and in messages
TABLE = "agreement.csv"


@dataclass(frozen=True)
class Limits:
    """How far masks may differ."""

    dice: float  # by how much the mean Dice over frames may fall
    pixels: float  # share of the pixels whose class may differ, mean over frames


@dataclass(frozen=True, eq=False)
class _Seen:
    """What PyTorch made of one record. Probabilities in steps of 1/65535: a hundred frames are to fit in memory."""

    record: Record
    mask: MaskArray
    probabilities: NDArray[np.uint16]
    dice: float


class Gate:
    """Remembers what PyTorch says of validation records, and compares exported forms with it."""

    def __init__(
        self,
        reference: Predictor,
        records: Sequence[Record],
        truth: Truth,
        limits: Limits,
        *,
        origin: str,
        watcher: Watcher,
    ) -> None:
        """Run the reference. Raises `UserError` where no record shows an instrument: nothing could be measured."""
        self.limits = limits
        self._truth, self._origin, self._watcher = truth, origin, watcher
        self._seen: list[_Seen] = []
        for index, record in enumerate(records, start=1):
            image, mask = truth.read(record)
            found = reference(image)
            dice = _dice(found.mask, mask, truth, len(found.classes))
            self._seen.append(_Seen(record, found.mask, _steps(_probabilities(found)), dice))
            watcher.preparing("PyTorch on validation frames", index, len(records))
        if all(math.isnan(seen.dice) for seen in self._seen):
            raise UserError(
                f"none of the {len(self._seen)} validation frames shows an instrument: the gate cannot measure Dice",
                mend="give other labelled frames with --data",
            )

    def compare(self, candidate: Predictor) -> tuple[Agreement, list[FrameAgreement]]:
        """How far a form agrees: over all frames, and frame by frame."""
        frames = []
        for index, seen in enumerate(self._seen, start=1):
            image, mask = self._truth.read(seen.record)
            found = candidate(image)
            apart = np.abs(_steps(_probabilities(found)).astype(np.int32) - seen.probabilities)
            dice = _dice(found.mask, mask, self._truth, len(found.classes))
            frames.append(
                FrameAgreement(
                    record=seen.record.name,
                    probability=float(apart.max()) / 65535,
                    pixels=float(np.mean(found.mask != seen.mask)),
                    dice_torch=none_for_nan(seen.dice),
                    dice=none_for_nan(dice),
                )
            )
            self._watcher.preparing("exported form on validation frames", index, len(self._seen))
        return self._sum_up(frames), frames

    def _sum_up(self, frames: Sequence[FrameAgreement]) -> Agreement:
        defined = [(one.dice_torch, one.dice) for one in frames if one.dice_torch is not None and one.dice is not None]
        return Agreement(
            frames=len(frames),
            records=self._origin,
            probability=max(one.probability for one in frames),
            pixels=float(np.mean([one.pixels for one in frames])),
            dice_torch=float(np.mean([before for before, _ in defined])),
            dice=float(np.mean([after for _, after in defined])),
            dice_limit=self.limits.dice,
            pixel_limit=self.limits.pixels,
            worst=tuple(sorted(frames, key=lambda one: (-one.drop, -one.pixels))[:WORST]),
        )


def refusal(form: str, agreement: Agreement, costs: Sequence[tuple[str, float]]) -> UserError:
    """Why a form is not kept: how far it is off, the frames, and in int8 the layers, that cause it."""
    off = []
    if agreement.drop > agreement.dice_limit:
        off.append(
            f"mean Dice falls by {agreement.drop:.4f}, from {agreement.dice_torch:.4f} to {agreement.dice:.4f} "
            f"(limit {agreement.dice_limit:g})"
        )
    if agreement.pixels > agreement.pixel_limit:
        off.append(f"{agreement.pixels:.2%} of the pixels differ (limit {agreement.pixel_limit:.2%})")
    frames = [f"{one.record} (Dice {-one.drop:+.4f}, {one.pixels:.2%} of the pixels)" for one in agreement.worst]
    layers = [f"{name} ({share:.0%} of the error)" for name, share in costs[:WORST]]
    named = f"; layers that cost most: {', '.join(layers)}" if layers else ""
    return UserError(
        f"{form} is not written, its masks are not those of PyTorch: {' and '.join(off)}",
        where=f"{agreement.frames} validation frames, worst: {', '.join(frames)}{named}",
        mend=(
            "export without --int8, calibrate with more frames (--frames)" if costs else "predict with --engine torch"
        )
        + ", or allow more with --dice-limit and --pixel-limit",
    )


def write_table(frames: Sequence[FrameAgreement], path: Path) -> None:
    """All frames as CSV; an undefined Dice is left empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(FrameAgreement.model_fields), lineterminator="\n")
        table.writeheader()
        table.writerows(one.model_dump() for one in frames)


def _probabilities(found: Prediction) -> NDArray[np.float32]:
    """At network size, without the padding. Shapes: -> (C, h, w)."""
    logits = found.network_logits[:, : found.placement.height, : found.placement.width]
    return sigmoid(logits) if len(logits) == 1 else softmax(logits)


def _steps(probabilities: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.rint(probabilities * 65535).astype(np.uint16)


def _dice(pred: MaskArray, truth: MaskArray, how: Truth, classes: int) -> float:
    """NaN where the truth has no instrument. Several classes: mean over those that occur, as in training."""
    overall = instrument_counts(pred, truth)
    if not overall.true:
        return math.nan
    if how.join:
        return overall.dice
    return mean_of_defined([counts.dice for counts in class_counts(pred, truth, classes)[1:]])
