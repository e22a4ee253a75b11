"""The surface that an endoscope looks at: colour, relief, wetness, and how light falls on it.

Light is linear throughout; `optics` turns it into what a display shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.synthetic.noise import (
    Float,
    as_float,
    blur,
    draw,
    fractal_noise,
    linear,
    pixel_grid,
    smoothstep,
    value_noise,
)
from trocar.synthetic.presets import Preset

COLOURS = {  # 8-bit RGB under white light
    "mucosa": (222, 132, 112),
    "colon": (214, 120, 88),
    "peritoneum": (232, 172, 150),
    "bowel": (228, 150, 130),
    "muscle": (184, 72, 60),
    "liver": (140, 58, 48),
    "fat": (242, 184, 102),
    "pale_fat": (240, 200, 150),
    "fascia": (230, 188, 170),
}
LUMEN_COLOURS = ("mucosa", "colon", "bowel")
BLOOD = linear((128, 10, 12))
MARGIN = 0.16  # how much larger than the view the surface is, so that it can drift


@dataclass(frozen=True)
class TissueLook:
    """What the tissue of one procedure has in common.

    Shapes: colours (K, 3) linear RGB, the first lies underneath.
    """

    colours: Float
    lobules: tuple[float, ...]
    lumen: bool
    fold: float
    fold_cells: float
    vessels: int
    gloss: float
    texture: float


@dataclass(frozen=True)
class Tissue:
    """A surface without light.

    Shapes: albedo (H, W, 3) linear RGB; relief (H, W) height towards the camera in shorter sides;
    gloss (H, W) 0 dry to 1 wet; fine (H, W) relief too small for anything but highlights.
    """

    albedo: Float
    relief: Float
    gloss: Float
    fine: Float


@dataclass(frozen=True)
class Light:
    """The lamp beside the lens: position in shorter sides off the axis, strength of the fall-off, linear colour."""

    x: float
    y: float
    fall_off: float
    ambient: float


def sample_look(rng: np.random.Generator, preset: Preset) -> TissueLook:
    """The tissue of a procedure."""
    lumen = bool(rng.random() < preset.lumen_chance)
    names = list(rng.permutation(list(LUMEN_COLOURS if lumen else COLOURS)))
    names = names[: 1 if lumen else int(rng.choice(preset.organs))]
    # Brightness differs more than hue: yellow fat must not turn green.
    hue = rng.uniform(-1, 1, (len(names), 3)) * [0.4, 0.25, 0.4]
    brightness = rng.uniform(-1, 1, (len(names), 1))
    jitter = 1 + preset.colour_jitter * (hue + brightness)
    return TissueLook(
        colours=as_float(np.stack([linear(COLOURS[name]) for name in names]) * jitter),
        lobules=tuple(draw(rng, (0.5, 1.0) if "fat" in name else (0.0, 0.3)) for name in names),
        lumen=lumen,
        fold=draw(rng, preset.fold),
        fold_cells=draw(rng, (1.2, 3.0)),
        vessels=int(draw(rng, preset.vessels)),
        gloss=draw(rng, preset.gloss),
        texture=draw(rng, (0.5, 1.0)),
    )


def sample_tissue(rng: np.random.Generator, look: TissueLook, size_hw: tuple[int, int]) -> Tissue:
    """A surface of the given size.

    Shapes: -> maps (H, W) of `size_hw`, which should exceed the view by MARGIN.
    """
    relief = _large_relief(rng, look, size_hw)
    albedo = np.empty((*size_hw, 3), np.float32)
    albedo[:] = look.colours[0]
    lobules = np.full(size_hw, look.lobules[0], np.float32)
    for colour, lobule in zip(look.colours[1:], look.lobules[1:], strict=True):
        field = fractal_noise(rng, size_hw, draw(rng, (0.5, 1.3)), 4, 0.3) + np.float32(draw(rng, (-0.5, 0.4)))
        organ = smoothstep(-0.05, 0.05, field)
        beneath = 1 - 0.45 * smoothstep(-0.4, 0.0, field) * (1 - organ)  # little light gets under its edge
        albedo *= beneath[..., None]
        albedo += organ[..., None] * (colour - albedo)
        relief += 0.09 * smoothstep(-0.06, 0.7, field)  # an organ bulges over what lies beneath
        lobules += organ * (lobule - lobules)
    creases = np.exp(-3.5 * np.abs(fractal_noise(rng, size_hw, draw(rng, (6, 12)), 2, 0.6)))
    creases *= lobules * smoothstep(-0.8, 0.8, value_noise(rng, size_hw, 3))
    relief = as_float(blur(relief, 0.012 * min(size_hw)) - 0.008 * creases)  # tissue is soft
    albedo *= (1 - 0.18 * creases)[..., None]
    _mottle(rng, albedo, look.texture)
    _draw_vessels(rng, albedo, look.vessels)
    wet = smoothstep(-0.4, 1.2, fractal_noise(rng, size_hw, 3, 3)) * np.float32(look.gloss)
    fine = 0.003 * fractal_noise(rng, size_hw, 26, 2, 0.7)
    return Tissue(albedo, blur(relief, 0.004 * min(size_hw)), wet, as_float(fine))


def add_blood(rng: np.random.Generator, tissue: Tissue, amount: float) -> Tissue:
    """The surface with pools and runs of blood over an area that grows with `amount`, 0 to 1."""
    size_hw = tissue.relief.shape
    # Blood gathers where the surface is low.
    field = fractal_noise(rng, size_hw, 2.2, 4, 0.5) - 6 * (tissue.relief - tissue.relief.mean())
    edge = 1.6 - 1.2 * amount
    pool = smoothstep(edge, edge + 0.7, as_float(field))
    film = 0.8 * smoothstep(edge - 0.25, edge + 0.1, as_float(field))
    depth = np.maximum(np.maximum(pool, film), _runs(rng, size_hw, round(6 * amount)))
    shade = (0.7 + 0.6 * smoothstep(-1.5, 1.5, fractal_noise(rng, size_hw, 4, 3)))[..., None]
    thin = tissue.albedo * as_float([0.75, 0.25, 0.22])  # a film lets the tissue through
    cover = (0.35 + 0.6 * pool)[..., None]
    bloody = thin + cover * (BLOOD * shade - thin)
    albedo = tissue.albedo + depth[..., None] * (bloody - tissue.albedo)
    flat = blur(tissue.relief, 0.02 * min(size_hw))
    return Tissue(
        as_float(albedo),
        tissue.relief + pool * (flat - tissue.relief),
        np.maximum(tissue.gloss, 0.8 * pool),
        tissue.fine * (1 - 0.3 * pool),
    )


def view_of(tissue: Tissue, size_hw: tuple[int, int], shift: tuple[float, float], pulse: float) -> Tissue:
    """The part of the surface in view, shifted by `shift` (x, y, shorter sides) and swollen by `pulse`.

    Shapes: maps of the surface -> maps (H, W) of `size_hw`.
    """
    height, width = size_hw
    large_h, large_w = tissue.relief.shape
    x, y = pixel_grid(size_hw)
    beat = 1 - pulse * np.exp(-4 * ((x - 0.1) ** 2 + (y + 0.1) ** 2))  # strongest beside one artery
    side = min(size_hw)
    map_x = as_float((x * beat + shift[0]) * side + (large_w - 1) / 2)
    map_y = as_float((y * beat + shift[1]) * side + (large_h - 1) / 2)

    def seen(field: Float) -> Float:
        return as_float(cv2.remap(field, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))

    maps = seen(np.dstack((tissue.relief, tissue.gloss, tissue.fine)))
    assert maps.shape == (height, width, 3)
    return Tissue(seen(tissue.albedo), *(np.ascontiguousarray(maps[..., i]) for i in range(3)))


def falling_light(light: Light, size_hw: tuple[int, int], nearness: Float | float = 0.0) -> Float:
    """How much light arrives: 1 on the axis, less towards the sides and on what lies far away.

    Shapes: nearness (H, W), height towards the camera in shorter sides -> (H, W).
    """
    x, y = pixel_grid(size_hw)
    squared = light.fall_off * ((x - light.x) ** 2 + (y - light.y) ** 2) + (1 - nearness) ** 2
    return as_float(1 / np.maximum(squared, 0.15))


def shade(tissue: Tissue, light: Light) -> Float:
    """The surface under the light of the endoscope, with its wet highlights. Shapes: -> (H, W, 3) linear RGB."""
    size_hw = tissue.relief.shape
    x, y = pixel_grid(size_hw)
    slope_x, slope_y = _slopes(tissue.relief)
    to_light_x, to_light_y = light.x - x, light.y - y
    arriving = falling_light(light, size_hw, tissue.relief)
    lambert = _facing(slope_x, slope_y, to_light_x, to_light_y)
    shading = light.ambient + (1 - light.ambient) * lambert * arriving
    fine_x, fine_y = _slopes(tissue.fine)
    # The film of mucus is smoother than the tissue under it: half the slope, plus ripples of its own.
    mirror = _facing(0.5 * slope_x + fine_x, 0.5 * slope_y + fine_y, 0.7 * to_light_x, 0.7 * to_light_y)
    highlight = smoothstep(0.975, 0.998, mirror) * tissue.gloss
    highlight = highlight * highlight * arriving
    # Light that wanders below the surface comes back red: shadows of tissue are never grey.
    red = 0.75 * shading + 0.25 * np.sqrt(shading)
    lit = tissue.albedo * np.dstack((red, shading, shading))
    return as_float(lit + (1.6 * highlight)[..., None])


def _slopes(relief: Float) -> tuple[Float, Float]:
    scale = min(relief.shape) / 8  # Sobel sums 8 differences of one pixel
    return (
        as_float(cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=scale)),
        as_float(cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=scale)),
    )


def _facing(slope_x: Float, slope_y: Float, light_x: Float, light_y: Float) -> Float:
    """Cosine between the surface's normal and the direction to the light, which stands at height 1."""
    dot = 1 - slope_x * light_x - slope_y * light_y
    squared = (1 + slope_x * slope_x + slope_y * slope_y) * (1 + light_x * light_x + light_y * light_y)
    return as_float(np.maximum(dot, 0) / np.sqrt(squared))


