"""From facts to findings: what is judged of each record of a source, and of the source as a whole.

Limits stand here, beside the rule that uses them; how often each raises a false alarm on real frames is in
docs/doctor.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trocar.data.checks.facts import Facts
from trocar.data.checks.findings import At, Finding
from trocar.data.checks.outline import Outline
from trocar.data.checks.picture import BLANK, GRID_HW, unpack_marks
from trocar.data.records import IGNORE, Record, Source
from trocar.plain import many, some

DARK = 45  # grey levels that 95 % of the view do not exceed
BLOWN_OUT = 0.3  # share of the view from 250 grey levels on
BLURRED = 0.87  # of the measure `picture.blur`, where a frame is an outlier too; sharp cameras differ from 0.55 to 0.85
HOPELESS = 0.94  # of the same, whatever the other frames are
OUTLIER = 4.0  # deviations from the median, both robust
MIRROR_GAIN, SHIFT_GAIN = 0.45, 0.65  # deviations of the frame's edges by which another position must fit better
LEAST_SHIFT = 0.012  # of the frame's side: outlines drawn by hand are off by less
ENOUGH_OUTLINES = 10  # records from which on the set as a whole is judged
RARE_PIXELS, RARE_RECORDS = 1e-4, 5  # share of the labelled pixels, and records, below which a class is rare
ENOUGH_RECORDS = 20  # records from which on groups and classes are weighed against each other
MARKED_CELLS = 3  # of 24x32 in the surround with something bright: a highlight beside the view fills fewer
STATIC_SHARE = 0.9  # of the frames that must show a mark in the same place for it to be burned in
_OF_THE_PICTURE = ("blank", "dark", "bright", "blurred")


def of_source(number: int, source: Source, facts: Sequence[Facts]) -> list[Finding]:
    """Everything that can be said of one source alone. `number` is its position among all that are checked."""
    found = _Found(number, source)
    for error in source.findings:
        found.add("listing", error.what, error.where, error.mend)
    for record, fact in zip(source.records, facts, strict=True):
        for fault in fact.faults:
            found.add(fault.kind, fault.what, fault.where, fault.mend, [record])
    if not source.records:
        what = "no record is left to use" if source.findings else "there is no record"
        found.add("no-records", what, str(source.root), "mend the findings above, or the path")
    _judge_light(found, facts)
    _judge_blur(found, facts)
    _judge_masks(found, facts)
    _judge_outlines(found, facts)
    _judge_classes(found, facts)
    _judge_groups(found)
    _judge_marks(found, facts)
    _judge_resolutions(found, facts)
    return found.findings


class _Found:
    """Findings of one source as they come."""

    def __init__(self, number: int, source: Source) -> None:
        self.number, self.source = number, source
        self.findings: list[Finding] = []

    def add(
        self,
        kind: str,
        what: str,
        where: str | None = None,
        mend: str | None = None,
        records: Sequence[Record] = (),
        score: float = 0.0,
    ) -> None:
        """One finding; `where` defaults to the record, with the file that it is about."""
        record = records[0] if len(records) == 1 else None
        if where is None and record is not None:
            files = record.files[:1] if kind in _OF_THE_PICTURE else record.files[1:2]
            where = ", ".join((f"record {record.name}", *map(str, files)))
        at = tuple(At(self.number, record.name) for record in records)
        name = record.name if record is not None else None
        self.findings.append(Finding(kind, self.source.dataset, name, what, where, mend, at, score))


# ------------------------------------------------------------------ pictures


def _judge_light(found: _Found, facts: Sequence[Facts]) -> None:
    for record, fact in zip(found.source.records, facts, strict=True):
        seen = fact.picture
        if seen is None:
            continue
        if seen.deviation < BLANK:
            what = f"the frame is one even colour, grey level {seen.light:.0f} of 255"
            found.add("blank", what, None, _leave_out(record, "it lies between two recordings"), [record])
        elif seen.light < DARK:
            what = f"the frame is too dark: 95 % of it lie below grey level {seen.light:.0f} of 255"
            found.add("dark", what, None, _leave_out(record, "the light was off"), [record], -seen.light)
        elif seen.blown_out > BLOWN_OUT:
            what = f"{seen.blown_out:.0%} of the frame are blown out (grey level 250 and more)"
            found.add("bright", what, None, _leave_out(record, "nothing can be seen"), [record], seen.blown_out)


def _leave_out(record: Record, reason: str) -> str:
    return f"look at it; if {reason}, list {record.name} under data.exclude in the recipe"


def _judge_blur(found: _Found, facts: Sequence[Facts]) -> None:
    seen = [(i, fact.picture.blur) for i, fact in enumerate(facts) if fact.picture and fact.picture.deviation >= BLANK]
    outlying = _outliers(np.array([value for _, value in seen]), ENOUGH_RECORDS)
    for (i, value), is_outlier in zip(seen, outlying.tolist(), strict=True):
        if value > HOPELESS or (value > BLURRED and is_outlier):
            record = found.source.records[i]
            what = f"the frame is blurred: {value:.0%} of its detail survive a further blur"
            mend = _leave_out(record, "the instrument's border cannot be seen")
            found.add("blurred", what, None, mend, [record], value)


def _judge_marks(found: _Found, facts: Sequence[Facts]) -> None:
    """Text in the surround of a frame, and marks that stand still where the picture moves."""
    beside = [
        (record, fact.picture.marks_outside)
        for record, fact in zip(found.source.records, facts, strict=True)
        if fact.picture and fact.picture.marks_outside >= MARKED_CELLS
    ]
    if beside:
        beside.sort(key=lambda pair: -pair[1])
        found.add(
            "text",
            f"{many(len(beside), 'frame')} with text or marks in the black surround",
            some([record.name for record, _ in beside]),
            "look whether it names a patient; paint it black before the data leaves the house",
            [record for record, _ in beside],
        )
    seen = [
        (record, unpack_marks(fact.picture.marks))
        for record, fact in zip(found.source.records, facts, strict=True)
        if fact.picture
    ]
    if len(seen) < ENOUGH_RECORDS or len(found.source.groups) < 2:
        return
    share = np.mean([marks for _, marks in seen], axis=0)
    static = _with_neighbours(share >= STATIC_SHARE)  # a highlight on still tissue fills one cell, text several
    if static.any():
        found.add(
            "text",
            f"bright marks stand in the same place of {many(len(seen), 'frame')}, {_place(static)}: text or a logo?",
            some([record.name for record, _ in seen]),
            "look whether it names a patient; paint it black, or crop it off, in training and in use alike",
            [record for record, _ in seen[:: max(1, len(seen) // 8)]],
        )


def _with_neighbours(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells that have another one beside, above or below them."""
    wide = np.pad(cells, 1)
    beside = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return np.asarray(cells & beside, dtype=np.bool_)


