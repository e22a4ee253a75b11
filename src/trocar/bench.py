"""`bench`: what each part of predicting costs, the whole of it, memory, and how long a new process takes to a mask.

First a frame at a time goes through all parts, one after the other, each timed by the clock and by the processor time
it took. Then frames go through the stream that `predict` uses, with the files it writes, where the parts run side by
side: that is what a user gets, and `overhead` says how much longer a frame takes there than the network alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from pydantic import Field

from trocar.config import Settings
from trocar.data.files import write_png
from trocar.data.preprocess import prepare_image
from trocar.errors import UserError
from trocar.inference.feeds import Feed, is_live, open_feed
from trocar.inference.frames import Frame
from trocar.inference.look import look
from trocar.inference.outputs import VideoOutputs, Wanted
from trocar.inference.pipeline import stream
from trocar.inference.predictor import Predictor, inside_padding
from trocar.inference.video_writer import VideoWriter
from trocar.machine import machine, memory_mb, peak_memory_mb
from trocar.model_folder import resolve_model

STAGES: Final = ("decode", "prepare", "network", "finish", "draw", "encode")
DRAWN_FRAMES, DRAWN_HW = 25, (576, 720)
FRAMES: Final = 200
WARM_UP: Final = 3  # frames before the first that counts: compiling, memory, caches
COLD_STARTS: Final = 3

Progress: TypeAlias = Callable[[int, int], None]


class StageTimes(Settings):
    """Times of one part for a frame, in ms."""

    p50: float
    p95: float
    p99: float
    processor: float = Field(description="median of the processor time of all threads; of p50 where nothing waits")


class EndToEnd(Settings):
    """Frames through the whole: read, predict, draw, write, side by side."""

    frames: int
    seconds: float
    frames_per_second: float
    overhead: float = Field(description="time for a frame over that of the network alone, minus 1; under 0: overlapped")
    processor_ms: float = Field(description="processor time of all threads for a frame")


class Memory(Settings):
    """Memory of the process; null where the system does not tell."""

    peak_mb: float | None
    growth_mb_per_1000_frames: float | None = Field(description="a line through the second half of the last pass")


class Bench(Settings):
    """What `bench` measured."""

    format: int = 1
    model: str
    engine: str = Field(description="for one frame at a time")
    engine_of_stream: str = Field(description="for frames that follow each other")
    network_hw: tuple[int, int]
    input: str
    frame_hw: tuple[int, int]
    frames: int = Field(description="frames that each time of a stage is of")
    stages: dict[str, StageTimes]
    end_to_end: dict[str, EndToEnd] = Field(description="by what is written: both, overlays, masks")
    memory: Memory
    cold_start_s: tuple[float, ...] = Field(
        description="new process until the first mask of one image is on disk, each"
    )
    machine: dict[str, str | int | list[str]]


def bench(
    model: str | Path | None = None,
    *,
    source: str | Path | None = None,
    size_hw: tuple[int, int] = DRAWN_HW,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    frames: int = FRAMES,
    seconds: float | None = None,
    cold_starts: int = COLD_STARTS,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Bench:
    """Measure a model on `source`, a video or a folder of frames; without one on a clip that is drawn in `size_hw`.

    `frames` go through each of the four passes (parts one by one, and three times end to end); with `seconds` a pass
    ends after this time. A source that is shorter begins anew. Nothing is left on disk. `threads` limits the engine's.
    """
    if source is not None and is_live(str(source)):
        raise UserError("a live source sets its own pace", where=str(source), mend="give a video or a folder of frames")
    opening = {"device": device, "engine": engine, "threads": threads}
    predictor = Predictor.open(model, **opening)  # type: ignore[arg-type]
    side_by_side = Predictor.open(model, aim="throughput", **opening)  # type: ignore[arg-type]
    if say:
        say(f"engine: {predictor.about}")
    with tempfile.TemporaryDirectory(prefix="trocar-bench-") as scratch:
        clip = _drawn_clip(Path(scratch), size_hw) if source is None else str(source)
        limit = _Limit(frames, seconds, progress)
        times, first = _one_by_one(predictor, clip, Path(scratch), limit)
        network_ms = _times(times["network"]).p50
        runs, memory = {}, Memory(peak_mb=None, growth_mb_per_1000_frames=None)
        for name, wanted in _OUTPUTS.items():
            runs[name], memory = _end_to_end(side_by_side, clip, Path(scratch) / name, wanted, limit, network_ms)
        image = Path(scratch) / "frame.png"
        write_png(image, first.image)
        command = [str(image), "--model", str(resolve_model(model)), "--engine", engine, "--device", device]
        cold = tuple(_cold_start(command, Path(scratch) / f"cold-{number}") for number in range(cold_starts))
    return Bench(
        model=predictor.card.name,
        engine=predictor.about,
        engine_of_stream=side_by_side.about,
        network_hw=predictor.preprocess.size_hw,
        input="a drawn clip" if source is None else str(source),
        frame_hw=(first.image.shape[0], first.image.shape[1]),
        frames=len(times["network"]),
        stages={stage: _times(times[stage]) for stage in STAGES},
        end_to_end=runs,
        memory=memory,
        cold_start_s=cold,
        machine=machine(),
    )


_OUTPUTS: Final = {  # the first is what `predict` writes when nothing is said
    "both": Wanted(),
    "overlays": Wanted(masks=False),
    "masks": Wanted(overlays=False),
}


def _drawn_clip(folder: Path, size_hw: tuple[int, int]) -> str:
    """An H.264 video of drawn scenes."""
    from trocar.synthetic import draw_clip

    path = folder / "drawn.mp4"
    with VideoWriter(path, "colour", rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
        for number, scene in enumerate(draw_clip(DRAWN_FRAMES, seed=0, size_hw=size_hw)):
            writer.write(scene.image, Fraction(number, 25))
    return str(path)


class _Limit:
    """How long a pass lasts."""

    def __init__(self, frames: int, seconds: float | None, progress: Progress | None) -> None:
        self.frames, self.seconds, self.progress = max(1, frames), seconds, progress

    def ends(self, done: int, start: float) -> bool:
        if self.progress:
            self.progress(min(done, self.frames), self.frames)
        return done >= self.frames or (self.seconds is not None and time.perf_counter() - start >= self.seconds)


class _Again:
    """A feed that begins anew at its end, with times that go on; a context manager."""

    lost = damaged = 0

    def __init__(self, source: str) -> None:
        self._source, self._stopped = source, False
        self._feed: Feed = open_feed(source)
        self.rate, self.time_base = self._feed.rate, self._feed.time_base

    def __iter__(self) -> Iterator[Frame]:
        begin, last = Fraction(0), Fraction(0)
        while True:
            for frame in self._feed:
                if self._stopped:
                    return
                last = begin + frame.seconds
                yield frame._replace(seconds=last)
            self._feed.close()
            self._feed, begin = open_feed(self._source), last + 1 / self.rate

    def stop(self) -> None:
        self._stopped = True
        self._feed.stop()

    def close(self) -> None:
        self._feed.close()

    def __enter__(self) -> _Again:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Times: TypeAlias = list[tuple[float, float]]  # clock, processor; seconds


@contextmanager
def _timed(into: Times) -> Iterator[None]:
    clock, processor = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - clock, time.process_time() - processor))


def _one_by_one(predictor: Predictor, source: str, out: Path, limit: _Limit) -> tuple[dict[str, Times], Frame]:
    """Times of each stage, and the first frame."""
    times: dict[str, Times] = {stage: [] for stage in STAGES}
    with _Again(source) as feed, _outputs(out / "parts", Wanted(), predictor, feed) as outputs:
        frames, first, start = iter(feed), None, 0.0
        for number in range(-WARM_UP, sys.maxsize):
            if number == 0:
                start = time.perf_counter()
                times = {stage: [] for stage in STAGES}
            with _timed(times["decode"]):
                frame = next(frames)
            first = first or frame
            with _timed(times["prepare"]):
                prepared, placement = prepare_image(frame.image, predictor.preprocess)
            with _timed(times["network"]):
                logits = predictor.engine(prepared[None])[0]
            with _timed(times["finish"]):
                small = predictor.network_probabilities(inside_padding(logits, placement))
                prediction = predictor.finish(small, logits, placement)
            with _timed(times["draw"]):
                shown = look(frame, prediction.mask)
            with _timed(times["encode"]):
                outputs.write(frame, prediction, shown)
            if number >= 0 and limit.ends(number + 1, start):
                return times, first
    raise AssertionError("a feed that begins anew has no end")


def _end_to_end(
    predictor: Predictor, source: str, out: Path, wanted: Wanted, limit: _Limit, network_ms: float
) -> tuple[EndToEnd, Memory]:
    """Frames through the stream of `predict` into the files that are wanted; closing these counts."""
    _warm(predictor, source)
    held: list[float] = []
    start, processor, done = time.perf_counter(), time.process_time(), 0
    with ExitStack() as stack:
        feed = stack.enter_context(_Again(source))
        outputs = stack.enter_context(_outputs(out, wanted, predictor, feed))
        for frame, prediction in stack.enter_context(closing(stream(predictor, feed))):
            shown = look(frame, prediction.mask) if wanted.overlays else None
            outputs.write(frame, prediction, shown)
            done += 1
            held += [now] if (now := memory_mb()) is not None else []
            if limit.ends(done, start):
                break
    elapsed, processor = time.perf_counter() - start, time.process_time() - processor
    run = EndToEnd(
        frames=done,
        seconds=round(elapsed, 3),
        frames_per_second=round(done / elapsed, 2),
        overhead=round(1000 * elapsed / done / network_ms - 1, 4),
        processor_ms=round(1000 * processor / done, 3),
    )
    return run, Memory(peak_mb=_rounded(peak_memory_mb()), growth_mb_per_1000_frames=_rounded(_growth(held)))


def _warm(predictor: Predictor, source: str) -> None:
    with _Again(source) as feed:
        image = next(iter(feed)).image
    for _ in range(WARM_UP):
        predictor(image)


def _outputs(out: Path, wanted: Wanted, predictor: Predictor, feed: _Again) -> VideoOutputs:
    return VideoOutputs(out, wanted.files("clip", predictor.classes, video=True), feed)


def _cold_start(arguments: list[str], out: Path) -> float:
    """Seconds from starting `trocar predict` until the mask is there."""
    command = [sys.executable, "-m", "trocar", "predict", *arguments, "--out", str(out)]
    mask = out / "masks" / "frame.png"
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ.copy()) as process:
        while process.poll() is None and not mask.exists():
            time.sleep(0.001)
        elapsed = time.perf_counter() - start
        told, _ = process.communicate()
    if process.returncode or not mask.exists():
        raise UserError(f"predicting one image in a new process failed: {told.decode(errors='replace').strip()}")
    return round(elapsed, 3)


def _times(times: Times) -> StageTimes:
    clock, processor = 1000 * np.array(times).T
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(clock, [50, 95, 99]))
    return StageTimes(p50=p50, p95=p95, p99=p99, processor=round(float(np.median(processor)), 3))


def _growth(held: list[float]) -> float | None:
    """MB for 1000 frames, of a straight line through the second half."""
    settled = held[len(held) // 2 :]
    return 1000 * float(np.polyfit(np.arange(len(settled)), settled, 1)[0]) if len(settled) > 2 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
