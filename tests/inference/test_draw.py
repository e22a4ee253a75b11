from __future__ import annotations

import numpy as np
import pytest

from trocar.inference.draw import PALETTE, class_colour, overlay


def scene() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 1
    mask[10:20, 30:50] = 2
    mask[30:, :] = 255
    return image, mask


def test_background_and_ignored_pixels_stay_as_they_are() -> None:
    image, mask = scene()
    drawn = overlay(image, mask)
    untouched = (mask == 0) | (mask == 255)
    np.testing.assert_array_equal(drawn[untouched], image[untouched])
    np.testing.assert_array_equal(image, scene()[0])


def test_classes_are_tinted_inside_and_outlined_where_they_end() -> None:
    drawn = overlay(*scene())
    np.testing.assert_allclose(drawn[15, 15], 0.6 * 100 + 0.4 * np.array(PALETTE[0]), atol=1)
    np.testing.assert_allclose(drawn[15, 40], 0.6 * 100 + 0.4 * np.array(PALETTE[1]), atol=1)
    for row, column, index in [(10, 20, 1), (15, 10, 1), (15, 29, 1), (15, 30, 2), (19, 40, 2)]:
        assert tuple(drawn[row, column]) == class_colour(index)


def test_the_edge_of_the_image_is_no_outline() -> None:
    drawn = overlay(np.full((9, 9, 3), 100, np.uint8), np.ones((9, 9), np.uint8))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (31, 23), (700, 30), (900, 810)])
def test_every_pixel_is_as_its_neighbours_say(size: tuple[int, int]) -> None:
    """Pixel by pixel: what is labelled is tinted, or drawn plain where another class is near."""
    rng = np.random.default_rng(sum(size))
    coarse = rng.choice([0, 0, 0, 1, 2, 9, 255], (3, 4)).astype(np.uint8)
    mask = coarse[np.ix_(np.arange(size[0]) * 3 // size[0], np.arange(size[1]) * 4 // size[1])]
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    near = max(1, round(min(size) / 400))
    labelled = np.where(mask == 255, 0, mask)
    drawn = overlay(image, mask)
    for y, x in rng.integers(0, size, (400, 2)):
        window = labelled[max(0, y - near) : y + near + 1, max(0, x - near) : x + near + 1]
        if not labelled[y, x]:
            expected = image[y, x].astype(float)
        elif (window != labelled[y, x]).any():
            expected = np.array(class_colour(labelled[y, x]), float)
        else:
            expected = 0.6 * image[y, x] + 0.4 * np.array(class_colour(labelled[y, x]))
        np.testing.assert_allclose(drawn[y, x], expected, atol=0.51)


def test_colours_differ_and_repeat() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert class_colour(1) == class_colour(1 + len(PALETTE))


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask is"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8))
