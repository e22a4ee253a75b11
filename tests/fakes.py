"""A small drawn world for the tests of evaluation and report: squares whose masks are known, and predictors that err
in a known way. No file of it is an image, no network is run."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from tiny import PARTS, tiny_card
from trocar.config import LossSettings, ModelSettings, PreprocessSettings, Recipe
from trocar.data.preprocess import place, prepare_mask
from trocar.data.records import Record, Source
from trocar.data.splits import Fold, Split, write_split
from trocar.evaluation import parts as evaluation_parts
from trocar.metrics.failure import quality
from trocar.model_folder import ModelCard, Scores, read_card, write_model

HEIGHT, WIDTH = 48, 64
SIZE_HW = (32, 48)
GROUPS = {"OP1": 5, "OP2": 6, "OP3": 4}  # frames of each; the last of each shows no instrument


def draw_mask(group: int, frame: int, *, parts: bool = False) -> np.ndarray:
    """A rectangle of its own size for each frame; with parts its right third is class 2. Empty where frame is None."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8 : 20 + 2 * group, 10 : 30 + 3 * frame] = 1
    if parts:
        mask[8 : 20 + 2 * group, 24 : 30 + 3 * frame] = 2
    mask[:3, :3] = 255
    return mask


def empty_mask() -> np.ndarray:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def draw_image(mask: np.ndarray) -> np.ndarray:
    """Reddish, brighter where the instrument is; the red channel's low bits keep the truth for the fake predictor."""
    image = np.full((*mask.shape, 3), (150, 70, 60), np.uint8)
    image[np.isin(mask, [1, 2])] = (200, 200, 205)
    image[..., 2] = np.where(mask == 255, 0, mask)  # what a perfect predictor would say
    return image


def make_source(*, parts: bool = False, root: Path = Path("drawn")) -> Source:
    records = []
    for number, (group, frames) in enumerate(GROUPS.items()):
        for frame in range(frames):
            mask = empty_mask() if frame == frames - 1 else draw_mask(number, frame, parts=parts)
            records.append(
                Record(
                    f"{group}/{frame:03d}",
                    group,
                    "drawn",
                    image=partial(draw_image, mask),
                    mask=partial(np.copy, mask),
                    frame=frame,
                )
            )
    classes = PARTS["classes"] if parts else ("background", "instrument")
    return Source("drawn", root, classes, tuple(records), mask_encoding="drawn in memory")


def make_split(source: Source, *, one: str | None = None) -> Split:
    """Leave one group out; or only the fold `one`."""
    names = {group: tuple(record.name for record in records) for group, records in source.groups.items()}
    folds = {}
    for group in [one] if one else GROUPS:
        others = [other for other in GROUPS if other != group]
        folds[group] = Fold(train=names[others[0]], val=names[others[1]], test=names[group])
    return Split(strategy="leave-one-group-out", fingerprint=source.fingerprint(), groups=names, folds=folds)


def make_card(source: Source, *, fold: str | None = None, threshold: float = 0.4, parts: bool = False) -> ModelCard:
    return tiny_card(
        name=f"fake-{fold}" if fold else "fake",
        **(PARTS if parts else {"threshold": threshold, "threshold_from": "highest mean Dice on validation records"}),
        model=ModelSettings(),
        preprocess=PreprocessSettings(size_hw=SIZE_HW, fit="squash"),
        loss=LossSettings(name="cross-entropy"),
        dataset=source.dataset,
        data_fingerprint=source.fingerprint(),
        fold=fold,
        groups=tuple(group for group in GROUPS if group != fold)[:1],
        scores={
            "train": Scores(records=10, loss=0.1, dice=0.95, jaccard=0.91, undefined=1, threshold=0.4),
            "val": Scores(records=5, loss=0.2, dice=0.90, jaccard=0.83, undefined=1, threshold=0.4),
        },
    )


def write_run(
    folder: Path, source: Source, *, fold: str | None = None, split: Split | None = None, **card: object
) -> Path:
    """A run as training leaves it, its weights a single zero."""
    made = make_card(source, fold=fold, **card)  # type: ignore[arg-type]
    write_model(folder / "model", made, {"zero": np.zeros(1)}, "licence of the test")
    (folder / "recipe.yaml").write_text(Recipe().to_yaml(), encoding="utf-8")
    if split is not None:
        write_split(split, folder / "split.yaml")
    header = "epoch,step,learning_rate,train_loss,train_dice,train_jaccard,val_loss,val_dice,val_jaccard,seconds\n"
    lines = [f"{e},{e * 3},0.001,{1 / e},{1 - 0.4 / e},{1 - 0.6 / e},{1.2 / e},{0.9 - 0.4 / e},,1\n" for e in (1, 2, 3)]
    (folder / "log.csv").write_text(header + "".join(lines), encoding="utf-8")
    return folder


def write_fold_run(folder: Path, source: Source) -> Path:
    split = make_split(source)
    folder.mkdir(parents=True)
    write_split(split, folder / "split.yaml")
    folds = {name: f"fold-{name}" for name in split.folds}
    (folder / "folds.json").write_text(json.dumps({"format": 1, "folds": folds}), encoding="utf-8")
    for name, sub in folds.items():
        write_run(folder / sub, source, fold=name, split=split)
    return folder


class FakePredictor:
    """Finds the instrument shifted right by `shift` pixels: p = 0.7 where shifted and true overlap, else 0.45."""

    about = "fake engine"
    versions: ClassVar = {"fake": "1"}

    def __init__(self, card: ModelCard, threshold: float | None = None, shift: int = 2) -> None:
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        self.shift = shift

    def __call__(self, image: np.ndarray) -> SimpleNamespace:
        truth = image[..., 2]
        found = np.roll(truth, self.shift, axis=1)
        if not truth.any() and self.card.provenance.fold == "OP2":
            found[40:44, 40:50] = 1  # a false alarm
        placement = place((image.shape[0], image.shape[1]), self.card.preprocess)
        if self.card.binary:
            found = (found > 0).astype(np.uint8)
            probability = np.where(found, np.where(truth > 0, 0.7, 0.45), 0.02).astype(np.float32)
            mask = (probability >= self.threshold).astype(np.uint8)
            small = cv2.resize(probability, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)
            logits = np.log(small / (1 - small))[None]
            probabilities = probability[None]
        else:
            mask = found
            probabilities = np.stack([np.where(found == c, 0.8, 0.1) for c in range(3)]).astype(np.float32)
            one_hot = prepare_mask(found, self.card.preprocess)
            logits = np.stack([np.where(one_hot == c, 2.0, 0.0) for c in range(3)]).astype(np.float32)
        return SimpleNamespace(
            mask=mask,
            probabilities=probabilities,
            classes=self.card.classes,
            threshold=self.threshold,
            network_logits=logits,
            placement=placement,
            disagreement=math.nan,
            quality=quality(probabilities, None if len(probabilities) > 1 else self.threshold),
        )


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Models are opened as fakes in the test folders that import this; the folders opened are listed."""
    folders: list[Path] = []

    def open_fake(folder: Path, device: str, choices: evaluation_parts.Choices) -> FakePredictor:
        folders.append(folder)
        return FakePredictor(read_card(folder), choices.threshold)

    monkeypatch.setattr(evaluation_parts, "open_predictor", open_fake)
    return folders
