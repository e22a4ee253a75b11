"""The page of an audit: one HTML file that needs nothing else, and all that was found as JSON.

What stands on two sides comes first, in words and numbers, then near-duplicates side by side, the most alike first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trocar.data.checks import At, Finding
from trocar.data.files import atomic_write_text
from trocar.data.leakage import WORDS, Audit, Crossing
from trocar.data.records import Source
from trocar.reporting.doctor_pictures import suspect
from trocar.reporting.pages import rendered, write_json
from trocar.reporting.pictures import Panel

PAIRS_SHOWN = 12  # of each pair of sides, with pictures
NAMES_SHOWN = 200  # of each list, in words; audit.json has all
CROSSINGS_SHOWN = 30  # with lists and pictures


@dataclass(frozen=True)
class CrossingShown:
    """One pair of sides as the page shows it."""

    crossing: Crossing
    title: str
    pairs: list[tuple[str, list[Panel]]]  # what is alike, and its pictures
    same: list[Panel]  # records on both sides

    @property
    def exposed(self) -> str:
        """Share of the judged images that leak in any way which a picture shows: themselves, or nearly."""
        return f"{(len(self.crossing.shared) + len(self.crossing.twins)) / self.crossing.frames:.1%}"


def write_audit(audit: Audit, source: Source, out: Path, *, pictures: bool = True) -> Path:
    """Write audit.html and audit.json into `out`; returns the path of the page.

    With `pictures`, frames that leak are read again and embedded, as the page then says. Raises `UserError` where
    `out` cannot be written to.
    """
    write_json(audit.to_dict(), out / "audit.json")
    page = rendered(
        "audit.html",
        audit=audit,
        crossings=[_shown(crossing, audit, source, pictures) for crossing in audit.leaks[:CROSSINGS_SHOWN]],
        words=WORDS,
        pictures=pictures,
        names_shown=NAMES_SHOWN,
    )
    atomic_write_text(out / "audit.html", page)
    return out / "audit.html"


def _shown(crossing: Crossing, audit: Audit, source: Source, pictures: bool) -> CrossingShown:
    title = f"{WORDS[crossing.judged].capitalize()} against {WORDS[crossing.seen]}"
    if len(audit.sides) > 1:
        title = f"Fold {crossing.fold}: {title.lower()}"
    if not pictures:
        return CrossingShown(crossing, title, [], [])
    sides = (f"{WORDS[crossing.judged]}: ", f"{WORDS[crossing.seen]}: ")
    pairs = [
        (f"{twin.judged} and {twin.seen}", _panels(source, (twin.judged, twin.seen), sides))
        for twin in crossing.twins[:PAIRS_SHOWN]
    ]
    same = [panel for name in crossing.shared[:PAIRS_SHOWN] for panel in _panels(source, [name], ["both sides: "])]
    return CrossingShown(crossing, title, [(title, panels) for title, panels in pairs if panels], same)


def _panels(source: Source, names: Sequence[str], sides: Sequence[str]) -> list[Panel]:
    """Frames side by side, each with its side, name and group; none where one of them cannot be read."""
    at = tuple(At(0, name) for name in names)
    panels = suspect(Finding("near-duplicate", source.dataset, None, "", at=at), [source]).panels
    if len(panels) != len(names):
        return []
    return [Panel(side + panel.caption, panel.picture) for side, panel in zip(sides, panels, strict=True)]
