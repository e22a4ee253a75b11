"""Settings of the network, of its loss and of its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from trocar.config.base import Fraction, Settings


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
