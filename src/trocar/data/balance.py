"""Groups dealt to sides so that each side gets its share of records, of foreground and of every class.

Whole groups cannot be divided, so shares are met as well as they allow: each group goes where it helps most, then
single groups move and pairs change places as long as that helps. Stratified k-fold by groups, as scikit-learn's
StratifiedGroupKFold has it, deals once and does not mend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trocar.data.records import Record, Source

if TYPE_CHECKING:
    from trocar.data.checks.facts import Facts

Amounts = NDArray[np.float64]  # (groups, columns)

_PASSES = 20  # over all groups, mending
_MOST_EXCHANGED = 1000  # of more groups, single ones move but none change places: chance evens them out


def worth_of(source: Source, facts: Sequence[Facts]) -> dict[str, Amounts]:
    """Of each record, by name, what its side gets with it: 1, its foreground share, its kind, the classes it shows.

    The kind is one of five, as 0 or 1 each: no foreground, and the quarters of the others by foreground share.
    """
    shares = np.nan_to_num(np.array([fact.foreground for fact in facts]))
    quarters = np.quantile(shares[shares > 0], (0.25, 0.5, 0.75)) if (shares > 0).any() else np.zeros(3)
    kinds = np.where(shares > 0, 1 + np.searchsorted(quarters, shares, side="left"), 0)
    classes = range(1, len(source.classes)) if len(source.classes) > 2 else ()
    shown = np.array([[index in fact.pixels for index in classes] for fact in facts], dtype=np.float64)
    columns = np.concatenate([np.ones((len(facts), 1)), shares[:, None], np.eye(5)[kinds], shown], axis=1)
    return {record.name: row for record, row in zip(source.records, columns, strict=True)}


def deal_groups(
    groups: Mapping[str, Sequence[Record]],
    shares: Sequence[float],
    seed: int,
    worth: Mapping[str, Amounts] | None = None,
) -> list[set[str]]:
    """Names of the groups of each side, none of them empty; without `worth` the number of records alone is balanced.

    There must be at least as many groups as sides. `shares` add up to 1; a side of share 0 gets one group.
    """
    names = sorted(groups)
    amounts = np.array(
        [
            sum((worth[record.name] for record in groups[name]), np.zeros(1)) if worth else [len(groups[name])]
            for name in names
        ],
        dtype=np.float64,
    )
    sides = deal(amounts, np.array(shares, dtype=np.float64), seed)
    return [{name for name, side in zip(names, sides, strict=True) if side == wanted} for wanted in range(len(shares))]


def deal(amounts: Amounts, shares: Amounts, seed: int) -> NDArray[np.int64]:
    """The side of each group. The first column, the records, counts as much as all others together.

    Shapes: amounts (groups, columns), shares (sides,) -> (groups,).
    """
    assert len(amounts) >= len(shares), "fewer groups than sides"
    shares = np.maximum(shares, 1e-6)
    amounts = amounts[:, amounts.sum(axis=0) > 0]
    weights = np.ones(amounts.shape[1])
    weights[0] = max(1, amounts.shape[1] - 1)
    # scaled so that a side's misfit is the squared distance of what it holds from its share of each column
    parts = amounts / amounts.sum(axis=0) * np.sqrt(weights)
    wanted = shares[:, None] * np.sqrt(weights)
    order = np.random.default_rng(seed).permutation(len(parts))
    sides = _place(parts, wanted, shares, order)
    _mend(parts, wanted, shares, order, sides)
    return sides


def _place(parts: Amounts, wanted: Amounts, shares: Amounts, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each group in turn where it lowers the misfit most; the last ones fill sides that are still empty."""
    sides = np.zeros(len(parts), np.int64)
    held, counts = np.zeros_like(wanted), np.zeros(len(shares), np.int64)
    for place, group in enumerate(order):
        part = parts[group]
        cost = (2 * (held - wanted) * part + part**2).sum(axis=1) / shares
        empty = counts == 0
        if empty.sum() == len(order) - place:
            cost[~empty] = np.inf
        side = int(np.argmin(cost))
        sides[group] = side
        held[side] += part
        counts[side] += 1
    return sides


def _mend(parts: Amounts, wanted: Amounts, shares: Amounts, order: NDArray[np.int64], sides: NDArray[np.int64]) -> None:
    """Exchange groups of two sides, or move single ones, while that lowers the misfit; changes `sides`."""
    number = len(shares)
    nothing = np.zeros((number, parts.shape[1]))  # to exchange a group for nothing is to move it
    pool = np.concatenate([nothing, parts]) if len(parts) <= _MOST_EXCHANGED else nothing
    excess = np.stack([parts[sides == side].sum(axis=0) for side in range(number)]) - wanted
    counts = np.bincount(sides, minlength=number)
    for _ in range(_PASSES):
        mended = False
        for group in order:
            here = sides[group]
            there = np.concatenate([np.arange(number), sides])[: len(pool)]
            gain = pool - parts[group]  # of this side; the other loses it
            squares = (gain**2).sum(axis=1)
            cost = (2 * gain @ excess[here] + squares) / shares[here]
            cost += (squares - 2 * (gain * excess[there]).sum(axis=1)) / shares[there]
            cost[there == here] = np.inf
            if counts[here] == 1:
                cost[:number] = np.inf
            best = int(np.argmin(cost))
            if cost[best] > -1e-12:
                continue
            other = there[best]
            excess[here] += gain[best]
            excess[other] -= gain[best]
            sides[group] = other
            if best >= number:
                sides[best - number] = here
            else:
                counts[here] -= 1
                counts[other] += 1
            mended = True
        if not mended:
            return
