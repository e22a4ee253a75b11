"""Masks out of outlines and run lengths, and run lengths out of masks: those of COCO, CVAT and Label Studio.

Outlines of every format are filled by pycocotools: the common measure, and exact for outlines along pixel edges. All
that is read here comes from files of strangers: lengths and sizes are checked before anything of their size is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as pycoco

from trocar.data.annotations.rings import BoolArray, Ring
from trocar.errors import UserError

_LONGEST_OUTLINE = 2**21  # pixels along the edges of a shape; noise over 1280x1024 has 1.3 million. 5 s, 200 MB


# ------------------------------------------------------------------ outlines


def as_ring(points: Any) -> Ring:
    """Points of a file as a ring, x and y in turn or in pairs. Raises `UserError` for what is no outline."""
    try:
        ring = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        raise UserError("an outline is not a list of x and y", mend="export the labels again") from None
    if len(ring) < 3:
        raise UserError(
            f"an outline has {len(ring)} points; it takes three to enclose something",
            mend="draw it again or delete it in the annotation tool",
        )
    if not np.isfinite(ring).all():
        raise UserError("an outline has points that are no finite numbers", mend="export the labels again")
    return ring


def fill(rings: Sequence[Ring], size_hw: tuple[int, int]) -> BoolArray:
    """The pixels inside any of the rings, each by the even-odd rule. Shapes: -> (H, W)."""
    height, width = size_hw
    length = 0.0
    for ring in rings:
        if (ring < (-width, -height)).any() or (ring > (2 * width, 2 * height)).any():
            low, high = ring.min(axis=0), ring.max(axis=0)
            raise UserError(
                f"an outline reaches from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}), far outside the "
                f"image of {width}x{height}",
                mend="the labels belong to another image, or to another size of it: export them again",
            )
        length += float(np.abs(np.diff(ring, axis=0, append=ring[:1])).max(axis=1).sum())
    if length > _LONGEST_OUTLINE:
        raise UserError(
            f"an outline is {length:.3g} pixels long, more than {_LONGEST_OUTLINE}",
            mend="it is damaged, or crosses itself over and over: draw it again, or export a mask instead",
        )
    flat: Any = [ring.ravel().tolist() for ring in rings]
    parts = pycoco.frPyObjects(flat, height, width)
    union: Any = pycoco.merge(parts)  # its own decoding warns under numpy 2, and takes too short a mask
    return from_coco_rle({"counts": union["counts"].decode("ascii")}, size_hw)


# ------------------------------------------------------------------ run lengths


def _runs(mask: BoolArray) -> list[int]:
    """Lengths of background, foreground, background, ... in reading order; the first may be 0."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(changes, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _from_runs(runs: Any, count: int) -> BoolArray:
    """`count` pixels in reading order. Raises `UserError` where the runs do not add up to them."""
    try:
        lengths = np.asarray(runs)
    except (ValueError, OverflowError):
        raise _no_runs() from None
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise _no_runs()
    if lengths.size and (int(lengths.min()) < 0 or int(lengths.max()) > count):
        raise _wrong_total("has runs below 0 or beyond its end", count)
    total = int(lengths.astype(np.int64).sum())
    if total != count:
        raise _wrong_total(f"covers {total} pixels", count)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths)


def _no_runs() -> UserError:
    return UserError("the run lengths are not a list of whole numbers", mend="export the labels again")


def _wrong_total(what: str, count: int) -> UserError:
    return UserError(
        f"the run-length mask {what}, where there are {count} pixels",
        mend="it is damaged, or of another image: export the labels again",
    )


# ------------------------------------------------------------------ COCO


def to_coco_rle(mask: BoolArray) -> dict[str, Any]:
    """COCO's compressed run lengths, as in its JSON: `size` [height, width] and `counts`. Shapes: mask (H, W)."""
    made = pycoco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in made["size"]], "counts": made["counts"].decode("ascii")}  # type: ignore[union-attr]


def from_coco_rle(rle: dict[str, Any], size_hw: tuple[int, int]) -> BoolArray:
    """The mask of COCO's run lengths, compressed or plain; they go down the columns. Shapes: -> (H, W)."""
    size, counts = rle.get("size"), rle.get("counts")
    if size is not None and size != list(size_hw):
        raise UserError(
            f"a run-length mask has size {size}, the image is {list(size_hw)} (height, width)",
            mend="the labels belong to another size of the image: export them again",
        )
    runs = _coco_counts(counts) if isinstance(counts, str) else counts
    return np.ascontiguousarray(_from_runs(runs, size_hw[0] * size_hw[1]).reshape(size_hw[1], size_hw[0]).T)


