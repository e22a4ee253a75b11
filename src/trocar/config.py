"""The recipe: every setting of one training, in one tree, each described and checked.

A recipe is a YAML file; `recipes/` holds the ones that ship with trocar. Unknown keys are refused with the
nearest known ones; derived values (feature sizes, class counts) are computed, never set. The whole tree is saved
beside every checkpoint, and the parts that prediction needs travel in `model.json`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from trocar.documents import parse_yaml, read_yaml
from trocar.errors import UserError, UserErrors

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

S = TypeVar("S", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Target: TypeAlias = Literal["instrument", "parts", "types"]


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


# ------------------------------------------------------------------ data and splits


Kind: TypeAlias = Literal[
    "auto",
    "folder",
    "videos",
    "kvasir-instrument",
    "endovis15",
    "endovis17",
    "endovis18",
    "robust-mis",
    "cholecseg8k",
    "cholec-instances",
    "sar-rarp50",
    "cadis",
    "drawn",
    "coco",
    "labelme",
    "cvat",
    "cvat-masks",
    "label-studio",
    "yolo",
]
GroupBy: TypeAlias = Literal["auto", "folder", "none"]
BACKGROUND, INSTRUMENT, IGNORED = "background", "instrument", "ignore"  # names that classes are mapped to


class SourceSettings(Settings):
    """One of several sources of a recipe. What is left out of how to read it is as in `data`."""

    source: str = Field(description="folder of its data")
    side: Literal["all", "train"] = Field(
        "all", description="`train`: its records only train, and are never validation or test; such as drawn scenes"
    )
    weight: PositiveFloat = Field(
        1.0,
        description="how often each of its training records is drawn in an epoch: 2 is twice, 0.25 a quarter of them, "
        "others every epoch",
    )
    classes: Mapping[str, str] = Field(
        {},
        description="its classes by name, each to one of data.classes (of `instrument` where data.target is that), "
        "`background` or `ignore`; those named alike need no line",
    )
    target: Target | None = Field(None, description="its data.target, where its labels are finer or coarser")
    kind: Kind | None = Field(None, description="its data.kind")
    images: str | None = Field(None, description="its data.images")
    masks: str | None = Field(None, description="its data.masks")
    group_by: GroupBy | None = Field(None, description="its data.group_by")
    every: PositiveInt | None = Field(None, description="its data.every")


class DataSettings(Settings):
    """Which labelled frames, and which of their classes are to be learnt."""

    source: str | None = Field(None, description="folder of the data; `--data` sets it from the command line")
    sources: Mapping[str, SourceSettings] = Field(
        {}, description="several sources by a name of your own, instead of `source`; see docs/recipes.md"
    )
    kind: Kind = Field("auto", description="layout of the data, see docs/data.md; `auto` recognises it")
    images: str = Field(
        "images", description="layouts folder and videos: name of the folder of images below the source, or each video"
    )
    masks: str = Field(
        "masks", description="layouts folder and videos: name of the folder of masks below the source, or each video"
    )
    group_by: GroupBy = Field(
        "auto",
        description="folder layout: `folder` makes each sub-folder of images a group (patient, video), `none` each "
        "image its own; `auto` takes folders where there are any",
    )
    target: Target = Field(
        "instrument",
        description="`instrument`: one class for every instrument; `parts`: shaft, wrist, clasper and the like; "
        "`types`: kinds of instruments. Research sets label one or both, see docs/data.md; of a folder with a class "
        "table, parts and types both keep all its classes",
    )
    classes: tuple[str, ...] = Field(
        (),
        description="several sources, target parts or types: the common classes in order, without the background",
    )
    every: PositiveInt = Field(1, description="of a video take every n-th frame only")
    exclude: tuple[str, ...] = Field((), description="names of records to leave out")

    @model_validator(mode="after")
    def _sources_fit_together(self) -> DataSettings:
        if problems := [*self._wrong_of_all(), *self._wrong_of_each()]:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_of_all(self) -> Iterator[str]:
        if not self.sources:
            if self.classes:
                yield "`classes` are the common ones of several `sources`: leave it out"
            return
        if self.source is not None:
            yield "`source` names one folder, `sources` several: give one of the two (--data is `source`)"
        if all(one.side == "train" for one in self.sources.values()):
            yield "all sources have side `train`: none is left to choose and judge the model"
        if self.target == "instrument" and self.classes:
            yield "with target `instrument` there is one common class, of that name: leave `classes` out"
        if self.target != "instrument" and not self.classes:
            yield f"with target `{self.target}` several sources need `classes`, the common ones in order"
        if wrong := [name for name in self.classes if name in (BACKGROUND, IGNORED)]:
            yield f"`classes` are the common ones without {' and '.join(wrong)}"
        if len(set(self.classes)) < len(self.classes):
            yield "`classes` names one twice"

    def _wrong_of_each(self) -> Iterator[str]:
        possible = (*self.common_classes, IGNORED)
        for name, one in self.sources.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                yield f"source {name!r}: names are made of letters, digits, _ and -"
            for theirs, ours in one.classes.items():
                if ours not in possible:
                    yield f"source {name}: {theirs} is mapped to {ours}, which is none of {', '.join(possible)}"

    @property
    def common_classes(self) -> tuple[str, ...]:
        """Several sources: the name of each class index after mapping; [0] is the background."""
        return (BACKGROUND, *((INSTRUMENT,) if self.target == "instrument" else self.classes))

    def of(self, name: str) -> DataSettings:
        """How to read one of several sources by itself."""
        one = self.sources[name]
        own = {
            key: value
            for key in ("kind", "images", "masks", "group_by", "every", "target")
            if (value := getattr(one, key)) is not None
        }
        exclude = tuple(text.removeprefix(f"{name}/") for text in self.exclude if text.startswith(f"{name}/"))
        return self.model_copy(update={"source": one.source, "sources": {}, "classes": (), "exclude": exclude, **own})


class SplitSettings(Settings):
    """How records are divided into train, val and test. Groups stay whole unless `val_from` cuts them, declared."""

    strategy: Literal["official", "leave-one-group-out", "k-fold", "random-groups", "random-records", "file"] = Field(
        "random-groups",
        description="`official`: the lists that come with the data, of validation too where there is one; "
        "`leave-one-group-out`: one fold a group; `k-fold`: groups dealt to `folds` folds, each of them the test once; "
        "`random-groups`: groups drawn by the seed; `random-records`: records drawn one by one by the seed, whatever "
        "their groups, as scikit-learn's train_test_split draws them; `file`: the split file named below",
    )
    file: str | None = Field(None, description="path of a split file, for the strategy `file`")
    val_from: Literal["groups", "tail", "every-sixth", "random-records", "leaked-records"] = Field(
        "groups",
        description="where validation records come from: whole training groups; the last part (tail) of each training "
        "group in time order, which cuts groups; every sixth training record by name; random-records: drawn one "
        "by one, which cuts groups too; leaked-records: the same, and they stay in training, as in the notebook",
    )
    val_share: Fraction = Field(0.2, description="share of the training records used for validation")
    test_share: Fraction = Field(0.2, description="random-...: share of the records held out for the test")
    gap_frames: NonNegativeInt = Field(
        0, description="tail: frames of a video dropped between its training and its validation part"
    )
    folds: Annotated[int, Field(ge=2)] = Field(5, description="k-fold: number of folds")
    stratify: bool = Field(
        False,
        description="draw groups so that every side has its share of records of much, little and no foreground and of "
        "each class; reads all masks, those of the test too",
    )
    join_near_duplicates: bool = Field(
        False,
        description="count groups that hold nearly the same image as one, so that copies stay on one side; reads all "
        "images, those of the test too",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] = Field(
        0, description="seed of what is drawn for the test; validation is drawn with the next one"
    )

    @model_validator(mode="after")
    def _file_is_named(self) -> SplitSettings:
        if (self.strategy == "file") != (self.file is not None):
            raise ValueError("`file` names the split file of strategy `file`: give both or neither")
        return self


# ------------------------------------------------------------------ preprocessing


class Clahe(Settings):
    """Contrast-limited adaptive histogram equalisation of the lightness (Zuiderveld 1994), on L of CIE Lab."""

    step: Literal["clahe"] = "clahe"
    clip_limit: PositiveFloat = Field(2.0, description="contrast limit, as in OpenCV's createCLAHE")
    tiles: PositiveInt = Field(8, description="tiles along each side")


class Grey(Settings):
    """Colour to grey, as OpenCV weighs it (0.299 R, 0.587 G, 0.114 B); three equal channels remain."""

    step: Literal["grey"] = "grey"


class Equalise(Settings):
    """Histogram equalisation over the whole image, of each channel: OpenCV's equalizeHist."""

    step: Literal["equalise"] = "equalise"


