"""The card of a model: what `model.json` holds, as settings that are checked when it is read."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator, model_validator

from trocar import __version__
from trocar.config import Fraction, LossSettings, ModelSettings, PreprocessSettings, Settings, Target

FORMAT: Final = 1
CARD, WEIGHTS, README, LICENCE = "model.json", "weights.safetensors", "README.md", "LICENSE"


class Scores(Settings):
    """What the model reached on one side of its split, and how that was counted. Undefined is null."""

    records: NonNegativeInt = Field(description="images scored")
    loss: float | None = Field(None, description="mean of the training loss")
    dice: float | None = Field(None, description="mean over images of Dice at the threshold")
    jaccard: float | None = Field(None, description="mean over images of Jaccard at the threshold")
    undefined: NonNegativeInt = Field(0, description="images left out of the means: they show no instrument")
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


class Ancestor(Settings):
    """A model that another began from: what it had seen, the other has seen too."""

    name: str = Field(description="name of the model")
    dataset: str = Field(description="name of the data it was trained on")
    data_fingerprint: str = Field(description="fingerprint of that data")
    groups: tuple[str, ...] = Field((), description="groups it was trained on")


class Provenance(Settings):
    """Where the weights come from: enough to make them again."""

    recipe: str = Field(description="name of the recipe")
    dataset: str = Field(description="name of the data")
    data_fingerprint: str = Field(description="fingerprint of the whole source")
    split_fingerprint: str | None = Field(None, description="fingerprint of the split")
    groups: tuple[str, ...] = Field((), description="groups (patients, procedures, videos) trained on")
    fold: str | None = Field(None, description="fold of the split, where it has several")
    began_from: tuple[Ancestor, ...] = Field((), description="the model it began from, and those before, newest first")
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
