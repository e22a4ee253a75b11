"""Sizes on the command line."""

from __future__ import annotations

import pytest

from trocar.errors import UserError
from trocar.sizes import parse_size, shown_size


@pytest.mark.parametrize("text", ["720", "0x5", "5x0", "axb", "-1x4", "99999999x5", "720x576 ", "\u0664x5", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no size"):
        parse_size(text)


def test_the_width_comes_first() -> None:
    assert parse_size("720x576") == (576, 720)
    assert shown_size((576, 720)) == "720x576"
