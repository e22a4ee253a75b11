"""Compare results of `trocar evaluate` on the same frames: is one better than another by more than chance?

`compare` reads the tables of frames (`results`), lets `metrics.comparison` do the statistics and says in words what
they allow one to say (`words`). Nothing is predicted; `again` does so for the few frames that are shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar import __version__
from trocar.comparing.published import Published, read_published
from trocar.comparing.results import (
    Result,
    common_groups,
    common_records,
    different_truth,
    find_column,
    label,
    read_results,
    refuse_other_rulers,
)
from trocar.comparing.words import Outcome, outcome_of, verdict
from trocar.errors import UserError
from trocar.metrics.comparison import (
    PairedDifference,
    RankStability,
    SignFlipTest,
    holm,
    paired_difference,
    rank_stability,
)
from trocar.metrics.intervals import Estimates, bootstrap

FloatArray: TypeAlias = NDArray[np.float64]

__all__ = ["Changed", "Comparison", "Pair", "Published", "Spread", "Standing", "compare"]

# Words in the names of columns in which less is better. Others must be named so: `higher_is_better=False`.
LESS_IS_BETTER = re.compile(r"(^|_)(entropy|loss|error|false|distance|hausdorff\d*|hd\d*|assd|asd|masd|flicker)(_|$)")


@dataclass(frozen=True)
class Spread:
    """The means of several runs of one recipe, each over the same frames."""

    means: tuple[float, ...]
    std: float  # of a sample: over n - 1
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """One result by itself, on the frames compared."""

    name: str
    path: Path
    runs: tuple[str, ...]
    score: Estimates  # of the per-frame scores, each the mean over the runs
    spread: Spread | None  # None for a single run
    frames_without: int | None  # frames whose truth holds no instrument; None where the tables do not tell
    falsely_found: float | None  # how many of them have something found in them, mean over the runs


@dataclass(frozen=True)
class Pair:
    """Two results against each other."""

    first: str
    second: str
    paired: PairedDifference
    decided_by: SignFlipTest  # by groups where they are enough, else by frames
    few_groups: bool  # whether they are too few for any p under 1 - level, frames of one group being alike
    p: float  # of that test, corrected after Holm where there are several pairs
    corrected_for: int  # pairs
    seed_error: float  # standard error of the difference from the spread of runs; NaN unless both have several
    outcome: Outcome


@dataclass(frozen=True)
class Changed:
    """One frame and what each result makes of it."""

    record: str
    group: str
    scores: tuple[float, ...]  # in the order of the results

    @property
    def change(self) -> float:
        """Largest score less the smallest; NaN where one is undefined."""
        return float(np.max(self.scores) - np.min(self.scores))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything `compare` found."""

    score: str  # the column
    higher_is_better: bool
    level: float
    results: tuple[Result, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    ranks: RankStability | None  # None for a single result
    published: tuple[Published, ...]
    frames: tuple[Changed, ...]  # all of them, most changed first, undefined ones last
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> list[str]:
        """One paragraph for each pair, in plain words."""
        return [verdict(self, pair) for pair in self.pairs]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON. NaN is still NaN."""
        names = [one.name for one in self.standings]
        return {
            "format": 1,
            "trocar_version": __version__,
            "score": self.score,
            "higher_is_better": self.higher_is_better,
            "level": self.level,
            "verdicts": self.verdicts,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "results": [{**asdict(one), "path": str(one.path)} for one in self.standings],
            "pairs": [asdict(pair) for pair in self.pairs],
            "ranks": self._ranks_by_name(names),
            "published": [asdict(one) for one in self.published],
            "frames": [
                {"record": one.record, "group": one.group, "scores": dict(zip(names, one.scores, strict=True))}
                for one in self.frames
            ],
        }

    def _ranks_by_name(self, names: Sequence[str]) -> dict[str, Any] | None:
        if self.ranks is None:
            return None
        return {
            "frames": self.ranks.frames,
            "resamples": self.ranks.resamples,
            "first": dict(zip(names, self.ranks.first, strict=True)),
            "orders": [
                {"order": [names[place] for place in order], "share": share} for order, share in self.ranks.orders
            ],
        }


def compare(
    reports: Sequence[Path],
    *,
    score: str = "dice",
    higher_is_better: bool | None = None,
    common: bool = False,
    published: Sequence[str] = (),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare results frame by frame: differences with intervals, tests, ranks under resampling, frames that changed.

    Each of `reports` is a folder that `evaluate` wrote, its per_image.csv, or a folder of several such folders: runs of
    one recipe, whose per-frame scores are averaged. A frame undefined in one run is undefined in the result. `score` is
    a column of the tables; whether more of it is better goes by its name where `higher_is_better` is None. `published`
    are pairs "NAME=DICE/JACCARD" of others' means, which can only be checked for consistency. Raises `UserError` /
    `UserErrors`, among others where the tables hold other frames and `common` is False.
    """
    pairs_told = tuple(read_published(text) for text in published)
    if len(reports) + len(pairs_told) < 2 or not reports:
        raise UserError("one report is nothing to compare", mend="give two or more, or --published NAME=DICE/JACCARD")
    results = read_results(reports)
    column = find_column(results, score)
    refuse_other_rulers(results, column)
    records, missing = common_records(results, common=common)
    groups = common_groups(results, records)
    better = LESS_IS_BETTER.search(column) is None if higher_is_better is None else higher_is_better
    table = np.stack([result.run_values(column, records).mean(axis=0) for result in results])
    draws = _Draws(level, resamples, seed)
    standings = tuple(_standing(result, column, records, groups, draws) for result in results)
    several = len(results) > 1
    return Comparison(
        score=column,
        higher_is_better=better,
        level=level,
        results=tuple(results),
        standings=standings,
        pairs=_pairs(standings, table, groups, draws),
        ranks=rank_stability(table, groups, higher_is_better=better, resamples=resamples, seed=seed)
        if several
        else None,
        published=pairs_told,
        frames=_most_changed_first(records, groups, table),
        warnings=tuple(_warnings(results, records, missing, pairs_told)),
        notes=tuple(_notes(results)),
    )


class _Draws(NamedTuple):
    """How intervals and tests are drawn."""

    level: float
    resamples: int
    seed: int


def _standing(result: Result, column: str, records: Sequence[str], groups: Sequence[str], draws: _Draws) -> Standing:
    by_run = result.run_values(column, records)
    score = bootstrap(by_run.mean(axis=0), groups, level=draws.level, resamples=draws.resamples, seed=draws.seed)
    frames_without, falsely_found = _false_alarms(result, records)
    return Standing(
        name=result.name,
        path=result.path,
        runs=tuple(run.name for run in result.runs),
        score=score,
        spread=_spread(by_run),
        frames_without=frames_without,
        falsely_found=falsely_found,
    )


def _spread(by_run: FloatArray) -> Spread | None:
    """Shapes: by_run (runs, N). Means are over the frames defined in all runs, so that they average to the result's."""
    defined = ~np.isnan(by_run).any(axis=0)
    if len(by_run) < 2 or not defined.any():
        return None
    means = by_run[:, defined].mean(axis=1)
    return Spread(tuple(map(float, means)), float(means.std(ddof=1)), float(means.min()), float(means.max()))


def _false_alarms(result: Result, records: Sequence[str]) -> tuple[int | None, float | None]:
    if not all({"empty_truth", "predicted_pixels"} <= set(run.columns) for run in result.runs):
        return None, None
    empty = result.run_values("empty_truth", records) > 0
    found = empty & (result.run_values("predicted_pixels", records) > 0)
    return int(empty[0].sum()), float(found.sum(axis=1).mean())


def _pairs(standings: Sequence[Standing], table: FloatArray, groups: Sequence[str], draws: _Draws) -> tuple[Pair, ...]:
    """Every pair in the order of the results. Shapes: table (K, N)."""
    chosen = list(combinations(range(len(standings)), 2))
    paired = [
        paired_difference(table[a], table[b], groups, level=draws.level, resamples=draws.resamples, seed=draws.seed)
        for a, b in chosen
    ]
    few_groups = any(_few_groups(one, len(chosen), draws.level) for one in paired)  # one kind of test for all pairs
    tests = [one.by_frame if few_groups or one.by_group is None else one.by_group for one in paired]
    corrected = holm([test.p for test in tests])
    pairs = []
    for (a, b), one, test, p in zip(chosen, paired, tests, corrected, strict=True):
        error = _seed_error(standings[a].spread, standings[b].spread)
        outcome = outcome_of(one, p, level=draws.level, few_groups=few_groups, seed_error=error)
        names = standings[a].name, standings[b].name
        pairs.append(Pair(*names, one, test, few_groups, p, len(chosen), error, outcome))
    return tuple(pairs)


def _few_groups(paired: PairedDifference, pairs: int, level: float) -> bool:
    """Whether no test by groups could give a p under 1 - level after correction, though frames fall into groups."""
    if paired.groups == paired.difference.n:  # each frame a group of its own: frames are what is flipped
        return False
    return 2.0 ** (1 - paired.groups) * pairs > 1 - level


def _seed_error(first: Spread | None, second: Spread | None) -> float:
    if first is None or second is None:
        return math.nan
    return math.sqrt(sum(spread.std**2 / len(spread.means) for spread in (first, second)))


def _most_changed_first(records: Sequence[str], groups: Sequence[str], table: FloatArray) -> tuple[Changed, ...]:
    rows = [
        Changed(record, group, tuple(map(float, scores)))
        for record, group, scores in zip(records, groups, table.T, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (math.isnan(row.change), -row.change, row.record)))


def _warnings(
    results: Sequence[Result], records: Sequence[str], missing: Sequence[str], published: Sequence[Published]
) -> Iterator[str]:
    if missing:
        yield f"only the {len(records)} common frames are compared: {'; '.join(missing)}"
    yield from different_truth(results, records)
    for result in results:
        for run in result.runs:
            for warning in run.told.get("warnings", ()):
                yield f"{label(result, run)}: {warning}"
    for one in published:
        if not one.check.possible:
            yield one.verdict


def _notes(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        for run in result.runs:
            yield from (f"{label(result, run)}: {note}" for note in run.notes)
            if not run.told:
                yield f"{label(result, run)} is a bare table: how its figures came about is not known"
    single = [result.name for result in results if len(result.runs) == 1]
    if single:
        of_what = "all results" if len(single) == len(results) > 1 else ", ".join(single)
        yield f"of a single run: {of_what}. How much another seed would change them is not in these figures"
