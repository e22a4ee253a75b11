"""Score a model, or masks made by any tool, against the truth of a source.

`evaluate` decides which records are scored by whom, scores them one at a time and keeps only their rows; what the
figures mean is `metrics.summary`, how they look is `reporting`. Pictures are made later by predicting the few frames
that are shown once more (`Evaluation.views`), so that memory does not grow with the number of frames.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar import __version__
from trocar.config import LossSettings, load_recipe
from trocar.data.files import read_mask_file
from trocar.data.preprocess import prepare_mask
from trocar.data.records import ImageArray, MaskArray, Record, Side, Source, join_classes
from trocar.data.splits import Split, read_split
from trocar.errors import UserError, UserErrors
from trocar.metrics.likelihood import cross_entropy
from trocar.metrics.summary import CONVENTION, EMPTY_RULE, FrameScores, Summary, score_frame, summarise, worst_first
from trocar.model_folder import ModelCard, read_card, resolve_model

if TYPE_CHECKING:
    from trocar.inference.predictor import Prediction

Progress: TypeAlias = Callable[[int, int], None]  # called with (done, total)

LOSS_BATCH = 8  # frames a batch for the training loss, where the run's recipe is not there to say


class Predicts(Protocol):
    """What is needed of a Predictor."""

    card: ModelCard
    threshold: float | None

    def __call__(self, image: ImageArray, /) -> Prediction:
        """Predict one native image."""
        ...


@dataclass(frozen=True, eq=False)
class Guess:
    """What somebody predicted for one record, at native size."""

    mask: MaskArray  # (H, W) class indices
    probability: NDArray[np.float32] | None = None  # (H, W) of the instrument, where there are two classes
    logits: NDArray[np.float32] | None = None  # (C, h, w) at network size
    missing: bool = False
    threshold: float | None = None


Guesser: TypeAlias = Callable[[Record, ImageArray], Guess]


@dataclass(frozen=True)
class Part:
    """Records that one model, or one folder of masks, is judged on."""

    fold: str | None
    records: tuple[Record, ...]
    open: Callable[[], Guesser]  # opens the model: one at a time is held
    card: ModelCard | None = None  # of the model
    run: Path | None = None  # the run that made it


@dataclass(frozen=True, eq=False)
class View:
    """One frame to be looked at: its row, its pixels, its truth and what was predicted."""

    row: FrameScores
    image: ImageArray
    truth: MaskArray
    guess: Guess


@dataclass(frozen=True)
class SideScores:
    """Loss, Dice and Jaccard of one side of the split. NaN where it was not taken."""

    side: str
    frames: int
    loss: float
    dice: float
    jaccard: float


@dataclass(frozen=True)
class Evaluation:
    """Rows of all frames scored, and everything a reader must know to judge them."""

    source: Source
    parts: tuple[Part, ...]
    rows: tuple[FrameScores, ...]
    side: str  # "train", "val", "test", or "all records"
    classes: tuple[str, ...]  # classes scored by themselves; none where there is only the instrument
    join: bool  # whether classes of the truth were joined into one
    training_loss: float  # mean over frames; NaN without a model
    protocol: Mapping[str, str]  # how it was done, in words, in the order to be shown
    warnings: tuple[str, ...]  # what makes the figures mean less than they seem
    notes: tuple[str, ...]

    @cached_property
    def summary(self) -> Summary:
        """All figures; intervals are resampled on first use."""
        return summarise(self.rows)

    @cached_property
    def sides(self) -> tuple[SideScores, ...]:
        """Train and validation as the cards of the models tell, then the side scored here."""
        cards = [part.card for part in self.parts if part.card is not None]
        scores = self.summary.scores
        kind = "mean_class_" if self.classes else ""
        here = SideScores(
            self.side,
            len(self.rows),
            self.training_loss,
            *(scores[kind + key].mean.value if kind + key in scores else math.nan for key in ("dice", "jaccard")),
        )
        return (*(row for side in ("train", "val") if (row := _side_of_cards(side, cards))), here)

    @cached_property
    def curves(self) -> dict[str, list[dict[str, str]]]:
        """Rows of log.csv of the runs that made the models, by fold ("" where there are no folds)."""
        logs = {part.fold or "": part.run / "log.csv" for part in self.parts if part.run is not None}
        return {fold: _read_log(path) for fold, path in logs.items() if path.is_file()}

    def views(self, rows: Iterable[FrameScores]) -> Iterator[View]:
        """Predict these frames once more and show them, fold by fold; one is held at a time."""
        wanted = {(row.fold, row.record): row for row in rows}
        for part in self.parts:
            chosen = [record for record in part.records if (part.fold, record.name) in wanted]
            if not chosen:
                continue
            guess = part.open()
            for record in chosen:
                image, truth = record.read()
                truth = join_classes(truth) if self.join else truth
                yield View(wanted[part.fold, record.name], image, truth, guess(record, image))

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON: what report.json holds. NaN is still NaN."""
        summary = self.summary
        return {
            "format": 1,
            "trocar_version": __version__,
            "side": self.side,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "protocol": dict(self.protocol),
            "frames": summary.frames,
            "scores": {key: asdict(value) for key, value in summary.scores.items()},
            "classes": {key: asdict(value) for key, value in summary.classes.items()},
            "empty_frames": asdict(summary.empty),
            "missing_predictions": {"count": len(summary.missing), "records": list(summary.missing)},
            "sides": [asdict(side) for side in self.sides],
            "groups": [asdict(part) for part in summary.groups],
            "folds": [asdict(part) for part in summary.folds],
            "worst": [
                {"record": row.record, "fold": row.fold, "dice": row.dice} for row in worst_first(self.rows)[:10]
            ],
        }


