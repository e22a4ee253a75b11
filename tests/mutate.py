"""Files spoilt at random, by seed: what a bad disk, a broken tool or a hostile stranger makes of a good one.

`mutate` knows what hurts each kind of file: sizes in headers of images, numbers, keys and nesting in JSON and XML,
counts and chunks in videos, entries of zips. Nothing here knows trocar.
"""

from __future__ import annotations

import functools
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    "0",
    "-1",
    "-0.0",
    "1e9",
    "1e400",
    "-1e308",
    "2147483648",
    "18446744073709551616",
    "9" * 30,
    "9" * 5000,
    "0.5",
)
WORDS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    '"\\ud800"',
    '"a\\u0000b"',
    '"../../etc/passwd"',
)
NAMES = (
    "\u0645\u0631\u064a\u0636",
    "\u60a3\u8005",
    "\U0001f52a",
    "e\u0301",
    "\u202e",
    "a" * 300,
    "..",
    "/",
    "C:\\x",
    "\x00",
    "\n",
)
SIDES = (0, 1, 2, 255, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


LARGEST = 2**22  # bytes of a spoilt file


def mutate(data: bytes, suffix: str, rng: random.Random) -> tuple[str, bytes]:
    """A name of what was done, and the spoilt file. `suffix` (.png) says what kinds of it are drawn more."""
    special = SPECIAL.get(suffix.lower(), ())
    chosen = rng.choice(special) if special and rng.random() < 0.7 else rng.choice(ANY)
    return chosen.__name__, chosen(data, rng)[:LARGEST]


def mutate_often(data: bytes, suffix: str, rng: random.Random, most: int = 3) -> tuple[str, bytes]:
    """Up to `most` kinds of damage, one after the other."""
    names = []
    for _ in range(rng.randint(1, most)):
        name, data = mutate(data, suffix, rng)
        names.append(name)
    return "+".join(names), data


# ------------------------------------------------------------------ any file


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if spoilt else 0):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def flip_bits_of_the_head(data: bytes, rng: random.Random) -> bytes:
    return flip_bits(data[:128], rng) + data[128:]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if data else data


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def repeat_part(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def insert_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice((rng.randbytes(rng.randint(1, 64)), b"\x00" * 64, b"\xff\xfe")) + data[at:]


def overwrite_a_number(data: bytes, rng: random.Random) -> bytes:
    """Four bytes become a number that counts and sizes hardly expect, more often near the beginning."""
    if len(data) < 4:
        return data
    at = rng.randrange(min(len(data), rng.choice((64, 512, len(data)))) - 3)
    order = rng.choice("<>")
    return data[:at] + struct.pack(f"{order}I", rng.choice(SIDES)) + data[at + 4 :]


def empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 2000))


def zeros(data: bytes, rng: random.Random) -> bytes:
    return b"\x00" * len(data)


def another_kind(data: bytes, rng: random.Random) -> bytes:
    """The head of another format before the rest."""
    heads = (
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"BM",
        b"II*\x00",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"PK\x03\x04",
    )
    return rng.choice((*heads, b"<!DOCTYPE html>", b"\x1a\x45\xdf\xa3", b"%PDF-1.7")) + data[rng.choice((0, 4, 8)) :]


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 4, 16, 256)))


ANY: tuple[Mutator, ...] = (
    flip_bits, flip_bits_of_the_head, cut_off, cut_out, repeat_part, insert_bytes, overwrite_a_number, empty, noise,
    zeros, another_kind,
)  # fmt: skip

# ------------------------------------------------------------------ PNG