class BoxBlur(Settings):
    """Mean over a square: OpenCV's blur."""

    step: Literal["box-blur"] = "box-blur"
    size: PositiveInt = Field(4, description="side of the square in pixels of the native image")


class GaussianBlur(Settings):
    """Gaussian mean over a square: OpenCV's GaussianBlur."""

    step: Literal["gaussian-blur"] = "gaussian-blur"
    size: PositiveInt = Field(5, description="side of the square in pixels of the native image, odd")
    sigma: NonNegativeFloat = Field(0.0, description="deviation in pixels; 0: 0.3 ((size - 1) / 2 - 1) + 0.8")

    @field_validator("size")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"{size}: the side of a Gaussian blur is odd")
        return size


class Jpeg(Settings):
    """What saving as JPEG and reading again does, where earlier work stored its prepared images so."""

    step: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=0, le=100)] = Field(95, description="quality, as in OpenCV's imwrite")


class Binarise(Settings):
    """Every class but the background becomes 1; 255 (ignore) stays."""

    step: Literal["binarise"] = "binarise"


class Dilate(Settings):
    """Grow masks by a square of ones: OpenCV's dilate. Where classes meet the larger index wins; 255 (ignore) stays."""

    step: Literal["dilate"] = "dilate"
    size: PositiveInt = Field(2, description="side of the square in pixels of the native mask")
    iterations: PositiveInt = Field(1, description="how often")


