"""The working ends of instruments as outlines: jaws, hook, tube, wire loop.

Outlines are in radii of the shaft, in a frame whose x runs along the shaft, away from the hand, from the joint where
the shaft ends; painting turns them into pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trocar.synthetic.noise import Range

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """One part of a tip: a filled shape with a rounded edge.

    Shapes: each contour (N, 2) in radii; a second contour inside the first is a hole.
    """

    contours: tuple[Points, ...]
    material: str  # "tip", "dark" or "accent"
    bevel: float  # width of the rounded edge, in radii
    shade: float = 1.0


@dataclass(frozen=True)
class TipShape:
    """Proportions of one tip, in radii of its shaft."""

    length: float
    width: float
    neck: float
    curve: float
    teeth: int


@dataclass(frozen=True)
class Kind:
    """Ranges to draw the proportions of one kind of instrument from, and how its tip is drawn.

    `outline` maps proportions and opening (radians) to pieces, those behind first.
    """

    outline: Callable[[TipShape, float], list[Piece]]
    length: Range
    width: Range
    neck: Range
    opening: Range = (0, 0)  # degrees between the jaws
    curve: Range = (0, 0)
    teeth: Range = (0, 0)
    flexible: bool = False
    tip_finish: tuple[str, ...] = ("steel",)
    accent: tuple[str, ...] = ("steel",)


def _jaw(shape: TipShape, end: float, angle: float, side: int) -> Points:
    """One jaw from its pivot at the origin; its biting edge is y = 0 before it turns by `angle` to its side."""
    s = np.linspace(0, 1, 28)
    round_end = np.sqrt(np.clip(1 - (np.clip(s - 0.85, 0, None) / 0.15) ** 2, 0, 1))
    outer = shape.width * (1 + (end - 1) * s) * round_end * np.minimum(1, 0.65 + 4 * s)
    bow = shape.curve * shape.length * s**2
    inner_s = np.linspace(1, 0.12, 2 * shape.teeth + 2)
    inner = np.where(np.arange(len(inner_s)) % 2, 0.1 * shape.width if shape.teeth else 0.0, 0.0)
    inner_bow = shape.curve * shape.length * inner_s**2
    x = np.concatenate((s, inner_s)) * shape.length
    y = np.concatenate((outer + bow * side, inner + inner_bow * side)) * side
    return _turned(np.stack((x, y), 1), side * angle)


def _two_jaws(shape: TipShape, opening: float, *, end: float, insert: str | None = None) -> list[Piece]:
    pieces = [Piece((_box(-0.6, shape.neck, 0.92, 0.8),), "tip", 0.8)]
    pivot = np.array([shape.neck * 0.9, 0.0])
    for side, light in ((-1, 0.8), (1, 1.0)):
        jaw = _jaw(shape, end, opening / 2, side) + pivot
        pieces.append(Piece((jaw,), "tip", 0.45 * shape.width, light))
        if insert is not None:
            plate = _jaw(TipShape(shape.length * 0.95, shape.width * 0.35, 0, shape.curve, 0), 0.9, opening / 2, side)
            pieces.append(Piece((plate + pivot,), insert, 0.2 * shape.width, light))
    slot = _box(shape.neck * 0.35, shape.neck * 0.95, 0.14, 0.14)
    pin = _ellipse(pivot, 0.3, 0.3)
    return [*pieces, Piece((slot,), "dark", 0.2), Piece((pin,), "tip", 0.3, 0.7)]


def _grasper(shape: TipShape, opening: float) -> list[Piece]:
    pieces = _two_jaws(shape, opening, end=0.55)
    if shape.curve > 0:  # the ones that curve also have a window in each jaw
        for side in (-1, 1):
            middle = np.array([shape.length * 0.5, side * (shape.width * 0.42 + shape.curve * shape.length / 4)])
            window = _ellipse(middle, shape.length * 0.24, shape.width * 0.17)
            at = np.array([shape.neck * 0.9, 0.0])
            pieces.append(Piece((_turned(window, side * opening / 2) + at,), "dark", 0.1))
    return pieces


def _scissors(shape: TipShape, opening: float) -> list[Piece]:
    return _two_jaws(shape, opening, end=0.25)


def _needle_driver(shape: TipShape, opening: float) -> list[Piece]:
    return _two_jaws(shape, opening, end=0.75, insert="accent")


def _bipolar(shape: TipShape, opening: float) -> list[Piece]:
    sleeve = Piece((_box(-0.6, shape.neck * 0.8, 0.95, 0.95),), "accent", 0.9)
    return [*_two_jaws(shape, opening, end=0.6), sleeve]


def _biopsy(shape: TipShape, opening: float) -> list[Piece]:
    return _two_jaws(shape, opening, end=0.95)


def _hook(shape: TipShape, opening: float) -> list[Piece]:  # noqa: ARG001 - every outline takes an opening
    thick = shape.width
    reach, drop = shape.neck + shape.length, 2.4 * thick + 0.9
    turn = np.linspace(0, np.pi / 2, 6)
    outer = np.stack((reach - 0.7 + 0.7 * np.sin(turn), 0.7 - 0.7 * np.cos(turn) - thick / 2), 1)
    inner = np.stack((reach - thick - 0.5 + 0.5 * np.sin(turn), 0.5 - 0.5 * np.cos(turn) + thick / 2), 1)
    wire = np.concatenate(
        ([[0.0, -thick / 2]], outer, [[reach, drop], [reach - thick, drop]], inner[::-1], [[0.0, thick / 2]])
    )
    return [
        Piece((wire,), "tip", thick / 2),
        Piece((_box(-0.6, shape.neck, 0.85, 0.6),), "accent", 0.6),
    ]


def _suction(shape: TipShape, opening: float) -> list[Piece]:  # noqa: ARG001
    end = shape.neck + shape.length
    pieces = [Piece((_box(-0.6, end, shape.width, shape.width),), "tip", shape.width)]
    pieces.append(Piece((_ellipse(np.array([end - 0.12, 0]), 0.2, 0.62 * shape.width),), "dark", 0.1))
    for index in range(shape.teeth):  # for a tube: the side holes
        along = end - 1.1 - 0.85 * index
        across = shape.width * (0.35 if index % 2 else -0.3)
        pieces.append(Piece((_ellipse(np.array([along, across]), 0.24, 0.19),), "dark", 0.1))
    return pieces


def _snare(shape: TipShape, opening: float) -> list[Piece]:
    s = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    wide = shape.width * (0.35 + opening)
    x = shape.neck + shape.length * (1 - np.cos(s)) / 2
    y = wide * np.sin(s) * (0.55 + 0.45 * (1 - np.cos(s)) / 2)
    loop = np.stack((x, y), 1)
    middle = np.array([[shape.neck + shape.length / 2, 0]])
    thick = 0.28
    inner = middle + (loop - middle) * (1 - thick / np.array([[shape.length / 2, wide]])).clip(0.3)
    return [
        Piece((loop, inner), "tip", thick / 2),
        Piece((_box(-0.6, shape.neck, 0.9, 0.4),), "accent", 0.8),
    ]


def _catheter(shape: TipShape, opening: float) -> list[Piece]:  # noqa: ARG001
    end = shape.neck + shape.length
    return [
        Piece((_box(-0.6, shape.neck, 1.02, 0.3),), "accent", 0.9),
        Piece((_box(shape.neck * 0.8, end, shape.width, shape.width),), "tip", shape.width),
    ]


def _box(start: float, stop: float, half_width: float, round_off: float) -> Points:
    """A bar from `start` to `stop` along x, its far corners rounded off."""
    turn = np.linspace(0, np.pi / 2, 6)
    x = stop - round_off + round_off * np.sin(turn)
    y = half_width - round_off + round_off * np.cos(turn)
    upper = np.concatenate(([[start, half_width]], np.stack((x, np.maximum(y, 0)), 1)))
    return np.concatenate((upper, upper[::-1] * [1, -1]))


def _ellipse(centre: Points, half_x: float, half_y: float) -> Points:
    s = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack((centre[0] + half_x * np.cos(s), centre[1] + half_y * np.sin(s)), 1)


def _turned(points: Points, angle: float) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


KINDS = {
    "grasper": Kind(
        _grasper,
        length=(3.5, 6.5),
        width=(0.75, 1.0),
        neck=(1.5, 3),
        opening=(5, 70),
        curve=(-0.04, 0.08),
        teeth=(6, 14),
    ),
    "scissors": Kind(
        _scissors, length=(3.2, 5), width=(0.6, 0.85), neck=(1.5, 2.5), opening=(5, 70), curve=(-0.08, 0.02)
    ),
    "hook": Kind(_hook, length=(2, 4), width=(0.28, 0.45), neck=(1.5, 4), accent=("ceramic", "black", "yellow")),
    "needle_driver": Kind(
        _needle_driver,
        length=(2.4, 4),
        width=(0.75, 1.0),
        neck=(1.6, 3),
        opening=(4, 50),
        teeth=(6, 10),
        accent=("gold", "steel"),
    ),
    "suction": Kind(_suction, length=(2.5, 5), width=(0.7, 0.92), neck=(0.5, 1), teeth=(1, 4.99)),
    "bipolar": Kind(
        _bipolar,
        length=(4, 7),
        width=(0.5, 0.75),
        neck=(1.8, 3.5),
        opening=(5, 45),
        accent=("blue", "black", "white", "yellow"),
    ),
    "biopsy": Kind(
        _biopsy, length=(2.2, 3.4), width=(0.8, 1.05), neck=(1.5, 3), opening=(5, 100), teeth=(3, 6), flexible=True
    ),
    "snare": Kind(_snare, length=(7, 16), width=(3, 6), neck=(0.8, 2), opening=(20, 60), flexible=True),
    "catheter": Kind(
        _catheter,
        length=(1.5, 4),
        width=(0.6, 0.9),
        neck=(0.8, 2),
        flexible=True,
        tip_finish=("steel", "blue", "white", "black"),
        accent=("steel", "black", "gold"),
    ),
}
