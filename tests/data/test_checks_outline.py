from __future__ import annotations

import cv2
import numpy as np
import pytest

from trocar.data.checks import outline
from trocar.data.checks.outline import Outline
from trocar.data.checks.rules import misplaced

SIZE = (160, 120)


def bar_in_noise(angle: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """A grey bar on red, entering from the left, a little noise; and its mask."""
    mask = np.zeros((120, 160), np.uint8)
    corners = cv2.boxPoints(((40.0, 50.0), (90.0, 16.0), angle))
    cv2.fillPoly(mask, [np.int32(corners)], 1)
    image = np.where(mask[..., None] > 0, np.uint8([150, 150, 150]), np.uint8([170, 60, 50]))
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


def moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    return cv2.warpAffine(mask, np.float32([[1, 0, dx], [0, 1, dy]]), SIZE, flags=cv2.INTER_NEAREST)


def test_a_mask_in_its_place_fits_best_there() -> None:
    found = outline.measure(*bar_in_noise())
    assert abs(found.dx) <= 1 / 160
    assert abs(found.dy) <= 1 / 120
    assert found.shift_gain < 0.2
    assert found.mirror_gain < -0.45


@pytest.mark.parametrize(("dx", "dy"), [(8, 0), (0, -6), (-9, 7), (14, 4)])
def test_a_shift_is_found_by_its_size(dx: int, dy: int) -> None:
    image, mask = bar_in_noise()
    found = outline.measure(image, moved(mask, dx, dy))
    assert found.dx == pytest.approx(-dx / 160, abs=2.5 / 160)
    assert found.dy == pytest.approx(-dy / 120, abs=2.5 / 120)
    assert found.shift_gain > 0.4


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda mask: mask[:, ::-1], "mirrored left to right"),
        (lambda mask: mask[::-1], "mirrored top to bottom"),
        (lambda mask: mask[::-1, ::-1], "turned by 180 degrees"),
    ],
)
def test_mirror_images_and_half_turns_are_told_apart(turn, words: str) -> None:
    image, mask = bar_in_noise()
    found = outline.measure(image, np.ascontiguousarray(turn(mask)))
    assert found.mirrored_how == words
    assert found.mirror_gain > 0.45


def test_the_scores_are_means_of_the_edges_below() -> None:
    image, mask = bar_in_noise()
    edges, line = outline._edges(image), outline._outline(mask)
    scores, reach = outline._scores_of_shifts(edges, line.astype(np.float32) / line.sum())
    for dx, dy in ((0, 0), (7, -5), (-11, 3)):
        rows, columns = np.nonzero(line)
        inside = (rows + dy >= 0) & (rows + dy < 120) & (columns + dx >= 0) & (columns + dx < 160)
        by_hand = edges[(rows + dy)[inside], (columns + dx)[inside]].sum() / len(rows)
        assert scores[reach + dy, reach + dx] == pytest.approx(by_hand, abs=1e-4)


def test_nothing_is_said_of_short_outlines_and_even_pictures() -> None:
    image, mask = bar_in_noise()
    assert outline.measure(image, np.zeros_like(mask)) is None
    assert outline.measure(image, np.ones_like(mask)) is None  # its border is the frame's
    assert outline.measure(np.full_like(image, 90), mask) is None


def test_where_the_frame_cuts_an_instrument_off_is_no_outline() -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[40:80, 1:159] = 1  # as a hand leaves it, a pixel short of the frame
    rows, columns = np.nonzero(outline._outline(mask))
    assert set(rows.tolist()) == {40, 79}
    assert columns.min() > 1
    assert columns.max() < 158
    rows, columns = np.nonzero(outline._outline(np.ascontiguousarray(mask.T)))
    assert set(columns.tolist()) == {40, 79}
    assert rows.min() > 1
    assert rows.max() < 158


def of(mirror: float = -1.0, shift: float = 0.1) -> Outline:
    return Outline(1.0, 1.0 + shift, 0.05, 0.0, 1.0 + mirror, 0.0, 0.0)


def test_only_what_stands_out_of_its_set_is_misplaced() -> None:
    rng = np.random.default_rng(0)
    careful = [of(shift=0.1 + 0.02 * x) for x in rng.random(20)]
    sloppy = [of(shift=0.1 + 0.8 * x) for x in rng.random(20)]
    assert misplaced([*careful, of(shift=0.8)])[-1] == "shifted"
    assert misplaced([*sloppy, of(shift=0.8)])[-1] is None
    assert misplaced([*careful, of(mirror=0.6)])[-1] == "mirrored"
    assert misplaced([*careful, of(mirror=0.6, shift=0.9)])[-1] == "shifted"
    assert misplaced(careful) == [None] * 20
    assert misplaced([of(mirror=0.6)]) == ["mirrored"]  # alone: by itself


def test_a_strip_is_no_frame() -> None:
    """Every offset of it would take gigabytes."""
    mask = np.zeros((16, 40_000), np.uint8)
    mask[4:12, 100:39_000] = 1
    assert outline.measure(np.repeat(mask[..., None] * np.uint8(200), 3, axis=2), mask) is None
