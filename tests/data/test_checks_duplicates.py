from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.data.checks import duplicates, picture
from trocar.data.checks.duplicates import close_pairs, clusters, near_pairs
from trocar.synthetic import draw_scene


def drawn_hashes(count: int, planted: int, most_bits: int, seed: int) -> np.ndarray:
    """Drawn hashes, and near ones of some of them."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = [
        int(hashes[i]) ^ sum(1 << int(bit) for bit in rng.choice(64, rng.integers(1, most_bits + 1), replace=False))
        for i in range(planted)
    ]
    return np.unique(np.concatenate([hashes, np.array(near, dtype=np.uint64)]))


def brute(hashes: np.ndarray, distance: int) -> np.ndarray:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    return np.argwhere(np.triu(apart <= distance, 1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), distance=st.integers(0, 9), count=st.integers(2, 300))
def test_no_close_pair_is_missed_and_none_is_made_up(seed: int, distance: int, count: int) -> None:
    hashes = drawn_hashes(count, count // 2, distance + 2, seed)
    np.testing.assert_array_equal(close_pairs(hashes, distance), brute(hashes, distance))


@pytest.mark.parametrize("bands", [7, 8, 9, 10])
def test_every_number_of_bands_finds_the_same(bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = drawn_hashes(500, 400, 7, seed=bands)
    monkeypatch.setattr(duplicates, "_work", lambda count, distance, number: abs(number - bands))
    np.testing.assert_array_equal(close_pairs(hashes, 6), brute(hashes, 6))


def test_hashes_that_agree_in_many_bits_are_no_trouble() -> None:
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**20, 600, dtype=np.uint64))  # 44 bits agree in all
    np.testing.assert_array_equal(close_pairs(hashes, 4), brute(hashes, 4))


def test_more_hashes_are_cut_so_that_chance_neighbours_stay_few() -> None:
    bits = [int(duplicates._masks(count, 6)[0]).bit_count() for count in (1_000, 10**8)]
    assert bits[0] < bits[1]


def views(seed: int) -> list[np.ndarray]:
    """One scene as it is, and as copies may come."""
    image = draw_scene(seed, size_hw=(240, 320), procedure=seed).image
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    noisy = np.clip(grey + np.random.default_rng(seed).normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
    packed = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    return [grey, small, noisy, packed, cv2.convertScaleAbs(grey, alpha=0.75)]


def of(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.array([picture.perceptual_hash(grey) for grey in pictures], np.uint64)
    thumbs = np.stack([cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel() for grey in pictures])
    return hashes, thumbs


def test_altered_copies_hang_together_and_scenes_do_not() -> None:
    found = near_pairs(*of([view for seed in range(6) for view in views(seed)]))
    expected = [list(range(5 * scene, 5 * scene + 5)) for scene in range(6)]
    assert clusters(30, found) == expected


def test_equal_hashes_are_compared_with_their_first_only() -> None:
    still = views(0)[0]
    found = near_pairs(*of([still] * 50))
    assert found.tolist() == [[0, i] for i in range(1, 50)]


def test_the_pixels_decide_after_the_hash() -> None:
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 256, (2, 256), dtype=np.uint8)
    same_hash = np.array([5, 5], np.uint64)
    assert near_pairs(same_hash, thumbs).tolist() == []
    assert near_pairs(same_hash, np.stack([thumbs[0], thumbs[0] // 2])).tolist() == [[0, 1]]


def test_even_pictures_are_near_nothing() -> None:
    assert near_pairs(*of([np.full((64, 64), 7, np.uint8)] * 3)).tolist() == []
    faint = np.full((64, 64), 90, np.uint8)
    faint[:, 32:] += 1  # equal hashes, but nothing that one could know a frame by
    assert near_pairs(*of([faint, faint + np.uint8(40)])).tolist() == []


def test_clusters_are_what_hangs_together() -> None:
    assert clusters(8, [(1, 2), (5, 6), (2, 7)]) == [[1, 2, 7], [5, 6]]
    assert clusters(3, []) == []
