"""Read every record of some sources, in threads, and put together what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from trocar.data.checks.cache import Cache, key_of, open_cache
from trocar.data.checks.copies import duplicates
from trocar.data.checks.facts import Facts, examine, image_digest
from trocar.data.checks.findings import KINDS, CheckReport
from trocar.data.checks.rules import of_source
from trocar.data.checks.summary import summarise
from trocar.data.records import Record, Source
from trocar.data.threads import in_batches, in_threads, threads_for

Progress = Callable[[int, int], None]  # records read, records in all


def check(
    sources: Sequence[Source],
    *,
    progress: Progress | None = None,
    remember: bool = False,
    cache_folder: Path | None = None,
) -> CheckReport:
    """Read every record of every source and report. Raises nothing for bad records: they are findings.

    With `remember`, what an earlier check found out of files that have not changed since is taken from a cache in
    `cache_folder` (by default the user's), and what is new goes there.
    """
    records = [record for source in sources for record in source.records]
    with open_cache(cache_folder) if remember else nullcontext(Cache()) as cache:
        facts, remembered = _all_facts(records, cache, progress)
        copies = duplicates(sources, facts, lambda chosen: _digests(records, facts, chosen, cache))
    findings, summaries = [], []
    start = 0
    for number, source in enumerate(sources):
        own = facts[start : start + len(source)]
        start += len(source)
        findings += of_source(number, source, own)
        summaries.append(summarise(source, own, copies.near_in_groups[number]))
    findings += copies.findings
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda finding: order[finding.kind])  # stable, so in the order of records
    return CheckReport(tuple(summaries), tuple(findings), remembered)


def _all_facts(records: Sequence[Record], cache: Cache, progress: Progress | None) -> tuple[list[Facts], int]:
    """The facts of each record, and how many of them were remembered."""
    keys = [key_of(record) for record in records] if cache.keeps else [None] * len(records)
    known = [cache.facts(key) for key in keys]
    left = [record for record, fact in zip(records, known, strict=True) if fact is None]
    read = chain.from_iterable(in_threads(examine, in_batches(left), threads_for(left)))
    facts: list[Facts] = []
    for key, fact in zip(keys, known, strict=True):
        if fact is None:
            fact = next(read)
            if key is not None:
                cache.remember(key, fact.to_json())
        facts.append(fact)
        if progress:
            progress(len(facts), len(records))
    return facts, sum(fact is not None for fact in known)


def _digests(records: Sequence[Record], facts: Sequence[Facts], positions: Sequence[int], cache: Cache) -> list[str]:
    """Digests of the images of some records; those that are not known yet are read whole for it."""
    keys = [f"{key}-digest" if cache.keeps and (key := key_of(records[i])) else None for i in positions]
    known = [facts[i].digest or cache.text(key) for i, key in zip(positions, keys, strict=True)]
    left = [records[i] for i, text in zip(positions, known, strict=True) if text is None]
    read = in_threads(image_digest, left, threads_for(left))
    digests = []
    for key, text in zip(keys, known, strict=True):
        digest = next(read) if text is None else text
        if text is None:
            cache.remember(key, digest)
        digests.append(digest)
    return digests
