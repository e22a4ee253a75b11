"""From native frames to what a network takes, and back: one implementation for training, prediction and serving.

numpy and OpenCV only. What is done is data (`PreprocessSettings`, part of every model), so that prediction repeats
exactly what training did. Normalising is not here: it is part of the network's graph. A network takes uint8, so that
what is resized as TensorFlow does it is rounded, by at most half a grey level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import (
    BoxBlur,
    Clahe,
    Dilate,
    Equalise,
    GaussianBlur,
    Grey,
    ImageStep,
    Jpeg,
    MaskStep,
    PreprocessSettings,
)
from trocar.data.records import IGNORE, ImageArray, MaskArray

# (h, w): uint8 class indices, or float32 shares of the instrument; 255 ignore in both
PreparedMask: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where a native frame lies in its network frame. All in pixels; the rest of the network frame is padding."""

    native_hw: tuple[int, int]
    network_hw: tuple[int, int]
    height: int
    width: int


def place(native_hw: tuple[int, int], settings: PreprocessSettings) -> Placement:
    """The size a frame is resized to; it is put at the top left. At least one pixel of each side remains."""
    height, width = native_hw
    network_height, network_width = settings.size_hw
    if settings.fit == "squash":
        return Placement(native_hw, settings.size_hw, network_height, network_width)
    scale = min(network_height / height, network_width / width)
    return Placement(
        native_hw,
        settings.size_hw,
        height=min(network_height, max(1, round(height * scale))),
        width=min(network_width, max(1, round(width * scale))),
    )


def prepare_image(image: ImageArray, settings: PreprocessSettings) -> tuple[ImageArray, Placement]:
    """Apply the image steps, resize (`settings.resize`) and pad with black.

    Shapes: (H, W, 3) uint8 RGB -> (h, w, 3) uint8 RGB with (h, w) = settings.size_hw.
    """
    image = apply_image_steps(image, settings.image_steps)
    placement = place((image.shape[0], image.shape[1]), settings)
    if settings.resize == "tensorflow":
        resized = np.rint(resize_as_tensorflow(image, (placement.height, placement.width))).astype(np.uint8)
    else:
        resized = resize_image(image, (placement.height, placement.width))
    if (placement.height, placement.width) == placement.network_hw:
        return resized, placement
    prepared = np.zeros((*placement.network_hw, 3), np.uint8)
    prepared[: placement.height, : placement.width] = resized
    return prepared, placement


def prepare_mask(mask: MaskArray, settings: PreprocessSettings, *, training: bool = False) -> PreparedMask:
    """What the loss is to see: the mask after the steps that apply to it, at network size.

    Shapes: (H, W) -> (h, w) with (h, w) = settings.size_hw.
    """
    return loss_target(altered_mask(mask, settings, training=training), settings)


def altered_mask(mask: MaskArray, settings: PreprocessSettings, *, training: bool = False) -> MaskArray:
    """The native mask after the mask steps, where they apply: to masks for training, or to all if the recipe says so.

    Shapes: (H, W) -> the same.
    """
    if not training and settings.mask_steps_on == "training":
        return mask
    return apply_mask_steps(mask, settings.mask_steps)


def loss_target(mask: MaskArray, settings: PreprocessSettings) -> PreparedMask:
    """A mask at network size as the loss takes it: class indices, or with `mask_resize: bilinear` shares.

    Shapes: (H, W) -> (h, w): uint8 as `fit_mask`, or float32 shares of the instrument, 0 to 1; 255 ignore in both.
    """
    if settings.mask_resize == "majority":
        return fit_mask(mask, settings)
    placement = place((mask.shape[0], mask.shape[1]), settings)
    shares = np.full(placement.network_hw, IGNORE, np.float32)
    size_hw = (placement.height, placement.width)
    shares[: placement.height, : placement.width] = resize_mask_to_shares(mask, size_hw)
    return shares


def fit_mask(mask: MaskArray, settings: PreprocessSettings) -> MaskArray:
    """Resize a mask as its image is, without inventing values; padding becomes 255 (ignore).

    Shapes: (H, W) -> (h, w) with (h, w) = settings.size_hw.
    """
    placement = place((mask.shape[0], mask.shape[1]), settings)
    fitted = np.full(placement.network_hw, IGNORE, np.uint8)
    fitted[: placement.height, : placement.width] = resize_mask(mask, (placement.height, placement.width))
    return fitted


