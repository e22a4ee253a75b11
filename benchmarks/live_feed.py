"""`trocar live` at length: latency of a feed at its own rate, and memory over many frames.

    python benchmarks/live_feed.py latency --video Video.avi [--model MODEL] [--seconds 180] [--viewer]
    python benchmarks/live_feed.py memory [--model MODEL] [--frames 20000] [--viewer]

`latency` plays a video again and again at its own rate and prints p50, p95 and p99 of the age of a frame when it is
shown, the share of late ones (over 200 ms) and how many were dropped. `memory` sends a drawn clip of 1280x720 round and
round as fast as frames can be shown, each of them, and prints the resident memory of the process while it does and the
slope of a line through it, without the first tenth, with its standard error (Linux). `--viewer` looks at the page
meanwhile, as a browser would.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trocar.inference.frames import Frame
from trocar.inference.predictor import Predictor
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter
from trocar.live.session import live, run
from trocar.synthetic import draw_scene

SIZE_HW, CLIP_FRAMES = (720, 1280), 50
SAMPLES = 200


def main() -> None:
    """Parse and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    latency, memory = commands.add_parser("latency"), commands.add_parser("memory")
    for command in (latency, memory):
        command.add_argument("--model", help="default: the model that ships")
        command.add_argument("--engine", default="auto")
        command.add_argument("--viewer", action="store_true", help="look at the page meanwhile")
        command.add_argument("--json", type=Path, help="write the figures there too")
    latency.add_argument("--video", required=True)
    latency.add_argument("--seconds", type=float, default=180)
    memory.add_argument("--frames", type=int, default=20_000)
    options = parser.parse_args()
    predictor = Predictor.open(options.model, engine=options.engine)
    print(f"model {predictor.card.name}, {predictor.about}", flush=True)
    figures = (
        measure_latency(predictor, options) if options.command == "latency" else measure_memory(predictor, options)
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------ latency


def measure_latency(predictor: Predictor, options: argparse.Namespace) -> dict[str, Any]:
    """Play the video for so long."""
    with Viewer(options.viewer) as viewer:
        summary = live(
            options.video,
            predictor,
            view="page" if options.viewer else "headless",
            port=0,
            loop=True,
            seconds=options.seconds,
            ready=viewer.look,
        )
    p50, p95, p99 = (summary.latency_ms[name] or 0.0 for name in ("p50", "p95", "p99"))
    shown = max(1, summary.shown)
    print(f"{summary.seconds:.0f} s, {summary.read} frames came, {summary.shown} shown, {summary.dropped} dropped")
    print(f"latency p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms: p99 is {p99 / max(p50, 1e-9):.2f} x p50")
    print(f"late (over {summary.late_ms:g} ms): {summary.late}, {summary.late / shown:.3%} of those shown")
    return summary.model_dump(mode="json") | {"engine": predictor.about, "viewer": options.viewer}


# ------------------------------------------------------------------ memory


def measure_memory(predictor: Predictor, options: argparse.Namespace) -> dict[str, Any]:
    """Show so many frames, each one, and fit a line through the memory."""
    sampler = Sampler(options.frames)
    step = InStep(predictor, sampler)
    with tempfile.TemporaryDirectory() as folder, Viewer(options.viewer) as viewer:
        clip = drawn_clip(Path(folder) / "clip.mp4")
        summary = run(
            "a drawn clip",
            lambda: Rounds(clip, options.frames, step),
            Predictor(step, predictor.card),
            view="page" if options.viewer else "headless",
            port=0,
            ready=viewer.look,
        )
    frames, megabytes = np.array(sampler.frames, float), np.array(sampler.megabytes, float)
    settled = frames >= options.frames / 10
    slope, error = line(frames[settled], megabytes[settled])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{summary.shown} frames of {SIZE_HW[1]}x{SIZE_HW[0]} shown, {summary.dropped} dropped")
    print(
        f"memory {megabytes[settled][0]:.1f} MB after a tenth, {megabytes[-1]:.1f} MB in the end, {peak:.1f} MB at most"
    )
    print(f"slope {1000 * slope:+.4f} MB in 1,000 frames, standard error {1000 * error:.4f}")
    return {
        "shown": summary.shown,
        "peak_mb": peak,
        "slope_mb_per_1000": 1000 * slope,
        "standard_error": 1000 * error,
        "frames": sampler.frames,
        "megabytes": sampler.megabytes,
        "engine": predictor.about,
    }


def line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope of the line of least squares, and its standard error (of independent samples: neighbours are not quite)."""
    if len(x) < 3:
        return float("nan"), float("nan")
    slope, start = np.polyfit(x, y, 1)
    rest = y - slope * x - start
    return float(slope), float(np.sqrt((rest**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum()))


def drawn_clip(path: Path) -> Path:
    """A clip of drawn scenes; what they show does not matter here."""
    scenes = [draw_scene(seed, size_hw=SIZE_HW).image for seed in range(4)]
    with VideoWriter(path, "colour", rate=Fraction(25), time_base=Fraction(1, 90_000)) as writer:
        for n in range(CLIP_FRAMES):
            writer.write(np.roll(scenes[n % 4], 5 * n, axis=1), Fraction(n, 25))
    return path


class InStep:
    """The engine, which lets the feed send the next frame when it has the one before: none is dropped."""

    def __init__(self, predictor: Predictor, sampler: Sampler) -> None:
        self._engine, self._sampler = predictor.engine, sampler
        self.about = predictor.about
        self.taken = threading.Semaphore(0)

    def __call__(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Logits of a batch."""
        if frames.any():  # a black one warms up
            self._sampler.count()
            self.taken.release()
        return self._engine(frames)


class Rounds:
    """A feed that reads a clip again and again, until so many frames were sent."""

    def __init__(self, clip: Path, count: int, step: InStep) -> None:
        self.rate, self.time_base, self.lost, self.damaged = Fraction(25), Fraction(1, 25), 0, 0
        self._clip, self._count, self._step = clip, count, step
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        sent = 0
        while sent < self._count:
            with VideoReader(self._clip) as reader:
                for frame in reader:
                    if sent == self._count or self._stopped:
                        return
                    yield frame._replace(seconds=sent / self.rate)
                    sent += 1
                    while not self._step.taken.acquire(timeout=0.5):
                        if self._stopped:
                            return

    def stop(self) -> None:
        """Let no more frames come."""
        self._stopped = True

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sampler:
    """Reads the resident memory now and then."""

    def __init__(self, expected: int) -> None:
        self._every = max(1, expected // SAMPLES)
        self._counted = 0
        self._page_bytes = resource.getpagesize()
        self.frames: list[int] = []
        self.megabytes: list[float] = []

    def count(self) -> None:
        """One more frame."""
        self._counted += 1
        if self._counted % self._every == 0:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.frames.append(self._counted)
            self.megabytes.append(pages * self._page_bytes / 2**20)


class Viewer:
    """Reads the pictures of the page in a thread and throws them away; a context manager."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._thread: threading.Thread | None = None

    @property
    def look(self) -> Callable[[str], None]:
        """What is to be told the address of the page."""
        return self._start

    def _start(self, url: str) -> None:
        if self._wanted:
            self._thread = threading.Thread(target=self._read, args=(url + "video",), daemon=True)
            self._thread.start()

    def _read(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=60) as answer:
            while answer.read(1 << 16):
                pass

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join(10)


if __name__ == "__main__":
    main()
