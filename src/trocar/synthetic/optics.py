"""What an endoscope makes of a scene: smoke in the way, lens, field of view, and the sensor.

Takes linear light and returns the 8-bit picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.synthetic.noise import Float, as_float, blur, draw, fractal_noise, pixel_grid, smoothstep
from trocar.synthetic.presets import Preset
from trocar.synthetic.tissue import Light


@dataclass(frozen=True)
class Endoscope:
    """What one procedure's endoscope and processor do to every frame.

    `border` is half width, half height (shorter sides) and squareness of the visible field, or None.
    """

    light: Light
    border: tuple[float, float, float] | None
    border_centre: tuple[float, float]
    vignette: float
    white_balance: tuple[float, float, float]
    sharpening: float
    quality: int | None  # JPEG quality, None: not compressed
    colour_fringe: float


@dataclass(frozen=True)
class Shot:
    """What differs from frame to frame. Lengths in shorter sides; smoke (2, H, W) fields that mix over time."""

    exposure: float
    defocus: float
    streak: tuple[float, float]
    sensor_noise: float
    smoke: float
    smoke_fields: Float | None


def sample_endoscope(rng: np.random.Generator, preset: Preset, size_hw: tuple[int, int]) -> Endoscope:
    """The endoscope of a procedure."""
    half_w, half_h = (side / min(size_hw) / 2 for side in size_hw[::-1])
    border = None
    centre = (0.0, 0.0)
    squareness = draw(rng, (2, 7))
    scale = draw(rng, (0.92, 1.12))
    offset = rng.uniform(-0.05, 0.05, 2)
    if rng.random() < preset.border_chance:
        if squareness < 4:  # a round field, nearly as high as the picture
            border = (max(half_h, half_w * 0.85) * scale, max(half_h, half_w * 0.85) * scale, 2.0)
        else:
            border = (half_w * scale * 0.96, half_h * scale * 0.96, 2 * squareness)
        centre = (float(offset[0]), float(offset[1]))
    return Endoscope(
        light=Light(
            x=draw(rng, (-0.12, 0.12)),
            y=draw(rng, (-0.12, 0.12)),
            fall_off=draw(rng, (0.8, 2.6)),
            ambient=draw(rng, (0.02, 0.08)),
        ),
        border=border,
        border_centre=centre,
        vignette=draw(rng, preset.vignette),
        white_balance=tuple(1 + preset.white_balance * rng.uniform(-1, 1, 3)),
        sharpening=draw(rng, preset.sharpening),
        quality=int(rng.integers(60, 96)) if rng.random() < preset.compression_chance else None,
        colour_fringe=draw(rng, (-preset.colour_fringe, preset.colour_fringe)),
    )


def sample_shot(rng: np.random.Generator, preset: Preset, size_hw: tuple[int, int]) -> Shot:
    """The circumstances of one frame, or of one clip."""
    smoky = rng.random() < preset.smoke_chance
    angle, length = draw(rng, (0, np.pi)), draw(rng, preset.motion)
    moved = length if rng.random() < preset.motion_chance else 0.0
    # Squared: most frames are sharp and clean, a few are not.
    spread = rng.random(2) ** 2
    return Shot(
        exposure=draw(rng, preset.exposure),
        defocus=(preset.defocus[0] + spread[0] * (preset.defocus[1] - preset.defocus[0])) / 1000,
        streak=(moved * float(np.cos(angle)), moved * float(np.sin(angle))),
        sensor_noise=float(preset.sensor_noise[0] + spread[1] * (preset.sensor_noise[1] - preset.sensor_noise[0])),
        smoke=draw(rng, preset.smoke) if smoky else 0.0,
        smoke_fields=np.stack([fractal_noise(rng, size_hw, 1.5, 3) for _ in range(2)]) if smoky else None,
    )


def field_of_view(endoscope: Endoscope, size_hw: tuple[int, int]) -> Float | None:
    """Share of each pixel inside the visible field, or None where the view is full. Shapes: -> (H, W)."""
    if endoscope.border is None:
        return None
    half_x, half_y, power = endoscope.border
    x, y = pixel_grid(size_hw)
    x, y = np.abs(x - endoscope.border_centre[0]) / half_x, np.abs(y - endoscope.border_centre[1]) / half_y
    radius = as_float((x**power + y**power) ** (1 / power))
    edge = 0.75 / (min(half_x, half_y) * min(size_hw))  # three quarters of a pixel
    return 1 - smoothstep(1 - edge, 1 + edge, radius)


def expose(
    scene: Float, endoscope: Endoscope, shot: Shot, field: Float | None, rng: np.random.Generator, time_s: float
) -> NDArray[np.uint8]:
    """The picture of a scene.

    Shapes: scene (H, W, 3) linear RGB, field (H, W) or None -> (H, W, 3) uint8 RGB.
    """
    size_hw = (scene.shape[0], scene.shape[1])
    side = min(size_hw)
    if shot.smoke_fields is not None:
        scene = _smoke(scene, shot, time_s)
    x, y = pixel_grid(size_hw)
    # Full darkening is reached in the corners of a 4:3 view.
    gain = shot.exposure * (1 - endoscope.vignette * np.clip((x * x + y * y) / 0.7, 0, 1))
    if field is not None:
        gain = gain * field
    light = as_float(scene * gain[..., None] * as_float(endoscope.white_balance))
    light = _lens(light, endoscope, shot, side)
    # A knee instead of clipping, as video processors have it: highlights keep some colour.
    display = np.sqrt(np.maximum(light, 0))
    bright = display > 0.8
    display[bright] = 1 - 0.2 * np.exp((0.8 - display[bright]) / 0.2)
    if endoscope.sharpening:
        display += endoscope.sharpening * (display - blur(display, 0.006 * side))
    grain = rng.standard_normal(scene.shape, np.float32)
    display += grain * shot.sensor_noise * (0.35 + 0.65 * np.sqrt(np.clip(display, 0, 1)))
    picture = np.clip(display * 255 + 0.5, 0, 255).astype(np.uint8)
    return picture if endoscope.quality is None else _compressed(picture, endoscope.quality)


def _smoke(scene: Float, shot: Shot, time_s: float) -> Float:
    assert shot.smoke_fields is not None
    mix = shot.smoke_fields[0] * np.cos(1.3 * time_s) + shot.smoke_fields[1] * np.sin(1.3 * time_s)
    density = np.float32(shot.smoke) * (0.35 + 0.65 * smoothstep(-1.2, 1.4, as_float(mix)))[..., None]
    return as_float(scene + density * (as_float([0.62, 0.58, 0.57]) - scene))


def _lens(light: Float, endoscope: Endoscope, shot: Shot, side: int) -> Float:
    light = blur(light, shot.defocus * side)
    if shot.streak != (0.0, 0.0):
        light = as_float(cv2.filter2D(light, -1, _streak_kernel(shot.streak, side)))
    excess = np.maximum(light - 1, 0)
    light = light + 0.3 * blur(as_float(np.minimum(excess, 2)), 0.012 * side)  # glare around highlights
    fringe = endoscope.colour_fringe * side
    if abs(fringe) > 0.1:
        for channel, sign in ((0, 1), (2, -1)):
            move = np.array([[1, 0, sign * fringe], [0, 1, sign * fringe / 2]], np.float32)
            plane = np.ascontiguousarray(light[..., channel])
            light[..., channel] = cv2.warpAffine(plane, move, plane.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return as_float(light)


def _streak_kernel(streak: tuple[float, float], side: int) -> Float:
    """A centred line, so that the blurred image stays where its mask is. Shapes: -> (k, k), sum 1."""
    reach = max(abs(streak[0]), abs(streak[1])) * side / 2
    half = int(np.ceil(reach)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    dx, dy = streak[0] * side / 2, streak[1] * side / 2
    ends = [[round((half + sign * d) * 8) for d in (dx, dy)] for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], (255,), 1, cv2.LINE_AA, shift=3)
    return as_float(kernel) / np.float32(kernel.sum())


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return np.asarray(decoded, np.uint8)
