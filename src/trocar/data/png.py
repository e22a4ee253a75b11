"""PNG files sooner than Pillow reads them, and with no row missing.

Masks are PNGs, and so are the frames of many sets: reading them is most of what checking and scoring costs. The decoder
of kornia-rs takes a fifth of the processor time of libpng's or Pillow's, gives the same pixels, and lets other threads
run meanwhile. It serves the plain kinds; whatever it does not read, Pillow reads, and says what is wrong.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CHANNELS = {"L": "mono", "P": "mono", "RGB": "rgb"}  # Pillow's modes, and what kornia-rs calls as many channels
# Three ways to say how a picture is turned. They may come behind the pixels, so all of the file is looked through.
_TURNS = (b"eXIf", b"Raw profile type ", b"XML:com.adobe.xmp")


def plain_pixels(data: bytes, header: Image.Image, *, indices: bool = False) -> NDArray[np.uint8] | None:
    """Pixels of a sound file of 8 bits, grey or RGB, or if asked the indices of one with a palette; else None.

    None too where it may say that it is to be turned.

    Shapes: -> (H, W) or (H, W, 3).
    """
    if header.format != "PNG" or header.mode not in _CHANNELS or (header.mode == "P" and not indices):
        return None
    if any(words in data for words in _TURNS):
        return None
    from kornia_rs.io import decode_image_png_u8  # 10 ms that who reads no PNG need not wait for

    try:
        pixels = decode_image_png_u8(data, (header.height, header.width), _CHANNELS[header.mode])
    except Exception:  # it raises nothing narrower, for other depths than 8 bits too
        return None
    return np.asarray(pixels if header.mode == "RGB" else pixels[..., 0], dtype=np.uint8)


def lacks_rows(data: bytes, loaded: Image.Image) -> bool:
    """Whether a PNG ends before its last row: Pillow leaves black what is missing and says nothing, libpng refuses."""
    last_row = loaded.crop((0, loaded.height - 1, loaded.width, loaded.height))
    if last_row.getbbox(alpha_only=False) is not None:
        return False
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None
