"""Settings of frames on their way into the network: preprocessing, and random changes while training."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from trocar.config.base import Fraction, Settings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
