from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.plain import evenly, many


@given(st.integers(0, 200), st.integers(1, 60))
def test_some_of_many_are_spread_evenly(count: int, most: int) -> None:
    chosen = evenly(range(count), most)
    assert len(chosen) == min(count, most)
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        steps = [b - a for a, b in pairwise(chosen)]
        assert min(steps) >= 1
        assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize(("count", "words"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_counts_in_words(count: int, words: str) -> None:
    assert many(count, "frame") == words
