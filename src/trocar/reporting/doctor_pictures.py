"""Pictures for the page of a check: suspects with their masks, copies side by side, frames of each group, the heat map.

Every picture is read anew from its record, so only what the page shows is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trocar.data.checks import At, Finding
from trocar.data.checks.facts import examine
from trocar.data.checks.masks import TINY_SHARE
from trocar.data.files import read_mask_file
from trocar.data.records import IGNORE, ImageArray, MaskArray, Record, Source
from trocar.data.sources.encoding import as_colours
from trocar.errors import UserError
from trocar.inference.draw import overlay
from trocar.reporting.pictures import PANEL_WIDTH, Panel, data_uri, picture

THUMB_WIDTH = 160  # pixels at most
MOST_SHOWN = 4  # records of one finding, such as a set of duplicates
SUSPECT_COLOUR = (213, 94, 0)  # vermilion of Okabe and Ito

_OF_THE_PICTURE = ("blank", "dark", "bright", "blurred", "text")  # to which the mask adds nothing
_MAGNIFIED = 40  # pixels of the frame across what is shown enlarged


@dataclass(frozen=True)
class Suspect:
    """A finding with its pictures."""

    finding: Finding
    panels: list[Panel]


def suspect(finding: Finding, sources: Sequence[Source]) -> Suspect:
    """The pictures that show what a finding means. Where files cannot be read there are fewer, or none."""
    records = [_record(place, sources) for place in finding.at]
    if not records:
        return Suspect(finding, [])
    if finding.kind in ("duplicate", "near-duplicate"):
        return Suspect(finding, _side_by_side(records))
    if finding.kind in _OF_THE_PICTURE:
        return Suspect(finding, [panel for record in records[:MOST_SHOWN] for panel in _frame(record, record.name)])
    draw = _DRAW.get(finding.kind, _with_mask)
    return Suspect(finding, [panel for r in records[:MOST_SHOWN] for panel in [*_frame(r, r.name), *draw(r)]])


def thumbnail(record: Record) -> str | None:
    """A small picture with the mask on it, or None where one of the two cannot be read."""
    pair = _read(record)
    return None if pair is None else picture(overlay(*pair), THUMB_WIDTH)


def heat_map(shares: Sequence[Sequence[float]]) -> str:
    """How often each place of the frame is instrument, from dark (never) to bright (most often), as a data URI."""
    heat = np.array(shares, dtype=np.float32)
    levels = np.rint(255 * heat / max(float(heat.max()), 1e-9)).astype(np.uint8)
    smooth = cv2.resize(levels, None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC)
    drawn = cv2.cvtColor(cv2.applyColorMap(smooth, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    return data_uri(np.asarray(drawn, dtype=np.uint8))


# ------------------------------------------------------------------ kinds of findings


def _with_mask(record: Record) -> list[Panel]:
    pair = _read(record)
    return [] if pair is None else [Panel("mask on the image", picture(overlay(*pair)))]


def _mirrored(record: Record) -> list[Panel]:
    return _moved(record, _flip)


def _shifted(record: Record) -> list[Panel]:
    return _moved(record, None)


def _moved(record: Record, flip: Callable[[MaskArray, str], MaskArray] | None) -> list[Panel]:
    """The mask as it is, and where it would fit better."""
    pair = _read(record)
    if pair is None:
        return []
    image, mask = pair
    outline = examine([record])[0].outline
    if outline is None:
        return _with_mask(record)
    if flip is not None:
        better, caption = flip(mask, outline.mirrored_how), f"mask {outline.mirrored_how}"
    else:
        better, caption = _shift(mask, outline.dx, outline.dy), "mask where it fits better"
    return [
        Panel(words, picture(overlay(image, drawn))) for words, drawn in (("mask as it is", mask), (caption, better))
    ]


def _flip(mask: MaskArray, how: str) -> MaskArray:
    across, down = "left" in how or "180" in how, "top" in how or "180" in how
    return np.ascontiguousarray(mask[:: -1 if down else 1, :: -1 if across else 1])


def _shift(mask: MaskArray, dx: float, dy: float) -> MaskArray:
    height, width = mask.shape
    move = np.array([[1, 0, round(dx * width)], [0, 1, round(dy * height)]], dtype=np.float32)
    return np.asarray(cv2.warpAffine(mask, move, (width, height), flags=cv2.INTER_NEAREST), dtype=np.uint8)


def _tiny(record: Record) -> list[Panel]:
    """The mask with a ring round each tiny piece and each tiny hole, and the largest of them enlarged."""
    pair = _read(record)
    if pair is None:
        return []
    image, mask = pair
    drawn = overlay(image, mask)
    instrument = ((mask > 0) & (mask < IGNORE)).astype(np.uint8)
    radius, line = max(8, min(mask.shape) // 20), max(2, min(mask.shape) // 150)
    tiny: list[tuple[int, tuple[int, int]]] = []  # (pixels, (column, row))
    for pixels, connectivity in ((instrument, 8), (1 - instrument, 4)):
        _, _, stats, centres = cv2.connectedComponentsWithStats(pixels, connectivity=connectivity)
        for row, centre in zip(stats[1:], centres[1:], strict=True):
            area = int(row[cv2.CC_STAT_AREA])
            if area < TINY_SHARE * mask.size:
                tiny.append((area, (round(float(centre[0])), round(float(centre[1])))))
    if not tiny:
        return _with_mask(record)
    enlarged = _enlarged(drawn, max(tiny)[1])
    for _, place in tiny:
        cv2.circle(drawn, place, radius, SUSPECT_COLOUR, line)
    return [Panel("tiny parts ringed", picture(drawn)), Panel("the largest, enlarged", enlarged)]


def _enlarged(drawn: ImageArray, place: tuple[int, int]) -> str:
    """The surroundings of a place, pixel by pixel."""
    height, width = drawn.shape[:2]
    side = min(_MAGNIFIED, height, width)
    left, top = (min(max(0, at - side // 2), most - side) for at, most in zip(place, (width, height), strict=True))
    crop = drawn[top : top + side, left : left + side]
    zoomed = cv2.resize(crop, (PANEL_WIDTH, PANEL_WIDTH * 3 // 4), interpolation=cv2.INTER_NEAREST)
    return data_uri(np.asarray(zoomed, dtype=np.uint8))


def _stored_mask(record: Record) -> list[Panel]:
    """The mask file as it is stored; small values, such as class indices, are stretched to be seen."""
    stored = _mask_file(record)
    if stored is None:
        return _jpeg(record)
    most = int(stored.max())
    caption = "mask as stored" if most == 0 or most >= 64 else f"mask as stored, its values 0 to {most} stretched"
    stretched = stored if most >= 64 else stored * np.uint8(255 // max(most, 1))
    return [Panel(caption, picture(stretched))]


def _odd_values(record: Record) -> list[Panel]:
    """The mask file, and its greys between black and white in colour."""
    stored = _mask_file(record)
    if stored is None:
        return []
    between = (stored.min(axis=2) > 0) & (stored.max(axis=2) < 255)
    if not between.any():
        return _stored_mask(record)
    drawn = (stored // 2).astype(np.uint8)
    drawn[between] = SUSPECT_COLOUR
    rows, columns = np.nonzero(between)
    middle = len(rows) // 2
    enlarged = _enlarged(drawn, (int(columns[middle]), int(rows[middle])))
    return [*_stored_mask(record), Panel("its greys coloured, enlarged", enlarged)]


def _mask_file(record: Record) -> ImageArray | None:
    for path in record.files[1:2]:
        try:
            return as_colours(read_mask_file(path, palette_as_colours=True))
        except UserError:
            return None
    return None


def _jpeg(record: Record) -> list[Panel]:
    for path in record.files[1:2]:
        try:
            pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):
            return []
        if pixels is not None:
            stored = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            return [Panel("mask as stored", picture(stored))]
    return []


_DRAW: dict[str, Callable[[Record], list[Panel]]] = {
    "mirrored": _mirrored,
    "shifted": _shifted,
    "specks": _tiny,
    "holes": _tiny,
    "mask-values": _odd_values,
    "jpeg-mask": _stored_mask,
    "size": _stored_mask,
    "orientation": _stored_mask,
    "unreadable": _stored_mask,
}


def _side_by_side(records: Sequence[Record]) -> list[Panel]:
    shown = [panel for r in records[:MOST_SHOWN] for panel in _frame(r, f"{r.name}, group {r.group}")]
    if len(records) > MOST_SHOWN and shown:
        last = shown[-1]
        shown[-1] = Panel(f"{last.caption}; {len(records) - MOST_SHOWN} more are not shown", last.picture)
    return shown


def _frame(record: Record, caption: str) -> list[Panel]:
    try:
        return [Panel(caption, picture(record.image()))]
    except UserError:
        return []


def _read(record: Record) -> tuple[ImageArray, MaskArray] | None:
    try:
        return record.read()
    except UserError:
        return None


def _record(place: At, sources: Sequence[Source]) -> Record:
    return next(record for record in sources[place.source].records if record.name == place.record)
