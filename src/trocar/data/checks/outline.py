"""Whether a mask lies on its image: do edges of the image run where the mask's outline does, or elsewhere?

The outline is laid on the map of edges as it is, mirrored, turned, and shifted by every offset up to 12 % of the longer
side. The score of a position is the mean strength of the edges below it, in standard deviations of the frame. Whether
another position wins by too much is judged in `rules`, against all frames of the set.

Gradients are of the strongest of the three colours: steel on tissue is often an edge of colour more than of light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.data.records import ImageArray, MaskArray

REACH = 0.12  # of the longer side: the largest shift looked for
SHORTEST = 40  # pixels of outline, at the reduced size; less says nothing
_LONGEST_SHAPE = 8  # longer side by shorter: every offset of a strip takes gigabytes

_RIM = 0.85  # of the reach: a peak beyond it is none
_STRONG = 0.9  # edges above this quantile count alike: a highlight must not outweigh an instrument

Map: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outline:
    """Scores of the mask as it is (`fit`), of the best shift (`best_fit`), and mirrored or turned."""

    fit: float
    best_fit: float
    dx: float  # the best shift, as a share of the width, positive to the right
    dy: float  # of the height, positive downwards
    mirrored_x: float  # left and right exchanged
    mirrored_y: float  # top and bottom exchanged
    turned: float  # by 180 degrees

    @property
    def shift_gain(self) -> float:
        """By how much the best shift fits better."""
        return self.best_fit - self.fit

    @property
    def mirror_gain(self) -> float:
        """By how much the best mirror image or the half turn fits better; negative where it fits less."""
        return max(self.mirrored_x, self.mirrored_y, self.turned) - self.fit

    @property
    def mirrored_how(self) -> str:
        """The best of the three, in words."""
        scores = {
            "mirrored left to right": self.mirrored_x,
            "mirrored top to bottom": self.mirrored_y,
            "turned by 180 degrees": self.turned,
        }
        return max(scores, key=lambda name: scores[name])


def measure(image: ImageArray, instrument: MaskArray) -> Outline | None:
    """The scores of one frame, or None where the outline is too short to tell, or the frame no camera's (a mere strip).

    Shapes: image (h, w, 3), instrument (h, w), non-zero = instrument; about 120 pixels high are enough.
    """
    if max(instrument.shape) > _LONGEST_SHAPE * min(instrument.shape):
        return None
    outline = _outline(instrument)
    length = cv2.countNonZero(outline)
    if length < SHORTEST:
        return None
    edges = _edges(image)
    if edges is None:
        return None
    height, width = edges.shape
    scores, reach = _scores_of_shifts(edges, outline.astype(np.float32) / np.float32(length))
    down, right = _peak(scores, reach)
    places = np.flatnonzero(outline)
    across = places + (width - 1) - 2 * (places % width)
    last = outline.size - 1
    return Outline(
        fit=float(scores[reach, reach]),
        best_fit=float(scores[down, right]),
        dx=(right - reach) / width,
        dy=(down - reach) / height,
        mirrored_x=_mean(edges, across),
        mirrored_y=_mean(edges, last - across),
        turned=_mean(edges, last - places),
    )


def _mean(edges: Map, places: NDArray[np.int64]) -> float:
    """Of the edges at some places, counted row by row."""
    return float(edges.ravel()[places].sum() / len(places))


def _peak(scores: Map, reach: int) -> tuple[int, int]:
    """Where the score is highest; the middle, no shift, where that is at the rim, from which it may rise further."""
    down, right = divmod(int(scores.argmax()), scores.shape[1])
    inside = max(abs(down - reach), abs(right - reach)) <= _RIM * reach
    return (down, right) if inside else (reach, reach)


def _outline(instrument: MaskArray) -> MaskArray:
    """The inner border of the mask; where the frame cuts an instrument off is no border."""
    inside = np.minimum(instrument, 1)
    core = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    outline = np.asarray(cv2.bitwise_xor(inside, core), dtype=np.uint8)
    outline[:3] = outline[-3:] = 0
    outline[:, :3] = outline[:, -3:] = 0
    return outline


def _edges(image: ImageArray) -> Map | None:
    """Strength of edges, a pixel wider than they are, in standard deviations from the mean; None without any."""
    across, down = (cv2.convertScaleAbs(cv2.Sobel(image, cv2.CV_16S, *step)) for step in ((1, 0), (0, 1)))
    strength = cv2.addWeighted(across, 0.5, down, 0.5, 0)
    strength = cv2.max(cv2.max(strength[..., 0], strength[..., 1]), strength[..., 2])
    counts = np.cumsum(cv2.calcHist([strength], [0], None, [256], [0, 256]))
    strong = max(1.0, float(np.searchsorted(counts, _STRONG * strength.size)))
    _, strength = cv2.threshold(strength, strong, 0, cv2.THRESH_TRUNC)
    edges = cv2.dilate(strength, np.ones((3, 3), np.uint8)).astype(np.float32)
    mean, deviation = cv2.meanStdDev(edges)
    if deviation[0, 0] == 0:
        return None
    return np.asarray((edges - np.float32(mean[0, 0])) / np.float32(deviation[0, 0]), dtype=np.float32)


def _scores_of_shifts(edges: Map, weights: Map) -> tuple[Map, int]:
    """Mean edge below the outline at every shift, -reach to reach down and right, and the reach in pixels.

    What is shifted out of the frame meets zeros, the mean. Shapes: (h, w), (h, w) -> (2 reach + 1, 2 reach + 1).
    """
    reach = math.ceil(REACH * max(edges.shape))
    height, width = (cv2.getOptimalDFTSize(side + reach) for side in edges.shape)
    padded = [np.zeros((height, width), np.float32) for _ in range(2)]
    for canvas, content in zip(padded, (edges, weights), strict=True):
        canvas[: content.shape[0], : content.shape[1]] = content
    of_edges, of_weights = (cv2.dft(canvas) for canvas in padded)
    scores = cv2.idft(cv2.mulSpectrums(of_edges, of_weights, 0, conjB=True), flags=cv2.DFT_SCALE)
    shifts = np.arange(-reach, reach + 1)  # those below 0 stand at the end
    return np.asarray(scores[np.ix_(shifts, shifts)], dtype=np.float32), reach
