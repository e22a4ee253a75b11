"""How Ctrl-C, SIGTERM and SIGHUP end what is going on: with its files closed.

By SIGTERM services and containers are stopped; SIGHUP comes when the terminal is closed. A signal that is ignored
(`nohup`, a shell's background) stays ignored.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, Self, TypeAlias, TypeVar

T = TypeVar("T")
Handler: TypeAlias = Callable[[int, FrameType | None], Any]

HANGUP: Final = getattr(signal, "SIGHUP", None)  # Windows has none
FROM_OUTSIDE: Final = (signal.SIGTERM, *([HANGUP] if HANGUP else []))  # those that Python leaves to the system
STOPPING: Final = (signal.SIGINT, *FROM_OUTSIDE)


@contextmanager
def handling(handler: Handler, *signals: int) -> Iterator[dict[int, Any]]:
    """Inside, these signals call `handler` in the main thread, but for those that are ignored; gives what they did.

    In another thread than the main one it does nothing: only that one may handle signals.
    """
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            _leave_lost_terminal()
        handler(number, frame)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                old = signal.getsignal(number)
                if old not in (signal.SIG_IGN, None):  # None: not Python's to put back
                    before[number] = old
                    signal.signal(number, handle)
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _leave_lost_terminal() -> None:
    """Let nobody read what a terminal that was closed would have shown: writing there fails, and would end us early."""
    for number in (1, 2):
        try:
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
        except OSError:
            pass  # closed: nothing can be written there anyway


@contextmanager
def terminated_as_stopped() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as Ctrl-C does.

    Processes forked from this one they end at once.
    """
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise KeyboardInterrupt

    with handling(stop, *FROM_OUTSIDE):
        yield


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that a stop sets, so that a step is finished and saved first; a second one stops at once."""
    asked = threading.Event()

    def request(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with handling(request, *STOPPING):
        yield asked


class Stops:
    """Lets what is begun be finished before the first stop raises; those after it do not wait. A context manager.

    Raises what would have been raised without it, and only later. In another thread than the main one it does nothing:
    signals raise nothing there.
    """

    def __init__(self) -> None:
        self._held = False
        self._came: tuple[int, FrameType | None] | None = None
        self._first = True
        self._handlers: dict[int, Handler] = {}
        self._open = ExitStack()

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

    @contextmanager
    def held_at_the_end(self, manager: AbstractContextManager[T]) -> Iterator[T]:
        """Inside `manager` as ever; when it is left, nothing is raised until it is."""

        def leave(*error: Any) -> bool | None:
            with self.held():
                return manager.__exit__(*error)

        with ExitStack() as stack:
            entered = manager.__enter__()
            stack.push(leave)
            yield entered

    def _stop(self, number: int, frame: FrameType | None) -> None:
        waits, self._first = self._held and self._first, False
        if waits:
            self._came = number, frame
        else:
            self._handlers[number](number, frame)

    def __enter__(self) -> Self:
        ours = [number for number in STOPPING if callable(signal.getsignal(number))]  # else the system ends the process
        self._handlers = self._open.enter_context(handling(self._stop, *ours))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
