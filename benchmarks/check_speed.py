"""How fast `trocar check` reads a data set, beside how fast this machine decodes its JPEGs and does nothing else.

    python benchmarks/check_speed.py [frames, default 10000] [folder, default a temporary one]

Frames are 1280x1024 JPEGs of quality 90 with PNG masks: 40 drawn scenes, each rolled by another offset for every frame,
so that no two are alike (at 10000 about 3 GB). Both sides read the same files with as many threads as there are cores:
the plain one reads each JPEG and decodes it whole with OpenCV, the check decodes at a reduced size, and reads, verifies
and measures the mask too. The plain one also runs with freed memory kept for the next frame, as the check keeps it:
glibc else gives each frame's memory back, which costs it up to a quarter of its time. They run after each other twice,
in separate processes, and the second time counts, when the files are in memory. Then the check runs again on what it
remembers. Memory is the peak of each process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trocar.synthetic import draw_scene

SIZE_HW, SCENES, QUALITY, GROUPS = (1024, 1280), 40, 90, 20


def write_frames(root: Path, count: int) -> None:
    """Write the set, unless it is there."""
    if (root / "images").is_dir() and sum(1 for _ in (root / "images").rglob("*.jpg")) == count:
        return
    scenes = [draw_scene(seed, size_hw=SIZE_HW, procedure=seed, preset="varied") for seed in range(min(SCENES, count))]
    pictures = [(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), (scene.parts > 0) * np.uint8(255)) for scene in scenes]
    for number in range(count):
        offset = np.random.default_rng(number).integers(0, 1024, 2).tolist()
        image, mask = (np.roll(part, offset, axis=(0, 1)) for part in pictures[number % len(pictures)])
        _write(root / f"images/{number % GROUPS:02d}/{number:06d}.jpg", image)
        _write(root / f"masks/{number % GROUPS:02d}/{number:06d}.png", mask)


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)  # as most tools for labelling write masks
    else:
        path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def decode_all(root: Path, keep: str = "") -> int:
    """Read and decode every JPEG whole, in threads, and do nothing with it; `keep` freed memory, or not (empty)."""
    if keep:
        np.empty(31 << 20, np.uint8)  # as trocar.data.threads does, and says why
    paths = sorted((root / "images").rglob("*.jpg"))
    threads = os.cpu_count() or 1

    def decode(some: list[Path]) -> int:
        return sum(cv2.imdecode(np.frombuffer(p.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is not None for p in some)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(decode, (paths[start : start + 32] for start in range(0, len(paths), 32))))


def check_all(root: Path, folder: str) -> int:
    """Check the set, with a cache folder or (empty) without."""
    from trocar.data.checks import check
    from trocar.data.sources import open_source

    report = check([open_source(root)], remember=bool(folder), cache_folder=Path(folder))
    assert report.ok
    return report.sources[0].read


def timed(what: str, *arguments: str) -> tuple[float, float]:
    """Seconds of one piece of work in a process of its own, imports aside, and its peak memory in MiB."""
    command = [sys.executable, __file__, what, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(printed[0]), float(printed[1])


def work(what: str, *arguments: str) -> None:
    """Do it, and print seconds and peak memory."""
    import trocar.data.checks
    import trocar.data.sources  # noqa: F401 - imported before the clock starts

    start = time.perf_counter()
    (decode_all if what == "decode" else check_all)(Path(arguments[0]), *arguments[1:])
    print(time.perf_counter() - start, peak_mib())


def peak_mib() -> float:
    """Peak memory of this process; what `getrusage` says counts the parent at the fork too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def rows(root: Path, count: int) -> Iterator[str]:
    """Lines of the table."""
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            plain, plain_mib = timed("decode", str(root))
            kept, kept_mib = timed("decode", str(root), "keep")
            first, first_mib = timed("check", str(root), "")
        yield f"decoding alone     | {plain:7.1f} s | {count / plain:7.1f} frames/s | {plain_mib:6.0f} MiB"
        yield f"  with memory kept | {kept:7.1f} s | {count / kept:7.1f} frames/s | {kept_mib:6.0f} MiB"
        yield f"check              | {first:7.1f} s | {count / first:7.1f} frames/s | {first_mib:6.0f} MiB"
        yield f"check / decoding   | {plain / first:7.2f} of the rate, {kept / first:.2f} of that with memory kept"
        timed("check", str(root), cache)
        again, again_mib = timed("check", str(root), cache)
        size = sum(path.stat().st_size for path in Path(cache).rglob("*")) / count
        yield f"check, remembered  | {again:7.1f} s | {count / again:7.1f} frames/s | {again_mib:6.0f} MiB"
        yield f"remembered: {size:.0f} bytes a frame on disk"


def main() -> None:
    """Write the set and print the table."""
    if len(sys.argv) > 1 and sys.argv[1] in ("decode", "check"):
        work(*sys.argv[1:])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        write_frames(root, count)
        jpegs = sum(path.stat().st_size for path in (root / "images").rglob("*.jpg")) / count / 1000
        print(f"{count} frames of 1280x1024, JPEGs of {jpegs:.0f} kB on average, {os.cpu_count()} threads")
        for row in rows(root, count):
            print(row, flush=True)


if __name__ == "__main__":
    main()
