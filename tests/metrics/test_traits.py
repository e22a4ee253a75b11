from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage import color, measure

from trocar.metrics.traits import TRAITS, traits_of

SHAPE = (300, 400)
TISSUE = (150, 70, 50)


def scene(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Tissue with some texture."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)[..., None] * 60
    return np.clip(np.array(TISSUE) + texture, 0, 255).astype(np.uint8)


def bar(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


MIDDLE = bar(100, 100, 140, 200)
EMPTY = np.zeros(SHAPE, np.uint8)


def test_every_trait_is_measured_and_defined() -> None:
    found = traits_of(scene(), MIDDLE)
    assert set(found) == set(TRAITS)
    assert {type(value) for value in found.values()} == {float}
    for trait in TRAITS.values():
        assert trait.definition
        assert len(trait.words) == (len(trait.cuts) + 1 if trait.cuts else 3)


def test_size_is_a_share_of_the_counted_pixels() -> None:
    assert traits_of(scene(), MIDDLE)["instrument_share"] == 4000 / 120_000
    half = MIDDLE.copy()
    half[150:] = 255
    assert traits_of(scene(), half)["instrument_share"] == 4000 / 60_000


def test_pieces_are_counted_as_scikit_image_does_but_for_crumbs() -> None:
    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=SHAPE), 7)
    mask = (field > np.quantile(field, 0.8)).astype(np.uint8)
    sizes = [region.area for region in measure.regionprops(measure.label(mask, connectivity=2))]
    large = sum(size >= 0.0005 * mask.size for size in sizes)
    assert large > 3
    mask[0, 0] = 0
    assert traits_of(scene(), mask)["instrument_count"] == large
    corner_to_corner = bar(10, 10, 50, 50) | bar(50, 50, 90, 90)
    assert traits_of(scene(), corner_to_corner)["instrument_count"] == 1
    crumbs = bar(10, 10, 12, 12) | bar(90, 90, 92, 92)
    assert traits_of(scene(), crumbs)["instrument_count"] == 1  # there is an instrument, however small


def test_instances_are_counted_and_touch_or_do_not() -> None:
    apart = bar(10, 10, 50, 50) + 2 * bar(60, 60, 90, 90)
    corner = bar(10, 10, 50, 50) + 2 * bar(50, 50, 90, 90)
    beside = bar(10, 10, 50, 50) + 2 * bar(10, 50, 50, 90)
    other_corner = bar(10, 50, 50, 90) + 2 * bar(50, 10, 90, 50)
    touching = {}
    for name, instances in {"apart": apart, "corner": corner, "beside": beside, "other": other_corner}.items():
        found = traits_of(scene(), (instances > 0).astype(np.uint8), instances)
        assert found["instrument_count"] == 2
        touching[name] = found["instruments_touch"]
    assert touching == {"apart": 0, "corner": 1, "beside": 1, "other": 1}
    unmarked = traits_of(scene(), MIDDLE, EMPTY)
    assert math.isnan(unmarked["instrument_count"])  # the mask shows one that the instances lack
    between = bar(10, 10, 50, 90)
    between[:, 40:60] = np.where(between[:, 40:60], 2, 0)  # the second lies amid the first, and is ignored
    ignored = traits_of(scene(), np.where(between == 2, 255, between).astype(np.uint8), between)
    assert (ignored["instrument_count"], ignored["instruments_touch"]) == (1, 0)


@pytest.mark.parametrize("turns", range(4))
def test_an_instrument_enters_from_any_side(turns: int) -> None:
    for first, expected in ((0, 1), (2, 1), (3, 0), (60, 0)):  # 1 % of 300 px is 3 rows
        mask = np.ascontiguousarray(np.rot90(bar(first, 100, 100, 150), turns))
        assert traits_of(np.ascontiguousarray(np.rot90(scene(), turns)), mask)["touches_border"] == expected


def test_the_black_surround_of_a_round_view_is_a_border_and_no_darkness() -> None:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    outside = np.hypot(rows - 150, columns - 200) > 140
    image = scene()
    image[outside] = 4
    from_the_rim = bar(140, 50, 160, 120)
    from_the_rim[outside] = 0
    assert traits_of(image, from_the_rim)["touches_border"] == 1
    assert traits_of(scene(), from_the_rim)["touches_border"] == 0
    assert traits_of(image, MIDDLE)["touches_border"] == 0
    for name in ("brightness", "haze"):
        assert traits_of(image, MIDDLE)[name] == pytest.approx(traits_of(scene(), MIDDLE)[name], abs=0.02)
    assert traits_of(image, MIDDLE)["sharpness"] == pytest.approx(traits_of(scene(), MIDDLE)["sharpness"], rel=0.1)


