"""Who is judged on which records: one model, the models of all folds, or a folder of masks made by any tool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import PreprocessSettings, mask_steps_in_words
from trocar.data.files import read_mask_file
from trocar.data.preprocess import altered_mask
from trocar.data.records import ImageArray, MaskArray, Record, Side, Source, join_classes
from trocar.data.splits import Split
from trocar.documents import read_json
from trocar.errors import UserError
from trocar.inference.tiling import as_network_logits
from trocar.model_folder import ModelCard, read_card, resolve_model

if TYPE_CHECKING:
    from trocar.inference.predictor import Prediction


class Predicts(Protocol):
    """What is needed of a Predictor."""

    card: ModelCard
    threshold: float | None

    @property
    def about(self) -> str:
        """The engine in one line."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """The library that runs the network, and its version."""
        ...

    def __call__(self, image: ImageArray, /) -> Prediction:
        """Predict one native image."""
        ...


@dataclass(frozen=True)
class Truth:
    """What of the source's masks counts as truth."""

    join: bool  # all classes but the background become one
    classes: tuple[str, ...] = ()  # classes from index 1 on that are scored by themselves as well
    notes: tuple[str, ...] = ()  # what the reader must know
    altered: PreprocessSettings | None = None  # whose mask steps change the truth too: the notebook's way

    def read(self, record: Record) -> tuple[ImageArray, MaskArray]:
        """A record's image and the truth about it. Shapes: (H, W, 3), (H, W)."""
        image, mask = record.read()
        mask = join_classes(mask) if self.join else mask
        return image, mask if self.altered is None else altered_mask(mask, self.altered)


@dataclass(frozen=True, eq=False)
class Guess:
    """What somebody predicted for one record, at native size."""

    mask: MaskArray  # (H, W) class indices
    probability: NDArray[np.float32] | None = None  # (H, W) of the instrument, where there are two classes
    logits: NDArray[np.float32] | None = None  # (C, h, w) at network size
    missing: bool = False
    threshold: float | None = None
    quality: float = math.nan  # Dice as the model itself expects it
    disagreement: float = math.nan  # 1 - Dice between the masks of image and mirror image


@dataclass(frozen=True)
class Guesser:
    """A model that is open, or a folder of masks: asked for a record and its image, it gives a `Guess`."""

    guess: Callable[[Record, ImageArray], Guess]
    engine: str = ""  # what runs the network, in words; empty of masks
    versions: Mapping[str, str] = field(default_factory=dict)  # of the library that runs it

    def __call__(self, record: Record, image: ImageArray) -> Guess:
        """Shapes: image (H, W, 3) -> a mask (H, W)."""
        return self.guess(record, image)


@dataclass(frozen=True)
class Part:
    """Records that one model, or one folder of masks, is judged on."""

    fold: str | None
    records: tuple[Record, ...]
    open: Callable[[], Guesser]  # opens the model: one at a time is held
    card: ModelCard | None = None  # of the model
    run: Path | None = None  # the run that made it


