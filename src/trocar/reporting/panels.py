"""Pictures of one frame for the report: the image, the truth, and where predictions are wrong."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trocar.data.records import IGNORE, ImageArray, MaskArray
from trocar.evaluation import View
from trocar.inference.draw import overlay
from trocar.metrics.overlap import instrument_counts
from trocar.reporting.pictures import Panel, picture

# RGB of Okabe and Ito (2008), on a grey picture: told apart with any colour vision.
FALSE_COLOUR, MISSED_COLOUR, FOUND_COLOUR, IGNORED_COLOUR = (213, 94, 0), (86, 180, 233), (255, 255, 255), (0, 0, 0)


def panels(view: View, thresholds: Sequence[float]) -> list[Panel]:
    """Image, truth, and the prediction at each threshold with its errors in colour and its Dice.

    The scored threshold is added where it is missing. Masks without probabilities give one panel; several classes
    one more, with the classes in their colours.
    """
    shown = [Panel("image", picture(view.image)), Panel("truth", picture(overlay(view.image, view.truth)))]
    guess = view.guess
    if guess.missing:
        return [*shown, Panel("no prediction: counts as empty", _errors(view, guess.mask), chosen=True)]
    if guess.probability is None or guess.threshold is None:
        if guess.mask.max(initial=0) > 1:
            shown.append(Panel("prediction", picture(overlay(view.image, guess.mask))))
        return [*shown, Panel(f"errors, {_dice(view, guess.mask)}", _errors(view, guess.mask), chosen=True)]
    for threshold in sorted({*thresholds, guess.threshold}):
        chosen = threshold == guess.threshold
        mask = guess.mask if chosen else (guess.probability >= threshold).astype(np.uint8)
        name = f"threshold {threshold:g}{', as scored' if chosen else ''}"
        shown.append(Panel(f"{name}: {_dice(view, mask)}", _errors(view, mask), chosen=chosen))
    return shown


def draw_errors(image: ImageArray, pred: MaskArray, truth: MaskArray) -> ImageArray:
    """The image in grey; falsely found pixels vermilion, missed ones sky blue, found ones lit, ignored ones black.

    Shapes: image (H, W, 3), pred and truth (H, W) class indices -> (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.float32) * 0.75
    predicted, true, ignored = pred != 0, (truth != 0) & (truth != IGNORE), truth == IGNORE
    for where, colour, share in (
        (predicted & true, FOUND_COLOUR, 0.35),
        (predicted & ~true & ~ignored, FALSE_COLOUR, 0.75),
        (true & ~predicted, MISSED_COLOUR, 0.75),
        (ignored, IGNORED_COLOUR, 0.75),
    ):
        drawn[where] = drawn[where] * (1 - share) + np.array(colour, np.float32) * share
    return np.asarray(np.rint(drawn), np.uint8)


def _errors(view: View, mask: MaskArray) -> str:
    return picture(draw_errors(view.image, mask, view.truth))


def _dice(view: View, mask: MaskArray) -> str:
    counts = instrument_counts(mask, view.truth)
    if counts.true:
        return f"Dice {counts.dice:.3f}"
    return f"{counts.predicted} pixels falsely found" if counts.predicted else "rightly empty"
