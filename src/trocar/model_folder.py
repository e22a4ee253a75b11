"""The model folder: what training leaves behind and everything else opens.

`weights.safetensors` (float32, or float16), `model.json` (the card: architecture, classes, preprocessing, threshold,
provenance, scores, and the SHA-256 of every other file), `README.md` (the card for people) and `LICENSE` (of the
weights). No pickle and no code: opening a model runs nothing. Building the network from it is `models.build`,
predicting with it `inference.predictor`.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.numpy import save_file

from trocar import __version__
from trocar.box import model_named
from trocar.config import (
    Fraction,
    LossSettings,
    ModelSettings,
    PreprocessSettings,
    Settings,
    Target,
    mask_steps_in_words,
    validate,
)
from trocar.documents import read_json, read_yaml, reason, refuse_what_is_no_file
from trocar.errors import UserError, UserErrors
from trocar.sizes import shown_size

if TYPE_CHECKING:
    from torch import Tensor

FORMAT: Final = 1
CARD, WEIGHTS, README, LICENCE = "model.json", "weights.safetensors", "README.md", "LICENSE"
LICENCE_HEADING = "Licence of these weights"
PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"}
CURVE_COLUMNS: Final = 7  # of the table in the README
COPY_AGAIN = "copy the whole folder again from where it came from, or train it again"


class Scores(Settings):
    """What the model reached on one side of its split, and how that was counted. Undefined is null."""

    records: NonNegativeInt = Field(description="images scored")
    loss: float | None = Field(None, description="mean of the training loss")
    dice: float | None = Field(None, description="mean over images of Dice at the threshold")
    jaccard: float | None = Field(None, description="mean over images of Jaccard at the threshold")
    undefined: NonNegativeInt = Field(0, description="images left out of the means: neither mask has an instrument")
    threshold: Fraction | None = Field(None, description="probability from which a pixel is instrument; null: argmax")
    resolution: str = Field("native size", description="at what size, in words")


class HeldOut(Settings):
    """Scores on frames that took no part in training or choosing, taken over from a report. Undefined is null."""

    data: str = Field(description="what was scored, in words")
    models: str = Field("this model", description="what was scored: this model, or others trained like it, in words")
    frames: NonNegativeInt = Field(description="images with an instrument: those that the means are over")
    groups: NonNegativeInt = Field(description="groups (patients, procedures, videos) they come from")
    dice: float | None = Field(description="mean over images of Dice, at native size")
    dice_interval: tuple[float, float] | None = Field(None, description="95 % bootstrap interval of that mean")
    dice_median: float | None = Field(None, description="median over images")
    jaccard: float | None = Field(None, description="mean over images of Jaccard")


class Provenance(Settings):
    """Where the weights come from: enough to make them again."""

    recipe: str = Field(description="name of the recipe")
    dataset: str = Field(description="name of the data")
    data_fingerprint: str = Field(description="fingerprint of the whole source")
    split_fingerprint: str | None = Field(None, description="fingerprint of the split")
    groups: tuple[str, ...] = Field((), description="groups (patients, procedures, videos) trained on")
    fold: str | None = Field(None, description="fold of the split, where it has several")
    created: str = Field(description="when, ISO 8601 with zone")
    epochs: NonNegativeInt = Field(description="epochs run")
    best_epoch: NonNegativeInt = Field(description="epoch these weights are of")
    seed: int = Field(description="seed of the training")
    device: str = Field(description="device trained on")
    precision: str = Field(description="arithmetic of the forward pass")
    versions: dict[str, str] = Field({}, description="versions of the libraries that matter")


class ValidationCurve(Settings):
    """Mean Dice on the validation side at every threshold, among which the model's own was chosen."""

    thresholds: tuple[float, ...] = Field(description="probabilities from which a pixel is instrument, rising")
    dice: tuple[float, ...] = Field(description="mean over frames of Dice at each, at native size")
    frames: NonNegativeInt = Field(description="validation frames that show an instrument: others have no Dice")

    @model_validator(mode="after")
    def _one_dice_a_threshold(self) -> ValidationCurve:
        if len(self.thresholds) != len(self.dice):
            raise ValueError(f"{len(self.thresholds)} thresholds but {len(self.dice)} Dice")
        return self


