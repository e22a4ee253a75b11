from __future__ import annotations

import pytest

from trocar.comparing.published import read_published
from trocar.errors import UserError


def test_decimals_given_are_the_rounding_allowed() -> None:
    coarse, fine = read_published("a=0.80/0.66"), read_published("a=0.8000/0.6600")
    assert coarse.check.possible  # 0.795 / 1.205 = 0.660
    assert not fine.check.possible
    assert "cannot be means over one set of images" in fine.verdict
    assert fine.check.low == pytest.approx(0.79995 / 1.20005)


def test_per_cent_is_the_same() -> None:
    shares, per_cent = read_published("x=0.9013/0.8234"), read_published("x=90.13%/82.34%")
    assert per_cent.dice == pytest.approx(shares.dice)
    assert per_cent.check.low == pytest.approx(shares.check.low)
    assert per_cent.given == "Dice 90.13%, Jaccard 82.34%"
    assert "is possible" in shares.verdict


def test_pooled_figures_are_known_by_their_jaccard() -> None:
    assert "pooled pixels" in read_published("p=0.9000/0.8182").verdict


def test_names_may_hold_what_they_like() -> None:
    assert read_published("U-Net (a=b) / 2020=0.9/0.85").name == "U-Net (a=b) / 2020"


@pytest.mark.parametrize(
    "text", ["0.9/0.8", "a=0.9", "a=0.9;0.8", "a=90.1/82.3", "a=90%/0.8", "a=-0.9/0.8", "=0.9/0.8"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--published"):
        read_published(text)
