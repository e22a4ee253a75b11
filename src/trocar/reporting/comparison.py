"""The page of a comparison, and the same figures as JSON.

One HTML file that needs nothing else: what may be said in words, tables, figures, and the frames that changed most
with what each result makes of them. Undefined figures are dashes (HTML) or null (JSON) and are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from trocar.comparing import Changed, Comparison
from trocar.comparing.again import look_again
from trocar.comparing.results import Report, Result
from trocar.comparing.words import outcome_in_words, p_in_words, score_in_words
from trocar.data.files import atomic_write_text
from trocar.errors import UserError
from trocar.plain import many, without_nan
from trocar.reporting.figures import BAR_COLOUR, INK, MOST_GROUPS, VAL_COLOUR, as_svg
from trocar.reporting.pages import rendered, write_json
from trocar.reporting.panels import panels
from trocar.reporting.pictures import Panel
from trocar.reporting.words import UNDEFINED, figure

FRAMES_SHOWN = 8  # with pictures
ROWS_SHOWN = 300  # of the table of frames in the page; compare.json has all
SCATTERS = 3  # pairs drawn frame against frame; of more the page would be all dots
SAME_DICE = 0.005  # a frame predicted again differs by less, unless model or data are other ones


@dataclass(frozen=True)
class ShownChange:
    """One frame with its pictures: image, truth, and the errors of each result."""

    frame: Changed
    panels: list[Panel]


@dataclass(frozen=True)
class GroupRow:
    """One group: mean score of each result over its frames."""

    name: str
    frames: int
    means: tuple[float, ...]

    @property
    def change(self) -> float:
        """Largest mean less the smallest; NaN where one is undefined."""
        return float(np.max(self.means) - np.min(self.means))


def write_comparison(comparison: Comparison, out: Path, *, pictures: bool = True, device: str = "auto") -> Path:
    """Write compare.html and compare.json into `out`; returns the path of the page.

    `pictures` embeds the frames that changed most (of patients, as the page then says), predicted once more for it.
    Where that cannot be done the page says why. Raises `UserError` where `out` cannot be written to.
    """
    tree = without_nan(comparison.as_dict())
    write_json(tree, out / "compare.json")
    shown, reasons = changed_frames(comparison, device) if pictures else ([], ["they were left out (--no-pictures)"])
    atomic_write_text(out / "compare.html", _page(comparison, shown, reasons))
    return out / "compare.html"


# ------------------------------------------------------------------ pictures


def changed_frames(comparison: Comparison, device: str = "auto") -> tuple[list[ShownChange], list[str]]:
    """The frames that changed most, each with image, truth and the errors of each result; and what could not be shown.

    Of a result of several runs the first run is shown.
    """
    chosen = [frame for frame in comparison.frames if frame.change > 0][:FRAMES_SHOWN]
    if not chosen or len(comparison.results) < 2:
        return [], ["no frame changed"] if len(comparison.results) > 1 else ["there is a single result"]
    drawn: dict[str, list[Panel]] = {frame.record: [] for frame in chosen}
    reasons = []
    for result in comparison.results:
        try:
            made, changed = _panels_of(result, comparison.score, list(drawn), device)
        except UserError as error:
            reasons.append(f"{result.name}: {' '.join(str(error).split())}")
            continue
        if changed:
            reasons.append(
                f"{result.name}: predicted again, {many(changed, 'frame')} came out otherwise than in its report: "
                "the model, the data or the device are not the same"
            )
        for record, own in made.items():
            drawn[record] += own if not drawn[record] else own[2:]  # image and truth once
    return [ShownChange(frame, drawn[frame.record]) for frame in chosen if drawn[frame.record]], reasons


def _panels_of(result: Result, score: str, records: Sequence[str], device: str) -> tuple[dict[str, list[Panel]], int]:
    """Image, truth and errors for each record, and of how many the Dice is not that of the report."""
    run = result.runs[0]
    of_several = f", {run.name} of {len(result.runs)} runs" if len(result.runs) > 1 else ""
    made, changed = {}, 0
    for view in look_again(run, records, device=device):
        shown = panels(view, ())
        told = _one(run, score, view.row.record)
        caption = f"{result.name}{of_several}: {score_in_words(score)} {figure(told)}"
        if abs(_one(run, "dice", view.row.record) - view.row.dice) > SAME_DICE:
            changed += 1
            caption += f"; now Dice {figure(view.row.dice)}"
        made[view.row.record] = [*shown[:2], Panel(caption, shown[-1].picture)]
    return made, changed


def _one(run: Report, column: str, record: str) -> float:
    return float(run.values(column, [record])[0])


# ------------------------------------------------------------------ figures


def scatter_svg(comparison: Comparison, first: int, second: int) -> str:
    """Every frame as a dot, its score in one result against that in another, as an SVG element."""
    names = [one.name for one in comparison.standings]
    points = np.array([(frame.scores[first], frame.scores[second]) for frame in comparison.frames])
    points = points[~np.isnan(points).any(axis=1)]
    chart = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = chart.subplots()
    axes.plot(points[:, 0], points[:, 1], "o", color=BAR_COLOUR, alpha=0.6, markersize=4, markeredgewidth=0)
    low, high = float(points.min()), float(points.max())
    edge = 0.03 * (high - low) or 0.03
    axes.plot([low, high], [low, high], "--", color=INK, linewidth=1)
    score = score_in_words(comparison.score)
    axes.set(
        xlim=(low - edge, high + edge), ylim=(low - edge, high + edge), aspect="equal",
        xlabel=f"{score} of {names[first]}", ylabel=f"{score} of {names[second]}", title=f"{len(points)} frames",
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(chart, f"{score} of {names[first]} against {names[second]}, a dot a frame")


def forest_svg(comparison: Comparison) -> str:
    """The mean difference of every pair with its interval, a line a pair, as an SVG element."""
    pairs = comparison.pairs
    chart = Figure(figsize=(5.6, 1.1 + 0.36 * len(pairs)), layout="constrained")
    axes = chart.subplots()
    for line, pair in enumerate(pairs):
        mean = pair.paired.difference.mean
        axes.plot([mean.low, mean.high], [line, line], color=BAR_COLOUR, linewidth=3, solid_capstyle="butt")
        axes.plot(mean.value, line, "o", color=VAL_COLOUR, markersize=6)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(pairs)), [f"{pair.first} − {pair.second}" for pair in pairs])  # noqa: RUF001
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    score = score_in_words(comparison.score)
    axes.set(title=f"Mean difference of {score}", xlabel=f"{comparison.level:.0%} intervals")
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(chart, f"Mean difference of {score} of each pair, with its interval")


def by_group_svg(comparison: Comparison, rows: Sequence[GroupRow]) -> str:
    """Differences of two results, a line a group, a dot a frame, a bar the group's mean, as an SVG element."""
    of_group: dict[str, list[float]] = {}
    for frame in comparison.frames:
        of_group.setdefault(frame.group, []).append(frame.scores[0] - frame.scores[1])
    drawn = [row for row in rows if not math.isnan(row.change)][:MOST_GROUPS]
    chart = Figure(figsize=(5.2, 1.1 + 0.3 * max(len(drawn), 4)), layout="constrained")
    axes = chart.subplots()
    rng = np.random.default_rng(0)  # spreads the dots of a line so that equal ones are seen
    for line, row in enumerate(drawn):
        values = of_group[row.name]
        spread = line + rng.uniform(-0.25, 0.25, len(values))
        axes.plot(values, spread, "o", color=BAR_COLOUR, alpha=0.7, markersize=4, markeredgewidth=0)
        axes.plot([row.means[0] - row.means[1]] * 2, [line - 0.36, line + 0.36], color=VAL_COLOUR, linewidth=2.4)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(drawn)), [row.name if len(row.name) <= 22 else f"…{row.name[-21:]}" for row in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    names = [one.name for one in comparison.standings]
    shown = "by group" if len(drawn) == len(rows) else f"of the {len(drawn)} groups that differ most"
    title = f"{score_in_words(comparison.score)} of {names[0]} less that of {names[1]}, {shown}"
    axes.set_title(title, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(chart, f"{title}: a dot a frame, a bar the mean")


# ------------------------------------------------------------------ page


def _page(comparison: Comparison, shown: Sequence[ShownChange], reasons: Sequence[str]) -> str:
    rows = _group_rows(comparison)
    same, different = _protocols(comparison.results)
    return rendered(
        "comparison.html",
        {"figure": figure, "signed": _signed, "share": _share, "p": _p, "outcome": outcome_in_words},
        title=_listed([one.name for one in comparison.standings]),
        comparison=comparison,
        score=score_in_words(comparison.score),
        names=[one.name for one in comparison.standings],
        verdicts=list(zip(comparison.pairs, comparison.verdicts, strict=True)),
        figures=_figures(comparison, rows),
        group_rows=rows,
        several=any(one.spread for one in comparison.standings),
        left_out=any(pair.paired.first_only + pair.paired.second_only for pair in comparison.pairs),
        shown=shown,
        reasons=reasons,
        same=same,
        different=different,
        frames=comparison.frames[:ROWS_SHOWN],
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _figures(comparison: Comparison, rows: Sequence[GroupRow]) -> list[str]:
    drawable = [pair for pair in comparison.pairs if pair.paired.difference.n]
    if not drawable:
        return []
    if len(comparison.standings) == 2:
        return [scatter_svg(comparison, 0, 1), *([by_group_svg(comparison, rows)] if rows else [])]
    places = {one.name: place for place, one in enumerate(comparison.standings)}
    scatters = [scatter_svg(comparison, places[pair.first], places[pair.second]) for pair in drawable]
    return [forest_svg(comparison), *(scatters if len(drawable) <= SCATTERS else [])]


def _group_rows(comparison: Comparison) -> list[GroupRow]:
    """Means by group over the frames defined in all results, most changed first; none where they say nothing new."""
    members: dict[str, list[tuple[float, ...]]] = {}
    for frame in comparison.frames:
        if not math.isnan(frame.change):
            members.setdefault(frame.group, []).append(frame.scores)
    if not 1 < len(members) < sum(map(len, members.values())):
        return []
    rows = [GroupRow(name, len(own), tuple(map(float, np.mean(own, axis=0)))) for name, own in members.items()]
    return sorted(rows, key=lambda row: (-row.change, row.name))


def _protocols(results: Iterable[Result]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """How the results came about: what is the same in all, and what differs, one value a result (of its first run)."""
    told = [dict(result.runs[0].told.get("protocol") or {}) for result in results]
    keys = dict.fromkeys(key for one in told for key in one)
    same = {key: told[0][key] for key in keys if all(one.get(key) == told[0].get(key) for one in told)}
    return same, {key: [one.get(key, UNDEFINED) for one in told] for key in keys if key not in same}


def _signed(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _share(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.1%}"


def _p(value: float) -> str:
    return UNDEFINED if math.isnan(value) else p_in_words(value).removeprefix("p = ").removeprefix("p ")
