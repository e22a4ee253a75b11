"""The fuzz run of videos: spoilt files through `predict`, in worker processes that may crash, hang or swell.

    python tests/fuzz/fuzz_video.py [--cases 2000] [--seed 0] [--first 0] [--keep fuzz-found]

Each case must end in frames, or in a `UserError` after the frames before it; what was written must be playable, frame
for frame. Anything else is a defect: printed, its input kept below `--keep`, exit code 1. `--cases 1 --first NUMBER`
runs one again.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import av
import cv2
import numpy as np

from mutate import mutate_often
from tiny import brightness, tiny_card
from trocar.errors import UserError
from trocar.inference.predict import predict
from trocar.inference.predictor import Predictor

DEAD_SECONDS = 60.0
MOST_MIB = 1024
BACKSTOP = 8 << 30  # bytes of address space, libraries included

KINDS = {  # name of the seed: codec, pixel format, codec of the sound
    "h264.mp4": ("libx264", "yuv420p", "aac"),
    "mpeg4.avi": ("mpeg4", "yuv420p", "mp2"),
    "ffv1.mkv": ("ffv1", "bgr0", None),
    "mpeg2.ts": ("mpeg2video", "yuv420p", "mp2"),
    "vp9.webm": ("libvpx-vp9", "yuv420p", "opus"),
    "prores.mov": ("prores_ks", "yuv422p10le", None),
    "mjpeg.avi": ("mjpeg", "yuvj420p", None),
    "hevc.mkv": ("libx265", "yuv420p10le", None),
}


def write_seed(path: Path, codec: str, pixels: str, sound: str | None) -> None:
    """A second of moving blobs, with a tone."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=25, options={"x265-params": "log-level=none"} if "x265" in codec else {}
        )
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        tone = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number in range(25):
            coarse = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
            picture = np.asarray(cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_LINEAR), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            noise = rng.integers(-9000, 9000, 48000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            for part in av.AudioResampler(tone.codec_context.format.name, "mono", 48000).resample(frame):
                container.mux(tone.encode(part))
            container.mux(tone.encode(None))


def build_seeds(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (codec, pixels, sound) in KINDS.items():
        write_seed(folder / name, codec, pixels, sound)


def spoil(number: int, seed: int, seeds: Path) -> tuple[str, str, bytes]:
    """Name of the seed, what was done to it, and the spoilt file of this number."""
    rng = random.Random(seed * 1_000_003 + number)
    name = sorted(KINDS)[number % len(KINDS)]
    done, data = mutate_often((seeds / name).read_bytes(), Path(name).suffix, rng)
    return name, done, data


def run(number: int, seed: int, seeds: Path, folder: Path) -> tuple[str, str]:
    """Predict one spoilt video; what it was and how it ended. Raises what is a defect."""
    name, done, data = spoil(number, seed, seeds)
    path = folder / f"clip{Path(name).suffix}"
    path.write_bytes(data)
    ended = "frames"
    try:
        predict([path], Predictor(brightness, tiny_card()), folder / "out")
    except UserError:
        ended = "error"
    told = folder / "out" / "predictions.json"  # absent where no frame was predicted
    entries = json.loads(told.read_text())["predictions"] if told.exists() else []
    for entry in entries:
        for kind in ("mask", "overlay"):
            frames = count_frames(folder / "out" / entry[kind])
            assert frames == entry["frames"], f"{kind} has {frames} of {entry['frames']} frames"
        ended = "frames, then an error" if ended == "error" else ended
    left = [path.name for path in (folder / "out").rglob(".*")]
    assert not left, f"scratch files stay: {left}"
    return f"{name}: {done}", ended


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


# ------------------------------------------------------------------ worker and parent


def work(seed: int, seeds: Path, place: Path) -> None:
    """Answer each number on stdin by a line of JSON on stdout, until there is none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not come between
    faulthandler.enable()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (BACKSTOP, BACKSTOP))
    for line in sys.stdin:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started, why = time.monotonic(), ""
        try:
            what, ended = run(int(line), seed, seeds, place)
        except BaseException:
            what, ended, why = ": ".join(spoil(int(line), seed, seeds)[:2]), "defect", traceback.format_exc()[-3000:]
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
        if not why and peak > MOST_MIB:
            ended, why = "defect", f"took {peak:.0f} MiB of memory"
        answer = {"number": int(line), "what": what, "ended": ended, "why": why, "seconds": time.monotonic() - started}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """A process that runs cases, begun anew when one of them killed it."""

    def __init__(self, seed: int, seeds: Path, place: Path) -> None:
        self._command = [sys.executable, __file__, "--work", str(seed), str(seeds), str(place)]
        self._log = place.with_suffix(".log")
        self._process: subprocess.Popen | None = None

    def run(self, number: int) -> dict:
        if self._process is None:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
                )
        process = self._process
        process.stdin.write(f"{number}\n")
        ready, _, _ = select.select([process.stdout], [], [], DEAD_SECONDS)
        if line := process.stdout.readline() if ready else "":
            return json.loads(line)
        why = f"died (exit code {process.wait()})" if ready else f"hung for {DEAD_SECONDS:.0f} s"
        self.close()
        said = self._log.read_text(errors="replace")[-3000:]
        return {"number": number, "what": "", "ended": "defect", "why": f"{why}\n{said}"}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def fuzz(numbers: range, seed: int, keep: Path | None = None) -> Iterator[dict]:
    """The answers to the cases of these numbers, in order; the inputs of defects go below `keep`."""
    with tempfile.TemporaryDirectory(prefix="trocar-fuzz-") as temporary:
        seeds, place = Path(temporary) / "seeds", Path(temporary) / "case"
        build_seeds(seeds)
        worker = Worker(seed, seeds, place)
        try:
            for number in numbers:
                answer = worker.run(number)
                if answer["ended"] == "defect" and keep:
                    shutil.copytree(place, keep / f"video-{number}", dirs_exist_ok=True)
                yield answer
        finally:
            worker.close()


def main() -> int:
    """Run and print. Exit code 1 where there are defects."""
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("cases", 2000), ("seed", 0), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    ends: Counter[str] = Counter()
    slowest: dict = {"seconds": 0}
    for answer in fuzz(range(given.first, given.first + given.cases), given.seed, given.keep):
        ends[answer["ended"]] += 1
        slowest = max(slowest, answer, key=lambda one: one.get("seconds", DEAD_SECONDS))
        if answer["ended"] == "defect":
            print(f"case {answer['number']}, {answer['what']}:\n{answer['why']}\n", flush=True)
    print(f"{sum(ends.values())} videos: {dict(ends)}; slowest {slowest.get('seconds'):.1f} s, {slowest.get('what')}")
    return 1 if ends["defect"] else 0


if __name__ == "__main__":
    sys.exit(main())
