"""Where a model is weak: scores of the frames on each level of each trait, the weakest first.

Traits are those of `metrics.traits` and whatever a caller knows of a frame in words. Some have fixed levels; of the
others the frames scored are cut into thirds, since no cut-off that somebody published holds from one camera to the
next: thirds are never empty and their intervals compare. Their bounds are given, as they are those of these frames.
Strata describe and do not explain: levels differ in more than the trait they are named after, and of many levels some
are weak by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trocar.metrics.intervals import Estimates, bootstrap
from trocar.metrics.traits import TRAITS, Trait

RESAMPLES = 2_000  # of the many intervals here, as in the tables of groups
FEWEST_FRAMES = 9  # scored frames below which thirds are not formed: each would hold one or two
NOT_KNOWN = "not known"


class Row(Protocol):
    """What is needed of a row of the per-image table."""

    @property
    def group(self) -> str:
        """The patient or procedure it is of."""
        ...

    @property
    def dice(self) -> float:
        """NaN where the frame shows no instrument."""
        ...

    @property
    def nsd(self) -> float:
        """NaN where it was not taken."""
        ...

    @property
    def traits(self) -> Mapping[str, float]:
        """By name, as `traits_of` gives them."""
        ...


@dataclass(frozen=True)
class Stratum:
    """Scores of the frames on one level of one trait."""

    trait: str  # key of TRAITS, or the name of a label
    title: str  # the trait's name for a reader
    level: str  # in words
    bounds: str  # least and greatest value in it, with the unit; "" where the words say it
    frames: int  # with a Dice
    groups: int
    dice: Estimates
    nsd: Estimates | None  # None where no frame has one


def stratify(
    rows: Sequence[Row], labels: Mapping[str, Sequence[str]] | None = None, *, resamples: int = RESAMPLES
) -> tuple[Stratum, ...]:
    """Dice and NSD of the frames on every level of every trait, the lowest mean Dice first.

    Frames without a Dice (no instrument) are left out, and a trait of which all frames are on one level. Frames of
    which a trait is not known make a level of their own. `labels` adds traits that are words, one for each row: the
    data set, the hospital. Intervals resample groups and then frames, as everywhere.
    """
    for name, words in (labels or {}).items():
        if len(words) != len(rows):
            raise ValueError(f"{len(rows)} rows but {len(words)} labels of {name}")
    scored = [index for index, row in enumerate(rows) if not math.isnan(row.dice)]
    kept = [rows[index] for index in scored]
    found: list[Stratum] = []
    for trait in TRAITS.values():
        values = np.array([row.traits.get(trait.name, math.nan) for row in kept], np.float64)
        found += _strata(kept, trait.name, trait.title, _levels_of(trait, values), resamples, trait, values)
    for name, words in (labels or {}).items():
        found += _strata(kept, name, name, [words[index] for index in scored], resamples)
    return tuple(sorted(found, key=lambda stratum: stratum.dice.mean.value))


def _levels_of(trait: Trait, values: NDArray[np.float64]) -> list[str]:
    """The level of each value, in words."""
    known = values[~np.isnan(values)]
    cuts: Sequence[float] = trait.cuts
    side: Literal["left", "right"] = "right"  # a value on a cut is above it
    if not cuts:
        if len(known) < FEWEST_FRAMES or known.min() == known.max():
            return [NOT_KNOWN] * len(values)
        cuts = np.quantile(known, [1 / 3, 2 / 3]).tolist()
        side = "left" if cuts[0] == known.min() else "right"  # where a third or more are the least, they are the lowest
    places = np.searchsorted(cuts, values, side=side)
    return [NOT_KNOWN if math.isnan(value) else trait.words[place] for value, place in zip(values, places, strict=True)]


def _strata(
    rows: Sequence[Row],
    name: str,
    title: str,
    levels: Sequence[str],
    resamples: int,
    trait: Trait | None = None,
    values: NDArray[np.float64] | None = None,
) -> Iterator[Stratum]:
    if len(set(levels)) < 2:
        return
    for level in dict.fromkeys(levels):
        members = [index for index, own in enumerate(levels) if own == level]
        own, groups = [rows[index] for index in members], [rows[index].group for index in members]
        nsd = [row.nsd for row in own]
        yield Stratum(
            trait=name,
            title=title,
            level=level,
            bounds="" if trait is None or values is None else _bounds(trait, values[members]),
            frames=len(own),
            groups=len(set(groups)),
            dice=bootstrap([row.dice for row in own], groups, resamples=resamples),
            nsd=None if all(map(math.isnan, nsd)) else bootstrap(nsd, groups, resamples=resamples),
        )


def _bounds(trait: Trait, values: NDArray[np.float64]) -> str:
    low, high = float(values.min()) * trait.scale, float(values.max()) * trait.scale
    if not trait.unit or math.isnan(low):
        return ""
    first, last = _printed(low), _printed(high)
    return f"{first if first == last else f'{first} to {last}'} {trait.unit}"


def _printed(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
