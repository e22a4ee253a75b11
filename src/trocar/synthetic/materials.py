"""What instruments are made of, as matcaps: small pictures that give the look of every surface direction.

A matcap holds colour, light and reflections together, so that a cylinder of steel or a jaw of any shape costs one
look-up per pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from trocar.synthetic.noise import Float, as_float, draw, linear

SIDE = 65  # samples per axis of a matcap

PLASTICS = {  # 8-bit RGB
    "grey": (120, 122, 126),
    "blue": (40, 96, 190),
    "white": (232, 232, 226),
    "yellow": (236, 196, 40),
    "green": (40, 150, 110),
    "gold": (214, 170, 90),
    "ceramic": (236, 230, 214),
}
FINISHES = ("steel", "black", "clear", *PLASTICS)


def matcap(rng: np.random.Generator, finish: str, surroundings: Float) -> Float:
    """A random sample of a finish, one of FINISHES, that reflects `surroundings` (3,), linear RGB.

    Shapes: -> (SIDE, SIDE, 4) linear RGB and opacity, rows by the normal's y and columns by its x, both -1 to 1.
    """
    assert finish in FINISHES, finish
    nx, ny, nz, rim = _sphere()
    lx, ly = rng.uniform(-0.3, 0.3, 2)
    facing = np.clip(nx * lx + ny * ly + nz * np.sqrt(1 - lx * lx - ly * ly), 0, 1)
    if finish == "steel":
        return _steel(rng, facing, rim, surroundings)
    if finish == "black":
        base = linear((34, 34, 38)) * draw(rng, (0.5, 2.0))
        sheen = draw(rng, (0.08, 0.3)) * np.exp(-(1 - facing) / draw(rng, (0.02, 0.1)))
        return _opaque(base * (0.2 + 0.8 * facing[..., None]) + sheen[..., None] + 0.02 * surroundings)
    if finish == "clear":
        return _clear(rng, facing, rim)
    colour = linear(PLASTICS[finish])
    spot = draw(rng, (0.3, 1.2)) * np.exp(-(1 - facing) / draw(rng, (0.008, 0.03)))
    diffuse = colour * (0.12 + 0.88 * facing[..., None] ** 1.3) * (0.85 + 0.15 * surroundings)
    return _opaque(diffuse + spot[..., None])


def look_up(samples: Float, normal_x: Float, normal_y: Float) -> Float:
    """Colour and opacity for each direction. Shapes: normals (H, W), -1 to 1 -> (H, W, 4)."""
    half = np.float32((SIDE - 1) / 2)
    map_x, map_y = as_float((normal_x + 1) * half), as_float((normal_y + 1) * half)
    return as_float(cv2.remap(samples, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _steel(rng: np.random.Generator, facing: Float, rim: Float, surroundings: Float) -> Float:
    """Polished metal shows what is around it: the lamp, dark bands, and red tissue at grazing angles."""
    grey = draw(rng, (0.12, 0.3)) * (0.35 + 0.65 * facing)
    for _ in range(3):
        centre, width = draw(rng, (0.5, 0.98)), draw(rng, (0.02, 0.08))
        grey = grey + draw(rng, (-0.1, 0.22)) * np.exp(-(((facing - centre) / width) ** 2))
    lamp = draw(rng, (0.8, 2.2)) * np.exp(-(1 - facing) / draw(rng, (0.004, 0.02)))
    tint = linear((235, 235, 240)) * (1 - 0.25 * rim[..., None])
    red = draw(rng, (0.1, 0.45)) * rim[..., None] ** 2 * surroundings
    return _opaque(np.maximum(grey, 0.015)[..., None] * tint + lamp[..., None] + red)


def _clear(rng: np.random.Generator, facing: Float, rim: Float) -> Float:
    """Clear plastic: seen at its edges and by its highlights, tinted a little."""
    tint = linear((215, 225, 235)) * rng.uniform(0.6, 1.0, 3)
    spot = draw(rng, (0.6, 1.4)) * np.exp(-(1 - facing) / draw(rng, (0.004, 0.015)))
    colour = tint * (0.25 + 0.6 * facing[..., None]) + spot[..., None]
    opacity = np.clip(draw(rng, (0.12, 0.35)) + 0.55 * rim**4 + spot, 0, 1)
    return as_float(np.dstack((colour, opacity)))


def _sphere() -> tuple[Float, Float, Float, Float]:
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    nx, ny = np.meshgrid(axis, axis)
    rim = np.sqrt(np.minimum(nx * nx + ny * ny, 1))
    return as_float(nx), as_float(ny), as_float(np.sqrt(1 - rim * rim)), as_float(rim)


def _opaque(colour: Float) -> Float:
    return as_float(np.dstack((colour, np.ones((SIDE, SIDE), np.float32))))