def _large_relief(rng: np.random.Generator, look: TissueLook, size_hw: tuple[int, int]) -> Float:
    x, y = pixel_grid(size_hw)
    wobble = fractal_noise(rng, size_hw, 1.5, 3)
    relief = 0.075 * fractal_noise(rng, size_hw, 2.0, 3, 0.4)
    if look.lumen:
        centre_x, centre_y = rng.uniform(-0.25, 0.25, 2)
        radius = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2) * (1 + 0.12 * wobble)
        rings = np.sin(9 * np.log(radius + 0.12) + 0.8 * wobble)
        relief += 0.08 * look.fold * rings - 1.6 * np.exp(-((radius / 0.32) ** 2))
    else:
        turn = draw(rng, (0, np.pi))
        phase = 2 * np.pi * look.fold_cells * (x * np.cos(turn) + y * np.sin(turn)) + 1.6 * wobble
        strength = smoothstep(-0.8, 1.2, value_noise(rng, size_hw, 1.5))
        relief += 0.07 * look.fold * strength * (1 - np.abs(np.sin(phase / 2)))
        tilt_x, tilt_y = rng.uniform(-0.6, 0.6, 2)
        relief += tilt_x * x + tilt_y * y
        relief -= draw(rng, (0, 0.7)) * smoothstep(0.2, 1.6, value_noise(rng, size_hw, 0.8))  # the cavity beyond
    return as_float(relief)


