"""Work on many records in threads: OpenCV and Pillow decode side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from trocar.cores import usable_cores
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Record

S = TypeVar("S")
T = TypeVar("T")

_MOST_ON_A_VIDEO = 8  # threads: a video keeps its last 16 frames, and who comes later makes it begin again
_AHEAD = 16  # records begun for each thread before the first is waited for


def threads_for(records: Sequence[Record]) -> int:
    """As many threads as cores, but not too many on the frames of a video."""
    threads = usable_cores()
    if any(not path.name.lower().endswith(IMAGE_SUFFIXES) for record in records for path in record.files[:1]):
        threads = min(threads, _MOST_ON_A_VIDEO)
    return threads


def in_threads(work: Callable[[S], T], items: Sequence[S], threads: int) -> Iterator[T]:
    """The results in order, a bounded number of items ahead."""
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
