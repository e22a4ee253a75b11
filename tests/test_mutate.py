from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from mutate import ANY, SPECIAL, mutate, mutate_often

PICTURE = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
FILES = {
    ".png": cv2.imencode(".png", PICTURE)[1].tobytes(),
    ".jpg": cv2.imencode(".jpg", PICTURE)[1].tobytes(),
    ".json": b'{"images": [{"id": 1, "size": [2, 3]}], "name": "a"}',
    ".xml": b'<?xml version="1.0"?><annotations><image id="0"><box label="a" xtl="1"/></image></annotations>',
    ".yaml": b"names: {0: shaft}\ntrain: images\n",
    ".txt": b"0 0.1 0.2\n1 0.5 0.5\n",
}


@pytest.mark.parametrize("mutator", sorted({*ANY, *(one for some in SPECIAL.values() for one in some)}, key=str))
def test_every_mutator_takes_every_file_and_spoils_some(mutator) -> None:
    spoilt = 0
    for data in (*FILES.values(), b"", b"x"):
        for seed in range(20):
            spoilt += mutator(data, random.Random(seed)) != data
    assert spoilt


def test_equal_seeds_give_equal_files() -> None:
    for suffix, data in FILES.items():
        for seed in range(50):
            one, other = (mutate_often(data, suffix, random.Random(seed)) for _ in range(2))
            assert one == other


def test_headers_of_png_stay_right_but_for_the_size() -> None:
    names = [mutate(FILES[".png"], ".png", random.Random(seed))[0] for seed in range(400)]
    assert {"png_header", "png_pixels", "png_extra_chunk", "flip_bits"} <= set(names)
