"""Instruments into pixels: exact labels first, then shading over the tissue with the same coverage.

Outlines are filled on a grid `OVERSAMPLING` times as fine as the image. The share of fine pixels is how much of
the instrument a pixel shows, and a pixel is labelled where that is at least one half: edges are soft in the image
and sharp in the mask, and both come from one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.synthetic.instruments import Design, Pose
from trocar.synthetic.materials import look_up
from trocar.synthetic.noise import Float, as_float, blur, smoothstep
from trocar.synthetic.tips import Piece, Points
from trocar.synthetic.tissue import BLOOD

OVERSAMPLING = 4
SHAFT, TIP = 1, 2
_WEIGHT = 240  # of a fine pixel: a multiple of OVERSAMPLING**2, so that averaging to 8 bits stays exact
_SHIFT = 3  # fractional bits of OpenCV's polygon corners

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Covered:
    """One filled shape. Shapes: coverage (h, w) of `box`, 0 to 1; fine (h, w) times OVERSAMPLING, bool."""

    box: Box
    coverage: Float
    fine: NDArray[np.bool_]


@dataclass(frozen=True)
class Placed:
    """One instrument in pixels of the image, ready to be painted. Directions are unit vectors (x, y)."""

    design: Design
    pose: Pose
    joint_px: Points
    radius_px: float
    axis: Points
    across: Points
    length_px: float
    shaft: Covered | None
    tip: list[tuple[Piece, Covered]]


class Labels:
    """What each fine pixel shows, front instrument last; read at the image's size."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        height, width = size_hw
        self._code = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), np.uint8)  # 3 * instance + part
        self._size_wh = (width, height)
        self._instances = 0

    def add(self, placed: Placed) -> None:
        """Put an instrument in front of those before it."""
        self._instances += 1
        if placed.shaft is not None:
            self._write(placed.shaft, SHAFT)
        for _, covered in placed.tip:
            self._write(covered, TIP)

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Float]:
        """Parts, instances and how much of each pixel is instrument.

        Shapes: -> (H, W) uint8, (H, W) uint8, (H, W) float32 0 to 1.
        """
        whole = self._share(self._code > 0)
        labelled = whole >= 0.5
        tip = self._share(self._code % 3 == TIP)
        parts = np.where(2 * tip >= whole, TIP, SHAFT) * labelled
        shares = [self._share(self._code // 3 == index) for index in range(1, self._instances + 1)]
        instances = (np.argmax(shares, 0) + 1) * labelled if shares else np.zeros_like(parts)
        return parts.astype(np.uint8), instances.astype(np.uint8), whole

    def _write(self, covered: Covered, part: int) -> None:
        rows, columns = (slice(s.start * OVERSAMPLING, s.stop * OVERSAMPLING) for s in covered.box)
        self._code[rows, columns][covered.fine] = 3 * self._instances + part

    def _share(self, which: NDArray[np.bool_]) -> Float:
        weighed = which.view(np.uint8) * np.uint8(_WEIGHT)
        return as_float(cv2.resize(weighed, self._size_wh, interpolation=cv2.INTER_AREA)) / np.float32(_WEIGHT)


def place(design: Design, pose: Pose, size_hw: tuple[int, int]) -> Placed:
    """Turn a pose into pixels."""
    height, width = size_hw
    side = min(size_hw)
    middle = np.array([width / 2, height / 2])
    joint, port = (np.array(point) * side + middle for point in (pose.joint, pose.port))
    length = float(np.linalg.norm(joint - port))
    axis = (joint - port) / length
    across = np.array([-axis[1], axis[0]])
    # Below this a wire would fall between the pixels.
    radius = max(design.radius * side, 2.0)
    outline = _shaft_outline(joint, axis, across, length, radius, pose)
    angle = pose.wrist - math.atan(4 * pose.bend)  # the tip goes on where a bent shaft ends
    cos, sin = math.cos(angle), math.sin(angle)
    tip_axes = np.stack((cos * axis + sin * across, cos * across - sin * axis)) * radius
    tip = [
        (piece, covered)
        for piece in design.kind.outline(design.shape, pose.opening)
        if (covered := _cover([joint + contour @ tip_axes for contour in piece.contours], size_hw)) is not None
    ]
    return Placed(design, pose, joint, radius, axis, across, length, _cover([outline], size_hw), tip)


def paint(image: Float, placed: Placed, light: Float) -> None:
    """Shade one instrument over `image`, in place.

    Shapes: image (H, W, 3) linear RGB; light (H, W) what arrives at each pixel.
    """
    if placed.shaft is not None:
        _paint_shaft(image, placed, placed.shaft, light)
    for piece, covered in placed.tip:
        _paint_piece(image, placed, piece, covered, light)


def cast_shadow(image: Float, coverage: Float, offset_px: tuple[float, float], depth: float) -> None:
    """Darken `image`, in place, where instruments keep the lamp off the tissue. Shapes: (H, W, 3), (H, W)."""
    side = min(coverage.shape)
    move = np.array([[1, 0, offset_px[0]], [0, 1, offset_px[1]]], np.float32)
    moved = as_float(cv2.warpAffine(coverage, move, coverage.shape[::-1], borderMode=cv2.BORDER_REPLICATE))
    image *= 1 - np.float32(depth) * blur(moved, 0.02 * side)[..., None]


def _shaft_outline(joint: Points, axis: Points, across: Points, length: float, radius: float, pose: Pose) -> Points:
    q = np.linspace(0, 1, 24 if pose.bend else 2)[:, None]  # 0 at the joint, 1 at the port
    centre = joint - axis * length * q + across * (4 * pose.bend * length) * q * (1 - q)
    half = across * radius * (1 + (pose.taper - 1) * q)
    return np.concatenate((centre + half, (centre - half)[::-1]))


def _cover(contours: Sequence[Points], size_hw: tuple[int, int]) -> Covered | None:
    """Fill contours given in pixels, or None where nothing of them is in view."""
    corners = np.concatenate(contours)
    left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, size_hw[::-1])
    if left >= right or top >= bottom:
        return None
    fine = np.zeros(((bottom - top) * OVERSAMPLING, (right - left) * OVERSAMPLING), np.uint8)
    # A fine pixel's coordinate is its centre for OpenCV, its corner for us.
    scaled = [((contour - (left, top)) * OVERSAMPLING - 0.5) * 2**_SHIFT for contour in contours]
    cv2.fillPoly(fine, [np.round(points).astype(np.int32) for points in scaled], (_WEIGHT,), shift=_SHIFT)
    if not fine.any():
        return None
    coverage = as_float(cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)) / np.float32(
        _WEIGHT
    )
    return Covered((slice(int(top), int(bottom)), slice(int(left), int(right))), coverage, fine > 0)


