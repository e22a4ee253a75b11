"""Sizes of pictures as people read and write them: width first, as those of videos are."""

from __future__ import annotations

import re

from trocar.errors import UserError

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of `720x576`, which is 576 high."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise UserError(f"{text!r} is no size", mend="give WIDTHxHEIGHT, such as 720x576")
    return int(match[2]), int(match[1])


def shown_size(size_hw: tuple[int, int]) -> str:
    """`720x576` of (576, 720)."""
    return f"{size_hw[1]}x{size_hw[0]}"
