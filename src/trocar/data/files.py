"""Image and mask files: read with every fault named, written so that no half-written file is ever left behind.

What a codec would let pass in silence is refused here: truncated files, 16-bit values cut to 8, absurd sizes, pages
that would be dropped. Videos are read in `video_frames`; what mask values mean is the business of the sources.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trocar.data.png import lacks_rows, plain_pixels
from trocar.data.records import ImageArray
from trocar.documents import refuse_what_is_no_file
from trocar.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = IMAGE_SUFFIXES  # so that a JPEG mask is found, and refused with its reason
MAX_PIXELS = 2**26  # 8192 x 8192; an 8K frame has half of it. A header that claims more is damaged or hostile

_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a JPEG with further pictures behind it, as some cameras write
_READABLE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa")
_EXIF_ORIENTATION = 0x0112
# What Pillow raises on damaged files; it also warns, which is raised where warnings are errors.
_DECODER_FAULTS = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, UserWarning)
_TIFF_BITS_PER_SAMPLE = 258
_LETTERS = 20  # of a file's name in that of its temporary one
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_JPEG_SCALES = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


# ------------------------------------------------------------------ reading


def read_image(path: str | Path) -> ImageArray:
    """Pixels as shot: the EXIF turn is applied, grey becomes three equal channels, alpha is dropped.

    Raises `UserError` for what is missing, no image, truncated, larger than 2**26 pixels, or of more than 8 bits a
    channel (which range of it was meant is not ours to guess).

    Shapes: -> uint8 RGB (H, W, 3).
    """
    path = Path(path)
    data = _read_bytes(path)
    return _decode(path, data, _open_header(path, data))


def read_reduced_image(path: str | Path, shorter_side: int) -> tuple[ImageArray, tuple[int, int]]:
    """What `read_image` gives, at 1, 1/2, 1/4 or 1/8 of its size, and its true (width, height), turned as it is seen.

    The smallest of these whose shorter side still has `shorter_side` pixels. JPEG is decoded at that size, which takes
    half the time or less; other formats are decoded whole and shrunk. The same files are refused.

    Shapes: -> uint8 RGB (h, w, 3).
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _open_header(path, data)
    step = next(step for step in (8, 4, 2, 1) if min(header.size) >= step * shorter_side or step == 1)
    if header.format not in _JPEG_FORMATS:
        image = _decode(path, data, header)
        return shrink(image, step), (image.shape[1], image.shape[0])
    width, height = header.size
    turned_sideways = header.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return _decode_jpeg(path, data, step), (height, width) if turned_sideways else (width, height)


