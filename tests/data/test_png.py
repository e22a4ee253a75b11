"""PNG files by the fast decoder: the pixels that Pillow reads, and never others."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trocar.data.png import plain_pixels


def pixels_of(mode: str, height: int = 13, width: int = 21, seed: int = 0) -> np.ndarray:
    """Some even areas and some noise, so that an encoder uses every kind of filter."""
    draw = np.random.default_rng(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.full(shape, 7, np.uint8)
    pixels[height // 3 :, width // 2 :] = draw.integers(0, 256, pixels[height // 3 :, width // 2 :].shape)
    pixels[:, : width // 4] += np.arange(height, dtype=np.uint8).reshape((-1, *[1] * (len(shape) - 1)))
    return pixels


def png(pixels: np.ndarray, mode: str, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([*range(255, -1, -1)] * 3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def read(data: bytes, *, indices: bool = True) -> np.ndarray | None:
    return plain_pixels(data, Image.open(io.BytesIO(data)), indices=indices)


def rebuilt(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The file with the content of one part replaced, its checksum right."""
    at, out = 8, data[:8]
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        part = content if name == kind else data[at + 8 : at + 8 + length]
        out += struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        at += 12 + length
    return out


def part(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind)
    return data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["L", "P", "RGB"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 9),
    level=st.sampled_from([0, 1, 9]),
)
def test_pixels_are_those_that_were_written(mode: str, height: int, width: int, seed: int, level: int) -> None:
    pixels = pixels_of(mode, height, width, seed)
    found = read(png(pixels, mode, compress_level=level))
    assert found is not None
    assert found.flags.writeable
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_of_rows(kind: int) -> None:
    """Undone by the definition (PNG 3rd edition, 9.2) in place of another decoder."""
    height, width = 9, 11
    rows = np.random.default_rng(kind).integers(0, 256, (height, width), dtype=np.uint8)
    raw = np.insert(rows, 0, kind, axis=1).tobytes()
    expected = np.zeros((height + 1, width + 1), int)  # with a row and a column of zeros before
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            left, up, corner = expected[y, x - 1], expected[y - 1, x], expected[y - 1, x - 1]
            near = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            guess = (0, left, up, (left + up) // 2, near)[kind]
            expected[y, x] = (int(rows[y - 1, x - 1]) + guess) % 256
    found = read(rebuilt(png(np.zeros((height, width), np.uint8), "L"), b"IDAT", zlib.compress(raw)))
    np.testing.assert_array_equal(found, expected[1:, 1:])


def test_an_interlaced_file() -> None:
    """Pass by pass as in PNG 3rd edition, 8.1: which row and column each begins at, and how far apart they are."""
    pixels = pixels_of("L")
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b"".join(np.insert(pixels[y::down, x::right], 0, 0, axis=1).tobytes() for y, x, down, right in passes)
    data = rebuilt(png(pixels, "L"), b"IDAT", zlib.compress(raw))
    data = rebuilt(data, b"IHDR", part(data, b"IHDR")[:-1] + b"\1")
    np.testing.assert_array_equal(read(data), pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_damaged_file_gives_its_pixels_or_none(mode: str) -> None:
    pixels = pixels_of(mode)
    data = png(pixels, mode)
    for at in range(33, len(data)):  # behind the header, which Pillow reads
        for spoilt in (data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :], data[:at]):
            found = plain_pixels(spoilt, Image.open(io.BytesIO(data)), indices=True)
            assert found is None or np.array_equal(found, pixels), at


def test_missing_rows_and_a_cut_stream_give_none() -> None:
    data = png(pixels_of("L"), "L")
    raw = zlib.decompress(part(data, b"IDAT"))
    assert read(data) is not None
    assert read(rebuilt(data, b"IDAT", zlib.compress(raw[: -len(raw) // 3]))) is None
    assert read(rebuilt(data, b"IDAT", zlib.compress(raw)[:-9])) is None


def test_other_kinds_give_none() -> None:
    grey = pixels_of("L")
    for other in (
        png(grey.astype(np.uint16) * 257, "I;16"),
        png(grey > 7, "1"),
        *(png(grey % 2, "P", bits=bits) for bits in (1, 2, 4)),
        png(np.dstack([grey] * 4), "RGBA"),
        png(np.dstack([grey] * 2), "LA"),
    ):
        assert read(other) is None
    assert read(png(grey, "P"), indices=False) is None
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "BMP")
    assert read(buffer.getvalue()) is None


def test_what_may_say_that_it_is_turned_gives_none() -> None:
    turn = Image.Exif()
    turn[0x0112] = 6
    assert read(png(pixels_of("L"), "L", exif=turn)) is None
    for key in ("Raw profile type exif", "XML:com.adobe.xmp"):
        words = PngInfo()
        words.add_itxt(key, "anything")
        assert read(png(pixels_of("L"), "L", pnginfo=words)) is None
    words = PngInfo()
    words.add_text("Software", "a tool for labelling")
    assert read(png(pixels_of("L"), "L", pnginfo=words)) is not None


def test_a_picture_of_the_largest_size_is_read() -> None:
    pixels = np.zeros((8192, 8192), np.uint8)
    pixels[5000, 6000] = 255
    found = read(png(pixels, "L", compress_level=1))
    assert found is not None
    np.testing.assert_array_equal(found, pixels)


def test_the_decoder_is_not_imported_before_a_png_is_read() -> None:
    code = "import sys, trocar.data.files; sys.exit('kornia_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