ImageStep: TypeAlias = Annotated[Clahe | Grey | Equalise | BoxBlur | GaussianBlur | Jpeg, Field(discriminator="step")]
MaskStep: TypeAlias = Annotated[Binarise | Dilate, Field(discriminator="step")]


class PreprocessSettings(Settings):
    """From a native RGB frame to the array a network takes. Part of every model: prediction repeats it exactly."""

    size_hw: tuple[PositiveInt, PositiveInt] = Field((512, 512), description="network size (height, width) in pixels")
    fit: Literal["letterbox", "squash"] = Field(
        "letterbox", description="`letterbox` keeps the aspect and pads below and right; `squash` stretches"
    )
    resize: Literal["area-linear", "tensorflow"] = Field(
        "area-linear",
        description="images: `area-linear` averages when shrinking and is bilinear when growing; `tensorflow` is "
        "bilinear always, without anti-aliasing, as tf.image.resize",
    )
    mask_resize: Literal["majority", "bilinear"] = Field(
        "majority",
        description="training masks: `majority` keeps them whole (nearest when growing); `bilinear` blurs borders "
        "into shares between 0 and 1, which the loss takes as they are: the notebook's way, two classes only",
    )
    image_steps: tuple[ImageStep, ...] = Field(
        (),
        description="steps applied to the native image before resizing, in order: grey, equalise, box-blur, "
        "gaussian-blur, clahe, jpeg",
    )
    mask_steps: tuple[MaskStep, ...] = Field(
        (), description="steps applied to native masks before resizing, in order: binarise, dilate"
    )
    mask_steps_on: Literal["training", "all"] = Field(
        "training",
        description="which masks they alter; `all` also those that validation and test are judged by, which only "
        "reproduces the notebook: card and report then say so",
    )
    mean: tuple[float, float, float] = Field(IMAGENET_MEAN, description="RGB mean taken off, of values in 0..1")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(IMAGENET_STD, description="RGB divisor, same scale")

    @field_validator("size_hw")
    @classmethod
    def _fits_the_stride(cls, size_hw: tuple[int, int]) -> tuple[int, int]:
        if any(side < 32 or side % 16 for side in size_hw):
            raise ValueError(f"{size_hw}: both sides must be multiples of 16 and at least 32")
        return size_hw


def mask_steps_in_words(settings: PreprocessSettings) -> str:
    """The mask steps for people: `binarise, dilate 2x2 once`; empty where there are none."""
    words = []
    for step in settings.mask_steps:
        if isinstance(step, Dilate):
            words.append(f"dilate {step.size}x{step.size}, {step.iterations} time{'s' * (step.iterations > 1)}")
        else:
            words.append(step.step)
    return "; ".join(words)