def evaluate(
    source: Source,
    *,
    model: Path | None = None,
    predictions: Path | None = None,
    split: Split | Path | None = None,
    side: Side = "test",
    device: str = "auto",
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model (a model folder, a run, or a run of several folds) or a folder of masks on one side of a split.

    Without a split every record is scored, except that a run of several folds brings its own; each of its models is
    judged on its own fold and the rows are pooled. `predictions` holds DIR/<record name>.png or
    DIR/masks/<record name>.png; a missing one counts as an empty mask and is listed. `threshold` replaces the model's.
    Raises `UserError` / `UserErrors` for what a person can mend, every unreadable record at once.
    """
    if (model is None) == (predictions is None):
        raise UserError("give either a model or a folder of predictions", mend="--model MODEL, or --predictions DIR")
    if source.findings:
        raise UserErrors(source.findings)
    split = read_split(split) if isinstance(split, Path) else split
    if model is not None:
        folders = _fold_folders(model)
        if folders and split is None:
            split = read_split(model / "split.yaml")
    if split is not None:
        split.check_against(source)
    if model is not None:
        parts = _parts_of_models(source, folders or {None: model}, split, side, device, threshold)
        join, classes, notes = _truth_for(parts, source)
    else:
        assert predictions is not None
        if threshold is not None:
            raise UserError("masks have no threshold", mend="leave the threshold out")
        parts, join, classes, notes = _parts_of_masks(source, predictions, split, side)
    if not any(part.records for part in parts):
        raise UserError(f"the split has no {side} records", mend="choose another side, or another split")
    rows, loss = _score(parts, join=join, classes=classes, progress=progress)
    if rows and all(row.missing for row in rows):
        raise _no_prediction_at_all(rows, predictions)
    return Evaluation(
        source=source,
        parts=parts,
        rows=rows,
        side=side if split is not None else "all records",
        classes=classes,
        join=join,
        training_loss=loss,
        protocol=_protocol(source, parts, rows, split, side, predictions, threshold, join=join),
        warnings=tuple(_warnings(source, parts, rows, split, side)),
        notes=(*notes, *source.notes),
    )


# ------------------------------------------------------------------ who is judged on what


def open_predictor(folder: Path, device: str, threshold: float | None) -> Predicts:
    """A model ready to predict."""
    from trocar.inference.predictor import Predictor  # heavy: torch is imported only when a model is opened

    return Predictor.open(folder, device=device, threshold=threshold)


def _fold_folders(model: Path) -> dict[str | None, Path]:
    """Folder of the run of each fold; empty where the model is no run of several folds."""
    path = model / "folds.json"
    if not path.is_file():
        return {}
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))["folds"]
        return {str(fold): model / folder for fold, folder in folds.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"the list of folds cannot be read: {error}", where=str(path), mend="name a fold's folder")


def _parts_of_models(
    source: Source,
    folders: Mapping[str | None, Path],
    split: Split | None,
    side: Side,
    device: str,
    threshold: float | None,
) -> tuple[Part, ...]:
    parts = []
    for fold, path in folders.items():
        folder = resolve_model(path)
        card = read_card(folder)
        if split is None:
            records = source.records
        else:
            known = card.provenance.fold in split.folds
            records = tuple(source.select(split.fold(fold or (card.provenance.fold if known else None)).side(side)))
        run = folder.parent if (folder.parent / "recipe.yaml").is_file() else None
        open_it = partial(_open_model, folder, device, threshold)
        parts.append(Part(fold or (card.provenance.fold if split else None), records, open_it, card, run))
    return tuple(parts)


def _open_model(folder: Path, device: str, threshold: float | None) -> Guesser:
    predictor = open_predictor(folder, device, threshold)

    def guess(_record: Record, image: ImageArray) -> Guess:
        prediction = predictor(image)
        probability = prediction.probabilities[0] if len(prediction.classes) == 2 else None
        return Guess(prediction.mask, probability, prediction.network_logits, threshold=predictor.threshold)

    return guess


def _truth_for(parts: Sequence[Part], source: Source) -> tuple[bool, tuple[str, ...], list[str]]:
    """Whether to join the classes of the truth, which to score one by one, and what the reader must know."""
    cards = [part.card for part in parts if part.card is not None]
    if len({card.classes for card in cards}) > 1:
        raise UserError("the models of the folds know different classes", mend="train the folds with one recipe")
    card = cards[0]
    if card.target == "instrument":
        return True, (), []
    if card.classes == source.classes:
        return False, card.classes[1:] if len(card.classes) > 2 else (), []
    if len(source.classes) == 2:
        return True, (), [f"the truth knows no parts: {', '.join(card.classes[1:])} are scored as one instrument"]
    raise UserError(
        f"the model knows the classes {', '.join(card.classes)}, the data {', '.join(source.classes)}",
        where=str(source.root),
        mend="evaluate it on data with its classes",
    )


def _parts_of_masks(
    source: Source, folder: Path, split: Split | None, side: Side
) -> tuple[tuple[Part, ...], bool, tuple[str, ...], list[str]]:
    if not folder.is_dir():
        raise UserError("no such folder of predictions", where=str(folder), mend="give the folder of the masks")
    classes = _classes_of_masks(folder)
    if classes is not None and classes != source.classes and len(classes) > 2:
        raise UserError(
            f"the predictions know the classes {', '.join(classes)}, the data {', '.join(source.classes)}",
            where=str(folder / "classes.json"),
            mend="predict the classes of the data, or masks of one instrument class without classes.json",
        )
    indexed = classes is not None and len(classes) > 2
    class_count = len(source.classes) if indexed else 2
    if split is None:
        chosen: dict[str | None, tuple[Record, ...]] = {None: source.records}
    else:
        many = len(split.folds) > 1
        chosen = {name if many else None: tuple(source.select(fold.side(side))) for name, fold in split.folds.items()}
    open_it = partial(_open_masks, folder, class_count)
    parts = tuple(Part(fold, records, open_it) for fold, records in chosen.items())
    return parts, not indexed, source.classes[1:] if indexed else (), []


def _classes_of_masks(folder: Path) -> tuple[str, ...] | None:
    """Names of the class indices, if the folder says them; written by `trocar predict` for several classes."""
    path = folder / "classes.json"
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(tree, key=lambda name: int(tree[name])) if isinstance(tree, dict) else list(tree)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the classes: {error}", where=str(path), mend="write it again") from None
    return tuple(map(str, names))


def _open_masks(folder: Path, class_count: int) -> Guesser:
    def guess(record: Record, image: ImageArray) -> Guess:
        candidates = [folder / "masks" / f"{record.name}.png", folder / f"{record.name}.png"]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            return Guess(np.zeros(image.shape[:2], np.uint8), missing=True)
        mask = _as_indices(read_mask_file(path), path, class_count)
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"the predicted mask is {mask.shape[1]}x{mask.shape[0]}, its image {image.shape[1]}x{image.shape[0]}",
                where=str(path),
                mend="write predictions at the image's own size",
            )
        return Guess(mask)

    return guess


def _as_indices(stored: NDArray[np.uint8], path: Path, class_count: int) -> MaskArray:
    """Class indices of a predicted mask: 0/255 or 0/1 for two classes, indices for more."""
    if stored.ndim == 3:
        if not (stored == stored[..., :1]).all():
            raise UserError("the predicted mask is in colour", where=str(path), mend="write class indices, or 0/255")
        stored = stored[..., 0]
    values = set(np.unique(stored).tolist())
    if class_count == 2 and values <= {0, 255}:
        return (stored == 255).astype(np.uint8)
    if values <= set(range(class_count)):
        return stored
    strange = ", ".join(str(value) for value in sorted(values - set(range(class_count)))[:5])
    expected = "0 and 1, or 0 and 255" if class_count == 2 else f"class indices 0 to {class_count - 1}"
    raise UserError(
        f"the predicted mask holds {strange}; expected {expected}",
        where=str(path),
        mend="write masks without anti-aliasing; for several classes put classes.json beside them",
    )


def _no_prediction_at_all(rows: Sequence[FrameScores], predictions: Path | None) -> UserError:
    return UserError(
        f"none of the {len(rows)} records has a prediction",
        where=str(predictions),
        mend=f"name masks as their records, for example {rows[0].record}.png",
    )


# ------------------------------------------------------------------ scoring


def _score(
    parts: Sequence[Part], *, join: bool, classes: Sequence[str], progress: Progress | None
) -> tuple[tuple[FrameScores, ...], float]:
    """Rows of all parts, and the mean training loss. Raises `UserErrors` with every record that cannot be scored."""
    rows: list[FrameScores] = []
    problems: list[UserError] = []
    total, loss_sum, loss_frames = sum(len(part.records) for part in parts), 0.0, 0
    done = 0
    for part in parts:
        if not part.records:
            continue
        guess, loss = part.open(), _TrainingLoss.of(part, joined=join)
        for record in part.records:
            try:
                rows.append(_score_record(record, part, guess, loss, join=join, classes=classes))
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


def _score_record(
    record: Record, part: Part, guess: Guesser, loss: _TrainingLoss | None, *, join: bool, classes: Sequence[str]
) -> FrameScores:
    image, truth = record.read()
    truth = join_classes(truth) if join else truth
    guessed = guess(record, image)
    surprise = math.nan
    if loss is not None and guessed.logits is not None and part.card is not None:
        target = prepare_mask(truth, part.card.preprocess)
        surprise = cross_entropy(guessed.logits, target)
        loss.add(guessed.logits, target)
    return score_frame(
        guessed.mask,
        truth,
        record=record.name,
        group=record.group,
        fold=part.fold,
        classes=classes,
        missing=guessed.missing,
        threshold=guessed.threshold,
        cross_entropy=surprise,
    )


class _TrainingLoss:
    """The loss a model was trained with, over batches as training counts it: region losses pool a batch."""

    def __init__(self, loss: Callable[[NDArray[np.float32], MaskArray], float], batch_size: int) -> None:
        self.loss, self.batch_size = loss, batch_size
        self.frames, self.sum = 0, 0.0
        self.held: list[tuple[NDArray[np.float32], MaskArray]] = []

    @classmethod
    def of(cls, part: Part, *, joined: bool) -> _TrainingLoss | None:
        """None where there is no model, or where the truth does not know the model's classes."""
        if part.card is None or (joined and not part.card.binary):
            return None
        return cls(torch_loss(part.card.loss, len(part.card.classes)), _batch_size(part))

    def add(self, logits: NDArray[np.float32], target: MaskArray) -> None:
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


def torch_loss(settings: LossSettings, class_count: int) -> Callable[[NDArray[np.float32], MaskArray], float]:
    """The loss of a recipe for arrays. Shapes: logits (N, C, h, w), target (N, h, w)."""
    import torch  # heavy, and needed only where a model is judged

    from trocar.losses import build_loss

    loss = build_loss(settings, class_count)
    return lambda logits, target: float(loss(torch.from_numpy(logits), torch.from_numpy(target)))


def _batch_size(part: Part) -> int:
    return LOSS_BATCH if part.run is None else load_recipe(part.run / "recipe.yaml").train.batch_size


def _side_of_cards(side: str, cards: Sequence[ModelCard]) -> SideScores | None:
    """One side over all folds, each weighted by the frames it counts; None where no card tells."""
    scores = [card.scores[side] for card in cards if side in card.scores]
    if not scores or len(scores) < len(cards):
        return None

    def mean(values: Sequence[float | None], weights: Sequence[int]) -> float:
        told = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
        return sum(v * w for v, w in told) / sum(w for _, w in told) if told else math.nan

    frames = [one.records for one in scores]
    scored = [one.records - one.undefined for one in scores]
    return SideScores(
        side,
        sum(frames),
        mean([one.loss for one in scores], frames),
        mean([one.dice for one in scores], scored),
        mean([one.jaccard for one in scores], scored),
    )


def _read_log(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ what the reader must know


def _protocol(
    source: Source,
    parts: Sequence[Part],
    rows: Sequence[FrameScores],
    split: Split | None,
    side: Side,
    predictions: Path | None,
    threshold: float | None,
    *,
    join: bool,
) -> dict[str, str]:
    """How the figures came about, in words, in the order to be shown."""
    cards = [part.card for part in parts if part.card is not None]
    sizes = Counter(f"{row.width}x{row.height}" for row in rows)
    most = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    facts = {
        "data": f"{source.dataset}, {len(source)} records in {len(source.groups)} groups",
        "data fingerprint": source.fingerprint(),
        "masks": source.mask_encoding,
        "scored": f"{len(rows)} frames, {f'side {side}' if split else 'every record: no split was given'}",
        **(_split_in_words(split, parts) if split else {}),
        "resolution": f"native size of each frame: {most}{' and others' if len(sizes) > 3 else ''}",
        "classes": "all but the background joined into one" if join else ", ".join(source.classes),
        "convention": CONVENTION,
        "frames without instrument": EMPTY_RULE,
    }
    if predictions is not None:
        facts |= {"predictions": f"masks of {predictions}", "missing predictions": "count as empty masks"}
        facts |= {"threshold": "none: the masks were given"}
    for part in parts:
        if part.card is not None:
            facts |= _model_in_words(part.card, part.fold if len(cards) > 1 else None, threshold)
    if cards:
        facts["loss"] = (
            f"{cards[0].loss.name}, at network size, over batches as in training; "
            "cross-entropy beside it is in nats per pixel, per frame"
        )
    facts["versions"] = _versions(torch=bool(cards))
    return {key: value for key, value in facts.items() if value}


def _split_in_words(split: Split, parts: Sequence[Part]) -> dict[str, str]:
    folds = [part.fold for part in parts if part.fold is not None]
    return {
        "split": split.strategy
        + (f", seed {split.seed}" if split.seed is not None else "")
        + (f", folds {', '.join(folds)}" if folds else ""),
        "split fingerprint": split.own_fingerprint(),
        "cut groups": split.cut_groups or "none: no group stands on two sides",
        "records on two sides": split.shared_records or "none",
    }


def _model_in_words(card: ModelCard, fold: str | None, threshold: float | None) -> dict[str, str]:
    of_fold = f" (fold {fold})" if fold else ""
    made = card.provenance
    chosen = f"{threshold}, given by hand" if threshold is not None else f"{card.threshold}, {card.threshold_from}"
    if card.threshold is None:
        chosen = card.threshold_from
    height, width = card.preprocess.size_hw
    return {
        f"model{of_fold}": f"{card.name}: {card.model.architecture} on {card.model.encoder}, network size "
        f"{height}x{width} ({card.preprocess.fit}); {made.dataset}, epoch {made.best_epoch} of {made.epochs}, "
        f"seed {made.seed}",
        f"threshold{of_fold}": chosen,
    }


def _versions(*, torch: bool) -> str:
    packages = ("numpy", "opencv-python-headless", *(("torch",) if torch else ()))
    return ", ".join([f"trocar {__version__}", *(f"{name} {metadata.version(name)}" for name in packages)])


def _warnings(
    source: Source, parts: Sequence[Part], rows: Sequence[FrameScores], split: Split | None, side: Side
) -> Iterator[str]:
    if split is not None and side != "test":
        yield f"these are {side} records: the model, its epoch or its threshold was fitted to them"
    for part in parts:
        if part.card is not None:
            yield from _known_to_the_model(source, part, part.card)
    missing = sum(row.missing for row in rows)
    if missing:
        yield f"{missing} of {len(rows)} frames have no prediction and count as empty masks"
    twice = len(rows) - len({row.record for row in rows})
    if twice:
        yield f"{twice} frames are scored in more than one fold: rows are not independent"
    if split is not None and split.shared_records:
        yield f"the split puts records on two sides: {split.shared_records}"


def _known_to_the_model(source: Source, part: Part, card: ModelCard) -> Iterator[str]:
    """Warnings about records that the model learnt from or was chosen by."""
    of_fold = f"fold {part.fold}: " if part.fold else ""
    made, names = card.provenance, {record.name for record in part.records}
    same_data = made.data_fingerprint == source.fingerprint()
    run_split = part.run / "split.yaml" if part.run is not None else None
    if same_data and run_split is not None and run_split.is_file():
        fold = read_split(run_split).fold(made.fold)
        for what, listed in (("was trained on", fold.train), ("was chosen with", fold.val)):
            if known := len(names & set(listed)):
                yield f"{of_fold}the model {what} {known} of the {len(names)} frames scored: no held-out figure"
    elif same_data or made.dataset == source.dataset:
        known = sum(record.group in made.groups for record in part.records)
        if known:
            data = "this very data" if same_data else f"data of the same kind ({made.dataset})"
            yield (
                f"{of_fold}the model was trained on {data}; {known} of the {len(names)} frames scored are of groups "
                "of the same name as it was trained on: no held-out figure unless they are other frames"
            )
