"""Read every record of some sources once and say everything that is wrong with them, all at once.

An `error` keeps a record from being used: training would stop at it. A `warning` is for a person to judge, such as
one image under two names. Frames without any instrument are counted; they are no fault.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trocar.data.records import IGNORE, ImageArray, MaskArray, Record, Source
from trocar.errors import UserError, UserErrors

Severity = Literal["error", "warning"]
Progress = Callable[[int, int], None]  # records read, records in all


@dataclass(frozen=True)
class Finding:
    """One fault: how grave, in which data, of which record (None: of several, or of the whole), and how to mend it."""

    severity: Severity
    dataset: str
    record: str | None
    what: str
    where: str | None = None
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.severity}: {UserError(self.what, where=self.where, mend=self.mend)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(vars(self))


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
    ignored_share: float  # of all pixels; NaN where nothing was read
    empty_masks: int  # records whose mask is all background (or ignored)
    official: dict[str, int]  # side -> records on the official list
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN becomes None."""
        tree = dict(vars(self))
        tree["class_shares"] = {name: _none_if_nan(share) for name, share in self.class_shares.items()}
        tree["ignored_share"] = _none_if_nan(self.ignored_share)
        return tree | {"classes": list(self.classes), "notes": list(self.notes)}


@dataclass(frozen=True)
class CheckReport:
    """Summaries of the sources and everything found wrong in them, errors first."""

    sources: tuple[SourceSummary, ...]
    findings: tuple[Finding, ...]

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

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "sources": [source.to_dict() for source in self.sources],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check(sources: Sequence[Source], *, progress: Progress | None = None) -> CheckReport:
    """Read every record of every source, in threads, and report. Raises nothing for bad records: they are findings."""
    facts = _inspect_all([record for source in sources for record in source.records], progress)
    findings: list[Finding] = []
    summaries: list[SourceSummary] = []
    start = 0
    for source in sources:
        own = facts[start : start + len(source)]
        start += len(source)
        listed = [
            Finding("error", source.dataset, None, error.what, error.where, error.mend) for error in source.findings
        ]
        findings += listed + [_finding(fact.record, error) for fact in own for error in fact.errors]
        findings += _no_records(source) + _no_instrument(source, own)
        summaries.append(_summarise(source, own))
    findings += _duplicates(facts, sources)
    findings.sort(key=lambda finding: finding.severity)  # "error" < "warning"; stable, so in order of records
    return CheckReport(tuple(summaries), tuple(findings))


# ------------------------------------------------------------------ one record


@dataclass(frozen=True)
class _Facts:
    """What reading one record told, small enough to keep for every record."""

    record: Record
    errors: tuple[UserError, ...]
    size: tuple[int, int] | None = None  # (width, height) of the image
    pixels: tuple[int, ...] = ()  # of each mask value 0..255; empty where the mask is not to be used
    digest: bytes | None = None  # of the image's pixels and shape


def _inspect_all(records: list[Record], progress: Progress | None) -> list[_Facts]:
    facts: dict[int, _Facts] = {}
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="check")
    try:
        tasks = {pool.submit(_inspect, record): position for position, record in enumerate(records)}
        for done, task in enumerate(as_completed(tasks), start=1):
            facts[tasks[task]] = task.result()
            if progress:
                progress(done, len(records))
    finally:
        pool.shutdown(cancel_futures=True)
    return [facts[position] for position in range(len(records))]


def _inspect(record: Record) -> _Facts:
    """Read all of a record, so that a bad mask is told beside a bad image."""
    errors: list[UserError] = []
    image, mask = _try(record.image, errors), _try(record.mask, errors)
    instances = _try(record.instances, errors) if record.instances else None
    if image is not None and mask is not None:
        errors += _size_errors(record, image, mask, instances)
    return _Facts(
        record=record,
        errors=tuple(errors),
        size=(image.shape[1], image.shape[0]) if image is not None else None,
        pixels=tuple(np.bincount(mask.ravel(), minlength=256).tolist()) if mask is not None and not errors else (),
        digest=_digest(image) if image is not None else None,
    )


def _try(read: Callable[[], ImageArray], errors: list[UserError]) -> ImageArray | None:
    try:
        return read()
    except UserErrors as several:
        errors += several.errors
    except UserError as error:
        errors.append(error)
    return None


