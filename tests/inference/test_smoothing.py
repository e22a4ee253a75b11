from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference.predictor import Predictor
from trocar.inference.smoothing import Smoother, SmoothKind, SmoothSettings, parse_hysteresis

GREY = np.full((48, 64, 3), 90, np.uint8)


def plane(value: float, size_hw: tuple[int, int] = (24, 32)) -> NDArray[np.float32]:
    return np.full((1, *size_hw), value, np.float32)


def smoothed(values: list[float], **how: Any) -> list[float]:
    """What a pixel of a picture without motion becomes."""
    smoother = Smoother(SmoothSettings(**how))
    return [float(smoother(plane(value), GREY).probabilities[0, 5, 5]) for value in values]


def test_the_exponential_mean_by_hand() -> None:
    assert smoothed([0, 1, 1, 0], kind="exponential", weight=0.5) == [0, 0.5, 0.75, 0.375]
    assert smoothed([1, 0, 0], kind="exponential", weight=0.8) == pytest.approx([1, 0.8, 0.64], abs=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.floats(0, 0.95))
@settings(max_examples=40, deadline=None)
def test_the_exponential_mean_is_the_weighted_sum_of_all_frames(values: list[float], weight: float) -> None:
    shares = [weight ** (len(values) - 1 - n) * (1 - weight if n else 1) for n in range(len(values))]
    assert sum(shares) == pytest.approx(1)
    expected = float(np.dot(shares, values))
    assert smoothed(values, kind="exponential", weight=weight)[-1] == pytest.approx(expected, abs=1e-5)


def test_a_jump_shows_as_late_as_is_said() -> None:
    """1 - w^n >= t: at 0.5 the first frame, at 0.8 the fourth."""
    for weight, late in ((0.5, 1), (0.8, 4)):
        rising = smoothed([0, 1, 1, 1, 1, 1], kind="exponential", weight=weight)[1:]
        assert next(n for n, value in enumerate(rising, start=1) if value >= 0.5) == late


@pytest.mark.parametrize("kind", ["exponential", "flow"])
def test_a_constant_stream_is_unchanged(kind: SmoothKind, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    chances = rng.random((1, 40, 50), np.float32)
    smoother = Smoother(SmoothSettings(kind, 0.7, (0.4, 0.6)))
    for _ in range(5):
        found = smoother(chances, image)
        np.testing.assert_allclose(found.probabilities, chances, atol=1e-5)
    assert smoother.cuts == 0


@pytest.mark.parametrize(
    "off", [SmoothSettings(), SmoothSettings("exponential", 0.0), SmoothSettings("flow", 0.0), SmoothSettings("none")]
)
def test_weight_0_and_none_leave_everything_alone(off: SmoothSettings, rng: np.random.Generator) -> None:
    assert not off.active
    smoother = Smoother(off)
    for _ in range(3):
        image, chances = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), rng.random((1, 40, 50), np.float32)
        found = smoother(chances, image)
        assert found.thresholds is None
        np.testing.assert_array_equal(found.probabilities, chances)


def test_the_probabilities_of_several_classes_still_sum_to_1(rng: np.random.Generator) -> None:
    smoother = Smoother(SmoothSettings("flow", 0.6))
    for shift in range(4):
        chances = rng.random((3, 40, 50), np.float32)
        found = smoother(chances / chances.sum(axis=0), scene(shift)[0]).probabilities
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
        assert (found >= 0).all()


def test_the_caller_s_arrays_are_not_written_to(rng: np.random.Generator) -> None:
    smoother = Smoother(SmoothSettings("flow", 0.6, (0.3, 0.7)))
    for shift in range(3):
        chances, (image, _) = rng.random((1, 40, 50), np.float32), scene(shift)
        kept = chances.copy(), image.copy()
        smoother(chances, image)
        np.testing.assert_array_equal(chances, kept[0])
        np.testing.assert_array_equal(image, kept[1])


# ------------------------------------------------------------------ hysteresis


def masks(values: list[float], **how: Any) -> list[bool]:
    smoother = Smoother(SmoothSettings(**how))
    found = []
    for value in values:
        one = smoother(plane(value), GREY)
        assert one.thresholds is not None
        found.append(bool((one.probabilities[0] >= one.thresholds)[5, 5]))
    return found


def test_hysteresis_by_hand() -> None:
    values = [0.5, 0.6, 0.5, 0.4, 0.39, 0.5, 0.61, 0.45]
    assert masks(values, hysteresis=(0.4, 0.6)) == [False, True, True, True, False, False, True, True]
    assert masks(values, hysteresis=(0.5, 0.5)) == [value >= 0.5 for value in values]


def test_hysteresis_acts_on_the_mean() -> None:
    """0.5, then 0.75, 0.375 and 0.1875 as above."""
    assert masks([0, 1, 1, 0, 0], kind="exponential", weight=0.5, hysteresis=(0.3, 0.6)) == [
        False,
        False,
        True,
        True,
        False,
    ]


# ------------------------------------------------------------------ motion


