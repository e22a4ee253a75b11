"""Many pairs through `trocar evaluate`'s scoring over all cores: pairs a second, and memory from start to end.

    OMP_NUM_THREADS=1 python benchmarks/pairs.py [--pairs 10000] [--workers N]

Pairs are frames of 1280x1024 with a predicted and a true mask, read from files as in any evaluation; 16 different ones
are drawn and taken again and again. Memory is that of this process and its workers together (Linux).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from trocar.data.files import read_image, read_mask_file, write_jpeg, write_png
from trocar.data.records import Record, Source
from trocar.evaluation import evaluate
from trocar.synthetic import draw_scene

SIZE_HW, DIFFERENT = (1024, 1280), 16


def main() -> None:
    """Draw, score, and print a line each tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder), options.pairs)
        started, tenth = time.perf_counter(), max(1, options.pairs // 10)

        def progress(done: int, total: int) -> None:
            if done % tenth == 0:
                seconds = time.perf_counter() - started
                print(f"{done:>6} of {total}: {done / seconds:6.1f} pairs/s, {memory_mb():7.0f} MB", flush=True)

        predictions = Path(folder) / "predictions"
        result = evaluate(source, predictions=predictions, workers=options.workers, progress=progress)
        dice = result.summary.scores["dice"].mean
        print(f"mean Dice {dice.value:.4f}, {options.workers} workers, {time.perf_counter() - started:.0f} s in all")


def make_source(folder: Path, pairs: int) -> Source:
    """Frames, true masks and predictions that are moved, on disk, in groups of 100."""
    records = []
    for number in range(pairs):
        which = number % DIFFERENT
        image, mask = folder / f"{which}.jpg", folder / f"{which}.png"
        if number < DIFFERENT:
            scene = draw_scene(number, size_hw=SIZE_HW, preset="varied", instruments=1 + number % 3)
            truth = (scene.parts > 0).astype(np.uint8)
            write_jpeg(image, scene.image)
            write_png(mask, truth)
            moved = cv2.warpAffine(truth, np.float64([[1, 0, 3], [0, 1, 2]]), SIZE_HW[::-1], flags=cv2.INTER_NEAREST)
            write_png(folder / f"{which}-pred.png", moved)
        name = f"{number // 100:03d}/{number % 100:02d}"
        prediction = folder / "predictions" / f"{name}.png"
        prediction.parent.mkdir(parents=True, exist_ok=True)
        prediction.hardlink_to(folder / f"{which}-pred.png")
        records.append(
            Record(name, name[:3], "drawn", partial(read_image, image), partial(read_mask_file, mask), files=(mask,))
        )
    return Source("drawn", folder, ("background", "instrument"), tuple(records))


def memory_mb() -> float:
    """Resident memory of this process and its children."""
    own = Path("/proc/self/task")
    children = [child for task in own.iterdir() for child in (task / "children").read_text().split()]
    return sum(_resident_mb(process) for process in ["self", *children])


def _resident_mb(process: str) -> float:
    try:
        pages = int((Path("/proc") / process / "statm").read_text().split()[1])
    except OSError:  # a worker that just ended
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


if __name__ == "__main__":
    main()
