from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from trocar.metrics.intervals import bootstrap
from trocar.metrics.strata import stratify


@dataclass(frozen=True)
class Row:
    dice: float
    group: str = "a"
    nsd: float = math.nan
    traits: dict[str, float] = field(default_factory=dict)


def rows_of(trait: str, values: list[float], dice: list[float]) -> list[Row]:
    return [Row(d, traits={trait: v}, group=f"g{i % 4}") for i, (v, d) in enumerate(zip(values, dice, strict=True))]


def test_thirds_hold_a_third_each_and_the_weakest_stands_first() -> None:
    rng = np.random.default_rng(0)
    share = rng.permutation(np.linspace(0.01, 0.3, 30))
    dice = 0.5 + share  # small instruments are harder
    found = stratify(rows_of("instrument_share", share.tolist(), dice.tolist()))
    assert [stratum.level for stratum in found] == ["small", "middle", "large"]
    assert [stratum.frames for stratum in found] == [10, 10, 10]
    ordered = np.sort(dice)
    for number, stratum in enumerate(found):
        assert stratum.dice.mean.value == pytest.approx(ordered[10 * number : 10 * number + 10].mean())
        assert stratum.title == "Instrument size"
    assert found[0].bounds == "1 to 10 % of the frame"
    assert found[2].bounds == "21 to 30 % of the frame"


def test_intervals_are_those_of_the_frames_by_group() -> None:
    rows = rows_of("touches_border", [0, 1] * 10, np.random.default_rng(1).random(20).tolist())
    by_level = {stratum.level: stratum for stratum in stratify(rows, resamples=300)}
    inside = [row for row in rows if row.traits["touches_border"] == 0]
    expected = bootstrap([row.dice for row in inside], [row.group for row in inside], resamples=300)
    assert by_level["inside the view"].dice == expected
    assert by_level["inside the view"].groups == 2
    assert by_level["inside the view"].nsd is None
    assert by_level["inside the view"].bounds == ""


def test_fixed_levels_do_not_move_with_the_frames() -> None:
    found = stratify(rows_of("instrument_count", [1, 2, 2, 5], [0.9, 0.5, 0.7, 0.8]))
    assert [(s.level, s.frames) for s in found] == [("two", 2), ("three or more", 1), ("one", 1)]
    sizes = stratify(rows_of("megapixels", [0.3, 0.5, 1.31, 2.07], [0.1, 0.2, 0.3, 0.4]))
    assert [(s.level[:3], s.frames, s.bounds) for s in sizes] == [
        ("bel", 1, "0.3 megapixels"),
        ("0.5", 2, "0.5 to 1.31 megapixels"),
        ("1.5", 1, "2.07 megapixels"),
    ]


def test_the_nsd_of_a_level_is_taken_where_it_is_known() -> None:
    rows = [Row(0.5, nsd=value, traits={"touches_border": float(i % 2)}) for i, value in enumerate([0.1, math.nan] * 3)]
    by_level = {stratum.level: stratum.nsd for stratum in stratify(rows)}
    assert by_level["touches the border"] is None
    inside = by_level["inside the view"]
    assert inside is not None
    assert (inside.mean.value, inside.n) == (pytest.approx(0.1), 3)


def test_frames_without_a_dice_are_no_part_of_any_level() -> None:
    rows = rows_of("touches_border", [0, 1, 0, 1], [0.5, 0.6, math.nan, math.nan])
    assert [stratum.frames for stratum in stratify(rows)] == [1, 1]


def test_what_is_not_known_is_a_level_of_its_own() -> None:
    found = stratify(rows_of("instruments_touch", [0, math.nan, math.nan], [0.5, 0.4, 0.6]))
    assert [(s.level, s.frames, s.bounds) for s in found] == [("none touch", 1, ""), ("not known", 2, "")]


@pytest.mark.parametrize(
    ("trait", "values"),
    [
        ("instrument_share", [0.1] * 20),  # all alike
        ("instrument_share", [0.1, 0.2, 0.3, 0.4]),  # too few for thirds
        ("touches_border", [1.0] * 20),  # one level
        ("instruments_touch", [math.nan] * 20),  # known of none
    ],
)
def test_a_trait_that_tells_no_frames_apart_is_left_out(trait: str, values: list[float]) -> None:
    assert stratify(rows_of(trait, values, [0.5] * len(values))) == ()


def test_many_equal_values_still_give_levels_without_empty_ones() -> None:
    few, most = [0.01, 0.02, 0.03, 0.04, 0.05], [0.0] * 15
    dark = {s.level: s.frames for s in stratify(rows_of("specularity", most + few, [0.5] * 20))}
    assert dark == {"few highlights": 15, "many highlights": 5}
    bright = {s.level: s.frames for s in stratify(rows_of("specularity", few + [0.5] * 15, [0.5] * 20))}
    assert bright == {"few highlights": 5, "many highlights": 15}


def test_labels_are_traits_in_words() -> None:
    rows = [Row(value) for value in (0.9, 0.1, 0.8, math.nan)]
    found = stratify(rows, {"data set": ["a", "b", "a", "c"], "hospital": ["x"] * 4})
    assert [(s.title, s.level, s.frames) for s in found] == [("data set", "b", 1), ("data set", "a", 2)]
    with pytest.raises(ValueError, match="4 rows but 1 labels"):
        stratify(rows, {"data set": ["a"]})


def test_no_rows_no_strata() -> None:
    assert stratify([]) == ()
    assert stratify([Row(math.nan)]) == ()
