from __future__ import annotations

import math

import numpy as np
import pytest
import surface_distance
from scipy import ndimage
from scipy.spatial import distance

from trocar.metrics.noise import noise_ceiling

# surface-distance calls SciPy by names that SciPy will drop
pytestmark = pytest.mark.filterwarnings("ignore:Please (use|import):DeprecationWarning")


def tool(kind: str) -> np.ndarray:
    """A slanting bar that enters from the border, ends inside, or lies in the corner."""
    rows, columns = np.mgrid[:60, :80]
    bar = np.abs(columns - rows * 0.6 - 20) < 7
    limits = {"enters": rows < 40, "inside": (rows > 12) & (rows < 45), "corner": (rows > 45) & (columns > 40)}
    return np.asarray(bar & limits[kind], np.uint8)


@pytest.mark.parametrize("kind", ["enters", "inside", "corner"])
def test_agrees_with_scipy_and_surface_distance_on_the_whole_frame(kind: str) -> None:
    truth = tool(kind)
    for shift, (dice, nsd) in noise_ceiling(truth, (1, 2, 4), tolerance=2).items():
        expected = []
        for move in ((0, shift), (shift, 0)):
            moved = ndimage.shift(truth, move, order=0, mode="nearest").astype(bool)
            surfaces = surface_distance.compute_surface_distances(truth != 0, moved, (1, 1))
            close = surface_distance.compute_surface_dice_at_tolerance(surfaces, 2)
            expected.append((1 - distance.dice(moved.ravel(), truth.ravel() != 0), close))
        np.testing.assert_allclose((dice, nsd), np.mean(expected, axis=0), rtol=1e-12)


def test_a_square_worked_by_hand() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20] = 1
    ceiling = noise_ceiling(truth)
    assert list(ceiling) == [1, 2, 3, 5]
    assert [dice for dice, _ in ceiling.values()] == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert ceiling[1][1] == ceiling[2][1] == 1  # within the tolerance of 2 px
    assert ceiling[5][1] < ceiling[3][1] < 1


def test_moving_back_scores_the_same_inside_the_frame() -> None:
    for turned in (np.flip(tool("inside")), tool("inside")[::-1], tool("inside")[:, ::-1]):
        np.testing.assert_allclose(list(noise_ceiling(turned).values()), list(noise_ceiling(tool("inside")).values()))


def test_a_bar_across_the_frame_loses_nothing_along_itself() -> None:
    truth = np.zeros((30, 50), np.uint8)
    truth[10:20] = 1
    assert noise_ceiling(truth, (3,))[3] == pytest.approx(((1 + 0.7) / 2, (1 + nsd_of_the_bar()) / 2))


def nsd_of_the_bar() -> float:
    """Of the bar above moved down 3 px: of its 50-wide sides no element is within 2 px, of its ends 7 and 2 of 10."""
    truth, moved = np.zeros((30, 50), bool), np.zeros((30, 50), bool)
    truth[10:20], moved[13:23] = True, True
    surfaces = surface_distance.compute_surface_distances(truth, moved, (1, 1))
    return float(surface_distance.compute_surface_dice_at_tolerance(surfaces, 2))


def test_classes_are_one_instrument_and_ignored_pixels_count_for_nothing() -> None:
    truth = tool("inside")
    parts = truth * (1 + (np.arange(80) > 40)).astype(np.uint8)
    assert noise_ceiling(parts) == noise_ceiling(truth)
    framed = truth.copy()
    framed[ndimage.binary_dilation(truth, iterations=9) & (truth == 0)] = 255  # all around it: no way to be wrong
    dice, nsd = noise_ceiling(framed, (1,))[1]
    assert noise_ceiling(truth, (1,))[1][0] < dice < 1  # what it leaves behind is still missed
    assert nsd == 1  # the only contour that is known is the one it left


def test_nothing_has_no_ceiling() -> None:
    for empty in (np.zeros((9, 9), np.uint8), np.full((9, 9), 255, np.uint8)):
        assert all(map(math.isnan, noise_ceiling(empty, (1, 2))[2]))
