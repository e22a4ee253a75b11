"""What `predict` writes of an image or a frame, and where.

Videos are opened with their first frame. Whatever ends them, they are closed, and hold what was written until then.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from trocar.data.files import write_jpeg, write_png
from trocar.data.records import ImageArray, MaskArray
from trocar.errors import UserError
from trocar.inference.draw import overlay
from trocar.inference.feeds import Feed
from trocar.inference.frames import Frame
from trocar.inference.inputs import LINES
from trocar.inference.look import Look
from trocar.inference.postprocess import Instance
from trocar.inference.postprocess import instances as number_instances
from trocar.inference.predictor import Prediction
from trocar.inference.summary import PredictedInstance

if TYPE_CHECKING:
    from trocar.inference.sound import Sound
    from trocar.inference.video_writer import Pixels, VideoWriter

VideoMasks: TypeAlias = Literal["video", "png"]


@dataclass(frozen=True)
class Wanted:
    """Which outputs are asked for."""

    masks: bool = True
    overlays: bool = True
    probabilities: bool = False
    instances: bool = False
    video_masks: VideoMasks = "video"  # one lossless video, or a PNG for each frame
    lines: bool = False  # frames.jsonl
    raw: io.RawIOBase | None = None  # takes every mask, as bytes
    window: bool = False

    def files(self, stem: str, classes: Sequence[str], *, video: bool) -> Files:
        """Outputs of one input."""
        ending = ".mkv" if video else ".png"
        mask = f"masks/{stem}" + ("" if video and self.video_masks == "png" else ending)
        names = []
        if self.probabilities and len(classes) == 2:
            names = [stem]
        elif self.probabilities:
            plain = [re.sub(r"[^\w-]", "_", name) for name in classes]
            names = [f"{stem}/{index}-{name}" for index, name in enumerate(plain)]
        return Files(
            mask if self.masks else None,
            f"overlays/{stem}{'.mp4' if video else '.jpg'}" if self.overlays else None,
            tuple(f"probabilities/{name}{ending}" for name in names),
            f"instances/{stem}{ending}" if self.instances else None,
        )


class Files(NamedTuple):
    """Outputs of one input, relative to the folder of predictions.json."""

    mask: str | None
    overlay: str | None
    probabilities: tuple[str, ...]
    instance_ids: str | None


def mask_for_file(prediction: Prediction) -> MaskArray:
    """The mask as written: 0 and 255 where there are two classes, else class indices. Shapes: (H, W) -> (H, W)."""
    return prediction.mask * np.uint8(255) if len(prediction.classes) == 2 else prediction.mask


def probability_for_file(plane: NDArray[np.float32]) -> NDArray[np.uint16]:
    """0..1 as 0..65535. Shapes: (H, W) -> (H, W)."""
    return np.rint(plane * 65535).astype(np.uint16)


def write_image(out: Path, files: Files, image: ImageArray, prediction: Prediction) -> dict[str, Any]:
    """Write all outputs of an image; returns what `Predicted` says of its instances."""
    if files.mask:
        write_png(out / files.mask, mask_for_file(prediction))
    if files.overlay:
        write_jpeg(out / files.overlay, overlay(image, prediction.mask))
    for name, plane in zip(files.probabilities, prediction.probabilities, strict=bool(files.probabilities)):
        write_png(out / name, probability_for_file(plane))
    if not files.instance_ids:
        return {}
    ids, found = number_instances(prediction.mask, len(prediction.classes))
    write_png(out / files.instance_ids, ids)
    return {"instances": tuple(_told(piece, prediction.classes) for piece in found)}


def _told(piece: Instance, classes: Sequence[str]) -> PredictedInstance:
    return PredictedInstance(id=piece.id, class_name=classes[piece.class_index], area=piece.area, box=piece.box)


# ------------------------------------------------------------------ videos


@dataclass
class VideoOutputs:
    """The files of one video; a context manager, to which frames are written in order."""

    out: Path
    files: Files
    feed: Feed
    sound: Sound | None = None
    frames: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)
    _writers: list[Callable[[Frame, Prediction, Look | None], None]] = field(default_factory=list)

    def write(self, frame: Frame, prediction: Prediction, look: Look | None) -> None:
        """Append a frame to every file. `look` is the overlay, where there is one to be written."""
        if not self.frames:
            self._open()
        for write in self._writers:
            write(frame, prediction, look)
        self.frames += 1

    def _open(self) -> None:
        files = self.files
        if files.mask and files.mask.endswith(".mkv"):
            masks = self._video(files.mask, "grey")
            self._writers.append(lambda frame, found, _: masks.write(mask_for_file(found), frame.seconds))
        elif files.mask:
            folder = self.out / files.mask
            self._writers.append(lambda _, found, __: write_png(self._png(folder), mask_for_file(found)))
        if files.overlay:
            looks = self._video(files.overlay, "colour", self.sound)
            self._writers.append(lambda frame, _, look: looks.write(_drawn(look), frame.seconds))
        for index, name in enumerate(files.probabilities):
            self._writers.append(_plane_writer(self._video(name, "grey16"), index))
        if files.instance_ids:
            self._writers.append(_instance_writer(self._video(files.instance_ids, "grey16")))

    def _video(self, name: str, pixels: Pixels, sound: Sound | None = None) -> VideoWriter:
        from trocar.inference.video_writer import VideoWriter  # imports PyAV

        aspect = getattr(self.feed, "pixel_aspect", None)
        rate, time_base = self.feed.rate, self.feed.time_base
        path = self.out / name
        writer = VideoWriter(path, pixels, rate=rate, time_base=time_base, pixel_aspect=aspect, sound=sound)
        return self._stack.enter_context(writer)

    def _png(self, folder: Path) -> Path:
        return folder / f"{self.frames:06d}.png"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _drawn(look: Look | None) -> Look:
    assert look is not None, "an overlay video needs overlays"
    return look


def _plane_writer(writer: VideoWriter, index: int) -> Callable[[Frame, Prediction, Look | None], None]:
    def write(frame: Frame, prediction: Prediction, _: Look | None) -> None:
        writer.write(probability_for_file(prediction.probabilities[index]), frame.seconds)

    return write


def _instance_writer(writer: VideoWriter) -> Callable[[Frame, Prediction, Look | None], None]:
    def write(frame: Frame, prediction: Prediction, _: Look | None) -> None:
        ids, _ids = number_instances(prediction.mask, len(prediction.classes))
        writer.write(ids.astype(np.uint16), frame.seconds)

    return write


# ------------------------------------------------------------------ streams of all inputs


class Lines:
    """frames.jsonl: one JSON object a line for each image and frame, written as soon as it is known."""

    def __init__(self, out: Path) -> None:
        self._file = (out / LINES).open("w", encoding="utf-8")

    def write(self, file: str, index: int, seconds: float | None, elapsed_s: float, prediction: Prediction) -> None:
        """`seconds` is the time in the video, `elapsed_s` that since its first frame was asked for."""
        height, width = prediction.mask.shape
        line = {
            "file": file,
            "frame": index,
            "seconds": None if seconds is None else round(seconds, 6),
            "elapsed_s": round(elapsed_s, 4),
            "height": height,
            "width": width,
            "quality": None if np.isnan(prediction.quality) else round(prediction.quality, 4),
            "objects": _objects(prediction),
        }
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _objects(prediction: Prediction) -> list[dict[str, Any]]:
    """What there is of each class but the background, as COCO has it: run lengths, area, box (left, top, w, h)."""
    found = []
    for index, name in enumerate(prediction.classes[1:], start=1):
        region = np.asfortranarray(prediction.mask == index).view(np.uint8)
        runs: Any = coco.encode(region)
        if area := int(coco.area(runs)):
            box = [int(side) for side in coco.toBbox(runs)]
            counts = runs["counts"].decode("ascii")
            found.append(
                {
                    "class": name,
                    "index": index,
                    "area": area,
                    "bbox": box,
                    "rle": {"size": runs["size"], "counts": counts},
                }
            )
    return found


def write_raw(raw: io.RawIOBase, prediction: Prediction) -> None:
    """The bytes of a mask, row by row, and nothing else. Raises `UserError` where nobody reads them any more."""
    left = memoryview(np.ascontiguousarray(mask_for_file(prediction)).data.cast("B"))
    try:
        while left:
            left = left[raw.write(left) or 0 :]
    except BrokenPipeError:
        raise UserError(
            "whoever read the raw masks has gone",
            where="stdout",
            mend="let it read to the end; what came before is done",
        ) from None
