"""Traits of a frame: what may make it hard, measured of the image and its true mask in a few milliseconds.

No trait looks at a prediction, so they are the same for every model. Images are measured at one size, so that cameras
compare. Each says of itself what it also reacts to. How frames score on the levels of a trait is `metrics.strata`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import IGNORE, ImageArray, MaskArray

BoolArray: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]

LONG_SIDE = 512  # pixels of the longer side at which images are measured, so that figures of cameras compare
HIGHLIGHT = 230  # grey levels of 255 that all three channels reach in a highlight
SMALLEST_PIECE = 0.0005  # share of the frame below which a piece of mask is a crumb, not an instrument
BORDER_SHARE = 0.01  # of the shorter side: as near as an instrument that enters the frame comes to its border
DARK_SURROUND = 20  # grey levels below which what lies around the view is black
DARK_PATCH = 15  # pixels of the patch of the dark channel, as He et al. take it


@dataclass(frozen=True)
class Trait:
    """Something measured of a frame, and how frames are told apart by it.

    With `cuts` the levels are fixed: `words[i]` holds values from cuts[i - 1] up to, not including, cuts[i]. Without,
    frames are cut into three levels of equal size, and `words` names them from low to high.
    """

    name: str
    title: str
    heading: str  # of a column of its values
    definition: str
    unit: str
    words: tuple[str, ...]
    cuts: tuple[float, ...] = ()
    scale: float = 1  # what a value is multiplied by before it is printed in `unit`


def _thirds(
    name: str, title: str, heading: str, definition: str, unit: str, words: tuple[str, str, str], scale: float = 1
) -> Trait:
    return Trait(name, title, heading, definition, unit, words, scale=scale)


TRAITS: Mapping[str, Trait] = {
    trait.name: trait
    for trait in (
        _thirds(
            "instrument_share",
            "Instrument size",
            "Size",
            "share of the frame's counted pixels that is instrument",
            "% of the frame",
            ("small", "middle", "large"),
            scale=100,
        ),
        Trait(
            "instrument_count",
            "Number of instruments",
            "Instruments",
            "instances where the data knows them, else connected pieces of the mask, crumbs under 0.05 % of the frame "
            "left out (an instrument seen in two pieces then counts twice, two that touch once)",
            "",
            ("one", "two", "three or more"),
            (1.5, 2.5),
        ),
        Trait(
            "touches_border",
            "Position",
            "At the border",
            "whether the mask comes within 1 % of the shorter side (at least 2 px) of the image's edge or of the "
            "black surround of the endoscope's view",
            "",
            ("inside the view", "touches the border"),
            (0.5,),
        ),
        Trait(
            "instruments_touch",
            "Overlap of instruments",
            "Touching",
            "whether pixels of two instances are neighbours, corners included; known only where instances are",
            "",
            ("none touch", "some touch"),
            (0.5,),
        ),
        _thirds(
            "specularity",
            "Specularity",
            "Highlights",
            "share of the view that is saturated highlight: all three channels at least 230 of 255, so bright and "
            "nearly colourless, at 512 px on the longer side",
            "% of the view",
            ("few highlights", "middle", "many highlights"),
            scale=100,
        ),
        _thirds(
            "brightness",
            "Darkness and brightness",
            "Brightness",
            "median luma (Rec. 601) of the view, the black surround left out",
            "% of white",
            ("dark", "middle", "bright"),
            scale=100,
        ),
        _thirds(
            "sharpness",
            "Blur",
            "Sharpness",
            "variance of the Laplacian of luma in the view (Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548), "
            "the frame first resized to 512 px on its longer side; low is blurred, or without texture",
            "squared grey levels",
            ("blurred", "middle", "sharp"),
        ),
        _thirds(
            "haze",
            "Smoke-like haze",
            "Haze",
            "median over tissue of the dark channel, which is the least of the three channels in a patch of 15 px at "
            "512 px on the longer side (He et al. 2011, doi:10.1109/TPAMI.2010.168); smoke raises it, and so do white "
            "tissue and gauze",
            "% of white",
            ("clear", "middle", "hazy"),
            scale=100,
        ),
        Trait(
            "megapixels",
            "Resolution",
            "Megapixels",
            "pixels of the frame",
            "megapixels",
            ("below 0.5, as PAL and NTSC", "0.5 to 1.5, as 1280x1024", "1.5 and more, as Full HD"),
            (0.5, 1.5),
        ),
    )
}


def traits_of(image: ImageArray, truth: MaskArray, instances: MaskArray | None = None) -> dict[str, float]:
    """All of `TRAITS` of one frame, by name. NaN: what cannot be told, as the size of an instrument that is not there.

    Shapes: image (H, W, 3) uint8 RGB; truth (H, W) class indices, 255 ignored; instances (H, W), 0 background, then
    one index an instrument.
    """
    if image.shape[:2] != truth.shape or (instances is not None and instances.shape != truth.shape):
        raise ValueError(f"image {image.shape}, truth {truth.shape}; they must be of one size")
    known = truth != IGNORE
    instrument = known & (truth != 0)
    small = _at_one_size(image)
    red, green, blue = cv2.split(small)
    view = _view_of(np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8))
    least = np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)
    return {
        **_traits_of_mask(instrument, known, view, instances),
        **_traits_of_image(small, least, view, instrument),
        "megapixels": truth.size / 1e6,
    }


def _traits_of_mask(
    instrument: BoolArray, known: BoolArray, view: BoolArray, instances: MaskArray | None
) -> dict[str, float]:
    share = count = border = touch = math.nan
    if instrument.any():
        left, top, width, height = cv2.boundingRect(instrument.view(np.uint8))
        window = np.s_[top : top + height, left : left + width]
        share = float(np.count_nonzero(instrument) / np.count_nonzero(known))
        border = float(_touches_border(instrument, view))
        if instances is None:
            count = _pieces(instrument[window], instrument.size)
        else:
            marked = instances[window] * known[window]
            count, touch = _count(marked), float(_some_touch(marked))
    return {
        "instrument_share": share,
        "instrument_count": count,
        "touches_border": border,
        "instruments_touch": touch,
    }


def _traits_of_image(small: ImageArray, least: Bytes, view: BoolArray, instrument: BoolArray) -> dict[str, float]:
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    patch = np.ones((DARK_PATCH, DARK_PATCH), np.uint8)
    dark = np.asarray(cv2.erode(least, patch))
    # the rim of the view is an edge of the camera, and the black beside it no clear air
    inner = cv2.erode(view.view(np.uint8), patch, borderType=cv2.BORDER_CONSTANT, borderValue=1) != 0
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_32F), mask=inner.view(np.uint8))
    return {
        "specularity": float(np.count_nonzero(least >= HIGHLIGHT) / np.count_nonzero(view)),
        "brightness": _median(luma, view) / 255,
        "sharpness": float(deviation[0, 0] ** 2) if inner.any() else math.nan,
        "haze": _median(dark, inner & ~_resized(instrument, small)) / 255,
    }


def _at_one_size(image: ImageArray) -> ImageArray:
    """The image with `LONG_SIDE` pixels on its longer side."""
    while max(image.shape[:2]) >= 2 * LONG_SIDE and min(image.shape[:2]) > 1:
        # averaging 2x2 is many times faster than over parts of pixels; for the rest, less than that, bilinear does
        half = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    factor = LONG_SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _resized(mask: BoolArray, like: NDArray[Any]) -> BoolArray:
    size = like.shape[1], like.shape[0]
    return np.asarray(cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) != 0)


def _view_of(greatest: Bytes) -> BoolArray:
    """What the endoscope sees: the hull of the largest lit piece, as the black surround may be round or cut.

    The whole frame where that is less than a quarter of it: a dark scene, not a surround.
    Shapes: greatest (h, w), the largest of the three channels.
    """
    lit = cv2.blur(greatest, (5, 5)) >= DARK_SURROUND
    contours, _ = cv2.findContours(lit.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    view = np.zeros(lit.shape, np.uint8)
    if contours:
        cv2.fillConvexPoly(view, cv2.convexHull(max(contours, key=cv2.contourArea)), 1)
    return view != 0 if view.mean() >= 0.25 else np.ones_like(lit)


def _touches_border(instrument: BoolArray, view: BoolArray) -> bool:
    height, width = instrument.shape
    reach = max(2, round(BORDER_SHARE * min(height, width)))
    if instrument[:reach].any() or instrument[-reach:].any():
        return True
    if instrument[:, :reach].any() or instrument[:, -reach:].any():
        return True
    if view.all():
        return False
    small_reach = max(1, math.ceil(reach * max(view.shape) / max(height, width)))
    around = np.ones((2 * small_reach + 1, 2 * small_reach + 1), np.uint8)
    outside = cv2.dilate((~view).view(np.uint8), around) != 0
    return bool((_resized(instrument, view) & outside).any())


def _pieces(instrument: BoolArray, frame_pixels: int) -> float:
    """Connected pieces that are no crumbs; 1 where all are. Shapes: (h, w), cut to the mask."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(instrument.view(np.uint8), connectivity=8)
    pieces = int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] >= SMALLEST_PIECE * frame_pixels))
    return float(max(1, pieces))


def _count(instances: MaskArray) -> float:
    """NaN where the mask holds an instrument but no instance is marked."""
    return float(np.count_nonzero(np.unique(instances))) or math.nan


def _some_touch(instances: MaskArray) -> bool:
    """Whether two neighbouring pixels, corners included, are of different instances."""
    pairs = (
        (instances[:, 1:], instances[:, :-1]),
        (instances[1:], instances[:-1]),
        (instances[1:, 1:], instances[:-1, :-1]),
        (instances[1:, :-1], instances[:-1, 1:]),
    )
    return any(bool(((one != 0) & (other != 0) & (one != other)).any()) for one, other in pairs)


def _median(values: NDArray[Any], where: BoolArray) -> float:
    """The least grey level that half of the pixels do not exceed; NaN where there is no pixel."""
    upto = cv2.calcHist([values], [0], where.view(np.uint8), [256], [0, 256]).cumsum()
    return float(np.searchsorted(upto, upto[-1] / 2)) if upto[-1] else math.nan