def restore(probabilities: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Cut the padding off and resize to the native size, bilinearly.

    Shapes: (C, h, w) -> (C, H, W), values stay in the range they came in.
    """
    height, width = placement.native_hw
    inside = probabilities[:, : placement.height, : placement.width]
    if inside.shape[1:] == placement.native_hw:
        return np.ascontiguousarray(inside)
    planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)[None] for plane in inside]
    return np.asarray(planes[0] if len(planes) == 1 else np.concatenate(planes), np.float32)


def resize_image(image: ImageArray, size_hw: tuple[int, int]) -> ImageArray:
    """INTER_AREA where the image shrinks (no aliasing), INTER_LINEAR where it grows."""
    if image.shape[:2] == size_hw:
        return image
    size_wh = (size_hw[1], size_hw[0])
    if size_hw[0] * size_hw[1] >= image.shape[0] * image.shape[1]:
        return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
    # Intel's library, where OpenCV has it, takes half the time or less. "Not exact" it is beside OpenCV's own: both are
    # the mean of the area to half a grey level, and differ where that is a tie. Where sides shrink by whole numbers
    # ties are many, and OpenCV is quick. The switch is one of this thread.
    ties = not (image.shape[0] % size_hw[0] or image.shape[1] % size_hw[1])
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(not ties)
    try:
        return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def resize_as_tensorflow(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """What tf.image.resize gives by default: bilinear, half-pixel centres, no anti-aliasing, not rounded.

    Shapes: (H, W, 3) or (H, W) -> size_hw, values in the range they came in.
    """
    resized = cv2.resize(image.astype(np.float32), (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def resize_mask_to_shares(mask: MaskArray, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """The share of instrument, 0 to 1, as tf.image.resize blurs a binary mask; 255 where the nearest pixel is 255.

    Shapes: (H, W) class indices -> size_hw.
    """
    shares = resize_as_tensorflow(((mask != 0) & (mask != IGNORE)).astype(np.uint8), size_hw)
    if (mask == IGNORE).any():
        nearest = cv2.resize(mask, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        shares[nearest == IGNORE] = IGNORE
    return shares


def resize_mask(mask: MaskArray, size_hw: tuple[int, int]) -> MaskArray:
    """Majority of the covered pixels where the mask shrinks (ties: the smaller value), nearest where it grows.

    Shapes: (H, W) -> size_hw. Every value of the result is a value of the input.
    """
    if mask.shape == size_hw:
        return mask
    size_wh = (size_hw[1], size_hw[0])
    if size_hw[0] * size_hw[1] >= mask.shape[0] * mask.shape[1]:
        return np.asarray(cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    values = np.unique(mask)
    shares = [cv2.resize((mask == value).astype(np.float32), size_wh, interpolation=cv2.INTER_AREA) for value in values]
    majority: MaskArray = values[np.argmax(np.stack(shares), axis=0)]
    return majority


def apply_image_steps(image: ImageArray, steps: Sequence[ImageStep]) -> ImageArray:
    """The native image after these steps, in order. Shapes: (H, W, 3) uint8 RGB -> the same."""
    for step in steps:
        image = np.asarray(_apply_image_step(image, step), np.uint8)
    return image


def apply_mask_steps(mask: MaskArray, steps: Sequence[MaskStep]) -> MaskArray:
    """The native mask after these steps, in order; 255 (ignore) stays where it is. Shapes: (H, W) -> the same."""
    ignore = mask == IGNORE
    for step in steps:
        classes = np.where(ignore, np.uint8(0), mask)
        if isinstance(step, Dilate):
            kernel = np.ones((step.size, step.size), np.uint8)
            changed = cv2.dilate(classes, kernel, iterations=step.iterations)
        else:
            changed = (classes > 0).astype(np.uint8)
        mask = np.where(ignore, np.uint8(IGNORE), changed).astype(np.uint8)
    return mask


def _apply_image_step(image: ImageArray, step: ImageStep) -> ImageArray | cv2.typing.MatLike:
    match step:
        case Clahe():
            return apply_clahe(image, step)
        case Grey():
            return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        case Equalise():
            return cv2.merge([cv2.equalizeHist(plane) for plane in cv2.split(image)])
        case BoxBlur():
            return cv2.blur(image, (step.size, step.size))
        case GaussianBlur():
            return cv2.GaussianBlur(image, (step.size, step.size), step.sigma)
        case Jpeg():
            return _through_jpeg(image, step.quality)


def _through_jpeg(image: ImageArray, quality: int) -> ImageArray:
    """Save and read again, with one channel where all three are equal, as the notebook saved its grey images."""
    is_grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    stored = image[..., 0] if is_grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    fine, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert fine, f"OpenCV cannot encode {image.shape}"
    read = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)


def apply_clahe(image: ImageArray, step: Clahe) -> ImageArray:
    """Equalise the lightness locally; colour stays. Shapes: (H, W, 3) uint8 RGB -> the same."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equaliser = cv2.createCLAHE(clipLimit=step.clip_limit, tileGridSize=(step.tiles, step.tiles))
    lab[..., 0] = equaliser.apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)
