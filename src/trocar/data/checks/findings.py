"""What a check reports: findings by record, a summary of each source, and what each kind of finding means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from trocar.errors import UserError

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """One kind of finding: how grave it is, its heading, and what it means for training and scores."""

    severity: Severity
    title: str
    meaning: str


# In the order in which they are told. `docs/doctor.md` has a section for each, with its cure.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "listing": Kind(
            "error", "Not paired", "An image without mask, a mask without image, or two files of one name."
        ),
        "unreadable": Kind("error", "Unreadable files", "Damaged, cut off, empty, or not what the ending says."),
        "size": Kind("error", "Sizes differ", "Mask and image do not cover each other pixel for pixel."),
        "orientation": Kind(
            "error", "Lying against upright", "Width and height of the mask are those of the image exchanged."
        ),
        "mask-values": Kind("error", "Unexpected mask values", "Values in the mask to which no class belongs."),
        "jpeg-mask": Kind("error", "JPEG masks", "JPEG invents values along every edge; a mask must be lossless."),
        "no-records": Kind("error", "Nothing to use", "No record is left."),
        "mirrored": Kind(
            "warning", "Perhaps mirrored", "The outline fits the edges of the image far better mirrored or turned."
        ),
        "shifted": Kind(
            "warning", "Perhaps shifted", "The outline fits far better elsewhere, or belongs to another frame."
        ),
        "specks": Kind(
            "warning", "Specks", "Tiny pieces of mask, as a slip of the brush leaves: they count as instruments."
        ),
        "holes": Kind("warning", "Holes", "Tiny gaps inside instruments, labelled background."),
        "no-instrument": Kind("warning", "No instrument at all", "Nothing can be learnt or scored."),
        "imbalance": Kind("warning", "Rare or absent classes", "Too few examples to learn, or to trust a score of."),
        "duplicate": Kind("warning", "Same image", "Equal to the pixel: it counts twice, and may stand on two sides."),
        "near-duplicate": Kind(
            "warning", "Nearly the same image", "In several groups: a split by group may put it on two sides."
        ),
        "dominant-group": Kind(
            "warning", "One group dominates", "Scores and weights are mostly of one patient or video."
        ),
        "blank": Kind("warning", "Blank frames", "One even colour: nothing is seen."),
        "dark": Kind("warning", "Too dark", "Hardly anything is lit."),
        "bright": Kind("warning", "Too bright", "A large part is blown out."),
        "blurred": Kind("warning", "Blurred", "Far less detail than the other frames."),
        "text": Kind("warning", "Burned-in text or marks", "May name a patient; a network may learn it as a clue."),
        "resolutions": Kind("warning", "Mixed resolutions", "Frames of very different sizes or shapes."),
    }
)


class At(NamedTuple):
    """A record of one of the sources that were checked."""

    source: int  # position among the sources
    record: str


@dataclass(frozen=True)
class Finding:
    """One fault: of what kind, in which data, of which record (None: of several, or of the whole), how to mend it.

    `at` names every record it concerns, worst first, with the source of each.
    """

    kind: str  # a key of KINDS
    dataset: str
    record: str | None
    what: str
    where: str | None = None
    mend: str | None = None
    at: tuple[At, ...] = ()
    score: float = 0.0  # how clear the case is, to compare findings of one kind only

    @property
    def severity(self) -> Severity:
        """`error` where training would stop at it."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        return f"{self.severity}: {UserError(self.what, where=self.where, mend=self.mend)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "severity": self.severity,
            **{name: value for name, value in vars(self).items() if name != "score"},
            "at": [{"source": place.source, "record": place.record} for place in self.at],
        }


@dataclass(frozen=True)
class Histogram:
    """How many records lie in which bin; `edges` has one number more than `counts`."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float  # of all values, NaN where there is none

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes None."""
        return {**vars(self), "median": None if math.isnan(self.median) else self.median}


@dataclass(frozen=True)
class SourceSummary:
    """What one source holds. Counts of pixels and empty masks are over the records that could be read."""

    dataset: str
    root: str
    classes: tuple[str, ...]
    mask_encoding: str
    records: int
    read: int  # records without an error
    groups: dict[str, int]  # group -> records
    sizes: dict[str, int]  # "1280x1024" (width x height) -> records, most frequent first
    class_shares: dict[str, float]  # class -> share of all pixels that are not ignored; NaN where nothing was read
    class_records: dict[str, int]  # class -> records that show it
    ignored_share: float  # of all pixels; NaN where nothing was read
    empty_masks: int  # records whose mask is all background (or ignored)
    official: dict[str, int]  # side -> records on the official list
    notes: tuple[str, ...]
    surrounds: int = 0  # records with a black surround of more than 2 % of the frame
    near_in_groups: int = 0  # records with a near-duplicate in their own group, as neighbours in a video are
    outlines: int = 0  # records whose outline was long enough for the test of shifted and mirrored masks
    histograms: tuple[Histogram, ...] = ()
    heat: tuple[tuple[float, ...], ...] = field(default=(), repr=False)  # 24x32: how often a place is instrument

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes None."""
        tree = dict(vars(self))
        tree["class_shares"] = {name: _none_if_nan(share) for name, share in self.class_shares.items()}
        tree["ignored_share"] = _none_if_nan(self.ignored_share)
        tree["histograms"] = [histogram.to_dict() for histogram in self.histograms]
        tree["heat"] = [list(row) for row in self.heat]
        return tree | {"classes": list(self.classes), "notes": list(self.notes)}


@dataclass(frozen=True)
class CheckReport:
    """Summaries of the sources and everything found wrong in them: errors first, kinds together."""

    sources: tuple[SourceSummary, ...]
    findings: tuple[Finding, ...]
    remembered: int = 0  # records whose files have not changed since an earlier check: not read again

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep records from being used."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings for a person to judge."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether every record can be used. Warnings leave it true."""
        return not self.errors

    @property
    def by_kind(self) -> dict[str, list[Finding]]:
        """Findings of each kind that there is, in the order of `KINDS`."""
        kinds: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        for finding in self.findings:
            kinds[finding.kind].append(finding)
        return {kind: findings for kind, findings in kinds.items() if findings}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "kinds": dict(Counter(finding.kind for finding in self.findings)),
            "sources": [source.to_dict() for source in self.sources],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number
