"""Records that show the same picture, or nearly, in one source or in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trocar.data.checks.duplicates import clusters, near_pairs
from trocar.data.checks.facts import Facts
from trocar.data.checks.findings import At, Finding
from trocar.data.checks.picture import BLANK
from trocar.data.records import Record, Source
from trocar.plain import some


@dataclass(frozen=True)
class Duplicates:
    """What comparing all records gave."""

    findings: list[Finding]
    near_in_groups: list[int]  # of each source: records with a near-duplicate in their own group


def duplicates(
    sources: Sequence[Source], facts: Sequence[Facts], digests: Callable[[Sequence[int]], list[str]]
) -> Duplicates:
    """Sets of records that are the same, or nearly. `digests` reads images whole: only what looks equal is."""
    places = [(number, record) for number, source in enumerate(sources) for record in source.records]
    groups = [(number, record.group) for number, record in places]
    seen = [i for i, fact in enumerate(facts) if fact.picture]
    shots = [shot for i in seen if (shot := facts[i].picture)]
    hashes = np.array([shot.hash for shot in shots], dtype=np.uint64)
    thumbs = np.frombuffer(b"".join(shot.thumbnail for shot in shots), np.uint8).reshape(-1, 256)
    near = np.array(seen, dtype=np.int64)[near_pairs(hashes, thumbs)].reshape(-1, 2)
    same = _equal_pictures(facts, near, seen, digests)
    findings = [_same(places, members) for members in same]
    copies = {member: members[0] for members in same for member in members}
    apart = [(i, j) for i, j in near.tolist() if groups[i] != groups[j] and copies.get(i, i) != copies.get(j, j)]
    findings += [_nearly_same(places, members) for members in clusters(len(places), apart)]
    inside = {i for pair in near.tolist() if groups[pair[0]] == groups[pair[1]] for i in pair}
    counts = Counter(places[i][0] for i in inside)
    return Duplicates(findings, [counts[number] for number in range(len(sources))])


def _equal_pictures(
    facts: Sequence[Facts],
    near: NDArray[np.int64],
    seen: Sequence[int],
    digests: Callable[[Sequence[int]], list[str]],
) -> list[list[int]]:
    """Sets of records equal to the pixel. Only records of one size whose thumbnails hardly differ are read for it."""
    linked = [(i, j) for i, j in near.tolist() if facts[i].size == facts[j].size and _hardly_differ(facts[i], facts[j])]
    blank: dict[object, int] = {}
    for i in seen:  # even pictures are in no near pair
        shot = facts[i].picture
        if shot and shot.deviation < BLANK:
            first = blank.setdefault((facts[i].size, shot.thumbnail), i)
            linked += [(first, i)] if first != i else []
    positions = sorted({i for pair in linked for i in pair})
    by_digest: dict[str, list[int]] = {}
    for i, digest in zip(positions, digests(positions), strict=True):
        by_digest.setdefault(digest, []).append(i)
    return sorted((members for members in by_digest.values() if len(members) > 1), key=lambda members: members[0])


def _hardly_differ(one: Facts, other: Facts) -> bool:
    """Whether two thumbnails can be of one picture, decoded at two sizes."""
    if one.picture is None or other.picture is None:
        return False
    a, b = (np.frombuffer(fact.picture.thumbnail, np.uint8).astype(np.int16) for fact in (one, other) if fact.picture)
    return bool(np.abs(a - b).max() <= 4)


def _same(places: Sequence[tuple[int, Record]], members: Sequence[int]) -> Finding:
    groups = {(places[i][0], places[i][1].group) for i in members}
    if len(groups) > 1:
        what = f"{len(members)} records of {len(groups)} groups have the same image"
        mend = "a split by group may put it on two sides: keep one, and list the others under data.exclude"
    else:
        what = f"{len(members)} records of one group have the same image"
        mend = "it counts several times in training and scores: keep one, unless that is meant"
    return _of_several("duplicate", places, members, what, mend)


def _nearly_same(places: Sequence[tuple[int, Record]], members: Sequence[int]) -> Finding:
    groups = {(places[i][0], places[i][1].group) for i in members}
    what = f"{len(members)} records of {len(groups)} groups have nearly the same image"
    mend = "if they are of one patient or video, make them one group (one folder); if copies, keep the best"
    return _of_several("near-duplicate", places, members, what, mend)


def _of_several(
    kind: str, places: Sequence[tuple[int, Record]], members: Sequence[int], what: str, mend: str
) -> Finding:
    at = tuple(At(places[i][0], places[i][1].name) for i in members)
    where = some([place.record for place in at])
    return Finding(kind, places[members[0]][1].dataset, None, what, where, mend, at, len(members))
