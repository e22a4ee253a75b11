"""The page of a check: one HTML file that needs nothing else, and all findings as JSON.

What was found comes first, errors before warnings, the clearest cases of each kind with pictures; then what each source
holds. Nothing is listed without what it means and how to mend it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trocar.data.checks import KINDS, CheckReport, Finding
from trocar.data.checks.findings import Histogram, Kind, SourceSummary
from trocar.data.files import atomic_write_text
from trocar.data.records import Source
from trocar.plain import evenly, many
from trocar.reporting.doctor_pictures import Suspect, heat_map, suspect, thumbnail
from trocar.reporting.figures import BAR_COLOUR, as_svg
from trocar.reporting.pages import rendered, write_json
from trocar.reporting.words import share

SUSPECTS_SHOWN = 6  # of each kind, with pictures
ROWS_SHOWN = 200  # of each kind, in words; check.json has all
GROUPS_SHOWN, FRAMES_SHOWN = 12, 6  # of the contact sheet


@dataclass(frozen=True)
class KindShown:
    """One kind of finding as the page shows it."""

    name: str
    kind: Kind
    findings: list[Finding]
    suspects: list[Suspect]

    @property
    def records(self) -> int:
        """How many records are concerned."""
        return len({place for finding in self.findings for place in finding.at})


@dataclass(frozen=True)
class SourceShown:
    """One source as the page shows it."""

    summary: SourceSummary
    histograms: list[str]  # SVG
    heat: str | None  # data URI
    heat_most: float
    groups: list[tuple[str, int]]  # largest first
    sizes: list[tuple[str, int]]
    sheet: list[tuple[str, list[tuple[str, str]]]]  # group -> (record, data URI)


def write_check(report: CheckReport, sources: Sequence[Source], out: Path, *, pictures: bool = True) -> Path:
    """Write check.html and check.json into `out`; returns the path of the page.

    `sources` are those the report is of: with `pictures`, some of their frames are read again and embedded, as the
    page then says. Raises `UserError` where `out` cannot be written to.
    """
    tree = {"verdict": verdict(report), **report.to_dict()}
    write_json(tree, out / "check.json")
    kinds = [_kind(name, found, sources, pictures) for name, found in report.by_kind.items()]
    shown = [_source(summary, source, pictures) for summary, source in zip(report.sources, sources, strict=True)]
    page = rendered(
        "doctor.html",
        {"share": share, "many": many},
        report=report,
        verdict=verdict(report),
        kinds=kinds,
        sources=shown,
        pictures=pictures,
        rows_shown=ROWS_SHOWN,
    )
    atomic_write_text(out / "check.html", page)
    return out / "check.html"


def verdict(report: CheckReport) -> str:
    """The result in one paragraph."""
    records = sum(source.records for source in report.sources)
    usable = sum(source.read for source in report.sources)
    if report.errors:
        first = f"{many(len(report.errors), 'error')}: mend them before training. "
    else:
        first = "No errors: every record can be used. "
    suspect_kinds = [KINDS[name].title.lower() for name in report.by_kind if KINDS[name].severity == "warning"]
    second = f"{usable} of {many(records, 'record')} could be read and fit together."
    if not suspect_kinds:
        return f"{first}{second} Nothing suspicious was found."
    return f"{first}{second} {many(len(report.warnings), 'warning')} to look at: {', '.join(suspect_kinds)}."


def _kind(name: str, found: list[Finding], sources: Sequence[Source], pictures: bool) -> KindShown:
    worst = sorted(found, key=lambda finding: -finding.score)[:SUSPECTS_SHOWN]
    drawn = [suspect(finding, sources) for finding in worst] if pictures else []
    return KindShown(name, KINDS[name], found, [one for one in drawn if one.panels])


def _source(summary: SourceSummary, source: Source, pictures: bool) -> SourceShown:
    most = max((max(row) for row in summary.heat), default=0.0)
    return SourceShown(
        summary=summary,
        histograms=[_histogram_svg(histogram) for histogram in summary.histograms if sum(histogram.counts)],
        heat=heat_map(summary.heat) if most > 0 else None,
        heat_most=most,
        groups=_largest(summary.groups),
        sizes=_largest(summary.sizes),
        sheet=_contact_sheet(source) if pictures else [],
    )


def _contact_sheet(source: Source) -> list[tuple[str, list[tuple[str, str]]]]:
    """Frames of each group, evenly over it; groups evenly over the source where there are many."""
    groups = list(source.groups.items())
    sheet = []
    for group, records in evenly(groups, GROUPS_SHOWN):
        drawn = [(record.name, thumbnail(record)) for record in evenly(records, FRAMES_SHOWN)]
        sheet.append((group, [(name, picture) for name, picture in drawn if picture]))
    return [(group, frames) for group, frames in sheet if frames]


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: -pair[1])


def _histogram_svg(histogram: Histogram) -> str:
    figure = Figure(figsize=(4.2, 2.6), layout="constrained")
    axes = figure.subplots()
    edges = histogram.edges
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(edges[:-1], histogram.counts, widths, align="edge", color=BAR_COLOUR, edgecolor="white", linewidth=0.4)
    axes.set(xlim=(edges[0], edges[-1]), ylabel="records", title=histogram.title.split(",")[0])
    axes.set_xlabel(histogram.title.partition(", ")[2])
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    return as_svg(figure, f"{histogram.title}: how many records, median {histogram.median:.2f}")
