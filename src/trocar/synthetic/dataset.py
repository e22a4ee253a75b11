"""A drawn data set on disk: pictures with masks grouped by procedure, and one moving clip of another procedure.

Layout below the folder that is given:

    dataset.json                     what it is (see `_describe`); `complete` once everything is written
    classes.json                     class name -> index in the masks
    images/procedure-01/0000.png     RGB
    masks/procedure-01/0000.png      8 bits, one channel: 0 background, 1 shaft, 2 tip
    instances/procedure-01/0000.png  8 bits, one channel: 0 background, 1 and up one per instrument
    clip/clip.mp4                    H.264; its procedure has no frames above
    clip/masks/0000.png              parts, one file per frame of the clip
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import trocar
from trocar.errors import UserError
from trocar.synthetic.presets import preset_named
from trocar.synthetic.scene import FRAMES_PER_SECOND, PARTS, Scene, check_size, draw_clip, draw_scene

FORMAT = 1
DESCRIPTION = "dataset.json"
_OURS = (  # every file but the JSON that an earlier drawn set can have left, unfinished ones (.partial) as well
    "images/procedure-*/[0-9]*.png*",
    "masks/procedure-*/[0-9]*.png*",
    "instances/procedure-*/[0-9]*.png*",
    "clip/clip.mp4*",
    "clip/masks/[0-9]*.png*",
)


def write_dataset(
    out: Path,
    *,
    procedures: int = 6,
    frames_per_procedure: int = 12,
    empty_share: float = 0.08,
    clip_frames: int = 48,
    size_hw: tuple[int, int] = (256, 320),
    preset: str = "demo",
    seed: int = 0,
) -> Path:
    """Draw a data set into the folder `out` and return it.

    `empty_share` is the share of frames without an instrument, spread evenly over the procedures. An earlier drawn
    set in `out` is replaced; any other folder with something in it is refused.
    """
    preset_named(preset)
    check_size(size_hw)
    if procedures < 1 or frames_per_procedure < 1 or clip_frames < 1 or not 0 <= empty_share <= 1 or seed < 0:
        raise UserError(
            f"cannot draw {procedures} procedures of {frames_per_procedure} frames, {empty_share:g} of them empty, "
            f"with a clip of {clip_frames} frames and seed {seed}",
            mend="give at least one of each, an empty share from 0 to 1, and a seed of 0 or more",
        )
    frames = _plan(procedures, frames_per_procedure, empty_share, seed)
    description = _describe(frames, clip_frames, size_hw, preset, seed)
    try:
        _clear(out)
        _write_json(out / DESCRIPTION, {**description, "complete": False})
        _write_json(out / "classes.json", {name: index for index, name in enumerate(PARTS)})
        for index, (procedure, is_empty) in enumerate(frames.items()):
            for frame, empty in enumerate(is_empty):
                scene = draw_scene(
                    frame_seed(seed, frame),
                    size_hw=size_hw,
                    preset=preset,
                    procedure=procedure_number(seed, index),
                    instruments=0 if empty else None,
                )
                _write_scene(out, f"{procedure}/{frame:04d}.png", scene)
        clip = draw_clip(
            clip_frames, seed, size_hw=size_hw, preset=preset, procedure=procedure_number(seed, procedures)
        )
        _write_clip(out / "clip", clip, size_hw)
        _write_json(out / DESCRIPTION, {**description, "complete": True})
    except OSError as error:
        raise UserError(
            f"cannot write the drawn set: {error.strerror or error}",
            where=str(error.filename or out),
            mend="choose a folder that you may write to, on a disk with room",
        ) from error
    return out


def procedure_number(seed: int, index: int) -> int:
    """The `procedure` of `draw_scene` for the index-th procedure of a set, counted from 0; the clip's comes last."""
    return 10_000 * seed + index


def frame_seed(seed: int, frame: int) -> int:
    """The `seed` of `draw_scene` for a frame of a set; procedures tell frames of equal number apart."""
    return 10_000 * seed + frame


def _plan(procedures: int, frames: int, empty_share: float, seed: int) -> dict[str, list[bool]]:
    """For each procedure, which of its frames are empty."""
    rng = np.random.default_rng([seed, *b"empty frames"])
    plan = {}
    for index in range(procedures):
        # Rounding the running total keeps the share of the whole set.
        count = round((index + 1) * frames * empty_share) - round(index * frames * empty_share)
        empty = set(rng.choice(frames, count, replace=False).tolist())
        plan[f"procedure-{index + 1:02d}"] = [frame in empty for frame in range(frames)]
    return plan


def _describe(
    frames: dict[str, list[bool]], clip_frames: int, size_hw: tuple[int, int], preset: str, seed: int
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": "drawn",
        "made_by": f"trocar {trocar.__version__}",
        "preset": preset,
        "seed": seed,
        "size_hw": [int(side) for side in size_hw],
        "classes": list(PARTS),
        "procedures": {
            name: {
                "frames": [f"{frame:04d}" for frame in range(len(is_empty))],
                "empty": [f"{frame:04d}" for frame, empty in enumerate(is_empty) if empty],
            }
            for name, is_empty in frames.items()
        },
        "clip": {
            "procedure": f"procedure-{len(frames) + 1:02d}",
            "video": "clip/clip.mp4",
            "masks": "clip/masks",
            "frames": clip_frames,
            "frames_per_second": FRAMES_PER_SECOND,
        },
    }


def _clear(out: Path) -> None:
    """Make `out` a folder without frames: create it, or remove the files of an earlier drawn set from it."""
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    if not _is_drawn(out / DESCRIPTION):
        raise UserError(
            "the folder for the drawn set holds something else",
            where=str(out),
            mend="give a new or empty folder; only an earlier drawn set is replaced",
        )
    for pattern in _OURS:
        for path in out.glob(pattern):
            path.unlink()


def _is_drawn(description: Path) -> bool:
    try:
        found = json.loads(description.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == "drawn"


def _write_scene(out: Path, name: str, scene: Scene) -> None:
    _write_png(out / "images" / name, scene.image[..., ::-1])
    _write_png(out / "masks" / name, scene.parts)
    _write_png(out / "instances" / name, scene.instances)


def _write_clip(folder: Path, scenes: Iterable[Scene], size_hw: tuple[int, int]) -> None:
    """The clip, and the mask of each of its frames on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "clip.mp4.partial"
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "18", "preset": "fast"})
        stream.height, stream.width = size_hw
        # Halved chroma, which every player reads, needs even sides.
        stream.pix_fmt = "yuv444p" if any(side % 2 for side in size_hw) else "yuv420p"
        for image in _masks_aside(folder / "masks", scenes):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(folder / "clip.mp4")


def _masks_aside(folder: Path, scenes: Iterable[Scene]) -> Iterator[NDArray[np.uint8]]:
    for index, scene in enumerate(scenes):
        _write_png(folder / f"{index:04d}.png", scene.parts)
        yield scene.image


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(".png", pixels)
    assert done
    _write(path, data.tobytes())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=1) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: an interruption leaves no half file under the final name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)
