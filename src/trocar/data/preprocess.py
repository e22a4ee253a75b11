"""From native frames to what a network takes, and back: one implementation for training, prediction and serving.

numpy and OpenCV only. What is done is data (`PreprocessSettings`, part of every model), so that prediction repeats
exactly what training did. Normalising is not here: it is part of the network's graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import Clahe, PreprocessSettings
from trocar.data.records import IGNORE, ImageArray, MaskArray


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
    """Apply the image steps, resize (area when shrinking, bilinear when growing) and pad with black.

    Shapes: (H, W, 3) uint8 RGB -> (h, w, 3) uint8 RGB with (h, w) = settings.size_hw.
    """
    for step in settings.image_steps:
        image = apply_clahe(image, step)
    placement = place((image.shape[0], image.shape[1]), settings)
    resized = resize_image(image, (placement.height, placement.width))
    if (placement.height, placement.width) == placement.network_hw:
        return resized, placement
    prepared = np.zeros((*placement.network_hw, 3), np.uint8)
    prepared[: placement.height, : placement.width] = resized
    return prepared, placement


def prepare_mask(mask: MaskArray, settings: PreprocessSettings) -> MaskArray:
    """Resize a mask as its image is, without inventing values; padding becomes 255 (ignore).

    Shapes: (H, W) -> (h, w) with (h, w) = settings.size_hw.
    """
    placement = place((mask.shape[0], mask.shape[1]), settings)
    prepared = np.full(placement.network_hw, IGNORE, np.uint8)
    prepared[: placement.height, : placement.width] = resize_mask(mask, (placement.height, placement.width))
    return prepared


def restore(probabilities: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Cut the padding off and resize to the native size, bilinearly.

    Shapes: (C, h, w) -> (C, H, W), values stay in the range they came in.
    """
    height, width = placement.native_hw
    inside = probabilities[:, : placement.height, : placement.width]
    if inside.shape[1:] == placement.native_hw:
        return np.ascontiguousarray(inside)
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in inside])


def resize_image(image: ImageArray, size_hw: tuple[int, int]) -> ImageArray:
    """INTER_AREA where the image shrinks (no aliasing), INTER_LINEAR where it grows."""
    if image.shape[:2] == size_hw:
        return image
    shrinks = size_hw[0] * size_hw[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=method)
    return np.asarray(resized, np.uint8)


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


def apply_clahe(image: ImageArray, step: Clahe) -> ImageArray:
    """Equalise the lightness locally; colour stays. Shapes: (H, W, 3) uint8 RGB -> the same."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equaliser = cv2.createCLAHE(clipLimit=step.clip_limit, tileGridSize=(step.tiles, step.tiles))
    lab[..., 0] = equaliser.apply(lab[..., 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)
