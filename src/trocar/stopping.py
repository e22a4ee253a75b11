"""How Ctrl-C and SIGTERM, by which services and containers are stopped, end what is going on: with its files closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


@contextmanager
def terminated_as_stopped() -> Iterator[None]:
    """Inside, SIGTERM raises `KeyboardInterrupt` in the main thread; processes forked from this one it ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Stops:
    """Lets what is begun be finished before Ctrl-C or SIGTERM raises; a second one does not wait. A context manager.

    Raises what would have been raised without it, and only later. In another thread than the main one it does nothing:
    signals raise nothing there.
    """

    def __init__(self) -> None:
        self._held = False
        self._came: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is raised inside; a stop that came meanwhile is raised at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._came is not None:
                (number, frame), self._came = self._came, None
                self._handlers[number](number, frame)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._held and self._came is None:
            self._came = number, frame
        else:
            self._handlers[number](number, frame)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):  # else the system ends the process, or nobody minds
                    self._handlers[number] = handler
                    signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