class TemperatureScaling(Settings):
    """What makes the probabilities of the validation side right on average, and how far off they were."""

    temperature: PositiveFloat | None = Field(
        description="a calibrated probability is sigmoid(logit / temperature); null: none fits"
    )
    ece: float | None = Field(description="expected calibration error of the probabilities as they come")
    ece_after: float | None = Field(description="the same after temperature scaling")
    frames: NonNegativeInt = Field(description="validation frames it was fitted on")
    resolution: str = Field("network size", description="at what size, in words")


class QualityLimit(Settings):
    """From which quality on a mask can be trusted so far, as validation frames say. `metrics.failure` has the terms."""

    limit: float | None = Field(description="frames of a lower quality are to be looked at; null: nothing is promised")
    factor: float | None = Field(description="Dice is promised to be at least 1 - factor (1 - quality)")
    bad_dice: Fraction = Field(description="Dice that the bound reaches at the limit")
    alpha: Fraction = Field(description="share of frames for which the promise may fail")
    frames: NonNegativeInt = Field(description="validation frames it rests on: those in which something was found")
    assumption: str = Field(description="what is promised and under which assumption, or why nothing is, in words")


class FrameAgreement(Settings):
    """How far an exported form and PyTorch agree on one frame."""

    record: str = Field(description="name of the record")
    probability: float = Field(description="largest difference of a probability, at network size")
    pixels: Fraction = Field(description="share of the pixels whose class differs, at native size")
    dice_torch: float | None = Field(description="Dice of PyTorch's mask; null: no instrument in truth")
    dice: float | None = Field(description="Dice of the exported form's mask")

    @property
    def drop(self) -> float:
        """By how much Dice falls; 0 where it is not defined."""
        return 0.0 if self.dice is None or self.dice_torch is None else self.dice_torch - self.dice


class Agreement(Settings):
    """How far an exported form and PyTorch agree on validation records, and what was allowed: the gate."""

    frames: NonNegativeInt = Field(description="records compared")
    records: str = Field(description="where these and the calibration records come from, in words")
    probability: float = Field(description="largest difference of a probability in any frame")
    pixels: Fraction = Field(description="share of the pixels whose class differs, mean over frames")
    dice_torch: float = Field(description="mean Dice of PyTorch's masks over the frames that show an instrument")
    dice: float = Field(description="the same of the exported form")
    dice_limit: float = Field(description="by how much the mean Dice was allowed to fall")
    pixel_limit: float = Field(description="share of the pixels that was allowed to differ")
    worst: tuple[FrameAgreement, ...] = Field((), description="frames that differ most; agreement.csv has all")

    @property
    def drop(self) -> float:
        """By how much the mean Dice falls."""
        return self.dice_torch - self.dice

    @property
    def within(self) -> bool:
        """Whether both limits are kept."""
        return self.drop <= self.dice_limit and self.pixels <= self.pixel_limit


class Export(Settings):
    """One exported form of the network, in a folder of its own inside the model."""

    engine: Literal["openvino", "onnx"] = Field(description="what runs it")
    precision: Literal["f32", "bf16", "int8"] = Field(description="arithmetic of its convolutions")
    size_hw: tuple[int, int] | None = Field(
        description="(height, width) of its frames; null: any that the network takes"
    )
    created: str = Field(description="when, ISO 8601 with zone")
    versions: dict[str, str] = Field({}, description="versions of the libraries that made it")
    in_float: tuple[str, ...] = Field((), description="int8: layers kept in float, for which the masks suffered most")
    agreement: Agreement = Field(description="how far its masks agree with those of PyTorch")


