"""`predict`: images, folders, patterns and videos in; masks, overlays and a summary out.

    OUT/masks/STEM.png           one channel; two classes: 0 and 255; several: class indices, named in OUT/classes.json
    OUT/masks/STEM.mkv           of a video: the same values, lossless, a frame for each frame decoded, at its time
    OUT/overlays/STEM.jpg, .mp4  for looking at
    OUT/probabilities/STEM.png   on request, 16 bit (65535 is 1); several classes: STEM/INDEX-CLASS.png; videos: .mkv
    OUT/instances/STEM.png       on request, a number for each connected piece of a class, 8 or 16 bit; videos: .mkv
    OUT/predictions.json         what was made of what, and what could not be read

An input that cannot be read stops nothing: the rest is done first, then all such inputs are raised together.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trocar import __version__
from trocar.config import Settings
from trocar.data.files import atomic_write_bytes, read_image, write_jpeg, write_png
from trocar.data.records import MaskArray
from trocar.errors import UserError, UserErrors
from trocar.inference.draw import overlay
from trocar.inference.inputs import OUTPUT_FOLDERS, SUMMARY, Input, gather
from trocar.inference.postprocess import Instance
from trocar.inference.postprocess import instances as number_instances
from trocar.inference.predictor import Prediction, Predictor
from trocar.inference.video import Frame, Pixels, VideoReader, VideoWriter, colour_codec

CLASSES = "classes.json"

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]  # frames done, frames expected; an image is one frame


class PredictedInstance(Settings):
    """A connected piece of one class."""

    id: int = Field(description="its value in the image of ids")
    class_name: str
    area: int = Field(description="pixels")
    box: tuple[int, int, int, int] = Field(description="left, top, width, height in pixels")


class Predicted(Settings):
    """What was made of one input. Paths of outputs are relative to the folder of predictions.json."""

    file: str
    kind: Literal["image", "video"]
    mask: str
    overlay: str | None
    probabilities: tuple[str, ...] = Field((), description="two classes: one file; several: one a class")
    instance_ids: str | None = Field(None, description="image of ids, where asked for; video: of each frame by itself")
    instances: tuple[PredictedInstance, ...] | None = Field(
        None, description="images, where asked for: the largest first, class by class; null: not asked for, or a video"
    )
    width: int
    height: int
    share: dict[str, float] = Field(description="share of the pixels by class; video: mean over frames")
    seconds: float = Field(description="reading, predicting and writing; images of one batch share its time evenly")
    frames: int = 1
    lost_frames: int = Field(0, description="video: could not be decoded; they are in no output")
    damaged_frames: int = Field(0, description="video: decoded with errors; predicted as they are")
    overlay_codec: str | None = None
    complete: bool = Field(True, description="video: false where it was stopped, or cannot be read to its end")
    quality: float | None = Field(
        None, description="how good the mask is likely to be, 0 to 1; null: nothing was found. Video: mean over frames"
    )
    look_at: bool | None = Field(
        None, description="whether quality is under the model's limit; null: no quality or no limit. Video: any frame"
    )
    disagreement: float | None = Field(None, description="with flips: 1 - Dice of image and mirror image. Video: mean")
    frame_quality: tuple[float | None, ...] = Field((), description="video: quality of each frame")
    frames_to_look_at: tuple[int, ...] = Field((), description="video: frames to look at; the first is 0")


class PredictionSummary(Settings):
    """What `predict` did: the content of predictions.json."""

    format: Literal[1] = 1
    complete: bool = Field(description="false while it runs, and for good where it was stopped")
    created: str
    model: str = Field(description="name of the model")
    weights: str | None = Field(description="SHA-256 of its weights")
    classes: tuple[str, ...]
    threshold: float | None = Field(description="probability from which a pixel is foreground; null: argmax")
    engine: str = Field("torch", description="what ran the network, and where")
    flips: bool = Field(False, description="whether the mirror image was predicted too and averaged")
    tiles: float | None = Field(None, description="scale at which larger frames were cut into tiles; null: they shrank")
    cleanup: str = Field("", description="what was changed in the masks after the network, in words; empty: nothing")
    quality_limit: float | None = Field(None, description="frames of a lower quality are to be looked at")
    quality_promise: str = Field("none", description="what the limit promises, and on which assumption")
    versions: dict[str, str]
    predictions: tuple[Predicted, ...] = ()
    failed: tuple[dict[str, str | None], ...] = Field((), description="what, where and mend of each input not read")


def predict(
    inputs: Sequence[str | Path],
    model: str | Path | Predictor | None,
    out: str | Path,
    *,
    device: str = "auto",
    engine: str = "auto",
    batch_size: int = 4,
    probabilities: bool = False,
    overlays: bool = True,
    threshold: float | None = None,
    flips: bool = False,
    tiles: float | None = None,
    min_area: Sequence[str] = (),
    fill_holes: Sequence[str] = (),
    instances: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PredictionSummary:
    """Predict everything that `inputs` name and write it below `out`; returns what predictions.json holds.

    `model` is a model folder, a run, the name of a model that ships with trocar (None: the default one), or a
    `Predictor` that is open already (how it predicts is then its own choice). `instances` numbers connected pieces.
    `say` is told which engine runs. Raises `UserErrors` with every input that could not be read after all others are
    done; `UserError` at once where nothing can be written, or `out` holds masks that `predict` did not make. Ctrl-C
    leaves what is finished, closed and listed.
    """
    items, problems = gather(inputs)
    if not items:
        raise UserErrors(problems or [UserError("nothing to predict", mend="name images, folders or videos")])
    if isinstance(model, Predictor):
        predictor = model
    else:
        how: dict[str, Any] = {"flips": flips, "tiles": tiles, "min_area": min_area, "fill_holes": fill_holes}
        predictor = Predictor.open(model, device, engine=engine, threshold=threshold, **how)
    if say:
        say(f"engine: {predictor.about}")
    job = _Job(predictor, Path(out), max(1, batch_size), probabilities, overlays, instances, progress, failed=problems)
    try:
        job.start(items)
        job.run(items)
    except (OSError, av.FFmpegError) as error:  # readers raise UserError: only writing is left
        raise UserError(
            f"cannot write the predictions: {getattr(error, 'strerror', None) or error}",
            where=str(getattr(error, "filename", None) or out),
            mend="free space there, or give a folder that may be written to",
        ) from error
    if job.failed:
        raise UserErrors(job.failed)
    return job.summary(complete=True)


@dataclass
class _Job:
    """One call of `predict`: what is asked for, and what is done so far."""

    predictor: Predictor
    out: Path
    batch_size: int
    probabilities: bool
    overlays: bool
    instances: bool
    progress: Progress | None
    failed: list[UserError]
    done: list[Predicted] = field(default_factory=list)
    frames_expected: dict[str, int] = field(default_factory=dict)  # by stem; empty where nobody watches
    frames_behind: int = 0  # expected frames of the inputs that are behind us

    def start(self, items: Sequence[Input]) -> None:
        """Make the folder, see that it can be written to, and mark it as ours before any mask is in it."""
        _refuse_foreign(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self._write_summary(complete=False)
        if self.predictor.card.binary:
            (self.out / CLASSES).unlink(missing_ok=True)  # of an earlier prediction with several classes
        else:
            indices = {name: index for index, name in enumerate(self.predictor.classes)}
            atomic_write_bytes(self.out / CLASSES, (json.dumps(indices, indent=2) + "\n").encode())
        if self.progress:
            self.frames_expected = {item.stem: _expected_frames(item) for item in items}
            self.progress(0, sum(self.frames_expected.values()))

    def run(self, items: Sequence[Input]) -> None:
        """Predict the images, then the videos. The summary is written whatever happens."""
        complete = False
        try:
            for batch in _batches((item for item in items if not item.is_video), self.batch_size):
                self._images(batch)
            for item in items:
                if item.is_video:
                    self._video(item)
            complete = True
        finally:
            self._write_summary(complete=complete)

    def summary(self, *, complete: bool) -> PredictionSummary:
        """The state of things as it is written to predictions.json."""
        card = self.predictor.card
        return PredictionSummary(
            complete=complete,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=card.name,
            weights=card.files.get("weights.safetensors"),
            classes=card.classes,
            threshold=self.predictor.threshold,
            engine=self.predictor.about,
            flips=self.predictor.flips,
            tiles=self.predictor.tiles,
            cleanup=self.predictor.cleanup.in_words(card.classes) if self.predictor.cleanup else "",
            quality_limit=self.predictor.quality_limit,
            quality_promise=self.predictor.quality_promise(),
            versions={"trocar": __version__} | {name: version(name) for name in ("torch", "numpy", "av")},
            predictions=tuple(self.done),
            failed=tuple(error.as_dict() for error in self.failed),
        )

    def _write_summary(self, *, complete: bool) -> None:
        text = self.summary(complete=complete).model_dump_json(indent=2) + "\n"
        atomic_write_bytes(self.out / SUMMARY, text.encode())

    # -------------------------------------------------------------- images

    def _images(self, items: Sequence[Input]) -> None:
        start = time.perf_counter()
        loaded = []
        for item in items:
            try:
                loaded.append((item, read_image(item.path)))
            except UserError as error:
                self.failed.append(error)
                self._finished(item)
        predictions = self.predictor.predict_batch([image for _, image in loaded])
        shared_seconds = (time.perf_counter() - start) / max(1, len(loaded))
        for (item, image), prediction in zip(loaded, predictions, strict=True):
            start = time.perf_counter()
            files = self._files(item, mask=".png", overlay=".jpg")
            write_png(self.out / files.mask, mask_for_file(prediction))
            if files.overlay:
                write_jpeg(self.out / files.overlay, overlay(image, prediction.mask))
            for name, plane in zip(files.probabilities, prediction.probabilities, strict=bool(files.probabilities)):
                write_png(self.out / name, probability_for_file(plane))
            pieces: dict[str, Any] = {}
            if files.instance_ids:
                ids, found = number_instances(prediction.mask, len(prediction.classes))
                write_png(self.out / files.instance_ids, ids)
                pieces["instances"] = tuple(_told(piece, prediction.classes) for piece in found)
            seconds = shared_seconds + time.perf_counter() - start
            trust = _Trust(self.predictor.quality_limit)
            trust.add(prediction)
            self._add(
                item, "image", files, prediction.mask.shape, _shares(prediction), seconds, **trust.of_image(), **pieces
            )
            self._finished(item)

    # -------------------------------------------------------------- videos

    def _video(self, item: Input) -> None:
        try:
            with VideoReader(item.path) as reader:
                self._video_frames(item, reader)
        except UserError as error:  # no video, or broken further on: what came before is written and listed
            self.failed.append(error.with_traceback(None))  # which would keep the decoder and its frames alive
        self._finished(item)

    def _video_frames(self, item: Input, reader: VideoReader) -> None:
        start = time.perf_counter()
        files = self._files(item, mask=".mkv", overlay=".mp4")
        done, shape, shares, complete = 0, (0, 0), np.zeros(len(self.predictor.classes)), False
        trust = _Trust(self.predictor.quality_limit)
        try:
            with ExitStack() as stack:
                write = _open_outputs(stack, self.out, files, reader)
                for frames in _batches(reader, self.batch_size):
                    for frame, prediction in zip(frames, self._predict_frames(frames), strict=True):
                        write(frame, prediction)
                        done, shape, shares = done + 1, prediction.mask.shape, shares + _shares(prediction)
                        trust.add(prediction)
                    self._report(item, done)
            complete = True
        finally:  # after the files are closed, also on Ctrl-C
            if done:
                self._add(
                    item,
                    "video",
                    files,
                    shape,
                    shares / done,
                    time.perf_counter() - start,
                    frames=done,
                    lost_frames=reader.lost,
                    damaged_frames=reader.damaged,
                    overlay_codec=colour_codec() if files.overlay else None,
                    complete=complete,
                    **trust.of_video(),
                )

    def _predict_frames(self, frames: Sequence[Frame]) -> list[Prediction]:
        return self.predictor.predict_batch([frame.image for frame in frames])

    # -------------------------------------------------------------- books

    def _files(self, item: Input, *, mask: str, overlay: str) -> _Files:
        chances = [f"probabilities/{name}{mask}" for name in self._probability_names(item)]
        look = f"overlays/{item.stem}{overlay}" if self.overlays else None
        ids = f"instances/{item.stem}{mask}" if self.instances else None
        return _Files(f"masks/{item.stem}{mask}", look, tuple(chances), ids)

    def _probability_names(self, item: Input) -> list[str]:
        if not self.probabilities:
            return []
        if self.predictor.card.binary:
            return [item.stem]
        plain = [re.sub(r"[^\w-]", "_", name) for name in self.predictor.classes]
        return [f"{item.stem}/{index}-{name}" for index, name in enumerate(plain)]

    def _add(
        self,
        item: Input,
        kind: Literal["image", "video"],
        files: _Files,
        shape: tuple[int, ...],
        shares: NDArray[np.float64],
        seconds: float,
        **further: Any,
    ) -> None:
        self.done.append(
            Predicted(
                file=str(item.path),
                kind=kind,
                **files._asdict(),
                width=shape[1],
                height=shape[0],
                share={name: float(share) for name, share in zip(self.predictor.classes, shares, strict=True)},
                seconds=round(seconds, 4),
                **further,
            )
        )

    def _report(self, item: Input, done: int) -> None:
        """Tell how many frames are done; a video may turn out longer than it said."""
        if self.progress:
            done = min(done, self.frames_expected[item.stem])
            self.progress(self.frames_behind + done, sum(self.frames_expected.values()))

    def _finished(self, item: Input) -> None:
        self._report(item, self.frames_expected.get(item.stem, 0))
        self.frames_behind += self.frames_expected.get(item.stem, 0)


@dataclass
class _Trust:
    """Quality of the frames of one input, and which of them are to be looked at."""

    limit: float | None
    quality: list[float] = field(default_factory=list)
    disagreement: list[float] = field(default_factory=list)

    def add(self, prediction: Prediction) -> None:
        self.quality.append(prediction.quality)
        self.disagreement.append(prediction.disagreement)

    def of_image(self) -> dict[str, Any]:
        return {
            "quality": _mean(self.quality),
            "look_at": self._look_at(),
            "disagreement": _mean(self.disagreement),
        }

    def of_video(self) -> dict[str, Any]:
        frames = tuple(_mean([value]) for value in self.quality)
        return {**self.of_image(), "frame_quality": frames, "frames_to_look_at": tuple(self._below())}

    def _below(self) -> list[int]:
        return [index for index, value in enumerate(self.quality) if self.limit is not None and value < self.limit]

    def _look_at(self) -> bool | None:
        if self.limit is None or all(map(math.isnan, self.quality)):
            return None
        return bool(self._below())


def _mean(values: Sequence[float]) -> float | None:
    """Mean of what is not NaN, to four digits; None where nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return round(sum(defined) / len(defined), 4) if defined else None


