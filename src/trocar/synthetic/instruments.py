"""Instruments: how a procedure's are made, how they are posed, and how they move.

Positions in the view are in shorter sides of the image, 0 at its middle, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trocar.synthetic.materials import matcap
from trocar.synthetic.noise import Float, as_float, draw, value_noise
from trocar.synthetic.presets import Preset
from trocar.synthetic.tips import KINDS, Kind, Points, TipShape


@dataclass(frozen=True)
class Design:
    """One instrument on the table of a procedure; every frame shows the same one.

    Shapes: materials matcaps by name; marks (256,) gain along the shaft; soil (64, 256) noise for stains.
    """

    kind: Kind
    shape: TipShape
    radius: float
    materials: dict[str, Float]
    marks: Float
    mark_step: float  # radii per sample of `marks`
    soil: Float
    soiled: float
    wrist: float  # largest angle, radians
    axis_tilt: float


@dataclass(frozen=True)
class Pose:
    """Where one instrument is at one moment. Angles in radians."""

    port: tuple[float, float]  # outside the view, where the shaft comes from
    joint: tuple[float, float]  # where the shaft ends and the tip begins
    opening: float
    wrist: float
    bend: float  # sagitta of the shaft over its length
    taper: float  # width at the port over width at the joint


@dataclass(frozen=True)
class Motion:
    """One instrument over time: slow swaying about a rest pose, entering from outside.

    Shapes: sway (3, 2) amplitudes, pace (3, 2) radians per second, phase (3, 2), of x and y and of jaws and wrist.
    """

    design: Design
    port: Points
    rest: Points
    sway: Points
    pace: Points
    phase: Points
    opening: float
    wrist: float
    bend: float
    taper: float
    enters_s: float

    def at(self, time_s: float, *, entering: bool) -> Pose:
        """The pose at a time. With `entering` it is still outside at `enters_s` and in place 0.7 s later."""
        swing = self.sway * np.sin(self.pace * time_s + self.phase)
        inside = 1.0
        if entering:
            ramp = min(max((time_s - self.enters_s) / 0.7, 0.0), 1.0)
            inside = ramp * ramp * (3 - 2 * ramp)
        joint = self.port + (self.rest + swing[0] + swing[1] - self.port) * (0.1 + 0.9 * inside)
        opening = self.opening * (0.55 + 0.45 * math.sin(self.pace[2, 0] * time_s + self.phase[2, 0]))
        wrist = self.wrist * math.sin(self.pace[2, 1] * time_s + self.phase[2, 1])
        return Pose(
            (float(self.port[0]), float(self.port[1])),
            (float(joint[0]), float(joint[1])),
            opening,
            wrist,
            self.bend,
            self.taper,
        )


def sample_design(rng: np.random.Generator, preset: Preset, surroundings: Float) -> Design:
    """An instrument for a procedure. `surroundings` (3,) is the linear colour that its metal reflects."""
    kind = KINDS[_weighted(rng, preset.kinds)]
    finish = _weighted(rng, preset.finishes)
    finishes = {
        "shaft": finish,
        "tip": "clear" if finish == "clear" and rng.random() < 0.3 else str(rng.choice(kind.tip_finish)),
        "dark": "black",
        "accent": str(rng.choice(kind.accent)),
    }
    shape = TipShape(
        length=draw(rng, kind.length),
        width=draw(rng, kind.width),
        neck=draw(rng, kind.neck),
        curve=draw(rng, kind.curve),
        teeth=int(draw(rng, kind.teeth)),
    )
    return Design(
        kind=kind,
        shape=shape,
        radius=draw(rng, preset.flexible_radius if kind.flexible else preset.rigid_radius),
        materials={name: matcap(rng, of, surroundings) for name, of in finishes.items()},
        marks=_marks(rng, kind.flexible),
        mark_step=draw(rng, (0.1, 0.2)),
        soil=value_noise(rng, (64, 256), 7) + 0.5 * value_noise(rng, (64, 256), 20),
        soiled=draw(rng, (0.2, 0.9)) if rng.random() < preset.soil_chance else 0.0,
        wrist=0.0 if kind.flexible else math.radians(draw(rng, (0, preset.wrist))),
        axis_tilt=draw(rng, (-0.35, 0.35)),
    )


def sample_motions(
    rng: np.random.Generator, preset: Preset, designs: Sequence[Design], count: int, size_hw: tuple[int, int]
) -> list[Motion]:
    """`count` instruments for one frame or clip, from different directions, those behind first."""
    half_diagonal = math.hypot(*size_hw) / min(size_hw) / 2
    reach_x, reach_y = (preset.tip_reach * side / min(size_hw) for side in size_hw[::-1])
    first = draw(rng, (0, 2 * math.pi))
    motions = []
    for index in range(count):
        design = designs[index % len(designs)]
        angle = first + index * 2 * math.pi / max(count, 2) + draw(rng, (-0.4, 0.4))
        tip_length = design.radius * (design.shape.length + design.shape.neck)
        distance = half_diagonal + tip_length + 3 * design.radius
        port = distance * np.array([math.cos(angle), math.sin(angle)])
        tip = np.array([draw(rng, (-reach_x, reach_x)), draw(rng, (-reach_y, reach_y))])
        towards = (tip - port) / np.linalg.norm(tip - port)
        motions.append(
            Motion(
                design=design,
                port=port,
                rest=tip - towards * tip_length,
                sway=rng.uniform(0.25, 1, (3, 2)) * np.array([[0.07], [0.02], [1]]),
                pace=rng.uniform(0.6, 1, (3, 2)) * np.array([[1.2, 1.2], [4.0, 4.0], [5.0, 1.5]]),
                phase=rng.uniform(0, 2 * math.pi, (3, 2)),
                opening=math.radians(draw(rng, design.kind.opening)),
                wrist=design.wrist,
                bend=draw(rng, (-0.18, 0.18)) if design.kind.flexible else 0.0,
                taper=draw(rng, (1.0, 1.25)) if design.kind.flexible else draw(rng, (1.05, 1.9)),
                enters_s=0.12 + 0.45 * index + draw(rng, (0, 0.15)),
            )
        )
    return motions


def _weighted(rng: np.random.Generator, weights: dict[str, float]) -> str:
    chances = np.array(list(weights.values()), np.float64)
    return str(rng.choice(list(weights), p=chances / chances.sum()))


def _marks(rng: np.random.Generator, flexible: bool) -> Float:
    """Gain along the shaft: brushed unevenness, sometimes rings that mark its depth."""
    marks = 1 + 0.06 * value_noise(rng, (2, 256), 1.2)[0] + 0.008 * rng.standard_normal(256)
    if rng.random() < (0.6 if flexible else 0.3):
        start, period = int(rng.integers(20, 80)), int(rng.integers(24, 90))
        for at in range(start, 256, period):
            marks[at : at + int(rng.integers(4, 12))] *= draw(rng, (0.15, 0.5))
    return as_float(np.clip(marks, 0.1, 1.3))
