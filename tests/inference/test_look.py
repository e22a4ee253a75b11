"""Overlays drawn on Y, U and V look like those drawn in RGB, and are what the video holds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from trocar.inference.draw import overlay
from trocar.inference.frames import Frame
from trocar.inference.look import look
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter

TICK = Fraction(1, 1000)
SIZE = (96, 130)


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Of soft colours, none of which leaves the range that RGB has."""
    coarse = rng.integers(60, 200, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def mask(*classes: int) -> NDArray[np.uint8]:
    """A blob of each class; they touch, and reach the edge of the picture."""
    drawn = np.zeros(SIZE, np.uint8)
    for place, index in enumerate(classes):
        cv2.ellipse(drawn, (30 + 35 * place, 50), (27, 61), 20.0, 0.0, 360.0, index, -1)
    return drawn


def decoded(image: NDArray[np.uint8], pixels: str, matrix: int | None) -> Frame:
    """As a decoder gives it: no matrix is named where `matrix` is None."""
    stored = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=pixels, dst_colorspace=matrix or Colorspace.ITU601, dst_color_range=ColorRange.MPEG
    )
    if matrix is None:
        stored.colorspace = 2
    return Frame(stored.to_ndarray(format="rgb24"), Fraction(0), stored)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("matrix", [None, Colorspace.ITU601, Colorspace.ITU709])
@pytest.mark.parametrize("classes", [(), (1,), (1, 2), (255, 3, 1)])
def test_looks_like_the_overlay_in_rgb(
    rng: np.random.Generator, pixels: str, matrix: int | None, classes: tuple[int, ...]
) -> None:
    """Where neighbours are drawn alike, so that halving U and V changes nothing; and in the mean everywhere."""
    frame = decoded(picture(rng), pixels, matrix)
    shown = look(frame, mask(*classes))
    assert isinstance(shown, av.VideoFrame)
    assert shown.format.name == "yuv420p"
    expected = overlay(frame.image, mask(*classes)).astype(float)
    difference = np.abs(shown.to_ndarray(format="rgb24") - expected).max(axis=2)
    near = np.ones((5, 5), np.uint8)
    alike = cv2.dilate(mask(*classes), near) == cv2.erode(mask(*classes), near)
    assert difference[alike].max() <= 9
    assert difference[alike].mean() < 3
    assert difference.mean() < 6


def test_a_frame_counts_the_memory_of_what_was_decoded_too(rng: np.random.Generator) -> None:
    frame = decoded(picture(rng), "yuv420p", None)
    values = SIZE[0] * SIZE[1]
    assert Frame(frame.image, TICK).nbytes == 3 * values
    assert 4.5 * values <= frame.nbytes <= 6 * values  # lines are padded


def test_the_frame_that_was_decoded_is_left_alone(rng: np.random.Generator) -> None:
    """The decoder makes later frames of it."""
    frame = decoded(picture(rng), "yuv420p", None)
    assert frame.decoded is not None
    before = frame.decoded.to_ndarray()
    look(frame, mask(1))
    np.testing.assert_array_equal(frame.decoded.to_ndarray(), before)


@pytest.mark.parametrize("pixels", ["yuvj420p", "yuv422p", "yuv420p10le", "gray"])
def test_what_is_stored_otherwise_is_drawn_in_rgb(rng: np.random.Generator, pixels: str) -> None:
    frame = decoded(picture(rng), pixels, None)
    np.testing.assert_array_equal(look(frame, mask(1)), overlay(frame.image, mask(1)))


def test_full_range_and_odd_sides_and_other_matrices_are_drawn_in_rgb(rng: np.random.Generator) -> None:
    odd = decoded(picture(rng)[:-1], "yuv420p", None)
    full, other = (decoded(picture(rng), "yuv420p", None) for _ in range(2))
    assert full.decoded is not None
    assert other.decoded is not None
    full.decoded.color_range = ColorRange.JPEG
    other.decoded.colorspace = 9  # BT.2020
    for frame in (odd, full, other):
        labels = mask(1)[: frame.image.shape[0]]
        np.testing.assert_array_equal(look(frame, labels), overlay(frame.image, labels))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("matrix", [None, Colorspace.ITU709])
@pytest.mark.parametrize("first", ["look", "rgb"])
def test_a_video_shows_the_overlay_whichever_way_it_was_drawn(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    matrix: int | None,
    first: str,
) -> None:
    """Read again by FFmpeg: matrix and range are told to players. The first frame decides for all."""
    monkeypatch.setattr("trocar.inference.video_writer.colour_codec", lambda: codec)
    reddish = picture(rng) // 3 + np.array((130, 20, 30), np.uint8)
    frame = decoded(reddish, "yuv444p", matrix)
    expected = overlay(frame.image, mask(1))
    shown = [look(frame, mask(1)), expected] if first == "look" else [expected, look(frame, mask(1))]
    with VideoWriter(tmp_path / "a.mp4", "colour", rate=Fraction(25), time_base=TICK) as writer:
        for second, either in enumerate(shown):
            writer.write(either, Fraction(second))
    with VideoReader(tmp_path / "a.mp4") as reader:
        for found in reader:
            difference = np.abs(found.image.astype(float) - expected)
            assert difference.mean() < 5  # with the wrong matrix it is 7.5


def test_a_turned_video_is_drawn_upright(tmp_path: Path, rng: np.random.Generator) -> None:
    turned = decoded(picture(rng), "yuv420p", None)
    assert turned.decoded is not None
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        turned.decoded.pts = 0
        container.mux(stream.encode(turned.decoded))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"tkhd") + 4 + 40  # the matrix of the track: a quarter turn
    for place, value in enumerate((0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0)):
        data[at + 4 * place : at + 4 * place + 4] = value.to_bytes(4)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    assert frame.image.shape == (*SIZE[::-1], 3)
    shown = look(frame, mask(1).T.copy())
    assert isinstance(shown, np.ndarray)
    assert shown.shape == frame.image.shape