def shrink(image: ImageArray, step: int) -> ImageArray:
    """Means of squares of `step` pixels, the size rounded up as JPEG decoders do. Shapes: (H, W, 3) -> (h, w, 3)."""
    if step == 1:
        return image
    size = (-(-image.shape[1] // step), -(-image.shape[0] // step))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def read_mask_file(path: str | Path, *, palette_as_colours: bool = False) -> NDArray[np.uint8]:
    """The values stored in a mask file, untouched: a source decides what they mean.

    A palette image gives its indices, or its colours if asked. Alpha is dropped where it says nothing: the same
    everywhere, or lower only over black; otherwise it contradicts the colours and is refused. JPEG is refused:
    its compression invents values at every edge.

    Shapes: -> uint8 (H, W), or RGB (H, W, 3).
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _open_header(path, data)
    if header.format in _JPEG_FORMATS:
        raise UserError(
            "the mask is a JPEG, whose compression invents values along every edge",
            where=str(path),
            mend="export the mask again as PNG; if only the JPEG exists, threshold it at half and save that as PNG",
        )
    plain = plain_pixels(data, header, indices=not palette_as_colours)
    if plain is not None:
        return plain
    picture = _load(path, data, header)
    if picture.mode == "P" and not palette_as_colours:
        return np.array(picture, dtype=np.uint8)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    stored = np.array(picture, dtype=np.uint8)
    return _without_alpha(stored, path) if picture.mode in ("LA", "RGBA") else stored


def _read_bytes(path: Path) -> bytes:
    try:
        refuse_what_is_no_file(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("the file does not exist", where=str(path), mend="put it back, or mend the path") from None
    except PermissionError:
        raise UserError("no permission to read the file", where=str(path), mend="grant read permission") from None
    except OSError as error:
        raise UserError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    if not data:
        raise UserError("the file is empty (0 bytes)", where=str(path), mend="copy or export it again")
    return data


def _open_header(path: Path, data: bytes) -> Image.Image:
    """The image with its header read and checked, its pixels not yet."""
    try:
        header: Image.Image = Image.open(io.BytesIO(data), formats=_READABLE_FORMATS)
        _refuse_what_would_be_lost(path, data, header)
    except UnidentifiedImageError:
        raise _no_image(path, data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"the file claims more than {MAX_PIXELS} pixels", where=str(path), mend=_MEND_SIZE) from None
    except _DECODER_FAULTS as error:
        raise _damaged(path, str(error)) from None
    return header


def _refuse_what_would_be_lost(path: Path, data: bytes, header: Image.Image) -> None:
    """Raise for absurd sizes, more than 8 bits a channel, foreign colours and several pages."""
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise UserError(
            f"the file claims to be {width}x{height}, more than {MAX_PIXELS} pixels", where=str(path), mend=_MEND_SIZE
        )
    _refuse_deep_or_foreign_pixels(path, data, header)
    if header.format not in _JPEG_FORMATS and getattr(header, "n_frames", 1) > 1:
        raise UserError(
            f"the file holds {header.n_frames} pages or frames, not one",  # type: ignore[attr-defined]
            where=str(path),
            mend="save each page as a file of its own",
        )


def _refuse_deep_or_foreign_pixels(path: Path, data: bytes, header: Image.Image) -> None:
    bits = 8
    if header.format == "PNG":
        _refuse_endless_chunk(path, data)
        bits = data[24]  # IHDR; Pillow itself cuts 16-bit colour to 8 bits in silence
    elif header.format == "TIFF":
        bits = max(header.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    if bits > 8 or header.mode.startswith(("I", "F")):
        depth = f"{bits} bits" if bits > 8 else "more than 8 bits"
        raise UserError(
            f"the file has {depth} a channel; trocar reads 8",
            where=str(path),
            mend="convert it to 8 bits, choosing the range of values that is to become 0..255",
        )
    if header.mode not in _EIGHT_BIT_MODES:
        raise UserError(
            f"the colours are stored as {header.mode}, not grey or RGB", where=str(path), mend="save it again as RGB"
        )


def _refuse_endless_chunk(path: Path, data: bytes) -> None:
    """Raise where a part of a PNG claims to be longer than the file: OpenCV takes that much memory before it looks."""
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 8 + int.from_bytes(data[at : at + 4], "big")
        if at > len(data):
            raise _damaged(path, "a part of it is cut off, or claims to be longer than the file")
        at += 4  # its checksum


def _load(path: Path, data: bytes, header: Image.Image) -> Image.Image:
    """Decode all pixels and apply the EXIF turn."""
    try:
        header.load()
        if header.format == "PNG" and lacks_rows(data, header):
            raise _damaged(path, "rows of pixels are missing")
        turned = header.getexif().get(_EXIF_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(header) if turned else header
    except _DECODER_FAULTS as error:
        raise _damaged(path, str(error)) from None


def _decode(path: Path, data: bytes, header: Image.Image) -> ImageArray:
    if header.format in _JPEG_FORMATS:
        return _decode_jpeg(path, data)
    plain = plain_pixels(data, header)
    if plain is not None:
        return plain if plain.ndim == 3 else np.asarray(cv2.cvtColor(plain, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    pixels = np.asarray(_load(path, data, header).convert("RGB"))
    return np.ascontiguousarray(pixels)


def _decode_jpeg(path: Path, data: bytes, step: int = 1) -> ImageArray:
    """OpenCV's decoder: about three times as fast as Pillow's, with the same pixels.

    Before version 5 it fills what is missing of a truncated file with grey and says nothing, so the end marker is
    looked for first. Neither marker can occur inside compressed data, and those of an embedded thumbnail lie before
    the last start of scan.
    """
    ends = data.endswith(_JPEG_END) or data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    if not ends or _JPEG_SCAN not in data:
        raise _damaged(path, "the end of the picture is missing")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _JPEG_SCALES[step])
    except cv2.error as error:
        raise _damaged(path, str(error)) from None
    if pixels is None:
        raise _damaged(path, "its pixels cannot be decoded")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _without_alpha(stored: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    colours, alpha = stored[..., :-1], stored[..., -1]
    contradicts = (alpha < alpha.max()) & colours.any(axis=-1)
    if contradicts.any():
        raise UserError(
            f"{contradicts.mean():.2%} of the mask's pixels have a colour but are transparent: it is unclear which is "
            "meant",
            where=str(path),
            mend="save the mask without transparency",
        )
    return np.ascontiguousarray(colours[..., 0] if colours.shape[-1] == 1 else colours)


_MEND_SIZE = "the header is damaged, or the picture is no camera frame: export it again, at its true size"


def _no_image(path: Path, data: bytes) -> UserError:
    kind = "a text file" if b"\x00" not in data[:1024] and data[:1024].isascii() else "not an image"
    if data.startswith((b"\x89PNG", b"\xff\xd8")):
        return _damaged(path, "its header is broken")
    return UserError(
        f"the file is {kind}, whatever its ending says" if path.suffix.lower() in IMAGE_SUFFIXES else f"it is {kind}",
        where=str(path),
        mend=f"put the image in its place, or take the file away; images are {', '.join(IMAGE_SUFFIXES)}",
    )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"the image file is damaged or cut off: {reason}", where=str(path), mend="copy or export it again")


# ------------------------------------------------------------------ writing


def write_png(path: str | Path, array: NDArray[Any]) -> None:
    """Write a lossless PNG, whole or not at all. Shapes: uint8 RGB (H, W, 3), or uint8 or uint16 (H, W)."""
    _write_encoded(Path(path), ".png", array, [])


def write_jpeg(path: str | Path, image: NDArray[np.uint8], *, quality: int = 90) -> None:
    """Write a JPEG, whole or not at all. Shapes: uint8 RGB (H, W, 3), or (H, W)."""
    _write_encoded(Path(path), ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _write_encoded(path: Path, suffix: str, array: NDArray[Any], options: list[int]) -> None:
    assert array.dtype == np.uint8 or (suffix == ".png" and array.dtype == np.uint16), array.dtype
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    fine, data = cv2.imencode(suffix, pixels, options)
    assert fine, f"OpenCV cannot encode {array.shape} {array.dtype} as {suffix}"
    atomic_write_bytes(path, data.tobytes(), sync=False)


def atomic_write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that at any moment, also after a kill, it is the old one or the new one whole.

    `sync` waits until the disk has it, so that this holds after a power cut too. Folders are made as needed.
    Raises `UserError` on a full disk or a missing permission; the old file then stays.
    """
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | Path, text: str, *, sync: bool = True) -> None:
    """`atomic_write_bytes` of UTF-8 text; line ends stay as they are. Halves of characters, from paths, are escaped."""
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"), sync=sync)


@contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, with its ending; on leaving, the file there becomes `path` in one step.

    For writers that want a path (safetensors, video). If the body fails, the temporary file goes and `path` stays
    what it was; an `OSError` becomes a `UserError`.
    """
    path = Path(path)
    short = path.stem[:_LETTERS]  # the name itself may be as long as names can be
    temporary = path.with_name(f".{short}.{secrets.token_hex(6)}.part{path.suffix[:_LETTERS]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            _wait_for_the_disk(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - one name for the one call that must be atomic
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # nothing to take away, or not even a folder
            temporary.unlink()


def _wait_for_the_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> UserError:
    mends = {
        errno.ENOSPC: "the disk is full: make room, or write elsewhere",
        errno.EDQUOT: "your quota on this disk is used up: make room, or write elsewhere",
        errno.EACCES: "grant write permission on that folder, or write elsewhere",
        errno.EPERM: "grant write permission on that folder, or write elsewhere",
        errno.EROFS: "that disk is read-only: write elsewhere",
        errno.ENOTDIR: "part of that path is a file, not a folder: write elsewhere",
        errno.EEXIST: "part of that path is a file, not a folder: write elsewhere",
    }
    mend = mends.get(error.errno or 0, "write elsewhere")
    return UserError(f"cannot write the file: {error.strerror or error}", where=str(path), mend=mend)