class AugmentSettings(Settings):
    """Random changes of training images, image and mask together. All zero (or `enabled: false`) switches off."""

    enabled: bool = Field(True, description="switches augmentation as a whole")
    flip_horizontal: Fraction = Field(0.5, description="probability of a mirror image, left to right")
    flip_vertical: Fraction = Field(0.5, description="probability of a mirror image, top to bottom")
    rotate_degrees: NonNegativeFloat = Field(30.0, description="rotation drawn from minus to plus this")
    translate: Fraction = Field(0.1, description="shift drawn from minus to plus this share of each side")
    scale: tuple[PositiveFloat, PositiveFloat] = Field((0.75, 1.5), description="zoom drawn from this range")
    shear_degrees: NonNegativeFloat = Field(5.0, description="shear drawn from minus to plus this")
    brightness: Fraction = Field(0.3, description="factor drawn from 1 minus to 1 plus this")
    contrast: Fraction = Field(0.3, description="factor drawn from 1 minus to 1 plus this")
    saturation: Fraction = Field(0.3, description="factor drawn from 1 minus to 1 plus this")
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(0.03, description="shift as a share of the colour circle")
    blur: Fraction = Field(0.15, description="probability of a Gaussian blur, sigma 0.3 to 1.5 pixels")
    grey: Fraction = Field(0.05, description="probability of a grey image")
    repaint: Fraction = Field(0.0, description="probability that instruments get another colour, contrast and focus")
    paste: Fraction = Field(0.0, description="probability that the instruments of another frame are pasted in")

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"{scale}: the smaller zoom comes first")
        return scale


# ------------------------------------------------------------------ model and loss


class ModelSettings(Settings):
    """The network. Class count and input normalisation are not set here: they come with data and preprocessing."""

    architecture: str = Field(
        "deeplabv3plus",
        description="`deeplabv3plus`; `notebook`, the exact network of the notebook; or `smp/NAME` of "
        "segmentation-models-pytorch, for example smp/UnetPlusPlus",
    )
    encoder: str = Field(
        "resnet50", description="timm name of the encoder (smp/...: segmentation-models-pytorch's name)"
    )
    encoder_weights: str = Field(
        "imagenet",
        description="`imagenet` (downloaded by timm), `none`, or the path of a safetensors file (notebook: or a Keras "
        ".h5)",
    )
    output_stride: Literal[8, 16] = Field(16, description="deeplabv3plus: input side / side of the deepest feature map")
    separable: bool = Field(
        True, description="deeplabv3plus: depthwise separable 3x3 convolutions in pyramid and decoder"
    )
    rates: tuple[PositiveInt, ...] = Field(
        (6, 12, 18), description="deeplabv3plus: dilations of the pyramid at stride 16; doubled at stride 8"
    )
    pyramid_width: PositiveInt = Field(256, description="deeplabv3plus: channels of each branch of the pyramid")
    low_level_width: PositiveInt = Field(48, description="deeplabv3plus: channels kept of the stride-4 features")
    decoder_width: PositiveInt = Field(256, description="deeplabv3plus: channels of the decoder's convolutions")
    dropout: Fraction = Field(0.1, description="deeplabv3plus: channel dropout after the pyramid, in training")
    stride_in: Literal["1x1", "3x3"] = Field(
        "3x3",
        description="notebook: the convolution of a ResNet block that halves the map; `1x1` fits weights of Keras "
        "(.h5), `3x3` those of torch and timm",
    )

    @model_validator(mode="after")
    def _notebook_is_fixed(self) -> ModelSettings:
        defaults = type(self).model_fields
        if self.architecture != "notebook":
            if self.stride_in != defaults["stride_in"].default:
                raise ValueError(f"stride_in is a setting of `notebook`, not of {self.architecture}: leave it out")
            return self
        free = {"architecture", "encoder", "encoder_weights", "stride_in"}
        changed = [name for name in defaults if name not in free and getattr(self, name) != defaults[name].default]
        if changed:
            raise ValueError(f"`notebook` is one fixed network: leave out {', '.join(changed)}")
        if self.encoder.partition(".")[0] != "resnet50":
            raise ValueError(f"`notebook` has a ResNet-50: leave out encoder {self.encoder}, or take deeplabv3plus")
        from_keras = self.encoder_weights.endswith(".h5")
        if self.encoder_weights != "none" and from_keras != (self.stride_in == "1x1"):
            fitting = '"1x1" for weights of Keras (.h5)' if from_keras else '"3x3" for weights of torch and timm'
            raise ValueError(f"stride_in does not fit encoder_weights {self.encoder_weights}: set stride_in {fitting}")
        return self


