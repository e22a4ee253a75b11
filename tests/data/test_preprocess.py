import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.config import Clahe, PreprocessSettings
from trocar.data.preprocess import place, prepare_image, prepare_mask, resize_image, resize_mask, restore

sides = st.integers(1, 90)


@given(height=sides, width=sides, fit=st.sampled_from(["letterbox", "squash"]), seed=st.integers(0, 99))
def test_a_prepared_mask_has_only_values_of_the_mask_and_padding(height: int, width: int, fit: str, seed: int) -> None:
    mask = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    prepared = prepare_mask(mask, PreprocessSettings(size_hw=(48, 64), fit=fit))
    assert prepared.shape == (48, 64)
    assert set(np.unique(prepared)) <= set(np.unique(mask)) | {255}


def test_majority_against_counting_by_hand() -> None:
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2], (40, 60), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    blocks = mask.reshape(8, 5, 12, 5).transpose(0, 2, 1, 3).reshape(8, 12, 25)
    expected = np.array([[np.bincount(cell).argmax() for cell in row] for row in blocks])
    assert np.array_equal(resize_mask(mask, (8, 12)), expected)


def test_a_growing_mask_takes_the_nearest_value() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert np.array_equal(resize_mask(mask, (4, 6)), np.kron(mask, np.ones((2, 3), np.uint8)))


def test_letterbox_keeps_the_aspect_and_marks_padding_as_ignore() -> None:
    settings = PreprocessSettings(size_hw=(64, 64))
    image, placement = prepare_image(np.full((30, 60, 3), 200, np.uint8), settings)
    mask = prepare_mask(np.ones((30, 60), np.uint8), settings)
    assert (placement.height, placement.width) == (32, 64)
    assert (image[:32] == 200).all()
    assert (image[32:] == 0).all()
    assert (mask[:32] == 1).all()
    assert (mask[32:] == 255).all()


@pytest.mark.parametrize("fit", ["letterbox", "squash"])
@pytest.mark.parametrize("native_hw", [(480, 640), (37, 91), (1080, 1920), (64, 80)])
def test_restoring_puts_every_pixel_back_where_it_was(native_hw: tuple[int, int], fit: str) -> None:
    settings = PreprocessSettings(size_hw=(64, 80), fit=fit)
    ramp = np.linspace(0, 255, native_hw[1]).astype(np.uint8)
    image = np.dstack([np.tile(ramp, (native_hw[0], 1))] * 3)
    prepared, placement = prepare_image(image, settings)
    back = restore(prepared.transpose(2, 0, 1).astype(np.float32), placement)
    assert back.shape == (3, *native_hw)
    inside = slice(native_hw[1] // 10, -native_hw[1] // 10)
    assert np.abs(back[0, :, inside] - image[:, inside, 0]).max() <= 255 / 80 + 2


def test_shrinking_is_area_and_growing_bilinear() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    small, _ = prepare_image(image, PreprocessSettings(size_hw=(48, 64), fit="squash"))
    large, _ = prepare_image(image, PreprocessSettings(size_hw=(160, 160), fit="squash"))
    assert np.array_equal(small, cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA))
    assert np.array_equal(large, cv2.resize(image, (160, 160), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("native", "small"),
    [
        ((576, 720), (410, 512)),
        ((576, 720), (384, 480)),
        ((1080, 1920), (288, 512)),
        ((1080, 1920), (540, 960)),
        ((480, 640), (61, 83)),
        ((97, 131), (96, 130)),
        ((97, 131), (1, 1)),
    ],
)
def test_a_shrunk_image_is_the_mean_of_the_area_rounded(native: tuple[int, int], small: tuple[int, int]) -> None:
    """By the definition, in float64, whichever library OpenCV leaves it to; its switch for that stays as it was."""
    image = np.random.default_rng(7).integers(0, 256, (*native, 3), dtype=np.uint8)
    exact = np.einsum("yi,ijc,xj->yxc", _cover(native[0], small[0]), image, _cover(native[1], small[1]), optimize=True)
    before = cv2.ipp.useIPP_NotExact()
    assert np.abs(resize_image(image, small) - exact).max() < 0.502
    assert cv2.ipp.useIPP_NotExact() == before


def _cover(native: int, small: int) -> np.ndarray:
    """Share of each native pixel in each of the result: (small, native), rows sum to 1."""
    ends = np.arange(small + 1)[:, None] * native / small
    pixel = np.arange(native)
    return np.clip(np.minimum(ends[1:], pixel + 1) - np.maximum(ends[:-1], pixel), 0, None) * small / native


def test_clahe_is_opencvs_on_the_lightness() -> None:
    image = np.random.default_rng(0).integers(0, 90, (64, 80, 3), np.uint8)
    settings = PreprocessSettings(size_hw=(64, 80), image_steps=(Clahe(clip_limit=3, tiles=4),))
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(3, (4, 4)).apply(lab[..., 0])
    assert np.array_equal(prepare_image(image, settings)[0], cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def test_a_sliver_keeps_at_least_one_pixel() -> None:
    placement = place((1, 4000), PreprocessSettings(size_hw=(32, 32)))
    assert (placement.height, placement.width) == (1, 32)