def png_header(data: bytes, rng: random.Random) -> bytes:
    """Another size, depth or kind of colour, with a right checksum."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        return flip_bits(data, rng)
    header = list(struct.unpack(">IIBBBBB", data[16:29]))
    field = rng.randrange(7)
    header[field] = rng.choice(SIDES) if field < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    if field < 2 and rng.random() < 0.5:
        header[0] = header[1] = rng.choice((65535, 8193, 2**31 - 1))
    packed = struct.pack(">IIBBBBB", *header)
    return data[:16] + packed + struct.pack(">I", zlib.crc32(b"IHDR" + packed)) + data[33:]


def png_extra_chunk(data: bytes, rng: random.Random) -> bytes:
    """A chunk that is new, after the header: text that unpacks to much, EXIF, palettes, animation."""
    if data[12:16] != b"IHDR":
        return flip_bits(data, rng)
    kind, content = rng.choice(
        (
            (b"zTXt", b"a\x00\x00" + _bomb()),
            (b"iCCP", b"a\x00\x00" + _bomb()),
            (b"iTXt", b"a\x00\x01\x00\x00\x00" + _bomb()),
            (
                b"eXIf",
                b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00"
                + bytes([rng.randrange(12)])
                + b"\x00" * 7,
            ),
            (b"eXIf", rng.randbytes(40)),
            (b"PLTE", rng.randbytes(rng.choice((3, 4, 768, 3000)))),
            (b"tRNS", rng.randbytes(rng.choice((1, 2, 6, 300)))),
            (b"acTL", struct.pack(">II", rng.choice((1, 2, 2**31)), 0)),
            (b"gAMA", b"\x00\x00\x00\x00"),
            (b"IEND", b""),
            (b"IDAT", b""),
        )
    )
    return data[:33] + _chunk(kind, content) + data[33:]


def png_pixels(data: bytes, rng: random.Random) -> bytes:
    """The pixels are another stream: too short, a bomb, or none."""
    at = data.find(b"IDAT")
    if at < 4:
        return flip_bits(data, rng)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    stream = rng.choice((_bomb(), zlib.compress(b"\x09" * 200), b"", rng.randbytes(100)))
    return data[: at - 4] + _chunk(b"IDAT", stream) + data[at + length + 8 :]


@functools.cache
def _bomb() -> bytes:
    """32 MB in 32 kB."""
    return zlib.compress(b"\x00" * 2**25)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# ------------------------------------------------------------------ JPEG


def jpeg_size(data: bytes, rng: random.Random) -> bytes:
    """Another size, precision or number of channels in the start of frame."""
    found = re.search(rb"\xff[\xc0-\xc2]", data)
    if not found or found.start() + 10 > len(data):
        return flip_bits(data, rng)
    at = found.start() + 4
    head = list(struct.unpack(">BHHB", data[at : at + 6]))
    field = rng.randrange(4)
    head[field] = (
        rng.choice((0, 1, 9, 12, 255)) if field in (0, 3) else rng.choice([side for side in SIDES if side < 2**16])
    )
    if rng.random() < 0.3:
        head[1] = head[2] = 65535
    return data[:at] + struct.pack(">BHHB", *head) + data[at + 6 :]


def jpeg_marker(data: bytes, rng: random.Random) -> bytes:
    """A marker is another one, has another length, or comes once more."""
    places = [found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    if not places:
        return flip_bits(data, rng)
    at = rng.choice(places)
    what = rng.randrange(3)
    if what == 0:
        return data[: at + 1] + bytes([rng.randrange(0xC0, 0xFF)]) + data[at + 2 :]
    if what == 1:
        return data[: at + 2] + struct.pack(">H", rng.choice((0, 1, 2, 65535))) + data[at + 4 :]
    return data[:2] + data[at : at + rng.randint(2, 200)] + data[2:]


def jpeg_exif(data: bytes, rng: random.Random) -> bytes:
    """An EXIF block that turns the picture, or is broken."""
    turn = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00"
        + bytes([rng.randrange(12)])
        + b"\x00" * 7
    )
    block = rng.choice((turn, turn[:20], b"Exif\x00\x00" + rng.randbytes(60), b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


# ------------------------------------------------------------------ text, JSON, XML, YAML


def text_number(data: bytes, rng: random.Random) -> bytes:
    """A number in a text is another one, or no number."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return insert_bytes(data, rng)
    start, end = rng.choice(found).span()
    return data[:start] + rng.choice((*NUMBERS, "NaN", "inf", "0x10", "1_0", "\u0663", "\u00b2")).encode() + data[end:]