class LossSettings(Settings):
    """What training minimises. Pixels labelled 255 count nowhere."""

    name: Literal["cross-entropy", "dice", "cross-entropy+dice", "focal", "tversky"] = Field(
        "cross-entropy+dice",
        description="binary cross-entropy and Dice where there is one class, softmax forms otherwise",
    )
    dice_weight: PositiveFloat = Field(1.0, description="cross-entropy+dice: factor of the Dice term")
    focal_gamma: NonNegativeFloat = Field(2.0, description="focal: exponent that plays down easy pixels")
    tversky_alpha: Fraction = Field(0.3, description="tversky: weight of false positives")
    tversky_beta: Fraction = Field(0.7, description="tversky: weight of false negatives")


# ------------------------------------------------------------------ training


class TrainSettings(Settings):
    """How long and how fast to learn. Saved whole beside every checkpoint."""

    epochs: PositiveInt = Field(40, description="full passes over the training records")
    batch_size: PositiveInt = Field(8, description="images a step; 1 is refused, as batch norm cannot learn from one")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are summed into one optimiser step")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="AdamW (decoupled decay) or Adam")
    learning_rate: PositiveFloat = Field(1e-3, description="peak rate of the decoder")
    encoder_rate_factor: NonNegativeFloat = Field(
        0.3, description="the encoder learns at this times learning_rate; 0 freezes"
    )
    weight_decay: NonNegativeFloat = Field(1e-2, description="decay of convolution kernels; biases and norms have none")
    epsilon: PositiveFloat = Field(1e-8, description="Adam's epsilon")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="rate after the warm-up")
    warmup_share: Fraction = Field(0.05, description="share of all steps over which the rate rises linearly from 0")
    clip_norm: PositiveFloat | None = Field(1.0, description="gradients are scaled down to this norm; null: not")
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        0.99, description="decay a step of the moving average of weights that is judged and kept; null: none"
    )
    batches: Literal["shuffled-records", "shuffled-batches"] = Field(
        "shuffled-records",
        description="order of an epoch: all records shuffled, or, as in the notebook, batches formed once in the "
        "split's order and then shuffled as they are",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch becomes the model: best validation Dice, or last"
    )
    patience: PositiveInt | None = Field(
        None, description="stop after this many epochs without a better Dice; null: never"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of the forward pass; auto: bf16 where the device is fast at it, fp16 on older GPUs",
    )
    seed: int = Field(0, description="seed of initial weights, order and augmentation")
    deterministic: bool = Field(
        False, description="refuse operations that could differ from run to run (slower on a GPU)"
    )
    workers: NonNegativeInt | None = Field(
        None, description="processes that prepare images; null: chosen from the cores"
    )
    checkpoint_minutes: NonNegativeFloat = Field(
        2.0, description="a checkpoint is written when the last is older than this; 0 writes one every step"
    )
    memory_mb: NonNegativeInt = Field(
        4096,
        description="prepared frames that are not kept on disk are held in memory up to this; above it they are read "
        "anew each epoch",
    )
    prepared_gb: NonNegativeFloat = Field(
        20.0,
        description="prepared frames are kept on disk, in the user's cache folder, for all trainings together up to "
        "this; 0: none are, see docs/cache.md",
    )

    @field_validator("batch_size")
    @classmethod
    def _no_batch_of_one(cls, batch_size: int) -> int:
        if batch_size == 1:
            raise ValueError(
                "1: batch norm of the pyramid's whole-image branch sees one value per channel in a batch of one and "
                "cannot learn; use batch_size 2 and, for a larger effective batch, train.accumulate"
            )
        return batch_size


