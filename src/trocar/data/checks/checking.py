"""Read every record of some sources, in threads, and put together what is found."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from trocar.data.checks import rules
from trocar.data.checks.cache import Cache, key_of, open_cache
from trocar.data.checks.facts import Facts, examine, image_digest
from trocar.data.checks.findings import KINDS, CheckReport
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Record, Source

Progress = Callable[[int, int], None]  # records read, records in all

T = TypeVar("T")

_MOST_ON_A_VIDEO = 8  # threads: a video keeps its last 16 frames, and who comes later makes it begin again
_AHEAD = 16  # records begun for each thread before the first is waited for


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
        duplicates = rules.duplicates(sources, facts, lambda chosen: _digests(records, facts, chosen, cache))
    findings, summaries = [], []
    start = 0
    for number, source in enumerate(sources):
        own = facts[start : start + len(source)]
        start += len(source)
        findings += rules.of_source(number, source, own)
        summaries.append(rules.summarise(source, own, duplicates.near_in_groups[number]))
    findings += duplicates.findings
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda finding: order[finding.kind])  # stable, so in the order of records
    return CheckReport(tuple(summaries), tuple(findings), remembered)


def _all_facts(records: Sequence[Record], cache: Cache, progress: Progress | None) -> tuple[list[Facts], int]:
    """The facts of each record, and how many of them were remembered."""
    keys = [key_of(record) for record in records] if cache.keeps else [None] * len(records)
    known = [cache.facts(key) for key in keys]
    read = _in_threads(examine, [record for record, fact in zip(records, known, strict=True) if fact is None])
    facts: list[Facts] = []
    for key, fact in zip(keys, known, strict=True):
        if fact is None:
            fact = next(read)
            cache.remember(key, fact.to_json())
        facts.append(fact)
        if progress:
            progress(len(facts), len(records))
    return facts, sum(fact is not None for fact in known)


def _digests(records: Sequence[Record], facts: Sequence[Facts], positions: Sequence[int], cache: Cache) -> list[str]:
    """Digests of the images of some records; those that are not known yet are read whole for it."""
    keys = [f"{key}-digest" if cache.keeps and (key := key_of(records[i])) else None for i in positions]
    known = [facts[i].digest or cache.text(key) for i, key in zip(positions, keys, strict=True)]
    read = _in_threads(image_digest, [records[i] for i, text in zip(positions, known, strict=True) if text is None])
    digests = []
    for key, text in zip(keys, known, strict=True):
        digest = next(read) if text is None else text
        if text is None:
            cache.remember(key, digest)
        digests.append(digest)
    return digests


def _in_threads(work: Callable[[Record], T], records: Sequence[Record]) -> Iterator[T]:
    """The results in order, a bounded number of records ahead. OpenCV and Pillow decode side by side in threads."""
    threads = os.cpu_count() or 1
    if any(not path.name.lower().endswith(IMAGE_SUFFIXES) for record in records for path in record.files[:1]):
        threads = min(threads, _MOST_ON_A_VIDEO)
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="check")
    begun: deque[Future[T]] = deque()
    try:
        for record in records:
            begun.append(pool.submit(work, record))
            if len(begun) > _AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
