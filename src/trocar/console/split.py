"""How `trocar split` speaks on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from trocar.console import out, tell
from trocar.data.leakage import WORDS, Audit
from trocar.data.records import SIDES
from trocar.data.splits import Split

FOLDS_SHOWN = 20
TWINS_SHOWN = 5  # of each pair of sides


def show_split(split: Split, path: Path) -> None:
    """Counts of each fold, what the split declares, what a user should know, the place of the file."""
    group_of = {name: group for group, names in split.groups.items() for name in names}
    table = Table(box=None, pad_edge=False)
    table.add_column("fold", overflow="fold")
    for side in SIDES:
        table.add_column(WORDS[side], justify="right")
    for name, fold in list(split.folds.items())[:FOLDS_SHOWN]:
        sides = [fold.side(side) for side in SIDES]
        cells = [f"{len(names)} ({len({group_of[record] for record in names})} groups)" for names in sides]
        table.add_row(name, *cells)
    out.print(table)
    if len(split.folds) > FOLDS_SHOWN:
        out.print(f"and {len(split.folds) - FOLDS_SHOWN} more folds")
    for what, text in (("cuts groups", split.cut_groups), ("leaks", split.shared_records)):
        if text is not None:
            tell(f"warning: {what}: {text}")
    for note in split.notes:
        tell(f"note: {note}")
    tell(f"split: {path}")


def show_audit(audit: Audit, page: Path | None) -> None:
    """Verdict, what stands on two sides, the clearest near-duplicates, notes, the place of the page."""
    tell(audit.verdict)
    table = Table(box=None, pad_edge=False)
    table.add_column("fold", overflow="fold")
    for column in ("judged", "against"):
        table.add_column(column, no_wrap=True)
    for column in ("images", "same", "near", "of a group there"):
        table.add_column(column, justify="right", no_wrap=True)
    for crossing in audit.crossings[: 3 * FOLDS_SHOWN]:
        counts = [str(count) for count in (len(crossing.shared), len(crossing.twins), crossing.of_groups)]
        sides = (WORDS[crossing.judged], WORDS[crossing.seen])
        table.add_row(crossing.fold, *sides, str(crossing.frames), *counts)
    out.print(table)
    if len(audit.crossings) > 3 * FOLDS_SHOWN:
        out.print(f"and {len(audit.crossings) - 3 * FOLDS_SHOWN} more rows: --json lists all")
    for sentence in audit.findings:
        tell(f"leak: {sentence}")
    for crossing in audit.leaks:
        for twin in crossing.twins[:TWINS_SHOWN]:
            text = f"  {WORDS[crossing.judged]} {twin.judged} is nearly {WORDS[crossing.seen]} {twin.seen}"
            tell(text)
    for note in audit.notes:
        tell(f"note: {note}")
    if page is not None:
        tell(f"page: {page}")
