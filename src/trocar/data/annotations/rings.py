"""Outlines of masks: traced along the edges of pixels, so that filling them gives the same mask again.

Coordinates count from the top left corner of the image in pixels, x to the right and y down; pixel (row r, column c)
covers c <= x <= c + 1, r <= y <= r + 1. Pixels that touch only by a corner belong to two regions. A region has one
outer ring, and one more for each hole; formats without holes get them joined to the outer ring by a cut that is walked
there and back and encloses nothing, so that the even-odd rule leaves the hole out. Filling is in `raster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Ring: TypeAlias = NDArray[np.float64]  # (N, 2): x, y in pixels; closed, the first point is not repeated
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """Pixels of a mask that hang together by their sides: the outer ring, and a ring for each hole."""

    outer: Ring
    holes: tuple[Ring, ...]


# ------------------------------------------------------------------ tracing


def trace(mask: BoolArray, *, inset: float = 0.0) -> list[Region]:
    """The regions of a mask, larger ones first. Their rings have a vertex at each corner and nowhere else.

    `inset` moves the rings that far into the foreground, less than half a pixel: for programs that paint the pixels
    an outline runs over, too. Shapes: mask (H, W).
    """
    assert 0 <= inset < 0.5, inset
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    corners = _corners(mask)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    outers: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {label: [] for label in range(1, count)}
    for cycle in _cycles(corners):
        ring = corners.points[cycle] + (left, top) + inset * corners.inwards[cycle]
        x, y = corners.points[cycle[0]]  # the topmost corner of the ring, of these the leftmost
        if mask.shape[0] > y and mask.shape[1] > x and mask[y, x]:
            outers[int(labels[y, x])] = ring
        else:
            holes[int(labels[y - 1, x])].append(ring)
    sizes = np.bincount(labels.ravel(), minlength=count)
    order = sorted(outers, key=lambda label: -int(sizes[label]))
    return [Region(outers[label], tuple(holes[label])) for label in order]


@dataclass(frozen=True)
class _Corners:
    """Corners of all rings in order of rows; where two pixels touch by a corner, it is there twice."""

    points: NDArray[np.int64]  # (N, 2): x, y
    inwards: NDArray[np.int64]  # (N, 2): -1 or 1, the way into the foreground
    along: NDArray[np.int64]  # (N,) the corner at the other end of the horizontal edge
    across: NDArray[np.int64]  # (N,) the corner at the other end of the vertical edge


def _corners(mask: BoolArray) -> _Corners:
    """Corners are where a square of 2x2 pixels has one or three in the mask, or two that face each other.

    In every row of corners, from left to right, the first and second are joined by an edge, then the third and fourth,
    and so on; the same holds in every column.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    total = nw + ne + sw + se
    facing = (total == 2) & (nw == se)
    y, x = np.nonzero((total % 2 == 1) | facing)
    doubled = facing[y, x]
    east, south = (ne + se - nw - sw)[y, x], (sw + se - nw - ne)[y, x]
    first = np.stack([x, y, np.where(doubled, -1, east), np.where(doubled, np.where(nw[y, x], -1, 1), south)], axis=1)
    second = np.stack([x, y, -first[:, 2], -first[:, 3]], axis=1)[doubled]  # the copy whose edge leads to the right
    found = np.concatenate([first, second]).astype(np.int64)
    found = found[np.lexsort((found[:, 2], found[:, 0], found[:, 1]))]
    points, inwards = found[:, :2], found[:, 2:]
    by_column = np.lexsort((inwards[:, 1], points[:, 1], points[:, 0]))
    across = np.empty(len(points), dtype=np.int64)
    across[by_column] = by_column[_neighbour(len(points))]
    return _Corners(points, inwards, along=_neighbour(len(points)), across=across)


def _neighbour(count: int) -> NDArray[np.int64]:
    return np.arange(count) ^ 1


def _cycles(corners: _Corners) -> list[list[int]]:
    """Indices of the corners of each ring in the order they are walked, from its topmost, of these the leftmost."""
    along, across = corners.along.tolist(), corners.across.tolist()
    seen = bytearray(len(along))
    cycles = []
    for start in range(len(along)):
        if seen[start]:
            continue
        cycle, here = [], start
        while not seen[here]:
            there = along[here]
            seen[here] = seen[there] = 1
            cycle += [here, there]
            here = across[there]
        cycles.append(cycle)
    return cycles


# ------------------------------------------------------------------ joining


def joined(region: Region) -> Ring:
    """One ring of a region and its holes. Shapes: -> (N, 2)."""
    return join([region.outer, *region.holes])


def join(rings: Sequence[Ring]) -> Ring:
    """One ring that encloses, by the even-odd rule, what all of them enclose together.

    Each ring hangs on the first by a cut to its nearest point there, walked there and back: it encloses nothing.
    Shapes: (N_i, 2) each -> (sum N_i + 2 (rings - 1), 2).
    """
    first, others = rings[0], rings[1:]
    if not others:
        return first
    tree = cKDTree(first)
    hanging: dict[int, list[Ring]] = {}
    for ring in others:
        distances, nearest = tree.query(ring)
        here = int(np.argmin(distances))
        turned = np.roll(ring, -here, axis=0)
        hanging.setdefault(int(nearest[here]), []).append(np.concatenate([turned, turned[:1]]))
    pieces = []
    for index, point in enumerate(first):
        pieces.append(point[None])
        for excursion in hanging.get(index, []):
            pieces += [excursion, point[None]]
    return np.concatenate(pieces)