def _mottle(rng: np.random.Generator, albedo: Float, amount: float) -> None:
    """Uneven colour, in place: blood supply shifts tissue between pale and red, fine grain over it."""
    size_hw = albedo.shape[:2]
    redness = fractal_noise(rng, size_hw, 4, 4, 0.6)
    grain = fractal_noise(rng, size_hw, 30, 3, 0.8)
    # Capillaries: the zero lines of a noise are a net of fine winding lines.
    net = np.exp(-14 * np.abs(fractal_noise(rng, size_hw, draw(rng, (10, 16)), 2, 0.5)))
    redness += net * 1.6 * smoothstep(-0.6, 1.0, value_noise(rng, size_hw, 2.5))
    gain = as_float(amount * np.array([0.06, 0.16, 0.15]))
    albedo *= np.maximum(1 - redness[..., None] * gain + (0.06 * amount * grain)[..., None], 0.2)


def _runs(rng: np.random.Generator, size_hw: tuple[int, int], count: int) -> Float:
    """Trickles of blood, downwards within half a right angle. Shapes: -> (H, W) depth 0 to 1."""
    side = min(size_hw)
    ink = np.zeros(size_hw, np.uint8)
    down = np.pi / 2 + draw(rng, (-0.8, 0.8))
    for _ in range(count):
        start = rng.uniform(0, 0.8, 2) * size_hw[::-1]
        _grow(rng, ink, start, down, draw(rng, (0.004, 0.018)) * side, 255, 0)
    ragged = blur(as_float(ink), 0.008 * side) / 255 + 0.12 * value_noise(rng, size_hw, 14)
    return 0.7 * smoothstep(0.2, 0.6, as_float(ragged))