@dataclass(frozen=True)
class Choices:
    """What was chosen by hand of how a model predicts, where it brings its own or has none. As `Predictor.open`."""

    engine: str = "torch"
    threshold: float | None = None
    flips: bool = False
    tiles: float | None = None
    min_area: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Choices:
        """Those that a report names; what an older one does not name was not there to be chosen."""
        told: dict[str, Any] = {one.name: inputs[one.name] for one in fields(cls) if one.name in inputs}
        lists: dict[str, Any] = {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
        return cls(**(told | lists))


def open_predictor(folder: Path, device: str, choices: Choices) -> Predicts:
    """A model ready to predict."""
    from trocar.inference.predictor import Predictor  # heavy: torch is imported only when a model is opened

    return Predictor.open(folder, device=device, **asdict(choices))


def parts_of_models(
    source: Source,
    folders: Mapping[str | None, Path],
    split: Split | None,
    side: Side,
    device: str,
    choices: Choices,
) -> tuple[Part, ...]:
    """One part a model, each on its own fold of the split; without a split on every record.

    Raises `UserError` for what is no model, and where the split has several folds and the model is of none of them.
    """
    parts = []
    for name, path in folders.items():
        folder = resolve_model(path)
        card = read_card(folder)
        fold, records = name, source.records
        if split is not None:
            own = card.provenance.fold
            fold = name or (own if own in split.folds else None)
            records = tuple(source.select(split.fold(fold).side(side)))
        run = folder.parent if (folder.parent / "recipe.yaml").is_file() else None
        parts.append(Part(fold, records, partial(_open_model, folder, device, choices, card.preprocess), card, run))
    return tuple(parts)


def _open_model(folder: Path, device: str, choices: Choices, settings: PreprocessSettings) -> Guesser:
    predictor = open_predictor(folder, device, choices)

    def guess(_record: Record, image: ImageArray) -> Guess:
        prediction = predictor(image)
        probability = prediction.probabilities[0] if len(prediction.classes) == 2 else None
        logits = prediction.network_logits
        if logits.shape[1:] != settings.size_hw:  # in tiles, or of a form exported at another size
            logits = as_network_logits(prediction.probabilities, settings)
        return Guess(
            prediction.mask,
            probability,
            logits,
            threshold=predictor.threshold,
            quality=prediction.quality,
            disagreement=prediction.disagreement,
        )

    return Guesser(guess, predictor.about, predictor.versions)


def truth_for(parts: Sequence[Part], source: Source, *, as_labelled: bool = False) -> Truth:
    """The truth that models are judged by. Raises `UserError` where data and models know different classes.

    A recipe may apply its mask steps to all masks, as the notebook does: then they change the truth, and a note says
    so, unless `as_labelled`.
    """
    truth = _classes_of_truth(parts, source)
    card = parts[0].card
    if as_labelled or card is None or not card.preprocess.mask_steps or card.preprocess.mask_steps_on == "training":
        return truth
    steps = mask_steps_in_words(card.preprocess)
    note = f"the truth was altered before scoring, as the model's recipe says: {steps}. --as-labelled leaves it alone"
    return replace(truth, notes=(*truth.notes, note), altered=card.preprocess)


def _classes_of_truth(parts: Sequence[Part], source: Source) -> Truth:
    cards = [part.card for part in parts if part.card is not None]
    if len({card.classes for card in cards}) > 1:
        raise UserError("the models of the folds know different classes", mend="train the folds with one recipe")
    card = cards[0]
    if card.target == "instrument":
        return Truth(join=True)
    if card.classes == source.classes:
        return Truth(join=False, classes=card.classes[1:] if len(card.classes) > 2 else ())
    if len(source.classes) == 2:
        note = (
            f"the truth was read as one instrument, so {', '.join(card.classes[1:])} are scored together; where they "
            f"are labelled, --set data.target={card.target} scores them apart"
        )
        return Truth(join=True, notes=(note,))
    raise UserError(
        f"the model knows the classes {', '.join(card.classes)}, the data {', '.join(source.classes)}",
        where=str(source.root),
        mend="evaluate it on data with its classes",
    )


def parts_of_masks(source: Source, folder: Path, split: Split | None, side: Side) -> tuple[tuple[Part, ...], Truth]:
    """Records judged by the masks of a folder, one part a fold; of no single fold where there is but one.

    Raises `UserError` where there is no such folder, or its `classes.json` names other classes than the data.
    """
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
    return parts, Truth(join=not indexed, classes=source.classes[1:] if indexed else ())


def _classes_of_masks(folder: Path) -> tuple[str, ...] | None:
    """Names of the class indices, if the folder says them; written by `trocar predict` for several classes."""
    path = folder / "classes.json"
    if not path.is_file():
        return None
    tree = read_json(path, "the classes", mend="write it again")
    try:
        names = sorted(tree, key=lambda name: int(tree[name])) if isinstance(tree, dict) else list(tree)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"cannot read the classes: {error}", where=str(path), mend="write it again") from None
    return tuple(map(str, names))


def _open_masks(folder: Path, class_count: int) -> Guesser:
    return Guesser(partial(_read_guess, folder, class_count))


def _read_guess(folder: Path, class_count: int, record: Record, image: ImageArray) -> Guess:
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


def _as_indices(stored: NDArray[np.uint8], path: Path, class_count: int) -> MaskArray:
    """Class indices of a predicted mask: 0/255 or 0/1 for two classes, indices for more."""
    if stored.ndim == 3:
        if not (stored == stored[..., :1]).all():
            raise UserError("the predicted mask is in colour", where=str(path), mend="write class indices, or 0/255")
        stored = np.ascontiguousarray(stored[..., 0])
    values = set(np.flatnonzero(cv2.calcHist([stored], [0], None, [256], [0, 256])).tolist())
    if class_count == 2 and values <= {0, 255}:
        return np.asarray(stored == 255, np.uint8)
    if values <= set(range(class_count)):
        return np.asarray(stored, np.uint8)
    strange = ", ".join(str(value) for value in sorted(values - set(range(class_count)))[:5])
    expected = "0 and 1, or 0 and 255" if class_count == 2 else f"class indices 0 to {class_count - 1}"
    raise UserError(
        f"the predicted mask holds {strange}; expected {expected}",
        where=str(path),
        mend="write masks without anti-aliasing; for several classes put classes.json beside them",
    )