def _place(cells: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(cells)
    down, right = rows.mean() / GRID_HW[0], columns.mean() / GRID_HW[1]
    words = ("top", "middle", "bottom")[int(3 * down)], ("left", "centre", "right")[int(3 * right)]
    return " ".join(words)


def _judge_resolutions(found: _Found, facts: Sequence[Facts]) -> None:
    sizes = Counter(fact.size for fact in facts if fact.size)
    if len(sizes) < 2:
        return
    sides = [max(size) for size in sizes]
    aspects = [size[0] / size[1] for size in sizes]
    if max(sides) < 1.5 * min(sides) and max(aspects) < 1.1 * min(aspects):
        return
    found.add(
        "resolutions",
        f"frames of {len(sizes)} sizes, from {min(sides)} to {max(sides)} pixels on the longer side, "
        f"width to height from {min(aspects):.2f} to {max(aspects):.2f}",
        some([f"{size[0]}x{size[1]} ({count})" for size, count in sizes.most_common()]),
        "keep the aspect when resizing (preprocess.fit: letterbox, the default); look at scores of each size alone",
    )


# ------------------------------------------------------------------ masks


def _judge_masks(found: _Found, facts: Sequence[Facts]) -> None:
    """Specks by record; holes, which do little harm and are common at seams of classes, once for the source."""
    pairs = list(zip(found.source.records, (fact.mask for fact in facts), strict=True))
    with_holes = sorted(((m.hole_pixels, m.holes, r) for r, m in pairs if m and m.holes), key=lambda hole: -hole[0])
    if with_holes:
        pixels, holes = sum(hole[0] for hole in with_holes), sum(hole[1] for hole in with_holes)
        found.add(
            "holes",
            f"{many(len(with_holes), 'mask')} with {many(holes, 'tiny hole')}, {many(pixels, 'pixel')} in all",
            some([f"{record.name} ({holes})" for _, holes, record in with_holes]),
            "fill them, unless tissue is seen through them",
            [record for _, _, record in with_holes],
        )
    for record, mask in pairs:
        if mask and mask.specks:
            what = f"{many(mask.specks, 'speck')} of mask, {many(mask.speck_pixels, 'pixel')} in all"
            mend = "take away what is no instrument: pieces below 0.005 % of the frame are seldom meant"
            found.add("specks", what, None, mend, [record], mask.speck_pixels)


def _judge_outlines(found: _Found, facts: Sequence[Facts]) -> None:
    """Masks that would fit their image better elsewhere: the set as a whole, and what stands out of it."""
    seen = [(record, f.outline) for record, f in zip(found.source.records, facts, strict=True) if f.outline]
    if not seen:
        return
    mirror = np.array([outline.mirror_gain for _, outline in seen])
    moved = np.array([(outline.dx, outline.dy) for _, outline in seen])
    if len(seen) >= ENOUGH_OUTLINES and _judge_whole_set(found, [o.mirrored_how for _, o in seen], mirror, moved):
        return
    for (record, outline), kind in zip(seen, misplaced([outline for _, outline in seen]), strict=True):
        if kind == "mirrored":
            what = f"the mask fits its image better {outline.mirrored_how}"
            mend = "compare the two: was one of them mirrored or turned, by hand or by an EXIF flag?"
            found.add(kind, what, None, mend, [record], outline.mirror_gain)
        elif kind == "shifted":
            what = f"the mask fits its image better moved by {_moved(outline.dx, outline.dy)}"
            mend = "compare the two: was one of them cropped or scaled alone, or is it the mask of another frame?"
            found.add(kind, what, None, mend, [record], outline.shift_gain)


def misplaced(outlines: Sequence[Outline]) -> list[Literal["mirrored", "shifted"] | None]:
    """Which outlines of a set would fit far better mirrored, or shifted, by themselves and against the others."""
    mirror = np.array([outline.mirror_gain for outline in outlines])
    shift = np.array([outline.shift_gain for outline in outlines])
    moved = np.array([max(abs(outline.dx), abs(outline.dy)) for outline in outlines])
    mirrored = (mirror > MIRROR_GAIN) & _outliers(mirror, ENOUGH_OUTLINES)
    shifted = (shift > SHIFT_GAIN) & _outliers(shift, ENOUGH_OUTLINES) & (moved > LEAST_SHIFT)
    # A wrong mask may do better in both ways: the one that gains clearly more is told.
    by_mirror = mirrored & ~(shifted & (shift > mirror + 0.2))
    return ["mirrored" if m else "shifted" if s else None for m, s in zip(by_mirror, shifted, strict=True)]


def _judge_whole_set(
    found: _Found, how: Sequence[str], mirror: NDArray[np.float64], moved: NDArray[np.float64]
) -> bool:
    """Whether all masks are off alike, which no outlier would show."""
    records = found.source.records
    middle = np.median(moved, axis=0)
    spread = np.median(np.abs(moved - middle), axis=0)
    if np.median(mirror) > MIRROR_GAIN / 2:
        word = Counter(how).most_common(1)[0][0]
        what = f"throughout, masks fit their images better {word}"
        found.add("mirrored", what, str(found.source.root), "compare a few; then turn all masks", records[:8])
        return True
    if np.abs(middle).max() > LEAST_SHIFT and spread.max() < LEAST_SHIFT:
        what = f"throughout, masks fit their images better moved by {_moved(*middle.tolist())}"
        mend = "compare a few: were the images cropped or scaled without the masks, or the masks without the images?"
        found.add("shifted", what, str(found.source.root), mend, records[:8])
        return True
    return False


def _moved(dx: float, dy: float) -> str:
    across = f"{abs(dx):.1%} of the width to the {'right' if dx > 0 else 'left'}"
    down = f"{abs(dy):.1%} of the height {'down' if dy > 0 else 'up'}"
    return " and ".join(words for words, share in ((across, dx), (down, dy)) if round(abs(share), 3))


def _judge_classes(found: _Found, facts: Sequence[Facts]) -> None:
    usable = [fact for fact in facts if fact.usable]
    if not usable:
        return
    if all(fact.empty for fact in usable):
        what = f"none of the {len(usable)} masks shows an instrument"
        mend = "nothing can be learnt or scored from background alone: check that the masks were exported"
        found.add("no-instrument", what, str(found.source.root), mend)
        return
    if len(usable) < ENOUGH_RECORDS:
        return
    labelled = sum(count for fact in usable for value, count in fact.pixels.items() if value != IGNORE)
    for index, name in enumerate(found.source.classes):
        showing = [i for i, fact in enumerate(facts) if fact.pixels.get(index)]
        pixels = sum(fact.pixels.get(index, 0) for fact in usable)
        if index == 0 or (len(showing) >= RARE_RECORDS and pixels >= RARE_PIXELS * labelled):
            continue
        what = (
            f"class {name} is in no mask"
            if not showing
            else (
                f"class {name} is rare: in {many(len(showing), 'record')} of {len(usable)}, "
                f"{pixels / labelled:.3%} of the labelled pixels"
            )
        )
        mend = (
            "label more of it, join it with another class, or judge by the whole instrument (data.target: instrument)"
        )
        found.add("imbalance", what, str(found.source.root), mend, [found.source.records[i] for i in showing[:8]])


def _judge_groups(found: _Found) -> None:
    groups = {group: len(records) for group, records in found.source.groups.items()}
    total = sum(groups.values())
    if total < ENOUGH_RECORDS or total == len(groups):
        return
    largest = max(groups, key=lambda group: groups[group])
    share = groups[largest] / total
    if len(groups) == 1:
        what = f"all {total} records are of one group, {largest}: no part of it can judge the rest"
    elif share > 0.8 or (share > 0.5 and len(groups) > 2) or (share > 0.25 and share > 5 / len(groups)):
        what = f"{share:.0%} of the records are of one of {len(groups)} groups, {largest}"
    else:
        return
    mend = "take fewer frames of it (data.every thins videos), label more of others, and read scores group by group"
    found.add("dominant-group", what, str(found.source.root), mend, found.source.groups[largest][:1], share)


def _outliers(values: NDArray[np.float64], enough: int) -> NDArray[np.bool_]:
    """Which lie far above the median, in robust deviations (1.4826 times the median absolute one).

    Of fewer than `enough` values nothing is known of their spread: all count as far.
    """
    if len(values) < enough:
        return np.ones(len(values), dtype=np.bool_)
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    return np.asarray(values - middle > OUTLIER * deviation, dtype=np.bool_)
