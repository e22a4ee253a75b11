"""From a report to the model's card: its scores on frames it has not seen, for whoever gets the model."""

from __future__ import annotations

from pathlib import Path

from trocar.errors import UserError
from trocar.evaluation.parts import Choices
from trocar.evaluation.protocol import known_to_the_model
from trocar.evaluation.result import Evaluation
from trocar.model_folder import HeldOut, add_held_out, resolve_model
from trocar.plain import none_for_nan


def to_card(evaluation: Evaluation) -> Path:
    """Write the scores of an evaluation into `model.json` and README of its model; returns the model folder.

    Scores of the same data replace those of before. Raises `UserError` where there is no single model, where frames
    took part in its training, and where it was not predicted as it comes (flips, another threshold): a card tells what
    whoever opens the model gets.
    """
    if evaluation.inputs["model"] is None or len(evaluation.parts) != 1:
        raise UserError("a card is of one model", mend="score one model with --model, not masks and not several folds")
    part = evaluation.parts[0]
    assert part.card is not None
    if known := list(known_to_the_model(evaluation.source, part, part.card)):
        raise UserError(
            f"a card holds scores of frames that took no part: {known[0]}",
            where=str(evaluation.source.root),
            mend="score the test side of the model's own split, or other data",
        )
    if changed := [name for name, usual in vars(Choices()).items() if evaluation.inputs[name] != usual]:
        raise UserError(
            f"the model was not scored as it comes: {', '.join(changed)}", mend="leave these options out for the card"
        )
    folder = resolve_model(evaluation.inputs["model"])
    add_held_out(folder, _held_out(evaluation))
    return folder


def _held_out(evaluation: Evaluation) -> HeldOut:
    dice, jaccard = evaluation.summary.scores["dice"], evaluation.summary.scores["jaccard"]
    low, high = none_for_nan(dice.mean.low), none_for_nan(dice.mean.high)
    return HeldOut(
        data=f"{evaluation.source.dataset}, {evaluation.side} ({evaluation.source.root.resolve().name})",
        frames=dice.n,
        groups=len({row.group for row in evaluation.rows}),
        dice=none_for_nan(dice.mean.value),
        dice_interval=None if low is None or high is None else (low, high),
        dice_median=none_for_nan(dice.median.value),
        jaccard=none_for_nan(jaccard.mean.value),
    )
