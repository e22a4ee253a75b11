from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from trocar.data import files
from trocar.data.files import (
    atomic_write_bytes,
    atomic_write_text,
    read_image,
    read_mask_file,
    replacing,
    write_jpeg,
    write_png,
)
from trocar.errors import UserError


def picture(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth colours, so that JPEG keeps them nearly. Shapes: -> uint8 RGB (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg_bytes(image: np.ndarray, orientation: int | None = None, **options: object) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with next to no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


# ------------------------------------------------------------------ images as they are


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_formats_come_back_as_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(read_image(path), picture())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turn_is_applied_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes(picture(), orientation))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert expected.shape[:2] == ((40, 24) if orientation >= 5 else (24, 40))
    np.testing.assert_allclose(read_image(path).astype(int), expected.astype(int), atol=2)


def test_exif_turn_of_a_png_is_applied_to_image_and_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(), -1))
    np.testing.assert_array_equal(read_mask_file(tmp_path / "a.png"), np.rot90(picture(), -1))


def test_grey_image_gets_three_equal_channels(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(grey[..., None], 3, axis=2))
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(grey))
    assert (np.ptp(read_image(tmp_path / "a.jpg"), axis=2) == 0).all()


def test_alpha_of_an_image_is_dropped_and_a_palette_resolved(tmp_path: Path) -> None:
    alpha = np.full((24, 40, 1), 128, np.uint8)
    Image.fromarray(np.concatenate([picture(), alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())
    palette = Image.fromarray(picture()).quantize(8)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))


def test_progressive_jpeg_with_a_thumbnail_is_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    thumbnail = jpeg_bytes(picture(8, 8))
    exif[0x9286] = b"ASCII\0\0\0" + thumbnail  # a user comment that holds start and end markers of its own
    buffer = io.BytesIO()
    Image.fromarray(picture(200, 300)).save(buffer, "JPEG", progressive=True, exif=exif)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue() + b"trailer of some camera")
    assert read_image(tmp_path / "a.jpg").shape == (200, 300, 3)
    cut = buffer.getvalue()[: len(buffer.getvalue()) * 3 // 4]
    (tmp_path / "cut.jpg").write_bytes(cut)
    with pytest.raises(UserError, match="the end of the picture is missing"):
        read_image(tmp_path / "cut.jpg")


# ------------------------------------------------------------------ images that are refused


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.0, 1.0), suffix=st.sampled_from([".jpg", ".png", ".bmp", ".tif", ".webp"]))
def test_a_cut_off_file_is_read_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, share: float, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("cut") / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    data, whole = path.read_bytes(), read_image(path)
    path.write_bytes(data[: int(len(data) * share)])
    try:
        pixels = read_image(path)
    except UserError:
        assert share < 1
    else:
        np.testing.assert_array_equal(pixels, whole)  # nothing but a checksum or a trailer was cut


def test_truncated_jpeg_is_told_by_its_end_marker_as_older_opencv_would_read_it(tmp_path: Path) -> None:
    data = jpeg_bytes(picture(200, 300))
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    with pytest.raises(UserError, match="the end of the picture is missing") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.where == str(tmp_path / "a.jpg")
    assert caught.value.mend


def test_a_jpeg_without_pixels_is_refused_although_it_has_an_end(tmp_path: Path) -> None:
    data = jpeg_bytes(picture())
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: data.index(b"\xff\xda")] + b"\xff\xd9")
    with pytest.raises(UserError, match="the end of the picture is missing"):
        read_image(path)


def test_what_follows_the_end_of_a_jpeg_changes_nothing(tmp_path: Path) -> None:
    data = jpeg_bytes(picture())
    for name, content in (("a.jpg", data), ("b.jpg", data + b"a note of the camera")):
        (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "b.jpg"), read_image(tmp_path / "a.jpg"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_refused_and_not_cut_to_8(tmp_path: Path, channels: int, suffix: str) -> None:
    deep = np.full((4, 5, channels), 40000, np.uint16)
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    for read in (read_image, read_mask_file):
        with pytest.raises(UserError, match="16 bits a channel"):
            read(tmp_path / f"a{suffix}")


def test_text_named_png_empty_missing_and_broken_header(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("patient,frame\n1,2\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 40)
    (tmp_path / "folder.png").mkdir()
    expected = {
        "text.png": "text file",
        "empty.png": "0 bytes",
        "gone.png": "not exist",
        "broken.png": "damaged",
        "folder.png": "directory",
    }
    for name, words in expected.items():
        with pytest.raises(UserError, match=words) as caught:
            read_image(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)


def test_no_permission_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match="no permission"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [9000, 10_000, 65_535])
def test_absurd_size_is_refused_before_any_pixel(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_of_size(side, side))
    with pytest.raises(UserError, match="67108864 pixels"):
        read_image(tmp_path / "a.png")


def test_several_pages_and_cmyk_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(picture())
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(UserError, match="2 pages"):
        read_image(tmp_path / "pages.tif")
    page.convert("CMYK").save(tmp_path / "print.jpg")
    with pytest.raises(UserError, match="CMYK"):
        read_image(tmp_path / "print.jpg")


def test_a_damaged_jpeg_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(200, 300))[:-500])
    with pytest.raises(UserError):
        read_image(tmp_path / "a.jpg")
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ masks


