"""`predict`: images, folders, patterns, videos and feeds in; masks, overlays and a summary out.

    OUT/masks/STEM.png           one channel; two classes: 0 and 255; several: class indices, named in OUT/classes.json
    OUT/masks/STEM.mkv           of a video: the same values, lossless, a frame for each frame decoded, at its time
    OUT/masks/STEM/000000.png    of a video where PNGs are asked for
    OUT/overlays/STEM.jpg, .mp4  for looking at
    OUT/probabilities/STEM.png   on request, 16 bit (65535 is 1); several classes: STEM/INDEX-CLASS.png; videos: .mkv
    OUT/instances/STEM.png       on request, a number for each connected piece of a class, 8 or 16 bit; videos: .mkv
    OUT/frames.jsonl             on request, a line for each image and frame: run lengths, quality, times
    OUT/predictions.json         what was made of what, and what could not be read

An input that cannot be read stops nothing: the rest is done first, then all such inputs are raised together. Frames of
a video are read, predicted and written side by side (`pipeline`).
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from trocar import __version__
from trocar.data.files import atomic_write_bytes, read_image
from trocar.data.records import ImageArray
from trocar.errors import UserError, UserErrors
from trocar.inference.draw import overlay
from trocar.inference.feeds import STDIN, Feed, FeedOptions
from trocar.inference.frames import Frame
from trocar.inference.inputs import CLASSES, LINES, OUTPUT_FOLDERS, SUMMARY, Input, gather
from trocar.inference.look import Look, look
from trocar.inference.outputs import Files, Lines, VideoMasks, VideoOutputs, Wanted, write_image, write_raw
from trocar.inference.pipeline import stream
from trocar.inference.predictor import Prediction, Predictor
from trocar.inference.smoothing import NO_SMOOTHING, Smoother, SmoothSettings
from trocar.inference.summary import Predicted, PredictionSummary, Trust
from trocar.inference.window import Window
from trocar.plain import many
from trocar.stopping import Stops

if TYPE_CHECKING:
    from trocar.inference.sound import Sound

IMAGES_AT_ONCE = 4

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]  # frames done, frames expected; an image is one frame


def predict(
    inputs: Sequence[str | Path],
    model: str | Path | Predictor | None,
    out: str | Path,
    *,
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    masks: bool = True,
    overlays: bool = True,
    probabilities: bool = False,
    instances: bool = False,
    video_masks: VideoMasks = "video",
    lines: bool = False,
    raw: io.RawIOBase | None = None,
    window: bool = False,
    as_video: bool = False,
    feeds: FeedOptions | None = None,
    smooth: SmoothSettings = NO_SMOOTHING,
    threshold: float | None = None,
    flips: bool = False,
    tiles: float | None = None,
    min_area: Sequence[str] = (),
    fill_holes: Sequence[str] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PredictionSummary:
    """Predict everything that `inputs` name and write it below `out`; returns what predictions.json holds.

    `model` is a model folder, a run, the name of a model that ships with trocar (None: the default one), or a
    `Predictor` that is open already (how it predicts is then its own choice). `batch_size` frames go through the
    network at once: by default 4 images, or 1 frame of a video. `video_masks` says how those of videos are written,
    `raw` takes the bytes of every mask, `lines` asks for frames.jsonl, `instances` numbers connected pieces. `as_video`
    takes a folder for one video; `feeds` says how feeds are opened, `smooth` how the masks of videos are smoothed over
    time. `say` is told which engine runs.

    Raises `UserErrors` with every input that could not be read after all others are done; `UserError` at once where
    nothing can be written, or `out` holds masks that `predict` did not make. Ctrl-C leaves what is finished, closed and
    listed. Where nothing was, the folder is left as it was before.
    """
    items, problems = gather(inputs, as_video=as_video)
    if not items:
        raise UserErrors(problems or [UserError("nothing to predict", mend="name images, folders or videos")])
    feeds = feeds or FeedOptions()
    if any(item.feed == STDIN for item in items):
        feeds.raw_format()  # refused before anything is opened or written
    if isinstance(model, Predictor):
        predictor = model
    else:
        aim = "throughput" if any(item.is_video for item in items) else "latency"
        how: dict[str, Any] = {
            "aim": aim,
            "flips": flips,
            "tiles": tiles,
            "min_area": min_area,
            "fill_holes": fill_holes,
        }
        predictor = Predictor.open(model, device, engine=engine, threshold=threshold, **how)
    if say:
        say(f"engine: {predictor.about}")
    smooth.check(predictor)
    wanted = Wanted(masks, overlays, probabilities, instances, video_masks, lines, raw, window)
    job = _Job(predictor, Path(out), batch_size, wanted, feeds, smooth, progress, failed=problems)
    try:
        job.run(items)
    except OSError as error:  # readers raise UserError: only writing is left
        raise _cannot_write(error, out) from error
    if job.failed:
        raise UserErrors(job.failed)
    return job.summary(complete=True)


@dataclass
class _Job:
    """One call of `predict`: what is asked for, and what is done so far."""

    predictor: Predictor
    out: Path
    batch_size: int | None
    wanted: Wanted
    feeds: FeedOptions
    smooth: SmoothSettings
    progress: Progress | None
    failed: list[UserError]
    done: list[Predicted] = field(default_factory=list)
    frames_expected: dict[str, int] = field(default_factory=dict)  # by stem; empty where nobody watches
    frames_behind: int = 0  # expected frames of the inputs that are behind us
    lines: Lines | None = None
    window: Window | None = None
    stops: Stops = field(default_factory=Stops)  # holds Ctrl-C back while a frame is in some outputs and not in all
    open_files: ExitStack = field(default_factory=ExitStack)
    begun: bool = False

    def _start(self, items: Sequence[Input]) -> None:
        """Make the folder, and see that it is not somebody else's and can be written to."""
        _refuse_foreign(self.out)
        for folder in (*reversed(self.out.parents), self.out):
            if not folder.exists():
                self.open_files.callback(_remove_if_empty, folder)
        self.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.out):
            pass
        if self.progress:
            self.frames_expected = {item.stem: _expected_frames(item) for item in items}
            self.progress(0, sum(self.frames_expected.values()))

    def run(self, items: Sequence[Input]) -> None:
        """Make the folder, predict images, then videos. The summary of what was made is written whatever happens."""
        with self.stops:
            self._run(items)

    def _run(self, items: Sequence[Input]) -> None:
        complete = False
        try:
            with self.open_files as stack:
                self._start(items)
                if self.wanted.window:
                    self.window = stack.enter_context(Window("trocar predict"))
                images = (item for item in items if not item.is_video)
                for batch in _batches(images, self.batch_size or IMAGES_AT_ONCE):
                    self._images(batch)
                for item in items:
                    if item.is_video:
                        self._video(item)
            complete = True
        except KeyboardInterrupt as stopped:
            listed = f"what is done is closed, and listed in {self.out / SUMMARY}"
            raise KeyboardInterrupt(
                f"{str(stopped) or 'stopped'}; {listed if self.begun else 'nothing was done yet'}"
            ) from None
        finally:
            if self.begun:
                with self.stops.held():
                    self._write_summary(complete=complete)

    def _begin(self) -> None:
        """Mark the folder as ours before the first output is in it. Until then it is left as it was."""
        if self.begun:
            return
        self.begun = True
        self._write_summary(complete=False)
        if self.predictor.card.binary:
            (self.out / CLASSES).unlink(missing_ok=True)  # of an earlier prediction with several classes
        else:
            indices = {name: index for index, name in enumerate(self.predictor.classes)}
            atomic_write_bytes(self.out / CLASSES, (json.dumps(indices, indent=2) + "\n").encode())
        if self.wanted.lines:
            self.lines = self.open_files.enter_context(closing(Lines(self.out)))
        else:
            (self.out / LINES).unlink(missing_ok=True)  # of an earlier prediction too

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
            smoothing=self.smooth.about,
            quality_promise=self.predictor.quality_promise(smoothed=self.smooth.active),
            unlike_fitting=self.predictor.unlike_fitting(smoothed=self.smooth.active),
            versions=self._versions(),
            predictions=tuple(self.done),
            failed=tuple(error.as_dict() for error in self.failed),
        )

    def _versions(self) -> dict[str, str]:
        """Of what made the outputs so far."""
        found = {"trocar": __version__, **self.predictor.versions, "numpy": np.__version__, "opencv": cv2.__version__}
        if any(one.kind == "video" for one in self.done):
            import av

            found["av"] = av.__version__
        return found

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
            if self.wanted.raw:
                write_raw(self.wanted.raw, prediction)
            with self.stops.held():
                self._image(item, image, prediction, shared_seconds)
            if self.window:
                self._show(self.window, overlay(image, prediction.mask))

    def _image(self, item: Input, image: ImageArray, prediction: Prediction, shared_seconds: float) -> None:
        start = time.perf_counter()
        self._begin()
        files = self.wanted.files(item.stem, self.predictor.classes, video=False)
        pieces = write_image(self.out, files, image, prediction)
        seconds = shared_seconds + time.perf_counter() - start
        if self.lines:
            self.lines.write(item.name, 0, None, seconds, prediction)
        trust = Trust(self.predictor.quality_limit)
        trust.add(prediction)
        self._add(
            item, "image", files, prediction.mask.shape, _shares(prediction), seconds, **trust.of_image(), **pieces
        )
        self._finished(item)

    # -------------------------------------------------------------- videos

    def _video(self, item: Input) -> None:
        from av import FFmpegError  # whoever predicts images goes without PyAV

        try:
            with item.open(self.feeds) as feed:
                self._video_frames(item, feed)
        except UserError as error:  # no video, or broken further on: what came before is written and listed
            self.failed.append(error.with_traceback(None))  # which would keep the decoder and its frames alive
        except FFmpegError as error:  # readers raise UserError: only writing is left
            raise _cannot_write(error, self.out) from error
        self._finished(item)

    def _video_frames(self, item: Input, feed: Feed) -> None:
        from trocar.inference.sound import open_sound
        from trocar.inference.video import VideoReader
        from trocar.inference.video_writer import colour_codec

        start = time.perf_counter()
        files = self.wanted.files(item.stem, self.predictor.classes, video=True)
        done, shape, shares, complete = 0, (0, 0), np.zeros(len(self.predictor.classes)), False
        trust, smoother = Trust(self.predictor.quality_limit), Smoother(self.smooth)
        sound = open_sound(item.path) if files.overlay and isinstance(feed, VideoReader) else None
        try:
            with ExitStack() as stack:
                if sound is not None:
                    stack.callback(sound.close)
                files_open = VideoOutputs(self.out, files, feed, sound)
                outputs = stack.enter_context(self.stops.held_at_the_end(files_open))
                results = stream(self.predictor, feed, batch_size=self.batch_size or 1)
                for frame, found in stack.enter_context(closing(results)):
                    prediction = smoother.prediction(self.predictor, frame.image, found, frame.seconds)
                    shown = self._look(frame, prediction)
                    if self.wanted.raw:  # not held: its reader may let us wait
                        write_raw(self.wanted.raw, prediction)
                    with self.stops.held():
                        self._begin()
                        outputs.write(frame, prediction, shown)
                        if self.lines:
                            elapsed_s = time.perf_counter() - start
                            self.lines.write(item.name, done, float(frame.seconds), elapsed_s, prediction)
                        done, shape, shares = done + 1, prediction.mask.shape, shares + _shares(prediction)
                        trust.add(prediction)
                    self._report(item, done)
                    if self.window and isinstance(shown, np.ndarray):
                        self._show(self.window, shown)
            complete = True
        finally:  # after the files are closed, also on Ctrl-C
            if done:
                with self.stops.held():
                    self._add(
                        item,
                        "video",
                        files,
                        shape,
                        shares / done,
                        time.perf_counter() - start,
                        frames=done,
                        lost_frames=feed.lost,
                        damaged_frames=feed.damaged,
                        overlay_codec=colour_codec() if files.overlay else None,
                        sound=_what_became_of(sound),
                        pixel_aspect=float(getattr(feed, "pixel_aspect", None) or 1),
                        reconnections=getattr(feed, "reconnected", 0),
                        complete=complete,
                        **trust.of_video(),
                    )

    def _show(self, window: Window, look: ImageArray) -> None:
        window.show(look)
        if window.closed():
            raise KeyboardInterrupt("stopped: the window was closed")

    def _look(self, frame: Frame, prediction: Prediction) -> Look | None:
        if self.window:
            return overlay(frame.image, prediction.mask)
        return look(frame, prediction.mask) if self.wanted.overlays else None

    # -------------------------------------------------------------- books

    def _add(
        self,
        item: Input,
        kind: Literal["image", "video"],
        files: Files,
        shape: tuple[int, ...],
        shares: NDArray[np.float64],
        seconds: float,
        **further: Any,
    ) -> None:
        self.done.append(
            Predicted(
                file=item.name,
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
        """Tell how many frames are done; a video may turn out longer than it said, and a feed says nothing."""
        if self.progress:
            if item.feed:
                self.frames_expected[item.stem] = max(done, self.frames_expected[item.stem])
            done = min(done, self.frames_expected[item.stem])
            self.progress(self.frames_behind + done, sum(self.frames_expected.values()))

    def _finished(self, item: Input) -> None:
        self._report(item, self.frames_expected.get(item.stem, 0))
        self.frames_behind += self.frames_expected.get(item.stem, 0)


def _what_became_of(sound: Sound | None) -> str | None:
    if sound is None:
        return None
    copied = [f"{sound.copied} tracks copied" if sound.copied > 1 else "copied"] if sound.copied else []
    refused = [f"{many(sound.refused, 'damaged packet')} left out"] if sound.refused else []
    return "; ".join([*copied, *refused, *(f"left out: MP4 cannot hold {name}" for name in sound.left_out)])


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
    if not item.is_video or item.feed:
        return 1
    from trocar.inference.video import VideoReader

    try:
        with VideoReader(item.path) as reader:
            return max(1, reader.frames_expected)
    except UserError:  # raised again, and kept, when its turn comes
        return 1


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _cannot_write(error: Exception, out: str | Path) -> UserError:
    return UserError(
        f"cannot write the predictions: {getattr(error, 'strerror', None) or error}",
        where=str(getattr(error, "filename", None) or out),
        mend="free space there, or give a folder that may be written to",
    )


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