def _size_errors(
    record: Record, image: ImageArray, mask: MaskArray, instances: MaskArray | None
) -> Iterable[UserError]:
    where = f"record {record.name}, {', '.join(str(path) for path in record.files)}"
    for name, array in (("mask", mask), ("instance mask", instances)):
        if array is not None and array.shape != image.shape[:2]:
            yield UserError(
                f"{name} is {array.shape[1]}x{array.shape[0]} but its image is {image.shape[1]}x{image.shape[0]}",
                where=where,
                mend=f"re-export that mask at the image's size, or list {record.name} under data.exclude in the recipe",
            )


def _digest(image: ImageArray) -> bytes:
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()


# ------------------------------------------------------------------ one source


def _summarise(source: Source, facts: Sequence[_Facts]) -> SourceSummary:
    usable = [fact for fact in facts if fact.pixels]
    counts = np.array([fact.pixels for fact in usable], dtype=np.int64).reshape(-1, 256)
    total, ignored = int(counts.sum()), int(counts[:, IGNORE].sum())
    labelled = total - ignored
    sizes = Counter(f"{fact.size[0]}x{fact.size[1]}" for fact in facts if fact.size)
    return SourceSummary(
        dataset=source.dataset,
        root=str(source.root),
        classes=source.classes,
        mask_encoding=source.mask_encoding,
        records=len(source),
        read=len(usable),
        groups={group: len(records) for group, records in source.groups.items()},
        sizes=dict(sizes.most_common()),
        class_shares={name: _share(int(counts[:, i].sum()), labelled) for i, name in enumerate(source.classes)},
        ignored_share=_share(ignored, total),
        empty_masks=sum(_is_empty(fact) for fact in usable),
        official={side: len(names) for side, names in (source.official or {}).items()},
        notes=source.notes,
    )


def _is_empty(fact: _Facts) -> bool:
    return not any(fact.pixels[1:IGNORE])


def _no_records(source: Source) -> list[Finding]:
    if source.records:
        return []
    what = "no record is left to use" if source.findings else "there is no record"
    return [Finding("error", source.dataset, None, what, str(source.root), "mend the findings above, or the path")]


def _no_instrument(source: Source, facts: Sequence[_Facts]) -> list[Finding]:
    usable = [fact for fact in facts if fact.pixels]
    if not usable or not all(_is_empty(fact) for fact in usable):
        return []
    what = f"none of the {len(usable)} masks shows an instrument"
    mend = "nothing can be learnt or scored from background alone: check that the masks were exported"
    return [Finding("warning", source.dataset, None, what, str(source.root), mend)]


def _finding(record: Record, error: UserError) -> Finding:
    where = error.where or f"record {record.name}"
    if record.name not in where:
        where = f"record {record.name}, {where}"
    return Finding("error", record.dataset, record.name, error.what, where, error.mend)


# ------------------------------------------------------------------ all sources


def _duplicates(facts: Sequence[_Facts], sources: Sequence[Source]) -> list[Finding]:
    """A warning for each set of records whose images are equal to the pixel."""
    owners = [number for number, source in enumerate(sources) for _ in source.records]
    same: dict[bytes, list[tuple[int, Record]]] = {}
    for owner, fact in zip(owners, facts, strict=True):
        if fact.digest:
            same.setdefault(fact.digest, []).append((owner, fact.record))
    return [_duplicate(copies) for copies in same.values() if len(copies) > 1]


def _duplicate(copies: list[tuple[int, Record]]) -> Finding:
    groups = list(dict.fromkeys((owner, record.group) for owner, record in copies))
    names = [record.name for _, record in copies]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    if len(groups) > 1:
        what = f"{len(names)} records of {len(groups)} groups have the same image"
        mend = "a split by group may put it on two sides: keep one, and list the others under data.exclude"
    else:
        what = f"{len(names)} records of one group have the same image"
        mend = "it counts several times in training and scores: keep one, unless that is meant"
    return Finding("warning", copies[0][1].dataset, None, what, shown, mend)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _none_if_nan(number: float) -> float | None:
    return None if np.isnan(number) else number