def test_palette_mask_gives_indices_or_colours(tmp_path: Path) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    mask = Image.frombytes("P", (4, 3), indices.tobytes())
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "a.png"), indices)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[indices]
    np.testing.assert_array_equal(read_mask_file(tmp_path / "a.png", palette_as_colours=True), colours)


def test_one_bit_mask_gives_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.eye(5, dtype=bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "a.png"), np.eye(5, dtype=np.uint8))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_of_a_mask_is_dropped_where_it_says_nothing(tmp_path: Path, alpha: int) -> None:
    stored = np.zeros((4, 6, 4), np.uint8)
    stored[1:3, 2:5] = 255
    stored[..., 3] = np.where(stored[..., 0], 255, alpha)  # background of any transparency
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "a.png"), stored[..., :3])
    grey = np.ascontiguousarray(stored[..., 2:])
    Image.frombytes("LA", (6, 4), grey.tobytes()).save(tmp_path / "g.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "g.png"), grey[..., 0])


def test_alpha_that_contradicts_the_colours_is_refused(tmp_path: Path) -> None:
    stored = np.full((4, 6, 4), 255, np.uint8)
    stored[0, 0, 3] = 0
    Image.fromarray(stored).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="transparent"):
        read_mask_file(tmp_path / "a.png")


def test_jpeg_mask_is_refused_whatever_its_ending(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(jpeg_bytes(picture()))
    with pytest.raises(UserError, match="JPEG"):
        read_mask_file(tmp_path / "a.png")


# ------------------------------------------------------------------ writing


def test_png_round_trip_in_colour_grey_and_16_bit(tmp_path: Path) -> None:
    write_png(tmp_path / "new/folder/a.png", picture())
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new/folder/a.png")), picture())
    write_png(tmp_path / "g.png", picture()[..., 0])
    np.testing.assert_array_equal(read_mask_file(tmp_path / "g.png"), picture()[..., 0])
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    write_png(tmp_path / "d.png", deep)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "d.png")), deep)


def test_jpeg_keeps_the_order_of_colours(tmp_path: Path) -> None:
    red = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    write_jpeg(tmp_path / "a.jpg", red)
    assert np.abs(np.asarray(Image.open(tmp_path / "a.jpg")).astype(int) - red).max() <= 4


def test_text_is_written_whole_and_with_usual_permissions(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "größe\n")
    (tmp_path / "b.txt").write_text("")
    assert (tmp_path / "a.txt").read_bytes() == "größe\n".encode()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


@pytest.mark.parametrize(
    ("number", "mend"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")]
)
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, mend: str
) -> None:
    path = tmp_path / "a.bin"
    atomic_write_bytes(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(UserError, match="cannot write") as caught:
        atomic_write_bytes(path, b"new")
    assert mend in str(caught.value.mend)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        atomic_write_bytes(tmp_path / "file" / "a.bin", b"")


def png_with_rows(rows: int, claimed: int, *, colour: bool = False) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\x00" + bytes([100] * (96 if colour else 32))
    header = struct.pack(">IIBBBBB", 32, claimed, 8, 2 if colour else 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("read", [read_image, read_mask_file])
def test_missing_rows_are_no_background(tmp_path: Path, read, colour: bool) -> None:
    """Pillow gives them as black, which in a mask says that no instrument is there."""
    path = tmp_path / "a.png"
    path.write_bytes(png_with_rows(24, 24, colour=colour))
    assert (read(path) == 100).all()
    for rows in (23, 12, 1):
        path.write_bytes(png_with_rows(rows, 24, colour=colour))
        with pytest.raises(UserError, match="damaged"):
            read(path)


def test_black_pictures_lack_nothing(tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "RGB", "RGBA", "LA", "P", "1")):
        Image.new(mode, (20, 10)).save(tmp_path / f"{number}.png")
        assert not read_mask_file(tmp_path / f"{number}.png").any()
        assert not read_image(tmp_path / f"{number}.png").any()


def test_a_chunk_longer_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    data = png_with_rows(24, 24)
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + b"\xff\x00\x00\x00" + data[at + 4 :])
    for read in (read_image, read_mask_file):
        with pytest.raises(UserError, match="longer than the file"):
            read(tmp_path / "a.png")