class Recipe(Settings):
    """The whole settings tree of one training."""

    name: str = Field("recipe", description="name of the recipe; the model's provenance carries it")
    about: str = Field("", description="one sentence for people")
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _shares_are_of_one_class(self) -> Recipe:
        if self.preprocess.mask_resize == "bilinear" and self.data.target != "instrument":
            raise ValueError("preprocess.mask_resize=bilinear mixes class indices: set data.target=instrument")
        return self

    @model_validator(mode="after")
    def _weights_need_fresh_batches(self) -> Recipe:
        weighed = [name for name, one in self.data.sources.items() if one.weight != 1]
        if weighed and self.train.batches == "shuffled-batches":
            raise ValueError(
                f"train.batches=shuffled-batches forms batches once, so sources cannot be weighed "
                f"({', '.join(weighed)}): set train.batches=shuffled-records, or leave the weights out"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> dict[str, Path]:
    """Name and path of the recipes that come with trocar."""
    folder = Path(str(resources.files("trocar"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the name of a shipped one or by path, then apply `key.sub=value` overrides.

    None gives the defaults. Values of overrides are YAML (`train.epochs=5`, `preprocess.size_hw=[256, 320]`,
    `train.patience=null`). Raises `UserErrors` with every wrong key and value at once.
    """
    tree: dict[str, Any] = {}
    where = "the default recipe"
    if name_or_path is not None:
        path = _find_recipe(name_or_path)
        where = str(path)
        tree = _read_yaml_mapping(path)
    for override in overrides:
        _apply_override(tree, override)
    return validate(Recipe, tree, where=where)


def validate(kind: type[S], tree: Any, *, where: str) -> S:
    """Build settings from plain data; pydantic's errors become `UserErrors`, all of them at once."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserErrors([_explain(kind, detail, where) for detail in error.errors()]) from None


def _find_recipe(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    shipped = shipped_recipes()
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise UserError(
        f"no recipe {name_or_path}",
        where="neither a file nor the name of a shipped recipe",
        mend=f"give the path of a YAML file, or one of: {', '.join(shipped)}",
    )


def _read_yaml_mapping(path: Path) -> dict[str, Any]:
    tree = read_yaml(path, "the recipe", mend="mend the YAML")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError("a recipe must be a mapping of settings", where=str(path), mend="see docs/recipes.md")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override!r} is not of the form key=value", mend="for example --set train.epochs=5")
    try:
        value = parse_yaml(text)
    except ValueError:
        raise UserError(f"--set {override!r}: the value is not YAML", mend="quote it, or mend its brackets") from None
    if isinstance(value, str):
        value = _number_or_text(value)
    node = tree
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {key}: {parent} is a value, not a group of settings")
        node = child
    node[leaf] = value


def _number_or_text(text: str) -> float | str:
    """YAML 1.1 reads `1e-3` as text; people mean a number."""
    try:
        return float(text) if text[:1] in "0123456789.+-" else text
    except ValueError:
        return text


def _explain(kind: type[BaseModel], detail: Any, where: str) -> UserError:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        near = nearest(key, known_keys(kind))
        mend = f"did you mean {' or '.join(near)}?" if near else "`trocar train --settings` lists every key"
        return UserError(f"unknown setting {key}", where=where, mend=mend)
    message = str(detail["msg"]).removeprefix("Value error, ")
    description = _description(kind, location)
    return UserError(f"setting {key or 'recipe'}: {message}", where=where, mend=description)


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known words most like `word`: by spelling of the whole dotted key, then of its last part."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=count, cutoff=0.75)
    leaf = word.rpartition(".")[2]
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(known)}
    near += [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=count, cutoff=0.7)]
    return list(dict.fromkeys(near))[:count]


def known_keys(kind: type[BaseModel]) -> dict[str, str]:
    """Every dotted key of a settings tree with its description."""
    keys: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        child = _settings_of(field.annotation)
        if child is None:
            keys[name] = field.description or ""
        else:
            keys |= {f"{name}.{sub}": text for sub, text in known_keys(child).items()}
        if (entry := _settings_by_name(field.annotation)) is not None:
            keys |= {f"{name}.NAME.{sub}": text for sub, text in known_keys(entry).items()}
    return keys


def default_of(kind: type[BaseModel], key: str) -> Any:
    """The default of a dotted key of `known_keys`, as plain data; an ellipsis where it must be given."""
    name, _, rest = key.partition(".")
    field = kind.model_fields[name]
    if rest:
        child = _settings_of(field.annotation)
        if child is not None:
            return default_of(child, rest)
        entry = _settings_by_name(field.annotation)
        assert entry is not None, key
        return default_of(entry, rest.removeprefix("NAME."))
    return ... if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))


def _settings_of(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        found = [_settings_of(arg) for arg in get_args(annotation)]
        return next((child for child in found if child is not None), None)
    return None


def _settings_by_name(annotation: Any) -> type[Settings] | None:
    """The settings that stand in a mapping from names; None where the annotation is no such mapping."""
    return _settings_of(get_args(annotation)[1]) if get_origin(annotation) is Mapping else None


def _description(kind: type[BaseModel], location: Sequence[str]) -> str | None:
    known = known_keys(kind)
    key = re.sub(r"(^|\.)sources\.[^.]+", r"\1sources.NAME", ".".join(location))
    return known.get(key) or known.get(key.rpartition(".")[0]) or None
