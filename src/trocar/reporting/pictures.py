"""Pictures as a page embeds them: with what stands below them, shrunk, as JPEG."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.preprocess import resize_image
from trocar.data.records import ImageArray

PANEL_WIDTH = 400  # pixels at most
_QUALITY = 80  # of JPEG


@dataclass(frozen=True)
class Panel:
    """One picture with what stands below it."""

    caption: str
    picture: str  # data URI
    chosen: bool = False  # of several predictions the one that was scored


def picture(image: ImageArray, width: int = PANEL_WIDTH) -> str:
    """The image as a data URI, no wider than `width` pixels. Shapes: (H, W, 3) RGB."""
    if image.shape[1] > width:
        image = resize_image(image, (max(1, round(image.shape[0] * width / image.shape[1])), width))
    return data_uri(image)


def data_uri(image: NDArray[np.uint8]) -> str:
    """The image at its own size. Shapes: (H, W, 3) RGB."""
    fine, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert fine, f"OpenCV cannot encode {image.shape}"
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
