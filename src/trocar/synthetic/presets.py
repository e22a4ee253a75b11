"""How much of everything a scene has: the two presets.

Chances are per scene or per procedure, ranges are drawn from evenly. Lengths are in shorter sides of the image,
angles in degrees, colours and opacities from 0 to 1 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from trocar.errors import UserError
from trocar.synthetic.noise import Range


@dataclass(frozen=True)
class Preset:
    """Strengths and chances of what a scene is made of."""

    # the procedure
    lumen_chance: float  # a look along a bowel instead of into a cavity
    colour_jitter: float  # relative change of each tissue colour
    organs: tuple[int, ...]  # numbers of tissues in view to choose from
    fold: Range
    vessels: Range  # number of trees
    gloss: Range  # wetness: share and strength of mucosal highlights
    border_chance: float  # a black surround instead of a full view
    vignette: Range
    white_balance: float  # relative change of each channel
    sharpening: Range
    compression_chance: float
    # the frame
    blood_chance: float
    smoke_chance: float
    smoke: Range
    exposure: Range
    defocus: Range  # sigma, in thousandths of the shorter side
    motion_chance: float
    motion: Range  # length of the streak
    sensor_noise: Range  # standard deviation at mid grey
    colour_fringe: float  # shift between red and blue
    # the instruments
    finishes: dict[str, float]  # weights, see materials.FINISHES
    kinds: dict[str, float]  # weights, see tips.KINDS
    rigid_radius: Range
    flexible_radius: Range
    tip_reach: float  # how far from the middle of the view tips may lie
    wrist: float  # largest angle between the shaft and the tip
    soil_chance: float  # blood on the instrument
    shadow: Range


DEMO = Preset(
    lumen_chance=0.15,
    colour_jitter=0.06,
    organs=(2, 2, 3),
    fold=(0.3, 0.8),
    vessels=(1, 3.99),
    gloss=(0.2, 0.6),
    border_chance=0.0,
    vignette=(0.2, 0.5),
    white_balance=0.03,
    sharpening=(0.0, 0.3),
    compression_chance=0.0,
    blood_chance=0.25,
    smoke_chance=0.15,
    smoke=(0.03, 0.12),
    exposure=(0.95, 1.1),
    defocus=(1.2, 2.2),
    motion_chance=0.0,
    motion=(0.0, 0.0),
    sensor_noise=(0.006, 0.012),
    colour_fringe=0.0,
    finishes={"steel": 3, "black": 2, "blue": 1, "white": 1},
    kinds={"grasper": 4, "scissors": 2, "hook": 1, "needle_driver": 2, "suction": 1, "bipolar": 1},
    rigid_radius=(0.04, 0.07),
    flexible_radius=(0.025, 0.035),
    tip_reach=0.3,
    wrist=15.0,
    soil_chance=0.15,
    shadow=(0.2, 0.4),
)

VARIED = Preset(
    lumen_chance=0.25,
    colour_jitter=0.18,
    organs=(1, 2, 2, 3, 3, 4),
    fold=(0.2, 1.3),
    vessels=(0, 6.99),
    gloss=(0.1, 1.0),
    border_chance=0.35,
    vignette=(0.1, 0.9),
    white_balance=0.12,
    sharpening=(0.0, 1.2),
    compression_chance=0.5,
    blood_chance=0.45,
    smoke_chance=0.3,
    smoke=(0.05, 0.5),
    exposure=(0.6, 1.5),
    defocus=(1.0, 7.0),
    motion_chance=0.25,
    motion=(0.01, 0.05),
    sensor_noise=(0.004, 0.035),
    colour_fringe=0.004,
    finishes={
        "steel": 4, "black": 4, "grey": 1, "blue": 1, "white": 1, "yellow": 0.7, "green": 0.5, "clear": 1.2
    },
    kinds={
        "grasper": 4, "scissors": 2, "hook": 1.5, "needle_driver": 2, "suction": 1.5, "bipolar": 1,
        "biopsy": 1, "snare": 1, "catheter": 0.7,
    },
    rigid_radius=(0.025, 0.1),
    flexible_radius=(0.015, 0.045),
    tip_reach=0.42,
    wrist=60.0,
    soil_chance=0.4,
    shadow=(0.1, 0.7),
)  # fmt: skip

_PRESETS = {"demo": DEMO, "varied": VARIED}
PRESETS: tuple[str, ...] = tuple(_PRESETS)


def preset_named(name: str) -> Preset:
    """The preset of that name."""
    if name not in _PRESETS:
        raise UserError(f"no preset is called {name!r}", mend=f"choose one of {', '.join(PRESETS)}")
    return _PRESETS[name]