def test_a_dark_scene_is_no_surround() -> None:
    dark = scene() // 12
    dark[20:40, 20:60] = 200
    assert traits_of(dark, MIDDLE)["brightness"] < 0.05
    assert traits_of(np.zeros((*SHAPE, 3), np.uint8), EMPTY)["brightness"] == 0


def test_brightness_is_the_median_luma() -> None:
    image = scene(shape=(384, 512))  # of the size at which it is measured
    luma = np.median(color.rgb2yuv(image)[..., 0]) * 255
    assert traits_of(image, EMPTY_512)["brightness"] * 255 == pytest.approx(luma, abs=1)


EMPTY_512 = np.zeros((384, 512), np.uint8)


def test_highlights_are_bright_and_colourless() -> None:
    image = scene(shape=(384, 512))
    image[50:60, 50:100] = (240, 235, 231)
    image[100:150, 50:100] = (255, 229, 229)  # bright, but red
    assert traits_of(image, EMPTY_512)["specularity"] == pytest.approx(500 / EMPTY_512.size)


def test_sharpness_falls_with_blur_and_hardly_depends_on_the_camera() -> None:
    large = scene(shape=(1024, 1280))
    large = cv2.resize(large[:512, :640], (1280, 1024), interpolation=cv2.INTER_CUBIC)
    values = [
        traits_of(cv2.GaussianBlur(large, (0, 0), sigma) if sigma else large, np.zeros((1024, 1280), np.uint8))
        for sigma in (0, 2, 4, 8)
    ]
    sharp = [value["sharpness"] for value in values]
    assert sharp == sorted(sharp, reverse=True)
    assert sharp[0] > 10 * sharp[-1]
    smaller = cv2.resize(large, (640, 512), interpolation=cv2.INTER_AREA)
    assert traits_of(smaller, np.zeros((512, 640), np.uint8))["sharpness"] == pytest.approx(sharp[0], rel=0.15)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = scene(shape=(384, 512))
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    expected = ndimage.laplace(luma, mode="mirror").var()
    assert traits_of(image, EMPTY_512)["sharpness"] == pytest.approx(expected, rel=1e-4)


def test_smoke_raises_haze_and_the_instrument_has_no_say() -> None:
    image = scene(shape=(384, 512))
    haze = []
    for density in (0, 0.2, 0.4, 0.6):
        veiled = (image * (1 - density) + 255 * density).astype(np.uint8)  # I = J t + A (1 - t)
        haze.append(traits_of(veiled, EMPTY_512)["haze"])
    assert haze == sorted(haze)
    np.testing.assert_allclose(np.diff(haze), 0.2, atol=0.05)  # nearly what the veil adds
    mask = bar(0, 0, 384, 300, shape=(384, 512))
    bright = np.where(mask[..., None] != 0, 220, image).astype(np.uint8)
    assert traits_of(bright, mask)["haze"] == pytest.approx(haze[0], abs=0.02)


def test_a_frame_without_instrument_has_traits_of_its_image_only() -> None:
    found = traits_of(scene(), EMPTY)
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {"instrument_share", "instrument_count", "touches_border", "instruments_touch"}
    assert math.isnan(traits_of(scene(), MIDDLE)["instruments_touch"])  # no instances: not known


def test_flips_and_turns_change_nothing() -> None:
    image, mask = scene(shape=(512, 512)), bar(0, 200, 250, 260, shape=(512, 512))
    plain = traits_of(image, mask)
    for turn in (np.fliplr, np.flipud, np.rot90):
        turned = traits_of(np.ascontiguousarray(turn(image)), np.ascontiguousarray(turn(mask)))
        assert turned == pytest.approx(plain, rel=2e-3, nan_ok=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1500), (2, 3), (31, 17)])
def test_tiny_frames_have_traits_too(shape: tuple[int, int]) -> None:
    found = traits_of(np.full((*shape, 3), 90, np.uint8), np.ones(shape, np.uint8))
    assert found["instrument_share"] == 1
    assert found["megapixels"] == shape[0] * shape[1] / 1e6


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="one size"):
        traits_of(scene(), np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="one size"):
        traits_of(scene(), MIDDLE, np.zeros((3, 3), np.uint8))