def _paint_shaft(image: Float, placed: Placed, covered: Covered, light: Float) -> None:
    along, sideways = _local(placed, covered.box)
    q = np.clip(-along * placed.radius_px / placed.length_px, 0, 1)
    bow = 4 * placed.pose.bend * placed.length_px / placed.radius_px
    width = 1 + (placed.pose.taper - 1) * q
    round_ = np.clip((sideways - bow * q * (1 - q)) / width, -1, 1)  # -1 to 1 across the cylinder
    tilt = placed.design.axis_tilt
    flat = math.sqrt(1 - tilt * tilt)
    normal_x = round_ * np.float32(placed.across[0] * flat) + np.float32(placed.axis[0] * tilt)
    normal_y = round_ * np.float32(placed.across[1] * flat) + np.float32(placed.axis[1] * tilt)
    rgba = look_up(placed.design.materials["shaft"], normal_x, normal_y)
    index = np.clip(-along / placed.design.mark_step / width, 0, 255).astype(np.uint8)
    gain = placed.design.marks[index] * (1 + 0.6 * (width - 1)) * light[covered.box]
    _blend(image, placed, covered, rgba, as_float(gain), along, sideways)


def _paint_piece(image: Float, placed: Placed, piece: Piece, covered: Covered, light: Float) -> None:
    bevel = max(piece.bevel * placed.radius_px, 1.0)
    inside = cv2.copyMakeBorder((covered.coverage >= 0.5).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    distance = as_float(cv2.distanceTransform(inside, cv2.DIST_L2, 5))[1:-1, 1:-1]
    dome = 1 - np.minimum(distance / np.float32(bevel), 1)
    height = blur(as_float(np.sqrt(1 - dome * dome)), 0.25 * bevel) * np.float32(bevel)
    slope_x = as_float(cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8))
    slope_y = as_float(cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8))
    length = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    rgba = look_up(placed.design.materials[piece.material], as_float(-slope_x / length), as_float(-slope_y / length))
    along, sideways = _local(placed, covered.box)
    _blend(image, placed, covered, rgba, as_float(piece.shade * light[covered.box]), along, sideways)


def _blend(
    image: Float, placed: Placed, covered: Covered, rgba: Float, gain: Float, along: Float, sideways: Float
) -> None:
    colour = rgba[..., :3] * gain[..., None]
    opacity = rgba[..., 3] * covered.coverage
    if placed.design.soiled:
        stain = _stains(placed.design, along, sideways)
        opacity = np.maximum(opacity, stain * covered.coverage)
        colour += stain[..., None] * (BLOOD * (0.4 + 0.8 * gain[..., None]) - colour)
    region = image[covered.box]
    region += opacity[..., None] * (colour - region)


def _stains(design: Design, along: Float, sideways: Float) -> Float:
    """Opacity of the blood on an instrument, most near its tip. Shapes: (h, w) in radii -> (h, w)."""
    noise = as_float(
        cv2.remap(design.soil, 90 + 5 * along, 32 + 11 * sideways, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    )
    near_tip = np.exp(-np.maximum(-along, 0) / 4)
    wet = as_float(noise + design.soiled * (0.4 + near_tip))
    return np.float32(0.75) * smoothstep(0.7, 2.2, wet)


def _local(placed: Placed, box: Box) -> tuple[Float, Float]:
    """Coordinates in radii from the joint, along and across the shaft. Shapes: -> two (h, w)."""
    rows, columns = box
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5 - placed.joint_px[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - placed.joint_px[1])
    axis, across = placed.axis / placed.radius_px, placed.across / placed.radius_px
    return (
        as_float(x * np.float32(axis[0]) + y * np.float32(axis[1])),
        as_float(x * np.float32(across[0]) + y * np.float32(across[1])),
    )