def text_invalid_utf8(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice((b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00")) + data[at:]


def text_other_encoding(data: bytes, rng: random.Random) -> bytes:
    try:
        return data.decode("utf-8").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le")))
    except UnicodeError:
        return data


def text_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines left out, twice, in another order, or with other ends."""
    lines = data.split(b"\n")
    what = rng.randrange(4)
    if what == 0:
        lines.pop(rng.randrange(len(lines)))
    elif what == 1:
        line = rng.choice(lines)
        lines += [line] * min(rng.choice((1, 3000)), LARGEST // (len(line) + 1))
    elif what == 2:
        rng.shuffle(lines)
    return (b"\r\n" if what == 3 else b"\n").join(lines)


def text_words(data: bytes, rng: random.Random) -> bytes:
    """A word is a name that few expect."""
    found = list(re.finditer(rb"[A-Za-z_]{2,}", data))
    if not found:
        return insert_bytes(data, rng)
    start, end = rng.choice(found).span()
    return data[:start] + rng.choice(NAMES).encode() + data[end:]


def json_value(data: bytes, rng: random.Random) -> bytes:
    """Any value of the document, whole branches too, is another."""
    return _with_json(
        data, rng, lambda old: json.loads(rng.choice((*WORDS, "0", "-1", "1.5", "1e9", "[[1,2],[3]]", "[-5,5]")))
    )


def json_number(data: bytes, rng: random.Random) -> bytes:
    """A number is absurd, of another type, or infinite."""
    numbers = (0, -1, 1.5, 2**31, 2**64, 10**30, 1e308, float("nan"), float("inf"), True, "7", None, [1], {})
    return _with_json(data, rng, lambda old: rng.choice(numbers), lambda value: isinstance(value, int | float))


def json_text(data: bytes, rng: random.Random) -> bytes:
    """A text is a name that few expect."""
    return _with_json(data, rng, lambda old: rng.choice((*NAMES, "\ud800", "")), lambda value: isinstance(value, str))


def json_list(data: bytes, rng: random.Random) -> bytes:
    """A list is empty, has an entry twice, many times, in reverse, or one of another kind."""

    def other(old: list[Any]) -> list[Any]:
        return rng.choice(
            ([], old + old[:1], old[:1] * 5000, old[::-1], old[:-1], [*old, rng.choice((None, -1, [], "x", 1e300))])
        )

    return _with_json(data, rng, other, lambda value: isinstance(value, list))


def json_keys(data: bytes, rng: random.Random) -> bytes:
    """A key is gone, or another."""

    def other(old: dict[str, Any]) -> dict[str, Any]:
        gone = rng.choice(list(old)) if old else ""
        kept = {key: value for key, value in old.items() if key != gone}
        return kept if rng.random() < 0.5 else {**kept, rng.choice(NAMES): old.get(gone)}

    return _with_json(data, rng, other, lambda value: isinstance(value, dict))


def json_key_twice(data: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb'"[a-zA-Z_]+"\s*:', data))
    if not found:
        return insert_bytes(data, rng)
    one = rng.choice(found)
    return data[: one.start()] + one.group() + rng.choice(WORDS).encode() + b"," + data[one.start() :]


def deep_nesting(data: bytes, rng: random.Random) -> bytes:
    """Brackets or tags, thousands deep, in place of a value or of all."""
    deep = rng.choice((900, 3000, 100_000))
    nested = rng.choice(
        (b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b"<a>" * deep, b"- " * deep)
    )
    found = list(re.finditer(rb"\d+", data))
    if not found or rng.random() < 0.5:
        return nested
    start, end = rng.choice(found).span()
    return data[:start] + nested + data[end:]


def _with_json(
    data: bytes, rng: random.Random, other: Callable[[Any], Any], fits: Callable[[Any], bool] = lambda value: True
) -> bytes:
    """The document with one value, drawn among those that fit, replaced."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return text_number(data, rng)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any, depth: int) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(items)[:200]:
            if fits(value):
                places.append((node, key))
            if depth < 50:
                visit(value, depth + 1)

    visit(document, 0)
    if fits(document):
        places.append((None, None))
    if not places:
        return text_number(data, rng)
    node, key = rng.choice(places)
    if node is None:
        document = other(document)
    else:
        node[key] = other(node[key])
    return json.dumps(document).encode()


def xml_doctype(data: bytes, rng: random.Random) -> bytes:
    """Entities that grow, or that fetch a file."""
    grow = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    inner = rng.choice(
        (
            '<!ENTITY e0 "lol">' + grow,
            '<!ENTITY e9 SYSTEM "file:///etc/passwd">',
            '<!ENTITY % p SYSTEM "http://127.0.0.1:9/">%p;',
        )
    )
    return f'<?xml version="1.0"?><!DOCTYPE annotations [{inner}]>'.encode() + re.sub(
        rb"<\?xml.*?\?>", b"", data
    ).replace(b">", b">&e9;", 1)


def xml_attribute(data: bytes, rng: random.Random) -> bytes:
    """An attribute is another, is gone, or comes twice."""
    found = list(re.finditer(rb'\s([a-z_]+)="([^"]*)"', data))
    if not found:
        return insert_bytes(data, rng)
    one = rng.choice(found)
    value = (
        rng.choice((*NUMBERS, "nan", "", "1;2,3", "1," * 3000, *NAMES))
        .encode()
        .replace(b"\x00", b"&#0;")
        .replace(b"\n", b"&#10;")
    )
    new = rng.choice((b"", one.group() * 2, b" " + one[1] + b'="' + value + b'"'))
    return data[: one.start()] + new + data[one.end() :]


def xml_element(data: bytes, rng: random.Random) -> bytes:
    """An element is gone, another, or there thousands of times."""
    found = list(re.finditer(rb"<([a-z]+)[^<>]*(/>|>[^<]*</\1>)", data))
    if not found:
        return insert_bytes(data, rng)
    one = rng.choice(found)
    new = rng.choice(
        (
            b"",
            one.group() * 2000,
            one.group().replace(one[1], rng.choice((b"box", b"mask", b"polygon", b"image", b"x"))),
        )
    )
    return data[: one.start()] + new + data[one.end() :]


def yaml_special(data: bytes, rng: random.Random) -> bytes:
    """Aliases that grow, tags that construct, dates that are none, keys twice."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    odd = ("x: 2001-99-99\n", "x: 0b\n", "? [a, b]\n: c\n", "x: &x [*x]\n", "x: 1_000:99\n", "<<: 5\n", "x: *nobody\n")
    tags = ("x: !!python/object/apply:os.getcwd []\n", "folds: 5\n", "---\n---\n")
    new = rng.choice((bomb, f"{bomb}shared_records: *a8\n", f"{bomb}names: *a8\n", *odd, *tags)).encode()
    lines = data.split(b"\n")
    at = rng.choice((0, len(lines)))
    key = re.match(rb"[a-z_]+:", new)
    kept = [line for line in lines if not (key and key[0] in (b"names:", b"folds:") and line.startswith(key[0]))]
    return b"\n".join([*kept[:at], new, *kept[at:]])


# ------------------------------------------------------------------ video


def video_field(data: bytes, rng: random.Random) -> bytes:
    """A number of a header of AVI, MP4 or Matroska: sizes, rates, counts, lengths of chunks."""
    names = (
        rb"avih|strh|strf|idx1|movi|00dc|mvhd|tkhd|mdhd|stsd|stts|stsz|stco|stsc|ctts|trun|avc1|avcC|\xb0\x82|\xba\x82"
    )
    found = list(re.finditer(names, data))
    if not found:
        return overwrite_a_number(data, rng)
    at = rng.choice(found).end() + rng.choice((-8, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36))
    at = min(max(at, 0), max(len(data) - 4, 0))
    order = rng.choice("<>")
    return data[:at] + struct.pack(f"{order}I", rng.choice((*SIDES, 16384, 8192))) + data[at + 4 :]


def video_codec(data: bytes, rng: random.Random) -> bytes:
    """Its pictures are said to be of another codec."""
    names = (b"MJPG", b"H264", b"FFV1", b"FMP4", b"XVID", b"DIB ", b"avc1", b"mp4v")
    present = [name for name in names if name in data]
    return (
        data.replace(rng.choice(present), rng.choice((*names, b"WMV3", b"HFYU", b"CRAM", b"????")))
        if present
        else flip_bits(data, rng)
    )


# ------------------------------------------------------------------ zip


def zip_field(data: bytes, rng: random.Random) -> bytes:
    """A number of a local header, of the list of files, or of its end."""
    found = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    if not found:
        return overwrite_a_number(data, rng)
    at = rng.choice(found) + rng.choice((4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 38, 42))
    return data[:at] + struct.pack("<I", rng.choice(SIDES)) + data[at + 4 :]


def zip_name(data: bytes, rng: random.Random) -> bytes:
    """Names of the same length that lead elsewhere."""
    found = list(re.finditer(rb"(images|masks|train|test)[\w./]*", data))
    if not found:
        return flip_bits(data, rng)
    name = rng.choice(found).group()
    other = rng.choice((b"../", b"/", b"C:\\", b"\xff", b"\x00", b"\n", name[:1] * 3))
    return data.replace(name, (other + name)[: len(name)])


_TEXT = (text_number, text_invalid_utf8, text_other_encoding, text_lines, text_words, deep_nesting)
_JSON = (json_value, json_number, json_text, json_list, json_keys, json_key_twice)
_JPEG = (jpeg_size, jpeg_marker, jpeg_exif)
_VIDEO = (video_field, video_field, video_codec, overwrite_a_number, flip_bits, cut_off)
SPECIAL: dict[str, tuple[Mutator, ...]] = {
    ".png": (png_header, png_extra_chunk, png_pixels),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".json": (*_JSON, *_JSON, *_TEXT),
    ".xml": (xml_doctype, xml_attribute, xml_attribute, xml_element, xml_element, *_TEXT),
    ".yaml": (*_TEXT, yaml_special, yaml_special),
    ".txt": _TEXT,
    ".csv": _TEXT,
    ".zip": (zip_field, zip_field, zip_name, overwrite_a_number),
    **dict.fromkeys((".avi", ".mp4", ".mkv", ".mov", ".webm", ".ts"), _VIDEO),
}