def scene(shift: int, size_hw: tuple[int, int] = (120, 160)) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A textured square that has moved `shift` px to the right over a textured ground, and its probability."""
    noise = np.random.default_rng(3)

    def texture(height: int, width: int, low: int, high: int) -> NDArray[np.uint8]:
        coarse = noise.integers(low, high, (height // 4, width // 4), dtype=np.uint8)
        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)

    grey, square = texture(*size_hw, 20, 90), texture(40, 40, 140, 240)
    chance = np.zeros(size_hw, np.float32)
    grey[40:80, 30 + shift : 70 + shift] = square
    chance[40:80, 30 + shift : 70 + shift] = 1
    return np.repeat(grey[..., None], 3, axis=2), chance[None]


def overlap_after_motion(kind: SmoothKind, *, hysteresis: tuple[float, float] | None = None, step: int = 3) -> float:
    """IoU with the square, after it has moved for ten frames, smoothed with a long memory."""
    smoother = Smoother(SmoothSettings(kind, 0.8, hysteresis))
    for n in range(10):
        image, chance = scene(step * n)
        found = smoother(chance, image)
    assert smoother.cuts == 0
    mask, truth = found.probabilities[0] >= (0.5 if found.thresholds is None else found.thresholds), chance[0] == 1
    return float(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))


def test_flow_follows_what_moves_and_the_plain_mean_trails_it() -> None:
    assert overlap_after_motion("flow") > 0.93
    assert overlap_after_motion("exponential") < 0.8


@pytest.mark.parametrize(("kind", "seen"), [("flow", True), ("none", False)])
def test_hysteresis_follows_the_flow_too(kind: SmoothKind, seen: bool) -> None:
    """The network is sure of the square once, then only half: it stays on 42 px further, if it is followed."""
    smoother = Smoother(SmoothSettings(kind, 0.0, (0.2, 0.6)))
    for n in range(15):
        image, chance = scene(3 * n)
        found = smoother(chance * np.float32(1 if n == 0 else 0.4), image)
    assert found.thresholds is not None
    mask = found.probabilities[0] >= found.thresholds
    assert np.count_nonzero(mask & (chance[0] == 1)) / np.count_nonzero(chance) == pytest.approx(float(seen), abs=0.2)


def test_what_appears_is_believed_at_once() -> None:
    """Where the picture shows something that was not there, the frames before say nothing; the plain mean waits."""
    image, chance = scene(0)
    ground = image.copy()
    ground[40:80, 30:70] = image[40:80, 90:130]
    for kind, least, most in (("flow", 0.9, 1.01), ("exponential", 0.2, 0.21)):
        smoother = Smoother(SmoothSettings(kind, 0.8))
        smoother(chance * 0, ground)
        found = smoother(chance, image).probabilities[0][44:76, 34:66]
        assert smoother.cuts == 0
        assert least < float(found.mean()) < most, kind


def test_what_was_on_and_is_hidden_is_off() -> None:
    """The square goes away at once: what lies behind it needs the high threshold again."""
    image, chance = scene(0)
    ground = image.copy()
    ground[40:80, 30:70] = image[40:80, 90:130]
    smoother = Smoother(SmoothSettings("flow", 0.0, (0.2, 0.6)))
    smoother(chance, image)
    found = smoother(chance * 0.4, ground)
    assert found.thresholds is not None
    assert float(found.thresholds[44:76, 34:66].mean()) > 0.55


def test_flow_keeps_what_is_missing_in_one_frame_while_it_moves() -> None:
    """The network misses the square once, in the middle of its way: the mean of the frames before still shows it."""
    smoother = Smoother(SmoothSettings("flow", 0.6))
    for n in range(6):
        image, chance = scene(3 * n)
        seen = smoother(chance * (n != 5), image).probabilities[0] >= 0.5
    truth = chance[0] == 1
    assert np.count_nonzero(seen & truth) / np.count_nonzero(seen | truth) > 0.85


def test_what_is_new_in_the_picture_is_taken_from_the_network_alone() -> None:
    """The square leaves a place: nothing is left of it there, though the plain mean would still show a fifth."""
    smoother = Smoother(SmoothSettings("flow", 0.8))
    for n in range(5):
        image, chance = scene(4 * n)
        found = smoother(chance, image).probabilities[0]
    left_behind = found[44:76, 30:40]  # 16 px have been crossed
    assert float(left_behind.mean()) < 0.1


# ------------------------------------------------------------------ forgetting


@pytest.mark.parametrize("kind", ["exponential", "flow", "none"])
def test_nothing_is_seen_across_a_cut(kind: SmoothKind) -> None:
    smoother = Smoother(SmoothSettings(kind, 0.9, (0.2, 0.8)))
    for _ in range(3):
        smoother(plane(1), GREY)
    found = smoother(plane(0.3), GREY + np.uint8(60))
    np.testing.assert_array_equal(found.probabilities, plane(0.3))
    assert found.thresholds is not None
    np.testing.assert_allclose(found.thresholds, 0.8)
    assert smoother.cuts == 1


def test_a_change_of_light_within_a_scene_is_no_cut() -> None:
    smoother = Smoother(SmoothSettings("exponential", 0.5))
    smoother(plane(1), GREY)
    smoother(plane(0), GREY + np.uint8(8))
    assert smoother.cuts == 0


@pytest.mark.parametrize(
    ("seconds", "cuts"), [((0, 0.04, 0.9), 0), ((0, 0.04, 1.2), 1), ((5, Fraction(126, 25), 0), 1), ((0, None, 9), 0)]
)
def test_a_pause_or_a_clock_that_runs_back_forgets(seconds: tuple[Any, ...], cuts: int) -> None:
    """Back: a file that is repeated."""
    smoother = Smoother(SmoothSettings("exponential", 0.5))
    for when in seconds:
        smoother(plane(1), GREY, when)
    assert smoother.cuts == cuts


def test_a_change_of_size_forgets() -> None:
    smoother = Smoother(SmoothSettings("flow", 0.5))
    smoother(plane(1), GREY)
    np.testing.assert_array_equal(smoother(plane(0, (12, 40)), GREY).probabilities, plane(0, (12, 40)))


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 40), (15, 11)])
def test_tiny_frames(size_hw: tuple[int, int]) -> None:
    smoother = Smoother(SmoothSettings("flow", 0.5))
    for value in (0.0, 1.0):
        found = smoother(plane(value, size_hw), np.full((*size_hw, 3), 50, np.uint8))
    np.testing.assert_allclose(found.probabilities, 0.5)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match="weight"):
        SmoothSettings("flow", weight)


@pytest.mark.parametrize("text", ["0.6,0.4", "0,0.5", "0.5,1.1", "x", "0.4", "0.4,0.5,0.6", "nan,nan"])
def test_a_hysteresis_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="hysteresis"):
        SmoothSettings(hysteresis=parse_hysteresis(text))


def test_hysteresis_is_read_as_written() -> None:
    assert parse_hysteresis("0.4, 0.6") == (0.4, 0.6)
    assert parse_hysteresis(None) is None
    assert SmoothSettings("flow", 0.5, (0.4, 0.6)).about == "flow, weight 0.5, hysteresis 0.4 to 0.6"
    assert SmoothSettings().about == "none"


# ------------------------------------------------------------------ with a Predictor


def picture(level: float, size_hw: tuple[int, int] = (101, 150)) -> NDArray[np.uint8]:
    return np.full((*size_hw, 3), level, np.uint8)


def test_small_changes_are_averaged_and_the_rest_of_a_prediction_stays(by_brightness: Predictor) -> None:
    low, high = (float(by_brightness(picture(level)).probabilities[0, 0, 0]) for level in (124, 130))
    assert low < 0.5 < high
    smoother = Smoother(SmoothSettings("exponential", 0.8))
    smoother.prediction(by_brightness, picture(124), by_brightness(picture(124)))
    found = by_brightness(picture(130))
    made = smoother.prediction(by_brightness, picture(130), found)
    np.testing.assert_allclose(made.probabilities, 0.8 * low + 0.2 * high, atol=1e-5)
    assert found.mask.all()
    assert not made.mask.any()
    assert np.isnan(made.quality)
    assert made.mask.shape == (101, 150)
    assert made.network_logits is found.network_logits


def test_hysteresis_of_a_prediction(by_brightness: Predictor) -> None:
    """124 is a probability of 0.44, 130 of 0.53, 126 of 0.47."""
    smoother = Smoother(SmoothSettings(hysteresis=(0.45, 0.52)))
    found = [
        smoother.prediction(by_brightness, image, by_brightness(image)).mask
        for image in map(picture, (126, 130, 126, 124, 126))
    ]
    assert [mask.all() for mask in found] == [False, True, True, False, False]
    assert [mask.any() for mask in found] == [False, True, True, False, False]


def test_hysteresis_at_the_model_s_threshold_changes_no_mask(
    by_brightness: Predictor, rng: np.random.Generator
) -> None:
    smoother = Smoother(SmoothSettings(hysteresis=(0.5, 0.5)))
    for _ in range(3):
        image = rng.integers(100, 156, (50, 70, 3), dtype=np.uint8)
        found = by_brightness(image)
        made = smoother.prediction(by_brightness, image, found)
        clear = np.abs(found.probabilities[0] - 0.5) > 1e-5
        np.testing.assert_array_equal(made.mask[clear], found.mask[clear])
        assert made.quality == pytest.approx(found.quality, abs=1e-3)


def test_without_smoothing_a_prediction_is_handed_through(by_brightness: Predictor) -> None:
    found = by_brightness(picture(130))
    assert Smoother(SmoothSettings()).prediction(by_brightness, picture(130), found) is found


def test_hysteresis_of_several_classes_is_refused(by_channel: Predictor, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="two classes"):
        Smoother(SmoothSettings(hysteresis=(0.4, 0.6))).prediction(by_channel, image, by_channel(image))
    made = Smoother(SmoothSettings("flow")).prediction(by_channel, image, by_channel(image))
    np.testing.assert_array_equal(made.mask, by_channel(image).mask)
