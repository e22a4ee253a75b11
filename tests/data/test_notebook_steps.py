"""The notebook's preprocessing as recipe steps: bit-equal to the OpenCV calls it made, on BGR as it read images."""

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from trocar.config import (
    Binarise,
    BoxBlur,
    Dilate,
    Equalise,
    GaussianBlur,
    Grey,
    Jpeg,
    PreprocessSettings,
    load_recipe,
)
from trocar.data.preprocess import (
    altered_mask,
    apply_image_steps,
    apply_mask_steps,
    fit_mask,
    prepare_image,
    prepare_mask,
    resize_as_tensorflow,
)
from trocar.errors import UserError

SIZES = [(37, 53), (64, 48), (100, 101)]


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height)).astype(int) + rng.integers(-9, 10, (height, width, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def as_the_notebook(rgb: np.ndarray, folder: Path) -> np.ndarray:
    """Its calls, on the BGR image that cv2.imread gives; saved and read as three channels."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgb[..., ::-1]), cv2.COLOR_BGR2GRAY)
    blurred = cv2.blur(cv2.equalizeHist(grey), (4, 4))
    cv2.imwrite(str(folder / "x.jpg"), blurred)
    return cv2.imread(str(folder / "x.jpg"), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("size_hw", SIZES)
def test_image_steps_equal_the_opencv_calls_bit_for_bit(size_hw: tuple[int, int], tmp_path: Path) -> None:
    image = random_image(*size_hw)
    steps = load_recipe("notebook").preprocess.image_steps
    prepared = apply_image_steps(image, steps)
    np.testing.assert_array_equal(prepared, as_the_notebook(image, tmp_path))
    grey = cv2.cvtColor(np.ascontiguousarray(image[..., ::-1]), cv2.COLOR_BGR2GRAY)
    for settings, expected in (
        ([Grey()], grey),
        ([Grey(), Equalise()], cv2.equalizeHist(grey)),
        ([Grey(), BoxBlur(size=7)], cv2.blur(grey, (7, 7))),
        ([Grey(), GaussianBlur(size=5)], cv2.GaussianBlur(grey, (5, 5), 0)),
    ):
        changed = apply_image_steps(image, settings)
        assert changed.shape == image.shape
        for channel in range(3):
            np.testing.assert_array_equal(changed[..., channel], expected)
    in_colour = cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1)[..., ::-1]
    np.testing.assert_array_equal(apply_image_steps(image, [Jpeg(quality=80)]), in_colour)


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(("size", "iterations"), [(2, 1), (3, 1), (3, 4)])
def test_mask_steps_equal_the_opencv_calls_bit_for_bit(size_hw: tuple[int, int], size: int, iterations: int) -> None:
    stored = (np.random.default_rng(0).random(size_hw) < 0.02).astype(np.uint8) * 255
    _, binary = cv2.threshold(stored, 0, 255, cv2.THRESH_BINARY)
    expected = cv2.dilate(binary, np.ones((size, size), np.uint8), iterations=iterations)
    mask = np.where(stored == 255, np.uint8(2), np.uint8(0))  # class indices, as records hold them
    steps = [Binarise(), Dilate(size=size, iterations=iterations)]
    np.testing.assert_array_equal(apply_mask_steps(mask, steps) * 255, expected)


def test_ignored_pixels_stay_and_spread_nowhere() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 255
    mask[0, 0] = 1
    changed = apply_mask_steps(mask, [Binarise(), Dilate(size=3)])
    assert np.argwhere(changed == 255).tolist() == [[4, 4]]
    assert (changed == 1).sum() == 4


def test_mask_steps_alter_training_masks_only_unless_the_recipe_says_all() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 1
    settings = PreprocessSettings(size_hw=(64, 64), fit="squash", mask_steps=(Dilate(),))
    assert prepare_mask(mask, settings, training=True).sum() == 121
    assert prepare_mask(mask, settings).sum() == 100
    everywhere = settings.model_copy(update={"mask_steps_on": "all"})
    assert prepare_mask(mask, everywhere).sum() == 121
    assert altered_mask(mask, everywhere).sum() == 121
    assert fit_mask(mask, everywhere).sum() == 100


@pytest.mark.parametrize("to_hw", [(32, 48), (64, 64), (200, 160)])
def test_resizing_as_tensorflow_does(tf: ModuleType, to_hw: tuple[int, int]) -> None:
    image = random_image(101, 67)
    expected = tf.image.resize(image, to_hw).numpy()
    np.testing.assert_allclose(resize_as_tensorflow(image, to_hw), expected, atol=2e-3)
    settings = PreprocessSettings(size_hw=(64, 96), fit="squash", resize="tensorflow", mask_resize="bilinear")
    prepared, _ = prepare_image(image, settings)
    assert np.abs(prepared - tf.image.resize(image, (64, 96)).numpy()).max() <= 0.5 + 2e-3
    mask = (random_image(101, 67, seed=1)[..., 0] > 128).astype(np.uint8)
    shares = prepare_mask(mask, settings)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, tf.image.resize(mask[..., None], (64, 96)).numpy()[..., 0], atol=1e-5)
    assert 0 < ((shares > 0) & (shares < 1)).mean() < 0.5
    assert prepare_image(image, settings.model_copy(update={"resize": "area-linear"}))[0].tolist() != prepared.tolist()


def test_shares_keep_ignored_pixels_and_padding_apart() -> None:
    mask = np.ones((40, 80), np.uint8)
    mask[:10] = 255
    settings = PreprocessSettings(size_hw=(64, 64), fit="letterbox", mask_resize="bilinear")
    shares = prepare_mask(mask, settings)
    assert set(np.unique(shares[:8])) == {255.0}
    assert (shares[32:] == 255).all()
    assert ((shares >= 0) & (shares <= 1))[8:32].all()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("preprocess.image_steps=[{step: gaussian-blur, size: 4}]", "odd"),
        ("preprocess.image_steps=[{step: sharpen}]", "grey"),
        ("preprocess.mask_steps=[{step: dilate, size: 0}]", "greater than 0"),
        ("preprocess.mask_steps=[{step: grey}]", "dilate"),
        ("data.target=parts", "mixes class indices"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_recipe("notebook", [setting])


@pytest.mark.real
def test_real_frames_equal_the_opencv_calls(shared: Path, tmp_path: Path) -> None:
    steps = load_recipe("notebook").preprocess
    for path in sorted((shared / "data/endovis15/rigid/OP1/Raw").glob("*.png"))[:5]:
        bgr = cv2.imread(str(path))
        expected = as_the_notebook(bgr[..., ::-1], tmp_path)
        np.testing.assert_array_equal(
            apply_image_steps(np.ascontiguousarray(bgr[..., ::-1]), steps.image_steps), expected
        )
    for path in sorted((shared / "data/kvasir_instrument/masks").iterdir())[:5]:
        stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        _, binary = cv2.threshold(stored, 0, 255, cv2.THRESH_BINARY)
        expected = cv2.dilate(binary, np.ones((2, 2), np.uint8), iterations=1)
        np.testing.assert_array_equal(apply_mask_steps((stored > 0).astype(np.uint8), steps.mask_steps) * 255, expected)
