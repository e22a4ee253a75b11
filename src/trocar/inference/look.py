"""What an overlay video shows of a frame, drawn in the colours the frame was decoded in, where it can be.

Videos are stored as Y, U and V. The network needs RGB, but the way back from there costs as much processor time as
drawing does. So the overlay is drawn on what was decoded, unless that is stored in an uncommon way, turned, or of odd
sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

import cv2

from trocar.data.records import ImageArray, MaskArray
from trocar.inference.draw import draw_on_planes, overlay
from trocar.inference.frames import Frame

if TYPE_CHECKING:
    import av

Look: TypeAlias = Union[ImageArray, "av.VideoFrame"]  # RGB, or yuv420p of limited range that knows its matrix

# FFmpeg's numbers, of matrices and ranges. Where no one named a matrix, it makes RGB as of BT.601.
_BT709, _UNKNOWN, _BT470BG, _SMPTE170M = 1, 2, 5, 6
_MATRICES = {_BT709: _BT709, _UNKNOWN: _BT470BG, _BT470BG: _BT470BG, _SMPTE170M: _BT470BG}  # the last three are BT.601
_LIMITED, _FULL = 1, 2


def look(frame: Frame, mask: MaskArray) -> Look:
    """The overlay of a frame, for a `VideoWriter`."""
    decoded = frame.decoded
    if decoded is None or not _can_be_drawn_on(decoded):
        return overlay(frame.image, mask)
    import av  # what was decoded has imported it

    from trocar.inference.video import planes_of

    drawn = av.VideoFrame(decoded.width, decoded.height, "yuv420p")
    drawn.colorspace, drawn.color_range = _MATRICES[decoded.colorspace], _LIMITED
    planes = planes_of(drawn)
    for plane, stored in zip(planes, planes_of(decoded), strict=True):
        if plane.shape == stored.shape:
            plane[:] = stored
        else:
            cv2.resize(stored, plane.shape[::-1], dst=plane, interpolation=cv2.INTER_AREA)
    draw_on_planes(planes, mask, bt709=drawn.colorspace == _BT709)
    return drawn


def _can_be_drawn_on(decoded: av.VideoFrame) -> bool:
    return (
        decoded.format.name in ("yuv420p", "yuv444p")
        and decoded.colorspace in _MATRICES
        and decoded.color_range != _FULL
        and not decoded.rotation
        and not decoded.width % 2
        and not decoded.height % 2
    )
