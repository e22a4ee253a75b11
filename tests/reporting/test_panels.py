from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from fakes import FakePredictor, make_card, make_source
from trocar.evaluation import View
from trocar.evaluation.parts import Guess
from trocar.metrics.frames import score_frame
from trocar.reporting.panels import FALSE_COLOUR, MISSED_COLOUR, draw_errors, panels
from trocar.reporting.pictures import PANEL_WIDTH


def make_view(*, missing: bool = False, parts: bool = False, index: int = 0) -> View:
    source = make_source(parts=parts)
    record = source.records[index]
    image, truth = record.read()
    prediction = FakePredictor(make_card(source, parts=parts))(image)
    probability = None if parts else prediction.probabilities[0]
    guess = Guess(prediction.mask, probability, threshold=prediction.threshold)
    if missing:
        guess = Guess(np.zeros_like(truth), missing=True)
    row = score_frame(guess.mask, truth, record=record.name, group=record.group)
    return View(row, image, truth, guess)


def pixels_of(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def test_the_scored_threshold_stands_among_the_others_in_order() -> None:
    view = make_view()
    shown = panels(view, (0.3, 0.5, 0.99))
    assert [panel.caption.split(":")[0] for panel in shown] == [
        "image",
        "truth",
        "threshold 0.3",
        "threshold 0.4, as scored",
        "threshold 0.5",
        "threshold 0.99",
    ]
    assert [panel.chosen for panel in shown] == [False, False, False, True, False, False]
    assert shown[3].caption.endswith(f"Dice {view.row.dice:.3f}")
    assert shown[5].caption.endswith("Dice 0.000")
    assert pixels_of(shown[0].picture).shape == (48, 64, 3)


def test_captions_carry_the_score_at_their_threshold() -> None:
    view = make_view()
    at_half = view.guess.probability >= 0.5
    true = view.truth == 1
    expected = 2 * (at_half & true).sum() / (at_half & (view.truth != 255)).sum().__add__(true.sum())
    assert panels(view, (0.5,))[-1].caption == f"threshold 0.5: Dice {expected:.3f}"


def test_errors_have_their_colours() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 255], [0] * 4, [0] * 4], np.uint8)
    pred = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0] * 4, [0] * 4], np.uint8)
    drawn = draw_errors(image, pred, truth).astype(int)
    grey = 75
    for colour, where in ((MISSED_COLOUR, (0, 1)), (FALSE_COLOUR, (0, 2))):
        np.testing.assert_allclose(drawn[where], 0.25 * grey + 0.75 * np.array(colour), atol=1)
    assert (drawn[3, 3] == grey).all()
    assert (drawn[0, 0] > grey).all()
    assert (drawn[1, 3] < grey / 2).all()


def test_a_missing_prediction_says_so() -> None:
    shown = panels(make_view(missing=True), (0.5,))
    assert [panel.caption for panel in shown] == ["image", "truth", "no prediction: counts as empty"]


def test_several_classes_show_their_classes_and_the_errors() -> None:
    shown = panels(make_view(parts=True), (0.3, 0.5))
    assert [panel.caption.split(",")[0] for panel in shown] == ["image", "truth", "prediction", "errors"]


def test_a_frame_without_instrument_tells_what_was_found() -> None:
    assert panels(make_view(index=4), ())[-1].caption == "threshold 0.4, as scored: rightly empty"


@pytest.mark.parametrize("width", [PANEL_WIDTH - 1, 3 * PANEL_WIDTH])
def test_pictures_are_no_wider_than_a_panel(width: int, tmp_path: Path) -> None:
    image = np.zeros((300, width, 3), np.uint8)
    empty = np.zeros((300, width), np.uint8)
    view = View(score_frame(empty, empty, record="r", group="g"), image, empty, Guess(empty))
    shown = pixels_of(panels(view, ())[0].picture)
    assert shown.shape[1] == min(width, PANEL_WIDTH)
