"""One drawn picture with its masks, and clips of them.

Random numbers come from separate streams for the procedure, the tissue, the instruments and the camera. So a scene
without instruments is the very same scene otherwise, and a clip's frame does not depend on the clip's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.sizes import shown_size
from trocar.synthetic import optics, painting, tissue
from trocar.synthetic.instruments import Design, Motion, sample_design, sample_motions
from trocar.synthetic.noise import draw
from trocar.synthetic.presets import PRESETS, Preset, preset_named

PARTS: tuple[str, ...] = ("background", "shaft", "tip")
FRAMES_PER_SECOND = 25
SMALLEST_SIDE = 32
MOST_INSTRUMENTS = 3


@dataclass(frozen=True)
class Scene:
    """One drawn picture and the truth about it.

    Shapes: image (H, W, 3) uint8 RGB; parts (H, W) uint8, index into PARTS; instances (H, W) uint8, 0 background,
    1 and up one number per instrument, the one in front where two overlap.
    """

    image: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    instances: NDArray[np.uint8]


@dataclass(frozen=True)
class _Look:
    """What all frames of one procedure have in common."""

    tissue: tissue.TissueLook
    endoscope: optics.Endoscope
    designs: tuple[Design, ...]
    shadow: tuple[float, float, float]  # offset x and y in shorter sides, depth


@dataclass(frozen=True)
class _Stage:
    """What all frames of one clip have in common; a single picture is a clip of one frame."""

    look: _Look
    surface: tissue.Tissue
    shot: optics.Shot
    motions: list[Motion]
    drift: NDArray[np.float64]  # (2, 3): amplitude in shorter sides, radians per second, phase; x and y
    size_hw: tuple[int, int]


def draw_scene(
    seed: int,
    *,
    size_hw: tuple[int, int] = (256, 320),
    preset: str = "demo",
    procedure: int = 0,
    instruments: int | None = None,
) -> Scene:
    """Draw one picture; equal arguments give equal pixels.

    `procedure` fixes what its frames share: tissue, light, field of view and the instruments on the table. `seed`
    varies the frame. `instruments` is how many there are, 0 to 3; None draws 1 to 3.
    """
    stage = _set_stage(seed, size_hw, preset, procedure, instruments)
    moment_s = draw(_stream(seed, procedure, preset, "moment"), (0, 20))
    return _draw(stage, moment_s, _stream(seed, procedure, preset, "camera"), entering=False)


def draw_clip(
    frames: int, seed: int, *, size_hw: tuple[int, int] = (256, 320), preset: str = "demo", procedure: int = 0
) -> Iterator[Scene]:
    """Draw a moving clip at 25 frames per second, one scene at a time.

    The tissue drifts and beats; instruments enter one after the other within the first 1.6 s, sway and open and
    close their jaws. Frame i is the same however many frames are asked for.
    """
    stage = _set_stage(seed, size_hw, preset, procedure, None)
    return (
        _draw(stage, index / FRAMES_PER_SECOND, _stream(seed, procedure, preset, "camera", index), entering=True)
        for index in range(frames)
    )


def check_size(size_hw: tuple[int, int]) -> None:
    """Raise `UserError` for a picture too small to draw."""
    if min(size_hw) < SMALLEST_SIDE:
        raise UserError(
            f"a drawn scene cannot be {shown_size(size_hw)} pixels",
            mend=f"give both sides at least {SMALLEST_SIDE} pixels",
        )


def _set_stage(seed: int, size_hw: tuple[int, int], preset: str, procedure: int, instruments: int | None) -> _Stage:
    settings = preset_named(preset)
    check_size(size_hw)
    if seed < 0 or procedure < 0:
        raise UserError(f"seed {seed}, procedure {procedure}: both must be 0 or more")
    if instruments is not None and not 0 <= instruments <= MOST_INSTRUMENTS:
        raise UserError(f"{instruments} instruments in one scene", mend=f"ask for 0 to {MOST_INSTRUMENTS}")
    size_hw = (int(size_hw[0]), int(size_hw[1]))
    look = _look(procedure, preset, size_hw)
    rng = _stream(seed, procedure, preset, "tissue")
    large_hw = (round(size_hw[0] * (1 + tissue.MARGIN)), round(size_hw[1] * (1 + tissue.MARGIN)))
    surface = tissue.sample_tissue(rng, look.tissue, large_hw)
    if rng.random() < settings.blood_chance:
        surface = tissue.add_blood(rng, surface, draw(rng, (0.3, 1.0)))
    shot = optics.sample_shot(rng, settings, size_hw)
    drift = rng.uniform(0.4, 1, (2, 3)) * np.array([0.035, 1.5, 2 * np.pi])
    rng = _stream(seed, procedure, preset, "instruments")
    count = int(rng.integers(1, MOST_INSTRUMENTS + 1)) if instruments is None else instruments
    motions = sample_motions(rng, settings, look.designs, count, size_hw)
    return _Stage(look, surface, shot, motions, drift, size_hw)


def _draw(stage: _Stage, time_s: float, rng: np.random.Generator, *, entering: bool) -> Scene:
    size_hw, look = stage.size_hw, stage.look
    amplitude, pace, phase = stage.drift.T
    shift_x, shift_y = amplitude * np.sin(pace * time_s + phase)
    pulse = 0.012 * float(np.sin(2 * np.pi * 1.2 * time_s)) ** 3  # 72 beats a minute
    image = tissue.shade(tissue.view_of(stage.surface, size_hw, (shift_x, shift_y), pulse), look.endoscope.light)
    labels = painting.Labels(size_hw)
    placed = [painting.place(motion.design, motion.at(time_s, entering=entering), size_hw) for motion in stage.motions]
    for instrument in placed:
        labels.add(instrument)
    parts, instances, coverage = labels.read()
    field = optics.field_of_view(look.endoscope, size_hw)
    if placed:
        side = min(size_hw)
        painting.cast_shadow(image, coverage, (look.shadow[0] * side, look.shadow[1] * side), look.shadow[2])
        light = tissue.falling_light(look.endoscope.light, size_hw)
        for instrument in placed:
            painting.paint(image, instrument, light)
    if field is not None:
        hidden = field < 0.5
        parts[hidden] = 0
        instances[hidden] = 0
    picture = optics.expose(image, look.endoscope, stage.shot, field, rng, time_s)
    return Scene(picture, parts, instances)


@lru_cache(maxsize=32)
def _look(procedure: int, preset: str, size_hw: tuple[int, int]) -> _Look:
    settings: Preset = preset_named(preset)
    rng = _stream(0, procedure, preset, "procedure")
    tissue_look = tissue.sample_look(rng, settings)
    endoscope = optics.sample_endoscope(rng, settings, size_hw)
    angle, reach = draw(rng, (0, 2 * np.pi)), draw(rng, (0.02, 0.07))
    shadow = (reach * float(np.cos(angle)), reach * float(np.sin(angle)), draw(rng, settings.shadow))
    surroundings = tissue_look.colours.mean(0)
    designs = tuple(sample_design(rng, settings, surroundings) for _ in range(MOST_INSTRUMENTS))
    return _Look(tissue_look, endoscope, designs, shadow)


def _stream(seed: int, procedure: int, preset: str, purpose: str, index: int = 0) -> np.random.Generator:
    """Independent random numbers for each purpose."""
    return np.random.default_rng([seed, procedure, PRESETS.index(preset), index, *purpose.encode()])
