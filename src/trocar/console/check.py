"""How `trocar check` speaks on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from trocar.console import out, percent, tell
from trocar.plain import some

if TYPE_CHECKING:
    from trocar.data.checks import CheckReport

FINDINGS_SHOWN = 5  # of each kind


def show_check(report: CheckReport, page: Path | None = None) -> None:
    """A table of the sources, one of what was found, then the findings: of many of one kind the first few."""
    for source in report.sources:
        table = _facts(f"{source.dataset}, {source.root}")
        table.add_row("records", f"{source.records}, {source.read} without an error, in {len(source.groups)} groups")
        table.add_row("sizes", some([f"{size} ({count})" for size, count in source.sizes.items()]))
        table.add_row("masks", source.mask_encoding)
        table.add_row("classes", ", ".join(f"{name} {percent(source.class_shares[name])}" for name in source.classes))
        table.add_row("empty masks", f"{source.empty_masks} (no fault: they are judged on a line of their own)")
        if source.ignored_share:
            table.add_row("ignored", f"{percent(source.ignored_share)} of the pixels are labelled 255")
        if source.official:
            table.add_row("official split", ", ".join(f"{side} {count}" for side, count in source.official.items()))
        if source.surrounds:
            table.add_row("black surround", f"{source.surrounds} frames")
        if source.near_in_groups:
            text = (
                f"{source.near_in_groups} records nearly equal to another of their group, as neighbours in a video are"
            )
            table.add_row("alike", text)
        for note in source.notes:
            table.add_row("note", note)
        out.print(table)
    if report.findings:
        out.print(_table_of_kinds(report))
    for found in report.by_kind.values():
        for finding in found[:FINDINGS_SHOWN]:
            tell(str(finding))
        if len(found) > FINDINGS_SHOWN:
            more = f"  and {len(found) - FINDINGS_SHOWN} more of this kind: --json lists all, --out shows them"
            tell(more)
    if report.remembered:
        out.print(f"{report.remembered} records have not changed since they were last checked, and were not read again")
    out.print(f"errors: {len(report.errors)}, warnings: {len(report.warnings)}")
    if page is not None:
        tell(f"page: {page}")


def _table_of_kinds(report: CheckReport) -> Table:
    from trocar.data.checks import KINDS

    table = Table(box=None, pad_edge=False)
    for column in ("", "found", "records", "what it means"):
        table.add_column(column, justify="right" if column in ("found", "records") else "left")
    for name, found in report.by_kind.items():
        kind = KINDS[name]
        records = len({place for finding in found for place in finding.at})
        table.add_row(f"{kind.severity}: {kind.title}", str(len(found)), str(records or ""), kind.meaning)
    return table


def _facts(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