def _coco_counts(text: str) -> NDArray[np.int64]:
    """Run lengths out of COCO's text: 5 bits a character, the sixth says that more follow; from the fourth number on,
    differences to the last but one (rleFrString of pycocotools' maskApi.c)."""
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or ends.size == 0 or ends[-1] != codes.size - 1:
        raise UserError("the text of a run-length mask is damaged", mend="export the labels again")
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 8:
        raise UserError("the text of a run-length mask holds absurd numbers", mend="export the labels again")
    place = np.arange(codes.size) - np.repeat(starts, digits)
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return np.asarray(numbers, dtype=np.int64)


# ------------------------------------------------------------------ CVAT


def to_cvat_rle(mask: BoolArray) -> dict[str, Any]:
    """Attributes of CVAT's `<mask>`: run lengths in rows inside the bounding box. Shapes: mask (H, W), not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    runs = _runs(mask[top:bottom, left:right])
    return {
        "rle": ", ".join(map(str, runs)),
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
    }


def from_cvat_rle(runs: Any, box: tuple[int, int, int, int], size_hw: tuple[int, int]) -> BoolArray:
    """The mask of CVAT's run lengths in a box (left, top, width, height). Shapes: -> (H, W)."""
    left, top, width, height = box
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size_hw[1] or top + height > size_hw[0]:
        raise UserError(
            f"a mask of {width}x{height} at ({left}, {top}) does not fit into the image of {size_hw[1]}x{size_hw[0]}",
            mend="the labels belong to another size of the image: export them again",
        )
    mask = np.zeros(size_hw, dtype=bool)
    mask[top : top + height, left : left + width] = _from_runs(runs, width * height).reshape(height, width)
    return mask


# ------------------------------------------------------------------ Label Studio

# The brush's run lengths are those of thi.ng/rle-pack, over the bytes of an RGBA picture whose alpha is the mask:
# 32 bits number of bytes, 5 bits word size - 1, four times 4 bits a size - 1; then packets of 1 bit (repeated or not),
# 2 bits (which of the sizes), that many bits length - 1, and one word, or as many words as the length says.
# label-studio-sdk, converter/brush.py, `encode_rle` and `decode_rle`.
_WORD = 8
_SIZES = (3, 4, 8, 16)


def to_brush_rle(mask: BoolArray) -> list[int]:
    """The numbers of a brush region in Label Studio's JSON. Shapes: mask (H, W)."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0, *changes.tolist()]
    bits = [f"{4 * flat.size:032b}", f"{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, end in zip(starts, [*starts[1:], flat.size], strict=True):
        value = "11111111" if flat[start] else "00000000"
        left = 4 * (end - start)  # red, green, blue and alpha alike
        while left:
            length = min(left, 2**16)
            which = next(i for i, size in enumerate(_SIZES) if length <= 2**size)
            bits.append(f"1{which:02b}{length - 1:0{_SIZES[which]}b}{value}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush_rle(packed: bytes, size_hw: tuple[int, int]) -> BoolArray:
    """The mask of a brush region: where its alpha is not 0. Shapes: -> (H, W)."""
    data = np.frombuffer(packed, dtype=np.uint8)
    if data.size < 7:
        raise UserError("a brush region is empty or cut off", mend="export the labels again")
    count = 4 * size_hw[0] * size_hw[1]
    claimed = int.from_bytes(data[:4].tobytes(), "big")
    if claimed != count:
        raise UserError(
            f"a brush region covers {claimed / 4:g} pixels, the image has {count // 4}",
            mend="the labels belong to another size of the image: export them again",
        )
    alpha = _unpack(np.unpackbits(data), count).reshape(*size_hw, 4)[..., 3]
    return np.asarray(alpha > 0)


def _unpack(bits: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    def number(start: int, size: int) -> int:
        if start + size > bits.size:
            raise UserError("a brush region ends before the image does", mend="export the labels again")
        return int("".join(map(str, bits[start : start + size].tolist())), 2)

    word = number(32, 5) + 1
    if word != _WORD:
        raise UserError(f"a brush region has {word} bits a value, not 8", mend="export the labels again")
    sizes = [number(37 + 4 * i, 4) + 1 for i in range(4)]
    out = np.zeros(count, dtype=np.uint8)
    at, done = 53, 0
    while done < count:
        repeated, which = number(at, 1), number(at + 1, 2)
        length = number(at + 3, sizes[which]) + 1
        at += 3 + sizes[which]
        if done + length > count:
            raise UserError("a brush region is longer than the image", mend="export the labels again")
        if repeated:
            out[done : done + length] = number(at, word)
            at += word
        else:
            words = bits[at : at + length * word]
            if words.size < length * word:
                raise UserError("a brush region ends before the image does", mend="export the labels again")
            out[done : done + length] = np.packbits(words.reshape(-1, word), axis=1).ravel()
            at += length * word
        done += length
    return out
