"""What one source holds, in numbers: counts, shares, histograms, and where instruments are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from trocar.data.checks.facts import Facts
from trocar.data.checks.findings import Histogram, SourceSummary
from trocar.data.checks.masks import unpack_place
from trocar.data.checks.picture import GRID_HW
from trocar.data.records import IGNORE, Source

SURROUND = 0.02  # share of the frame from which on a black surround is counted


def summarise(source: Source, facts: Sequence[Facts], near_in_groups: int) -> SourceSummary:
    """What one source holds, in numbers."""
    usable = [fact for fact in facts if fact.usable]
    counts: Counter[int] = Counter()
    for fact in usable:
        counts.update(fact.pixels)
    total, ignored = counts.total(), counts[IGNORE]
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
        class_shares={name: _share(counts[i], total - ignored) for i, name in enumerate(source.classes)},
        class_records={name: sum(i in fact.pixels for fact in usable) for i, name in enumerate(source.classes)},
        ignored_share=_share(ignored, total),
        empty_masks=sum(fact.empty for fact in usable),
        official={side: len(names) for side, names in (source.official or {}).items()},
        notes=source.notes,
        surrounds=sum(fact.picture is not None and fact.picture.outside > SURROUND for fact in facts),
        near_in_groups=near_in_groups,
        outlines=sum(fact.outline is not None for fact in facts),
        histograms=tuple(_histograms(facts)),
        heat=_heat(usable),
    )


def _histograms(facts: Sequence[Facts]) -> Iterator[Histogram]:
    pictures = [fact.picture for fact in facts if fact.picture]
    for title, values, step in (
        ("Instrument, share of the frame", [fact.foreground for fact in facts if fact.usable], 0.05),
        ("Light, 95th percentile of the grey levels", [seen.light for seen in pictures], 16.0),
        ("Blur, 0 sharp to 1 blurred", [seen.blur for seen in pictures], 0.05),
    ):
        edges = np.arange(0, (256 if step > 1 else 1) + step / 2, step).round(6)
        defined = np.array([value for value in values if not np.isnan(value)])
        counts, _ = np.histogram(defined, edges)
        median = float(np.median(defined)) if len(defined) else float("nan")
        yield Histogram(title, tuple(edges.tolist()), tuple(counts.tolist()), median)


def _heat(usable: Sequence[Facts]) -> tuple[tuple[float, ...], ...]:
    total = np.zeros(GRID_HW)
    for fact in usable:
        if fact.mask:
            total += unpack_place(fact.mask.place)
    share = total / 255 / max(1, len(usable))
    return tuple(tuple(row) for row in share.round(4).tolist())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
