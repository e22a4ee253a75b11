"""Seconds to read an epoch of training frames: from the originals, from the store on disk, and held in memory.

    python benchmarks/prepared_store.py [--data FOLDER] [--frames 400] [--hw 1024 1280] [--size 512 640] [--workers 0]

Without `--data` frames are drawn: JPEGs of noise and blobs of the size `--hw`, with PNG masks. Every way reads the same
batches, and the benchmark stops where samples differ. The store is a new one in a temporary folder; "warm" means that
the operating system may still hold files in memory, as it does from one epoch to the next where there is room.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from trocar.config import DataSettings, PreprocessSettings
from trocar.data.files import write_jpeg, write_png
from trocar.data.loading import Batch, PreparedSet, shuffled_plan
from trocar.data.sources import open_source
from trocar.data.store import open_store


def write_frames(root: Path, count: int, hw: tuple[int, int]) -> Path:
    """JPEGs with structure at several scales (about as large as endoscopic frames), and masks of one ellipse."""
    rows, columns = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    for index in range(count):
        generator = np.random.default_rng(index)
        waves = [np.sin(rows / s + index) * np.cos(columns / s) for s in generator.uniform(5, 200, 3)]
        frame = 128 + 50 * np.stack(waves, axis=-1) + generator.normal(0, 6, (*hw, 3))
        inside = ((rows - hw[0] / 2) / hw[0] * 3) ** 2 + ((columns - hw[1] / 2) / hw[1] * 5) ** 2 < 1
        write_jpeg(root / f"images/p{index % 8}/{index:05d}.jpg", np.clip(frame, 0, 255).astype(np.uint8))
        write_png(root / f"masks/p{index % 8}/{index:05d}.png", inside.astype(np.uint8) * 255)
    before = time.time() - 60  # files changed just now are not kept
    for path in root.rglob("*.*"):
        os.utime(path, (before, before))
    return root


def one_epoch(prepared: PreparedSet, workers: int) -> tuple[float, int]:
    """Seconds, and a checksum of all samples."""
    plan = shuffled_plan(len(prepared), 8, seed=0, epoch=0)
    begun, total = time.perf_counter(), 0
    for batch in prepared.batches(plan, workers=workers):
        total += checksum(batch)
    return time.perf_counter() - begun, total


def checksum(batch: Batch) -> int:
    """The same for the same pixels, cheap beside reading them."""
    return int(batch.frames[:, ::7, ::7].sum()) + int(batch.masks[:, ::7, ::7].sum())


def main() -> None:
    """Print a row a way: preparing, first epoch, second epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--hw", type=int, nargs=2, default=(1024, 1280))
    parser.add_argument("--size", type=int, nargs=2, default=(512, 640))
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    settings = PreprocessSettings(size_hw=tuple(options.size))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = options.data or write_frames(folder / "data", options.frames, tuple(options.hw))
        source = open_source(data, DataSettings())
        print(f"{len(source)} records, size {settings.size_hw}, {options.workers} workers, torch {torch.__version__}")
        print(f"{'frames come from':28}{'preparing s':>12}{'epoch 1 s':>12}{'epoch 2 s':>12}")
        sums = set()
        for way in ("originals", "store, made", "store, opened again", "memory"):
            store = None
            if way.startswith("store"):
                store = open_store(source, settings, join=True, limit=10**12, say=print, folder=folder)
            memory_mb = 10**6 if way == "memory" else 0
            begun = time.perf_counter()
            prepared = PreparedSet(source.records, settings, join=True, store=store, memory_mb=memory_mb)
            preparing = time.perf_counter() - begun
            epochs = [one_epoch(prepared, options.workers) for _ in range(2)]
            sums |= {total for _, total in epochs}
            print(f"{way:28}{preparing:12.2f}" + "".join(f"{seconds:12.2f}" for seconds, _ in epochs))
            if store is not None:
                store.close()
        assert len(sums) == 1, "samples differ"


if __name__ == "__main__":
    main()
