"""A drawn set in which each fault that `trocar check` looks for is planted, once and on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from trocar.data.files import write_jpeg, write_png

Array = np.ndarray

# kind of finding -> the records planted for it; the frames of the drawn set are procedure-NN/NNNN
PLANTED: dict[str, tuple[str, ...]] = {
    "unreadable": ("procedure-01/0001",),
    "size": ("procedure-01/0002",),
    "orientation": ("procedure-01/0003",),
    "mask-values": ("procedure-01/0004",),
    "jpeg-mask": ("procedure-01/0005",),
    "mirrored": ("procedure-02/0001",),
    "shifted": ("procedure-02/0003",),
    "specks": ("procedure-02/0002",),
    "holes": ("procedure-02/0004",),
    "blank": ("procedure-03/0001",),
    "dark": ("procedure-03/0002",),
    "bright": ("procedure-03/0003",),
    "blurred": ("procedure-03/0004",),
    "text": ("procedure-04/0001",),
    "duplicate": ("procedure-04/0002", "procedure-05/copy"),
    "near-duplicate": ("procedure-04/0003", "procedure-05/again"),
}
LISTED = ("procedure-04/0004",)  # without a mask: no record, so only the source's listing names it


def plant(clean: Path, out: Path) -> Path:
    """Copy a clean drawn set (at least 5 procedures of 6 frames) and spoil it."""
    shutil.copytree(clean, out)
    image, mask, rewrite = _tools(out)

    data = image("procedure-01/0001").read_bytes()
    image("procedure-01/0001").write_bytes(data[: len(data) // 2])
    rewrite(mask("procedure-01/0002"), lambda stored: stored[::2, ::2])
    rewrite(mask("procedure-01/0003"), lambda stored: np.ascontiguousarray(stored.T))
    rewrite(mask("procedure-01/0004"), anti_alias)
    stored = cv2.imread(str(mask("procedure-01/0005")), cv2.IMREAD_UNCHANGED)
    Image.fromarray(stored * 100).save(mask("procedure-01/0005"), "JPEG", quality=80)

    rewrite(mask("procedure-02/0001"), lambda stored: np.ascontiguousarray(stored[:, ::-1]))
    rewrite(mask("procedure-02/0002"), with_speck)
    rewrite(mask("procedure-02/0003"), lambda stored: shifted(stored, 0.06))
    rewrite(mask("procedure-02/0004"), with_hole)

    rewrite(image("procedure-03/0001"), lambda pixels: np.full_like(pixels, 90))
    rewrite(image("procedure-03/0002"), lambda pixels: (pixels * 0.08).astype(np.uint8))
    rewrite(image("procedure-03/0003"), lambda pixels: np.clip(pixels * 5.0, 0, 255).astype(np.uint8))
    rewrite(image("procedure-03/0004"), lambda pixels: cv2.GaussianBlur(pixels, (0, 0), pixels.shape[0] / 40))
    rewrite(image("procedure-04/0001"), with_text)
    rewrite(mask("procedure-04/0001"), narrowed)

    for folder in ("images", "masks", "instances"):
        for original, copy in (("procedure-04/0002", "copy"), ("procedure-04/0003", "again")):
            shutil.copy(out / folder / f"{original}.png", out / folder / f"procedure-05/{copy}.png")
    again = cv2.imread(str(image("procedure-05/again")))
    image("procedure-05/again").unlink()
    write_jpeg(out / "images/procedure-05/again.jpg", cv2.convertScaleAbs(again, alpha=0.85)[..., ::-1], quality=70)
    mask("procedure-04/0004").unlink()
    return out


def anti_alias(mask: Array) -> Array:
    """Class borders softened, as drawing with anti-aliasing leaves them."""
    return cv2.blur((mask > 0).astype(np.uint8) * 255, (3, 3))


def shifted(mask: Array, share: float) -> Array:
    """Moved to the right and down by a share of the sides."""
    height, width = mask.shape
    move = np.float32([[1, 0, share * width], [0, 1, share * height]])
    return cv2.warpAffine(mask, move, (width, height), flags=cv2.INTER_NEAREST)


def with_speck(mask: Array) -> Array:
    """Two pixels of instrument where there is none."""
    far = cv2.distanceTransform(cv2.copyMakeBorder((mask == 0).astype(np.uint8), 1, 1, 1, 1, 0), cv2.DIST_L2, 3)
    row, column = np.unravel_index(far[1:-1, 1:-1].argmax(), mask.shape)
    spoilt = mask.copy()
    spoilt[row, column : column + 2] = 1
    return spoilt


def with_hole(mask: Array) -> Array:
    """Two pixels of background deep inside the instrument."""
    deep = cv2.distanceTransform((mask > 0).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(deep.argmax(), deep.shape)
    spoilt = mask.copy()
    spoilt[row, column : column + 2] = 0
    return spoilt


def narrowed(pixels: Array) -> Array:
    """Squeezed into the right three quarters; the rest is black, or background."""
    height, width = pixels.shape[:2]
    margin = width // 4
    how = cv2.INTER_AREA if pixels.ndim == 3 else cv2.INTER_NEAREST
    spoilt = np.zeros_like(pixels)
    spoilt[:, margin:] = cv2.resize(pixels, (width - margin, height), interpolation=how)
    return spoilt


def with_text(image: Array) -> Array:
    """The picture narrowed beside a black margin that names a patient."""
    spoilt = narrowed(image)
    scale = image.shape[0] / 400
    for line, words in enumerate(("DOE, JANE", "F 1970", "12:03:44")):
        place = (int(4 * scale), int((60 + 40 * line) * scale))
        cv2.putText(spoilt, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55 * scale, (255, 255, 255), 1, cv2.LINE_AA)
    return spoilt


def _tools(
    out: Path,
) -> tuple[Callable[[str], Path], Callable[[str], Path], Callable[[Path, Callable[[Array], Array]], None]]:
    def image(name: str) -> Path:
        return out / "images" / f"{name}.png"

    def mask(name: str) -> Path:
        return out / "masks" / f"{name}.png"

    def rewrite(path: Path, change: Callable[[Array], Array]) -> None:
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        changed = change(stored if stored.ndim == 2 else stored[..., ::-1])
        write_png(path, np.ascontiguousarray(changed))

    return image, mask, rewrite
