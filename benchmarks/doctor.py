"""How often the tests of `trocar check` are wrong, and how often right: on real frames (if present) and on drawn ones.

    TROCAR_SHARED=FOLDER python benchmarks/doctor.py

Misplaced masks: the masks as they are should raise no alarm; then each in turn is spoilt, all others left as they are,
and must stand out. Near-duplicates: altered copies must be found again (hash and thumbnail, as in `trocar check`), and
no two frames of different groups may be taken for copies. Frames of one video are thinned to every tenth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar.config import DataSettings
from trocar.data.checks import outline, picture
from trocar.data.checks.duplicates import NEAR_BITS, near_pairs
from trocar.data.checks.rules import misplaced
from trocar.data.files import shrink
from trocar.data.records import IGNORE, ImageArray, MaskArray
from trocar.data.sources import open_source
from trocar.synthetic import draw_scene

Frame = tuple[str, ImageArray, MaskArray]  # group, image at the reduced size, instrument at half of that

rng = np.random.default_rng(0)


def reduced(group: str, image: ImageArray, mask: MaskArray) -> Frame:
    """As the check measures a frame."""
    side = picture.REDUCED_SIDE
    small = shrink(image, next(step for step in (8, 4, 2, 1) if min(image.shape[:2]) >= step * side or step == 1))
    instrument = ((mask > 0) & (mask < IGNORE)).astype(np.uint8)
    return group, small, cv2.resize(instrument, half_of(small), interpolation=cv2.INTER_NEAREST_EXACT)


def half_of(image: ImageArray) -> tuple[int, int]:
    """Width and height at which outlines are measured."""
    return image.shape[1] // 2, image.shape[0] // 2


def real(folder: Path, every: int) -> list[Frame]:
    """Frames of a source."""
    return [reduced(r.group, *r.read()) for r in open_source(folder, DataSettings(every=every)).records]


def drawn(preset: str, count: int) -> list[Frame]:
    """Drawn frames, four of each procedure."""
    scenes = (draw_scene(n, size_hw=(480, 640), procedure=n // 4, preset=preset) for n in range(count))
    return [reduced(str(n // 4), scene.image, scene.parts) for n, scene in enumerate(scenes)]


def outline_of(image: ImageArray, mask: MaskArray) -> outline.Outline | None:
    """The scores of a mask on its image."""
    half = cv2.resize(image, half_of(image), interpolation=cv2.INTER_AREA)
    return outline.measure(np.asarray(half, np.uint8), mask)


def moved(share: float) -> Callable[[MaskArray], MaskArray]:
    """Shifts a mask by a share of its width, in a drawn direction."""

    def move(mask: MaskArray) -> MaskArray:
        angle, width = rng.uniform(0, 2 * np.pi), mask.shape[1]
        step = np.array([[1, 0, share * width * np.cos(angle)], [0, 1, share * width * np.sin(angle)]], np.float32)
        return cv2.warpAffine(mask, step, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    return move


SPOILT: dict[str, Callable[[MaskArray], MaskArray]] = {
    "shifted by 2 %": moved(0.02),
    "shifted by 4 %": moved(0.04),
    "shifted by 8 %": moved(0.08),
    "left to right": lambda mask: np.ascontiguousarray(mask[:, ::-1]),
    "top to bottom": lambda mask: np.ascontiguousarray(mask[::-1]),
    "half turn": lambda mask: np.ascontiguousarray(mask[::-1, ::-1]),
}


def misplaced_masks(name: str, frames: Sequence[Frame]) -> None:
    """Print one row: false alarms, then the share of spoilt masks that are told."""
    as_is = [(frame, found) for frame in frames if (found := outline_of(*frame[1:]))]
    outlines = [found for _, found in as_is]
    alarms = sum(kind is not None for kind in misplaced(outlines))
    cells = [f"{alarms} of {len(outlines)}"]
    for spoil in SPOILT.values():
        told = total = 0
        for place, (frame, _) in enumerate(as_is):
            found = outline_of(frame[1], spoil(frame[2]))
            if found is not None:
                total += 1
                told += misplaced([*outlines[:place], found, *outlines[place + 1 :]])[place] is not None
        cells.append(f"{told / max(total, 1):.0%}")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


ALTERED: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "JPEG, quality 60": lambda g: cv2.imdecode(cv2.imencode(".jpg", g, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
    "half the size": lambda g: cv2.resize(g, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR),
    "noise of 8": lambda g: np.clip(g + rng.normal(0, 8, g.shape), 0, 255).astype(np.uint8),
    "darker by 30 %": lambda g: cv2.convertScaleAbs(g, alpha=0.7),
    "brighter by 25 %": lambda g: cv2.convertScaleAbs(g, alpha=1.25),
    "2 % cropped off": lambda g: g[len(g) // 50 : -(len(g) // 50), len(g[0]) // 50 : -(len(g[0]) // 50)].copy(),
    "mirrored": lambda g: g[:, ::-1].copy(),
}


def near_duplicates(name: str, frames: Sequence[Frame]) -> None:
    """Print one row: pairs across groups that are no copies, then the share of altered copies that are found."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for _, image, _ in frames]
    groups = [group for group, _, _ in frames]
    across = [(i, j) for i, j in near_pairs(*known_by(greys)).tolist() if groups[i] != groups[j]]
    pairs = sum(groups[i] != groups[j] for i in range(len(groups)) for j in range(i))
    cells = [f"{len(across)} of {pairs}"]
    for alter in ALTERED.values():
        found = sum(len(near_pairs(*known_by([grey, alter(grey)]))) for grey in greys)
        cells.append(f"{found / len(greys):.0%}")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def known_by(greys: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hashes and thumbnails."""
    thumbs = [cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel() for grey in greys]
    return np.array([picture.perceptual_hash(grey) for grey in greys], np.uint64), np.stack(thumbs)


def main() -> None:
    """Both tables."""
    sets = {"drawn, demo": drawn("demo", 100), "drawn, varied": drawn("varied", 100)}
    shared = os.environ.get("TROCAR_SHARED")
    if shared:
        folder = Path(shared) / "data/endovis15"
        sets["EndoVis 2015, rigid"] = real(folder / "rigid", 1)
        sets["EndoVis 2015, robotic"] = real(folder / "robotic", 10)
    print("| frames | false alarms | " + " | ".join(SPOILT) + " |")
    for name, frames in sets.items():
        misplaced_masks(name, frames)
    print(f"\n| frames, at most {NEAR_BITS} bits | false pairs | " + " | ".join(ALTERED) + " |")
    for name, frames in sets.items():
        near_duplicates(name, frames)


if __name__ == "__main__":
    main()
