"""Feeds that do what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tiny import brightness
from trocar.inference.frames import Frame

PATIENCE_S = 20.0  # only a hanging test waits so long


def image_of(number: int, size_hw: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """An image that is its number, from 0 to 199."""
    return np.full((*size_hw, 3), 20 + number, np.uint8)


def number_of(image: NDArray[np.uint8]) -> int:
    return int(image[0, 0, 0]) - 20


class ScriptedFeed:
    """Sends frame after frame, and after each does what the script says; then ends, or raises."""

    def __init__(
        self,
        count: int,
        *,
        after: Callable[[int], object] = lambda number: None,
        error: BaseException | None = None,
        rate: Fraction = Fraction(25),
        size_hw: tuple[int, int] = (48, 64),
    ) -> None:
        self.rate, self.time_base = rate, 1 / rate
        self.lost = self.damaged = 0
        self.count, self.after, self.error, self.size_hw = count, after, error, size_hw
        self.stopped = threading.Event()
        self.closed = False

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.count):
            if self.stopped.is_set():
                return
            yield Frame(image_of(number % 200, self.size_hw), number / self.rate)
            self.after(number)
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class InStep:
    """An engine, and what a feed does after each frame, that wait for each other: no frame is dropped."""

    def __init__(self) -> None:
        self._taken = threading.Semaphore(0)

    def engine(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        if frames.any():  # a black one warms the engine up
            self._taken.release()
        return brightness(frames)

    def feed(self, count: int, then: Callable[[int], object] = lambda number: None, **more: Any) -> ScriptedFeed:
        """Sends a frame when the one before is in the network; after each `then` is called."""

        def after(number: int) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not self._taken.acquire(timeout=0.02) and not made.stopped.is_set():
                assert time.monotonic() < deadline
            then(number)

        made = ScriptedFeed(count, after=after, **more)
        return made


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.002)


def wait_for(semaphore: threading.Semaphore) -> None:
    assert semaphore.acquire(timeout=PATIENCE_S)
