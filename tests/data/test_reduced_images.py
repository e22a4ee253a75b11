"""Images decoded at a reduced size: what is refused, and how large they are, must not depend on it."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trocar.data.files import read_image, read_reduced_image
from trocar.errors import UserError
from trocar.synthetic import draw_scene


def scene(height: int = 600, width: int = 800) -> np.ndarray:
    return draw_scene(4, size_hw=(height, width)).image


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize(("side", "step"), [(300, 2), (301, 1), (150, 4), (75, 8), (9, 8), (601, 1)])
def test_the_size_halves_while_the_shorter_side_is_long_enough(
    suffix: str, side: int, step: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(scene()).save(path, quality=95)
    reduced, size = read_reduced_image(path, side)
    assert size == (800, 600)
    assert reduced.shape == (600 // step, 800 // step, 3)
    whole = cv2.resize(read_image(path), (800 // step, 600 // step), interpolation=cv2.INTER_AREA)
    assert np.abs(whole.astype(int) - reduced).mean() < 3


def test_odd_sizes_are_rounded_up_alike(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        Image.fromarray(scene()[:597, :793]).save(tmp_path / f"a.{suffix}")
        reduced, size = read_reduced_image(tmp_path / f"a.{suffix}", 140)
        assert size == (793, 597)
        assert reduced.shape == (150, 199, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_exif_turn_is_applied_to_picture_and_size(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene()).save(tmp_path / f"a.{suffix}", exif=exif)
    whole = read_image(tmp_path / f"a.{suffix}")
    reduced, size = read_reduced_image(tmp_path / f"a.{suffix}", 300)
    assert size == (whole.shape[1], whole.shape[0])
    expected = cv2.resize(whole, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
    assert np.abs(expected.astype(int) - reduced).mean() < 4


def test_what_is_refused_whole_is_refused_reduced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = cv2.imencode(".jpg", scene(240, 320)[..., ::-1])[1].tobytes()
    path = tmp_path / "a.jpg"
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)
        answers = [_is_refused(read_image, path), _is_refused(lambda p: read_reduced_image(p, 60), path)]
        assert answers[0] == answers[1]
        refused += answers[0]
    assert 20 < refused < 140


def _is_refused(read, path: Path) -> bool:
    try:
        read(path)
    except UserError:
        return True
    return False


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_absurd_headers_are_refused_before_anything_is_decoded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(scene(64, 80)).save(path)
    data = bytearray(path.read_bytes())
    if suffix == "png":
        data[16:24] = (65535).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(UserError, match="more than 67108864 pixels"):
        read_reduced_image(path, 60)