def _draw_vessels(rng: np.random.Generator, albedo: Float, trees: int) -> None:
    """Branching vessels, in place: arteries red, veins bluish, fine ones fainter."""
    size_hw = albedo.shape[:2]
    side = min(size_hw)
    if trees == 0:
        return
    inks = np.zeros((2, *size_hw), np.uint8)
    for _ in range(trees):
        start = rng.uniform(0, 1, 2) * size_hw[::-1]
        width = draw(rng, (0.006, 0.017)) * side
        _grow(rng, inks[int(rng.random() < 0.4)], start, draw(rng, (0, 2 * np.pi)), width, draw(rng, (90, 200)), 3)
    for ink, tone in zip(inks, ((0.8, 0.25, 0.25), (0.5, 0.3, 0.42)), strict=True):
        strength = blur(as_float(ink), 0.003 * side)[..., None] / 255
        albedo *= 1 - strength * (1 - as_float(tone))


def _grow(
    rng: np.random.Generator,
    ink: NDArray[np.uint8],
    start: NDArray[np.float64],
    heading: float,
    width_px: float,
    strength: float,
    depth: int,
) -> None:
    """Draw one vessel and its branches onto `ink`, (H, W) uint8."""
    side = min(ink.shape)
    steps = 16
    headings = heading + np.cumsum(rng.normal(0, 0.22, steps))
    stride = draw(rng, (0.02, 0.045)) * side
    points = start + stride * np.cumsum(np.stack((np.cos(headings), np.sin(headings)), 1), 0)
    whole = max(1, round(width_px))
    faint = strength * min(1.0, width_px / whole)  # a line cannot be thinner than a pixel, only fainter
    cv2.polylines(ink, [np.round(points * 8).astype(np.int32)], False, (faint,), whole, cv2.LINE_AA, shift=3)
    for at in rng.integers(2, steps, depth):
        turn = rng.choice([-1, 1]) * draw(rng, (0.4, 1.0))
        _grow(rng, ink, points[at], headings[at] + turn, width_px * 0.6, strength, depth - 1)
