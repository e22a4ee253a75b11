"""From the last epoch to the model: what validation records tell, the scores of both sides, the card, the folder."""

from __future__ import annotations

import copy
import math
import platform
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trocar import __version__
from trocar.data.loading import NativeMasks
from trocar.metrics.overlap import best_threshold
from trocar.model_folder import ModelCard, Provenance, Scores, derived_licence, write_model
from trocar.plain import none_for_nan
from trocar.reporting.figures import plot_curves
from trocar.training.judging import Judgement, quality_limit, temperature_scaling, validation_curve

if TYPE_CHECKING:
    from trocar.training.loop import Training


@dataclass(frozen=True)
class RunResult:
    """What a finished training leaves: where, and the model's card."""

    run: Path
    model: Path
    card: ModelCard


def finish(training: Training) -> RunResult:
    """Choose the threshold on validation records, score train and val in float32, write the model folder.

    Temperature and quality limit come from the same passes over the validation records.
    """
    plot_curves(training.position.history, training.folder / "curves.png")
    network = copy.deepcopy(training.judged)
    network.load_state_dict(training.kept)
    training.watcher.message("choosing the threshold on validation frames, scoring train and val")
    threshold: float | None = None
    of_validation: dict[str, Any] = {}
    if len(training.classes) == 2:
        swept = training.judge(network, training.val_set, training.val_truths, sweep=True)
        threshold, _ = best_threshold(swept.sweeps)
        of_validation = {"threshold_curve": validation_curve(swept), "calibration": temperature_scaling(swept)}
    plain_train = copy.copy(training.train_set)
    plain_train.augment = None
    train_truths = NativeMasks.read(plain_train.records, training.recipe.preprocess, join=training.join)
    judged = {}
    for side, prepared, truths in (
        ("train", plain_train, train_truths),
        ("val", training.val_set, training.val_truths),
    ):
        options = {} if threshold is None else {"threshold": threshold}
        judged[side] = training.judge(network, prepared, truths, **options)
    of_validation["quality"] = quality_limit(judged["val"])
    scores = {side: _as_scores(one, threshold) for side, one in judged.items()}
    licence = derived_licence(
        training.source.dataset, training.recipe.model.encoder, training.recipe.model.encoder_weights
    )
    card = write_model(
        training.folder / "model", _card(training, threshold, scores, **of_validation), network.state_dict(), licence
    )
    return RunResult(training.folder, training.folder / "model", card)


def _card(training: Training, threshold: float | None, scores: dict[str, Scores], **of_validation: Any) -> ModelCard:
    groups = {record.group for record in training.source.select(training.fold.train)}
    provenance = Provenance(
        recipe=training.recipe.name,
        dataset=training.source.dataset,
        data_fingerprint=training.source.fingerprint(),
        split_fingerprint=training.split.own_fingerprint(),
        groups=tuple(sorted(groups)),
        fold=training.fold_name,
        began_from=training.began_from,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        epochs=training.position.epoch,
        best_epoch=training.position.kept_epoch,
        seed=training.settings.seed,
        device=training.device.type,
        precision=training.precision,
        versions={"python": platform.python_version(), "torch": torch.__version__, "trocar": __version__},
    )
    return ModelCard(
        name=f"{training.recipe.name}{'-' + training.fold_name.replace('/', '-') if training.fold_name else ''}",
        classes=training.classes,
        target=training.recipe.data.target,
        model=training.recipe.model,
        preprocess=training.recipe.preprocess,
        loss=training.recipe.loss,
        threshold=threshold,
        threshold_from="none: the most probable class wins"
        if threshold is None
        else f"highest mean Dice per image at native size on {len(training.val_set)} validation records"
        + ("; records stand on two sides of the split" if training.split.shared_records else ""),
        provenance=provenance,
        scores=scores,
        **of_validation,
    )


def _as_scores(result: Judgement, threshold: float | None) -> Scores:
    return Scores(
        records=len(result.dice),
        loss=none_for_nan(result.loss),
        dice=none_for_nan(result.mean_dice),
        jaccard=none_for_nan(result.mean_jaccard),
        undefined=sum(math.isnan(value) for value in result.dice),
        threshold=threshold,
    )