class ModelCard(Settings):
    """What `model.json` holds."""

    format: Literal[1] = FORMAT
    trocar_version: str = __version__
    name: str = Field(description="name for people")
    classes: tuple[str, ...] = Field(min_length=2, description="name of each class index; [0] is the background")
    target: Target = Field(description="which classes of the data were learnt")
    model: ModelSettings
    preprocess: PreprocessSettings
    loss: LossSettings
    threshold: Fraction | None = Field(
        description="probability from which a pixel is instrument; null where there are several classes (argmax)"
    )
    threshold_from: str = Field(description="on what the threshold was chosen, in words")
    threshold_curve: ValidationCurve | None = Field(None, description="Dice against threshold on validation records")
    calibration: TemperatureScaling | None = Field(
        None, description="temperature scaling, fitted on validation records"
    )
    quality: QualityLimit | None = Field(None, description="when to look at a mask, fitted on validation records")
    provenance: Provenance
    scores: dict[str, Scores] = Field({}, description="by side: train, val")
    held_out: tuple[HeldOut, ...] = Field((), description="scores on frames never trained on, latest last")
    remarks: tuple[str, ...] = Field((), description="what whoever uses it should know, in sentences")
    exports: dict[str, Export] = Field({}, description="exported forms, by their folder: openvino, openvino-int8, ...")
    files: dict[str, str] = Field({}, description="SHA-256 of every other file of the folder")

    @property
    def binary(self) -> bool:
        """Whether the network gives one logit (background and instrument) instead of one a class."""
        return len(self.classes) == 2

    def at_size(self, size_hw: tuple[int, int] | None) -> ModelCard:
        """The card of the same network fed with frames of another size; None: of its own."""
        if size_hw in (None, self.preprocess.size_hw):
            return self
        return self.model_copy(update={"preprocess": self.preprocess.model_copy(update={"size_hw": size_hw})})

    @model_validator(mode="after")
    def _threshold_suits_classes(self) -> ModelCard:
        if self.binary and self.threshold is None:
            raise ValueError("two classes need a threshold")
        if not self.binary and self.threshold is not None:
            raise ValueError("several classes are told apart by argmax: the threshold must be null")
        return self

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        outside = [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
        if outside:
            raise ValueError(f"{', '.join(outside)}: files of a model lie inside its folder")
        return files


# ------------------------------------------------------------------ writing


def write_model(
    folder: str | Path,
    card: ModelCard,
    tensors: Mapping[str, Tensor | NDArray[Any]],
    licence_text: str,
    *,
    half: bool = False,
) -> ModelCard:
    """Write a model folder whole or not at all; returns the card as written, with the digests of the files.

    Floating tensors are stored as float32, or with `half` as float16; others as they are. Everything is written to a
    hidden folder beside `folder` and renamed at the end, so there is never half a model (on other systems than Linux a
    kill between the last two renames leaves the old one in that hidden folder). Only a model is ever replaced: any
    other folder with something in it is refused.
    """
    folder = Path(folder)
    _refuse_to_replace(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            card = _fill(new, card, tensors, licence_text, np.float16 if half else np.float32)
            _swap(new, folder, aside=Path(scratch) / "old")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the model: {getattr(error, 'strerror', None) or error}",
            where=str(folder),
            mend="free space there, or give a folder that may be written to",
        ) from error
    return card


def add_export(folder: str | Path, key: str, export: Export, write: Callable[[Path], None]) -> ModelCard:
    """Add an exported form to a model, or replace the one of the same key; all else stays. Returns the new card.

    `write` fills the folder of the form. The model is made anew beside itself, of hard links, and changes places with
    the old one when it is complete: whatever stops this, there is a whole model, the old or the new.
    """
    folder = Path(folder).resolve()
    card = read_card(folder)
    return _remake(folder, card.model_copy(update={"exports": {**card.exports, key: export}}), key, write)


def add_held_out(folder: str | Path, scores: HeldOut) -> ModelCard:
    """Add scores on unseen frames to a model's card and README, or replace those of the same data and models.

    Whole or not at all, as `add_export`. Returns the new card.
    """
    folder = Path(folder).resolve()
    card = read_card(folder)
    others = [one for one in card.held_out if (one.data, one.models) != (scores.data, scores.models)]
    return _remake(folder, card.model_copy(update={"held_out": (*others, scores)}))


def _remake(
    folder: Path, card: ModelCard, key: str | None = None, write: Callable[[Path], None] | None = None
) -> ModelCard:
    """The model once more with this card and, where given, the folder `key` as `write` fills it."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            _link_all(folder, new, leave_out={CARD, README} | ({key} if key else set()))
            (new / README).write_text(readme(card), encoding="utf-8", newline="\n")
            added = [README]
            if key is not None and write is not None:
                (new / key).mkdir()
                write(new / key)
                added += [path.relative_to(new).as_posix() for path in _files(new / key)]
            others = {name: digest for name, digest in card.files.items() if PurePosixPath(name).parts[0] != key}
            card = card.model_copy(update={"files": others | {name: _digest(new / name) for name in added}})
            (new / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
            _sync([new / CARD, *(new / name for name in added)])
            _swap(new, folder, aside=Path(scratch) / "old")
    except OSError as error:
        raise UserError(
            f"cannot write the model: {error.strerror or error}",
            where=str(folder if key is None else folder / key),
            mend="free space there, or copy the model to a folder that may be written to",
        ) from error
    return card


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _link_all(folder: Path, new: Path, leave_out: set[str]) -> None:
    """The files of a folder once more, without taking space where the disk can do that."""
    new.mkdir()
    for path in _files(folder):
        name = path.relative_to(folder)
        if name.parts[0] in leave_out:
            continue
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, new / name)
        except OSError:
            shutil.copy2(path, new / name)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # renaming must not overtake the content on a power cut


def _refuse_to_replace(folder: Path) -> None:
    if folder.is_dir() and ((folder / CARD).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise UserError(
            "something that is not a model is in the way of the model", where=str(folder), mend="give another folder"
        )


def _fill(
    folder: Path,
    card: ModelCard,
    tensors: Mapping[str, Tensor | NDArray[Any]],
    licence_text: str,
    floats: type[np.floating[Any]],
) -> ModelCard:
    save_file({name: _as_array(tensor, floats) for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / LICENCE).write_text(licence_text, encoding="utf-8", newline="\n")
    shutil.copymode(folder / LICENCE, folder / WEIGHTS)  # safetensors leaves it to its owner alone
    (folder / README).write_text(readme(card), encoding="utf-8", newline="\n")
    digests = {name: _digest(folder / name) for name in (WEIGHTS, README, LICENCE)}
    card = card.model_copy(update={"files": digests})
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
    _sync(folder.iterdir())
    return card


def _as_array(tensor: Tensor | NDArray[Any], floats: type[np.floating[Any]]) -> NDArray[Any]:
    """Numpy, C order, of type `floats` if it is floating. safetensors would store a channels_last tensor scrambled."""
    if not isinstance(tensor, np.ndarray):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if np.issubdtype(tensor.dtype, np.floating):
        tensor = tensor.astype(floats, copy=False)
    return np.asarray(tensor, order="C")


def _swap(new: Path, folder: Path, aside: Path) -> None:
    if folder.exists() and _exchange(new, folder):
        return
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    except BaseException:  # Ctrl-C too
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once, which Linux can; False where that is not to be had."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:  # an old or another C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


# ------------------------------------------------------------------ reading


def read_card(folder: str | Path) -> ModelCard:
    """The card of a model folder, after checking that every file of it is present and unaltered.

    Raises `UserErrors` that list every missing or altered file at once, `UserError` where the card cannot be read.
    """
    folder = Path(folder)
    card = _parse_card(folder / CARD)
    problems = [problem for name, digest in card.files.items() if (problem := _check_file(folder, name, digest))]
    if WEIGHTS not in card.files:
        problems.append(UserError(f"the card does not list {WEIGHTS}", where=str(folder / CARD), mend=COPY_AGAIN))
    problems += [
        UserError(
            "a model folder holds no pickle: opening one could run code",
            where=str(path),
            mend="remove that file; trocar reads weights from safetensors only",
        )
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICKLE_SUFFIXES
    ]
    if problems:
        raise UserErrors(problems)
    return card


def _parse_card(path: Path) -> ModelCard:
    if not path.exists():
        found = "the model has no card" if path.parent.is_dir() else "no such model folder"
        raise UserError(found, where=str(path), mend="give a model folder, or the run that made it")
    tree = read_json(path, "the model's card", mend=COPY_AGAIN)
    if not isinstance(tree, dict) or not isinstance(tree.get("format"), int):
        raise UserError("the model's card names no format", where=str(path), mend=COPY_AGAIN)
    if tree["format"] > FORMAT:
        raise UserError(
            f"the model is of format {tree['format']}; this trocar {__version__} reads format {FORMAT}",
            where=str(path),
            mend=f"install a newer trocar (the model was made by {tree.get('trocar_version', 'a newer one')})",
        )
    return validate(ModelCard, tree, where=str(path))


def _check_file(folder: Path, name: str, digest: str) -> UserError | None:
    path = folder / name
    try:
        refuse_what_is_no_file(path)
        if _digest(path) == digest:
            return None
    except FileNotFoundError:
        return UserError(f"the model lacks {name}", where=str(path), mend=COPY_AGAIN)
    except OSError as error:
        return UserError(f"cannot read {name} of the model: {error.strerror}", where=str(path))
    return UserError(
        f"{name} is not what the model was written with (SHA-256 differs)", where=str(path), mend=COPY_AGAIN
    )


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The weights on the CPU, by name. They are checked by `read_card`, which comes first."""
    from safetensors.torch import load_file  # torch only when weights are wanted

    path = Path(folder) / WEIGHTS
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the weights: {error}", where=str(path), mend=COPY_AGAIN) from None
    return tensors


# ------------------------------------------------------------------ finding


def resolve_model(path: str | Path | None) -> Path:
    """The model folder meant by `path`: itself, the `model/` of a run, or a model that ships with trocar, by its name.

    None means the default one that ships.

    Raises `UserError` for a run without a model yet (how far it is, how to go on), a run of several folds (which
    there are), and anything else.
    """
    try:
        return _found(model_named(path))
    except OSError as error:  # a name longer than the system takes, a folder that may not be entered
        raise UserError(
            f"cannot look for a model: {reason(error)}", where=str(error.filename or path), mend="mend the path"
        ) from None


def _found(path: Path) -> Path:
    for folder in (path, path / "model"):
        if (folder / CARD).is_file():
            return folder
    if not path.exists():
        raise UserError(
            "no such model",
            where=str(path),
            mend="give a model folder, the run that made it, or a name that `trocar models` lists",
        )
    if not path.is_dir():
        raise UserError("a model is a folder, not a file", where=str(path), mend="give the folder of model.json")
    if (path / "folds.json").is_file():
        raise _choose_a_fold(path)
    if (path / "recipe.yaml").is_file():
        raise UserError(
            f"this run has no model yet: {_progress(path)}",
            where=str(path),
            mend=f"go on with `trocar train --resume {path}`",
        )
    raise UserError(f"no {CARD} here", where=str(path), mend="give a model folder, or the run that made it")


def _choose_a_fold(run: Path) -> UserError:
    try:
        folds = read_json(run / "folds.json", "the list of folds", mend="name a fold's folder")["folds"]
        choices = [f"{run / folder}" for folder in folds.values()]
    except (UserError, LookupError, AttributeError, TypeError):
        return UserError("the list of folds cannot be read", where=str(run / "folds.json"), mend="name a fold's folder")
    ready = [choice for choice in choices if (Path(choice) / "model" / CARD).is_file()]
    mend = f"give one of: {', '.join(ready)}" if ready else f"finish one with `trocar train --resume {run}`"
    return UserError(f"this run has {len(choices)} folds, {len(ready)} with a model", where=str(run), mend=mend)


def _progress(run: Path) -> str:
    """How far a run is, in words: it may have been stopped before the first line of its log."""
    try:
        with (run / "log.csv").open(encoding="utf-8", newline="") as file:
            done = sum(1 for _ in csv.DictReader(file))
        epochs = read_yaml(run / "recipe.yaml", "the recipe", mend="mend the YAML")["train"]["epochs"]
    except (UserError, OSError, ValueError, LookupError, TypeError, csv.Error):
        return "no epoch is finished"
    return f"{done} of {epochs} epochs are finished"


# ------------------------------------------------------------------ texts for people


def derived_licence(dataset: str, encoder: str, encoder_weights: str) -> str:
    """The LICENSE of weights that somebody trained: they follow the data and the start, not trocar's own licence."""
    start = (
        "from random weights"
        if encoder_weights == "none"
        else f"from pretrained weights of {encoder} ({Path(encoder_weights).name})"
    )
    return (
        f"{LICENCE_HEADING}\n\n"
        f"These weights were trained on the data {dataset}, starting {start}.\n"
        "They derive from both: whoever passes them on must keep to the licence of the data and to the licence of the\n"
        "pretrained weights. Trocar's own licence (Apache-2.0) covers the program that made them and does not by\n"
        "itself cover the weights.\n"
    )


README_TEMPLATE = """\
# {{ card.name }}

Segments {{ card.classes[1:] | join(", ") }} in endoscopic and surgical images: {{ card.model.architecture }} on
{{ card.model.encoder }}. For research only; **not a medical device**.

## Trained on

- data: {{ p.dataset }} ({{ p.data_fingerprint }})
{% if p.groups %}
- groups: {{ p.groups[:12] | join(", ") }}
{%- if p.groups | length > 12 %} and {{ p.groups | length - 12 }} more{% endif %}

{% endif %}
{% if p.fold %}
- fold: {{ p.fold }}
{% endif %}
{% if p.split_fingerprint %}
- split: {{ p.split_fingerprint }}
{% endif %}
- recipe {{ p.recipe }}, seed {{ p.seed }}, epoch {{ p.best_epoch }} of {{ p.epochs }}, {{ card.loss.name }} loss
- {{ p.created }}, on {{ p.device }} in precision {{ p.precision }}, trocar {{ card.trocar_version }}
  {%- for name, version in p.versions.items() %}, {{ name }} {{ version }}{% endfor %}


## What goes in, what comes out

One uint8 RGB image of any size. It is brought to {{ card.preprocess.size_hw | size }} (width x height) by
{{ card.preprocess.fit }}
{%- if card.preprocess.image_steps %}
, after {{ card.preprocess.image_steps | map(attribute="step") | join(", ") }}
{%- endif %};
probabilities are resized bilinearly to the image's own size.
{% if mask_steps %}

Masks were altered ({{ mask_steps }}) before training
{%- if card.preprocess.mask_steps_on == "all" %}
, and so were the masks that its scores were taken with: they are not comparable with scores against masks as labelled
{%- endif %}
.
{% endif %}
{% if card.preprocess.mask_resize == "bilinear" %}

Masks were resized bilinearly for the loss: borders were shares between 0 and 1.
{% endif %}

Classes:

| index | class |
|---|---|
{% for name in card.classes %}
| {{ loop.index0 }} | {{ name }} |
{% endfor %}

{% if card.binary %}
A pixel is {{ card.classes[1] }} from probability {{ "%.4g" | format(card.threshold) }} on; the threshold comes from:
{{ card.threshold_from }}.
{% else %}
A pixel is of its most probable class ({{ card.threshold_from }}).
{% endif %}

## Scores

{% if card.scores %}
| side | images | loss | Dice | Jaccard | undefined | threshold | resolution |
|---|---|---|---|---|---|---|---|
{% for side, s in card.scores.items() %}
| {{ side }} | {{ s.records }} | {{ s.loss | figure }} | {{ s.dice | figure }} | {{ s.jaccard | figure }} |
 {{- " " }}{{ s.undefined }} | {{ s.threshold | figure }} | {{ s.resolution }} |
{% endfor %}

Dice and Jaccard are means over images; an image whose mask and prediction are both empty is undefined and left out.
The threshold and the epoch were chosen with the val side, so its figures flatter; the train side was learnt. Neither
says how the model does elsewhere: for that, `trocar evaluate` on data it has never seen.
{% else %}
None were taken.
{% endif %}

{% if card.held_out %}
## On frames it has not seen

| frames | what was scored | images | groups | Dice, mean | median | Jaccard |
|---|---|---|---|---|---|---|
{% for one in card.held_out %}
| {{ one.data }} | {{ one.models }} | {{ one.frames }} | {{ one.groups }} | {{ one.dice | figure }}
 {%- if one.dice_interval %} ({{ one.dice_interval[0] | figure }} to {{ one.dice_interval[1] | figure }}){% endif %} |
 {{- " " }}{{ one.dice_median | figure }} | {{ one.jaccard | figure }} |
{% endfor %}

Means over images at native size; brackets are 95 % bootstrap intervals that resample groups, where there are several.

{% endif %}
{% if card.exports %}
## Exported forms

| folder | frames | Dice of PyTorch | Dice | pixels that differ | probabilities differ by up to | layers in float |
|---|---|---|---|---|---|---|
{% for key, e in card.exports.items() %}
| {{ key }} | {{ e.size_hw | size if e.size_hw else "any size" }} | {{ e.agreement.dice_torch | figure }} |
 {{- " " }}{{ e.agreement.dice | figure }} | {{ "%.3f" | format(100 * e.agreement.pixels) }} % |
 {{- " " }}{{ e.agreement.probability | figure }} | {{ e.in_float | length }} |
{% endfor %}

Compared on validation frames, by `trocar export`. On a CPU the first of openvino-int8, openvino-bf16, openvino,
onnx-int8 and onnx is taken; `--engine torch` takes the weights themselves.

{% endif %}
{% if card.threshold_curve or card.calibration or card.quality %}
## Threshold, calibration, quality

Fitted on the validation side; how they do elsewhere, `trocar evaluate` tells.

{% if curve %}
| threshold |{% for threshold, _ in curve %} {{ "%.2f" | format(threshold) }} |{% endfor %}

|---|{{ "---|" * (curve | length) }}
| Dice, mean over {{ card.threshold_curve.frames }} frames |{% for _, dice in curve %} {{ dice | figure }} |{% endfor %}


{% endif %}
{% if card.calibration %}
{% set c = card.calibration %}
- Expected calibration error (at {{ c.resolution }}, {{ c.frames }} frames): {{ c.ece | figure }}
{%- if c.temperature %}; after temperature scaling by {{ c.temperature | figure }}: {{ c.ece_after | figure }}.
  The threshold belongs to the unscaled probabilities, which are the ones that come out
{%- else %}; no temperature fits
{%- endif %}.
{% endif %}
{% if card.quality %}
{% set q = card.quality %}
{% if q.limit is not none %}
- Frames whose quality is below {{ q.limit | figure }} are to be looked at. Promised: {{ q.assumption }}.
  For a frame of quality q the promise is a Dice of at least 1 - {{ "%.3g" | format(q.factor) }} (1 - q).
{% else %}
- Quality promises nothing: {{ q.assumption }}.
{% endif %}
{% endif %}

{% endif %}
## Use

```
trocar predict IMAGES --model THIS_FOLDER --out predictions
```

```python
import trocar

prediction = trocar.load("THIS_FOLDER")(image)  # image: uint8 RGB (H, W, 3)
prediction.mask  # uint8 (H, W), class indices
```

## Limits

{% for remark in card.remarks %}
- {{ remark }}
{% endfor %}
{% if card.remarks %}

{% endif %}
It knows what its data showed: other instruments, organs, cameras, lighting, smoke or blood may fail without a sign.
Nobody has assessed it for clinical use. The weights have a licence of their own: see LICENSE.
"""


def readme(card: ModelCard) -> str:
    """The card for people, as Markdown."""
    import jinja2  # only who writes a model waits for it

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["figure"] = lambda value: "-" if value is None else f"{value:.4f}"
    environment.filters["size"] = shown_size
    return environment.from_string(README_TEMPLATE).render(
        card=card,
        p=card.provenance,
        mask_steps=mask_steps_in_words(card.preprocess),
        curve=_few_points(card.threshold_curve),
    )


def _few_points(curve: ValidationCurve | None) -> list[tuple[float, float]]:
    """Threshold and Dice at some of the points, evenly: the whole curve is in `model.json`."""
    if curve is None or not curve.dice:
        return []
    chosen = np.unique(np.linspace(0, len(curve.dice) - 1, CURVE_COLUMNS).round().astype(int))
    return [(curve.thresholds[index], curve.dice[index]) for index in chosen]