class _Files(NamedTuple):
    """Outputs of one input, relative to the folder of predictions.json."""

    mask: str
    overlay: str | None
    probabilities: tuple[str, ...]
    instance_ids: str | None


def _told(piece: Instance, classes: Sequence[str]) -> PredictedInstance:
    return PredictedInstance(id=piece.id, class_name=classes[piece.class_index], area=piece.area, box=piece.box)


def mask_for_file(prediction: Prediction) -> MaskArray:
    """The mask as written: 0 and 255 where there are two classes, else class indices. Shapes: (H, W) -> (H, W)."""
    return prediction.mask * np.uint8(255) if len(prediction.classes) == 2 else prediction.mask


def probability_for_file(plane: NDArray[np.float32]) -> NDArray[np.uint16]:
    """0..1 as 0..65535. Shapes: (H, W) -> (H, W)."""
    return np.rint(plane * 65535).astype(np.uint16)


def _open_outputs(
    stack: ExitStack, out: Path, files: _Files, reader: VideoReader
) -> Callable[[Frame, Prediction], None]:
    """Open the output videos for as long as the stack lasts; returns what writes one frame to all of them."""

    def writer(name: str, pixels: Pixels) -> VideoWriter:
        return stack.enter_context(VideoWriter(out / name, pixels, rate=reader.rate, time_base=reader.time_base))

    masks = writer(files.mask, "grey")
    looks = writer(files.overlay, "colour") if files.overlay else None
    chances = [writer(name, "grey16") for name in files.probabilities]
    numbers = writer(files.instance_ids, "grey16") if files.instance_ids else None

    def write(frame: Frame, prediction: Prediction) -> None:
        masks.write(mask_for_file(prediction), frame.seconds)
        if looks:
            looks.write(overlay(frame.image, prediction.mask), frame.seconds)
        for chance, plane in zip(chances, prediction.probabilities, strict=bool(chances)):
            chance.write(probability_for_file(plane), frame.seconds)
        if numbers:
            ids, _ = number_instances(prediction.mask, len(prediction.classes))
            numbers.write(ids.astype(np.uint16), frame.seconds)

    return write


def _shares(prediction: Prediction) -> NDArray[np.float64]:
    """Share of the pixels by class index. Shapes: -> (classes,), sums to 1."""
    others = [np.count_nonzero(prediction.mask == index) for index in range(1, len(prediction.classes))]
    return np.array([prediction.mask.size - sum(others), *others]) / prediction.mask.size


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last may be shorter. What came before a `UserError` is given before it is raised."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except UserError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _expected_frames(item: Input) -> int:
    if not item.is_video:
        return 1
    try:
        with VideoReader(item.path) as reader:
            return max(1, reader.frames_expected)
    except UserError:  # raised again, and kept, when its turn comes
        return 1


def _refuse_foreign(out: Path) -> None:
    """Predicted masks must not overwrite somebody's labels: a `masks` folder that is not ours is refused."""
    if (out / SUMMARY).exists():
        return
    foreign = [name for name in (*OUTPUT_FOLDERS, CLASSES) if (out / name).exists()]
    if foreign:
        raise UserError(
            f"the folder for the predictions already holds {', '.join(foreign)}, not made by `trocar predict`",
            where=str(out),
            mend="give a new or empty folder",
        )
