"""How `trocar compare` speaks on the terminal."""

from __future__ import annotations

import math
from pathlib import Path

from rich.table import Table

from trocar.comparing import Comparison
from trocar.comparing.words import p_in_words, score_in_words
from trocar.console import figure, out, tell

FRAMES_SHOWN = 5  # that changed most


def show_comparison(comparison: Comparison, page: Path | None) -> None:
    """What may be said, warnings, the results, their differences, the frames that changed most, the page's place."""
    for sentence in comparison.verdicts:
        out.print(sentence, markup=False)
    for warning in comparison.warnings:
        tell(f"warning: {warning}")
    out.print(_results(comparison))
    if len(comparison.pairs) > 1:
        out.print(_pairs(comparison))
    for one in comparison.published:
        if one.check.possible:  # the others are among the warnings
            out.print(one.verdict, markup=False)
    for note in comparison.notes:
        tell(f"note: {note}")
    changed = [frame for frame in comparison.frames[:FRAMES_SHOWN] if frame.change > 0]
    if changed and comparison.pairs:
        out.print(f"changed most, {', '.join(one.name for one in comparison.standings)}:", markup=False)
    for frame in changed if comparison.pairs else ():
        tell(f"  {frame.record}  {'  '.join(map(figure, frame.scores))}")
    if page is not None:
        tell(f"page: {page}")


def _results(comparison: Comparison) -> Table:
    score, several = score_in_words(comparison.score), any(one.spread for one in comparison.standings)
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for column in (f"mean {score}, its interval", "median", "frames", "runs", *(["std"] if several else []), "first"):
        table.add_column(column, no_wrap=True)
    for place, one in enumerate(comparison.standings):
        mean = one.score.mean
        spread = [figure(one.spread.std if one.spread else math.nan)] if several else []
        first = math.nan if comparison.ranks is None else comparison.ranks.first[place]
        table.add_row(
            one.name,
            f"{figure(mean.value)}  ({figure(mean.low)} to {figure(mean.high)})",
            figure(one.score.median.value),
            str(one.score.n),
            str(len(one.runs)),
            *spread,
            "-" if math.isnan(first) else f"{first:.1%}",
        )
    if comparison.score in ("dice", "jaccard"):
        for told in comparison.published:
            table.add_row(told.name, f"{getattr(told, comparison.score):.4f}, published")
    return table


def _pairs(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("pair", overflow="fold")
    for column in ("difference, its interval", "p", "higher, equal, lower"):
        table.add_column(column, no_wrap=True)
    for pair in comparison.pairs:
        paired, mean = pair.paired, pair.paired.difference.mean
        table.add_row(
            f"{pair.first} - {pair.second}",
            f"{mean.value:+.3f}  ({mean.low:+.3f} to {mean.high:+.3f})",
            p_in_words(pair.p),
            f"{paired.higher}, {paired.equal}, {paired.lower}",
        )
    return table
