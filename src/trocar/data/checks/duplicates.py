"""Records that show the same picture: close perceptual hashes first, then the pixels.

The hash is that of `picture`: 64 bits of the lowest frequencies. JPEG at quality 60, half the size, noise of 8 grey
levels and 30 % more or less light change at most 6 of them in nearly every frame (docs/doctor.md has the figures).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR_BITS = 6  # bits of 64 in which two near-identical pictures differ at most
NEAR_CORRELATION = 0.9  # of their 16x16 thumbnails, at least
FAINT = 1.0  # deviation of a thumbnail, in grey levels, up to which it shows nothing one could know a frame by

_CHUNK = 1 << 20  # candidate pairs whose hashes are compared at once
_ROWS = 1 << 14  # thumbnails compared at once
Indices = NDArray[np.int64]


def close_pairs(hashes: NDArray[np.uint64], distance: int = NEAR_BITS) -> Indices:
    """All pairs of different hashes that differ in at most `distance` bits, as indices i < j; none is missed.

    The 64 bits are cut into bands. Two hashes within the distance differ in at most so many bands, so they agree in
    all others: sorting by every choice of those brings each pair together. How many bands there are follows from the
    number of hashes: many bands make few chance neighbours, few bands make few sortings.

    `hashes` must be free of equal ones: `near_pairs` sees to that. Shapes: (N,) -> (P, 2), sorted.
    """
    if len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    found = [
        pairs
        for mask in _masks(len(hashes), distance)
        for pairs in _neighbours(hashes, mask)
        for pairs in [pairs[np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= distance]]
        if len(pairs)
    ]
    if not found:
        return np.empty((0, 2), np.int64)
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.asarray(np.unique(pairs, axis=0), dtype=np.int64)


def _masks(count: int, distance: int) -> list[np.uint64]:
    """Every choice of bands in which a close pair may agree, as bits of the hash."""
    choices = range(distance + 1, min(distance + 5, 64))
    bands = min(choices, key=lambda number: _work(count, distance, number))
    edges = np.linspace(0, 64, bands + 1).round().astype(int).tolist()
    bits = [((1 << (end - start)) - 1) << start for start, end in itertools.pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in itertools.combinations(bits, bands - distance)]


def _work(count: int, distance: int, bands: int) -> float:
    """About how long the search takes, in comparisons: sorting, and chance neighbours of drawn hashes."""
    chance = count * (count - 1) / 2 / 2 ** (64 * (bands - distance) / bands)
    return math.comb(bands, distance) * (count * (8 + math.log2(count)) + 3 * chance)


def _neighbours(hashes: NDArray[np.uint64], mask: np.uint64) -> Iterator[Indices]:
    """Pairs of hashes that agree in the bits of `mask`, some at a time."""
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    places = np.arange(len(keys) - 1)  # of the first of a pair; its partner stands `offset` later
    for offset in itertools.count(1):
        places = places[places + offset < len(keys)]
        places = places[keys[places] == keys[places + offset]]  # runs are whole, so a miss is a miss for good
        if not len(places):
            return
        for start in range(0, len(places), _CHUNK):
            some = places[start : start + _CHUNK]
            yield np.stack([order[some], order[some + offset]], axis=1)


def near_pairs(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> Indices:
    """Pairs of pictures that are nearly the same, as indices i < j.

    Of pictures with equal hashes each is compared with the first only, so that a video that stands still does not
    give every pair of its frames. Pictures of one even grey have no hash worth the name and are in no pair.

    Shapes: hashes (N,), thumbnails (N, 256) -> (P, 2).
    """
    telling = np.flatnonzero(_deviations(thumbnails) > FAINT)
    if len(telling) < 2:
        return np.empty((0, 2), np.int64)
    unique, first, inverse = np.unique(hashes[telling], return_index=True, return_inverse=True)
    leaders = telling[first]
    others = np.stack([leaders[inverse], telling], axis=1)
    pairs = np.concatenate([leaders[close_pairs(unique)], others[others[:, 0] != others[:, 1]]])
    alike = [_correlations(thumbnails, some) >= NEAR_CORRELATION for some in _in_parts(pairs)]
    return np.sort(pairs[np.concatenate(alike)], axis=1) if alike else pairs


def _deviations(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Standard deviation of each thumbnail, in grey levels."""
    parts = [some.std(axis=1) for some in _in_parts(thumbnails)]
    return np.concatenate(parts) if parts else np.empty(0)


def _correlations(thumbnails: NDArray[np.uint8], pairs: Indices) -> NDArray[np.float32]:
    """Correlation of the thumbnails of each pair."""
    one, other = (thumbnails[pairs[:, side]].astype(np.float32) for side in (0, 1))
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.einsum("ij,ij->i", one, other) / norms, dtype=np.float32)


def _in_parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Some rows at a time, so that no copy of all of them is made in another type."""
    for start in range(0, len(array), _ROWS):
        yield array[start : start + _ROWS]


def clusters(count: int, pairs: Indices | Sequence[tuple[int, int]]) -> list[list[int]]:
    """What hangs together by pairs, each in ascending order and of two or more; in order of their first."""
    links = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if not len(links):
        return []
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    linked = np.unique(links)
    members: dict[int, list[int]] = {}
    for index in linked.tolist():
        members.setdefault(int(labels[index]), []).append(index)
    return list(members.values())
