"""Work on many records in threads: OpenCV and Pillow decode side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from trocar.cores import usable_cores
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Record

S = TypeVar("S")
T = TypeVar("T")

_MOST_ON_A_VIDEO = 8  # threads: a video keeps its last 16 frames, and who comes later makes it begin again
_AHEAD = 16  # pieces of work begun for each thread before the first is waited for
_TOGETHER = 32  # records in a batch
_BATCHES = 4  # for each thread at least, so that all end at about the same time


def threads_for(records: Sequence[Record]) -> int:
    """As many threads as cores, but not too many on the frames of a video."""
    threads = usable_cores()
    return min(threads, _MOST_ON_A_VIDEO) if _of_videos(records) else threads


def in_batches(records: Sequence[Record]) -> list[Sequence[Record]]:
    """The records in order, some together; not those of a video, which threads read side by side.

    Few enough together that every thread has several batches.
    """
    several = len(records) // (_BATCHES * threads_for(records))
    size = 1 if _of_videos(records) else max(1, min(_TOGETHER, several))
    return [records[start : start + size] for start in range(0, len(records), size)]


def _of_videos(records: Sequence[Record]) -> bool:
    return any(not path.name.lower().endswith(IMAGE_SUFFIXES) for record in records for path in record.files[:1])


def in_threads(work: Callable[[S], T], items: Sequence[S], threads: int) -> Iterator[T]:
    """The results in order, a bounded number of items ahead."""
    _keep_freed_memory()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="records")
    begun: deque[Future[T]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > _AHEAD * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _keep_freed_memory() -> None:
    """Let freed memory serve the next record: glibc else gives megabytes of it back each time, and gets them zeroed.

    It takes the size of the largest block that was freed, up to 32 MB, for what a program uses again and again (dynamic
    M_MMAP_THRESHOLD, mallopt(3)). This block is never written to, so it costs nothing. Other C libraries learn nothing.
    """
    np.empty(31 << 20, np.uint8)
