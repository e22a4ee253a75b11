"""Records that show nearly the same picture: made one group before a split, found across the sides of one after it.

How a picture is read and hashed, and when two are nearly the same, is the doctor's business (`checks`); what its
`trocar check` remembered is not read again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from trocar.data.checks.cache import Cache, open_cache
from trocar.data.checks.checking import _all_facts as all_facts
from trocar.data.checks.duplicates import NEAR_CORRELATION, close_pairs, clusters
from trocar.data.checks.facts import Facts
from trocar.data.records import Source
from trocar.errors import UserError, UserErrors

Progress = Callable[[int, int], None]  # records read, records in all
Positions = NDArray[np.int64]  # of records in their source

_JOINED_NAMED = 3  # a group joined of more is named by its first
_MOST_COMPARED = 256  # records of one hash: a video that stands still has thousands
_TELLING = 16  # deviation of a thumbnail, as a norm over its 256 pixels, below which it is one even grey


def read_facts(source: Source, *, progress: Progress | None = None, remember: bool = False) -> list[Facts]:
    """What the doctor keeps of each record, in their order; `remember` as in `checks.check`."""
    with open_cache() if remember else nullcontext(Cache()) as cache:
        facts, _ = all_facts(source.records, cache, progress)
    return facts


def refuse_faults(facts: Sequence[Facts]) -> None:
    """Raise `UserErrors` with all that keeps a record from being used, where there is anything."""
    errors = [UserError(fault.what, where=fault.where, mend=fault.mend) for fact in facts for fault in fact.faults]
    if errors:
        raise UserErrors(errors)


def groups_known(source: Source) -> bool:
    """Whether any group has two records. Where none has, who is whose patient is not known."""
    return len(source.groups) < len(source)


def join_groups(source: Source, facts: Sequence[Facts]) -> tuple[Source, tuple[str, ...]]:
    """The source with groups that share nearly the same image made one, and what to say of it, one sentence each.

    Where no groups are known these are sets of near-duplicates. A joined group is named after its parts. Raises
    `UserError` where everything hangs together.
    """
    groups = list(source.groups)
    number = {group: place for place, group in enumerate(groups)}
    own = np.array([number[record.group] for record in source.records], dtype=np.int64)
    joined = clusters(len(groups), own[Twins(facts).across(own)])
    if len(groups) > 1 and any(len(members) == len(groups) for members in joined):
        raise UserError(
            f"near-duplicates link all {len(groups)} groups into one: nothing can be held out",
            where=str(source.root),
            mend="`trocar check` shows them: list title cards and other copies under data.exclude, or set "
            "split.join_near_duplicates=false",
        )
    name_of = {groups[i]: _joined_name([groups[i] for i in members]) for members in joined for i in members}
    records = tuple(dataclasses.replace(r, group=name_of.get(r.group, r.group)) for r in source.records)
    # what a reader says of unknown patients holds of its records alone, not of the sets they were joined to
    notes = tuple(note for note in source.notes if "patients are not" not in note)
    return dataclasses.replace(source, records=records, notes=notes), tuple(_notes(source, groups, joined))


def _joined_name(names: Sequence[str]) -> str:
    return "+".join(names) if len(names) <= _JOINED_NAMED else f"{names[0]}+{len(names) - 1}"


def _notes(source: Source, groups: Sequence[str], joined: Sequence[Sequence[int]]) -> list[str]:
    if not groups_known(source):
        together = sum(len(members) for members in joined)
        return [
            "patients are not known, so one may be on two sides; groups are the images themselves, and "
            f"{together} near-duplicates in {len(joined)} sets: each set is on one side"
        ]
    if not joined:
        return ["no near-duplicates stand in different groups"]
    return [
        f"{len(members)} groups hold near-duplicates of each other and count as one: "
        + ", ".join(groups[i] for i in members[:10])
        + (" and more" if len(members) > 10 else "")
        for members in joined
    ]


class Twins:
    """Nearly the same pictures among records of a source, found by groups or by sides. Made once for a source."""

    def __init__(self, facts: Sequence[Facts]) -> None:
        shots = [(place, fact.picture) for place, fact in enumerate(facts) if fact.picture]
        seen = np.array([place for place, _ in shots], dtype=np.int64)
        hashes = np.array([shot.hash for _, shot in shots], dtype=np.uint64)
        thumbs = np.frombuffer(b"".join(shot.thumbnail for _, shot in shots), np.uint8).reshape(-1, 256)
        thumbs = thumbs.astype(np.float32) - thumbs.mean(axis=1, keepdims=True, dtype=np.float32)
        norms = np.linalg.norm(thumbs, axis=1)
        self._thumbs = np.zeros((len(facts), 256), np.float32)
        self._thumbs[seen] = thumbs / np.maximum(norms, 1)[:, None]
        telling = norms > _TELLING
        unique, inverse = np.unique(hashes[telling], return_inverse=True)
        self._hash = np.full(len(facts), -1, np.int64)  # place of each record's hash among the unique ones
        self._hash[seen[telling]] = inverse
        self._unique = len(unique)
        self._pairs = close_pairs(unique)

    def across(self, groups: Positions) -> Positions:
        """Pairs of records of different groups that are nearly the same. Shapes: (N,) group of each -> (P, 2)."""
        members, starts = self._by_hash(np.arange(len(groups)))
        own = np.stack([np.arange(self._unique)] * 2, axis=1)
        found = []
        for one, other in np.concatenate([own, self._pairs, self._pairs[:, ::-1]]):
            rows = members[starts[one] : starts[one + 1]]
            columns = members[starts[other] : starts[other + 1]][:_MOST_COMPARED]
            apart = groups[rows][:, None] != groups[columns]
            if apart.any():
                alike = apart & (self._thumbs[rows] @ self._thumbs[columns].T >= NEAR_CORRELATION)
                i, j = np.nonzero(alike)
                found.append(np.stack([rows[i], columns[j]], axis=1))
        return np.concatenate(found) if found else np.empty((0, 2), np.int64)

    def nearest(self, of: Sequence[int], among: Sequence[int]) -> list[tuple[int, int, float]]:
        """For each record of `of` that has one, its twin in `among` and how alike they are; most alike first."""
        members, starts = self._by_hash(np.array(among, dtype=np.int64))
        close, reach = self._close_hashes()
        found = []
        for place in of:
            if (own := self._hash[place]) < 0:
                continue
            near = close[reach[own] : reach[own + 1]]
            near = near[starts[near] < starts[near + 1]]
            if not len(near):
                continue
            others = np.concatenate([members[starts[h] : min(starts[h + 1], starts[h] + _MOST_COMPARED)] for h in near])
            alike = self._thumbs[others] @ self._thumbs[place]
            best = int(np.argmax(alike))
            if alike[best] >= NEAR_CORRELATION:
                found.append((place, int(others[best]), float(alike[best])))
        return sorted(found, key=lambda row: -row[2])

    def _by_hash(self, records: Positions) -> tuple[Positions, Positions]:
        """Records in the order of their hashes, and where each hash begins; those without a hash are left out."""
        known = records[self._hash[records] >= 0]
        known = known[np.argsort(self._hash[known], kind="stable")]
        return known, np.searchsorted(self._hash[known], np.arange(self._unique + 1)).astype(np.int64)

    def _close_hashes(self) -> tuple[Positions, Positions]:
        """Close hashes of each hash, itself among them, one hash after the other, and where those of each begin."""
        own = np.stack([np.arange(self._unique)] * 2, axis=1)
        links = np.concatenate([own, self._pairs, self._pairs[:, ::-1]])
        links = links[np.argsort(links[:, 0], kind="stable")]
        return links[:, 1], np.searchsorted(links[:, 0], np.arange(self._unique + 1)).astype(np.int64)
