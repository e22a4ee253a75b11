"""A stream of frames through a Predictor, with reading, predicting and what the caller does side by side.

One thread reads. A few predict, each a whole frame from preparing to its mask, so that one frame is resized or
thresholded while the network is busy with another. The caller draws and writes. PyAV, OpenCV, numpy and the engines let
go of Python's lock while they work, so threads are enough.

Every thread waits on one condition, for work, room or the end; none waits for a message from another that may be dead.
That is how such pipelines come to hang (docs/decisions.md).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from time import monotonic

from trocar.inference.frames import Frame
from trocar.inference.predictor import Prediction, Predictor

MOST_BYTES = 384 << 20  # of frames on their way: of 8K two, of 4K ten
_PATIENCE_S = 20.0  # longer than a feed waits for its source before it gives up


def stream(
    predictor: Predictor,
    frames: Iterable[Frame],
    *,
    ahead: int = 2,
    workers: int | None = None,
    batch_size: int = 1,
) -> Generator[tuple[Frame, Prediction], None, None]:
    """Each frame with its prediction, in order; the same as `predictor(frame.image)` one after the other.

    At most `ahead + workers` batches of frames are held, fewer of very large ones. The network sees `batch_size` frames
    at once. By default there is one worker more than the engine runs calls side by side, so that another frame is
    before or after the network meanwhile.

    An error, wherever it comes from, is raised after the frames before it were given, and nothing more is read.
    Whoever stops early closes the generator (`contextlib.closing`): on every way out the threads have ended when it
    returns. Only a source that does not come back from waiting is left to itself after 20 s; one that has a method
    `stop` is told.
    """
    line = _Line(frames, lambda batch: list(predictor.predict_batch([frame.image for frame in batch])))
    workers = max(1, predictor.side_by_side + 1 if workers is None else workers)
    line.start(limit=max(1, ahead) + workers, workers=workers, batch_size=max(1, batch_size))
    try:
        while (slot := line.next_slot()) is not None:
            if slot.error is not None:
                raise slot.error
            assert slot.predictions is not None
            yield from zip(slot.frames, slot.predictions, strict=True)
    finally:
        line.end()


@dataclass(eq=False)
class _Slot:
    """A batch on its way, or the error in its place."""

    frames: list[Frame]
    predictions: list[Prediction] | None = None
    error: BaseException | None = None

    @property
    def ready(self) -> bool:
        return self.predictions is not None or self.error is not None


class _Line:
    """What the threads of one stream share. Everything below the condition is touched under it only."""

    def __init__(self, frames: Iterable[Frame], predict: Callable[[list[Frame]], list[Prediction]]) -> None:
        self._source = frames
        self._predict = predict
        self._threads: list[threading.Thread] = []
        self._most = 1  # slots that fit in MOST_BYTES; the reader's own
        self._changed = threading.Condition()
        self._slots: deque[_Slot] = deque()  # read and not yet given, in order
        self._waiting: deque[_Slot] = deque()  # those of them that no worker has taken
        self._read_all = False  # nothing will follow the slots
        self._stopped = False  # nobody wants the slots

    def start(self, *, limit: int, workers: int, batch_size: int) -> None:
        """Start reading and predicting."""
        jobs = [lambda: self._read(limit, batch_size), *[self._work] * workers]
        for number, job in enumerate(jobs):  # daemons: a source that never returns must not keep the program
            thread = threading.Thread(target=job, name=f"trocar-stream-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def next_slot(self) -> _Slot | None:
        """The next slot when it is ready, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots[0].ready if self._slots else self._read_all)
            if not self._slots:
                return None
            slot = self._slots.popleft()
            self._changed.notify_all()
            return slot

    def end(self) -> None:
        """End all threads and wait for them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if stop := getattr(self._source, "stop", None):
            stop()
        deadline = monotonic() + _PATIENCE_S
        for thread in reversed(self._threads):  # the reader last: nothing but it can keep us waiting
            thread.join(max(0.0, deadline - monotonic()))

    # -------------------------------------------------------------- threads

    def _read(self, limit: int, batch_size: int) -> None:
        batch: list[Frame] = []
        error: BaseException | None = None
        try:
            source = iter(self._source)
            while self._room(min(limit, self._most)):
                for frame in islice(source, batch_size):
                    batch.append(frame)  # noqa: PERF402 - one by one: what came before an error is kept
                if not batch:
                    break
                self._most = max(1, MOST_BYTES // sum(frame.nbytes for frame in batch))
                self._add(_Slot(batch))
                batch = []
        except BaseException as raised:  # raised again where the frames are taken
            error = raised
        if batch:
            self._add(_Slot(batch))  # what came before the error
        with self._changed:
            if error is not None:
                self._slots.append(_Slot([], error=error))
            self._read_all = True
            self._changed.notify_all()

    def _room(self, limit: int) -> bool:
        """Wait until another slot may be read; False: no more are wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._read_all or len(self._slots) < limit)
            return not (self._stopped or self._read_all)

    def _add(self, slot: _Slot) -> None:
        with self._changed:
            self._slots.append(slot)
            self._waiting.append(slot)
            self._changed.notify_all()

    def _work(self) -> None:
        while (slot := self._take()) is not None:
            predictions, error = None, None
            try:
                predictions = self._predict(slot.frames)
            except BaseException as raised:  # raised again where the frames are taken
                error = raised
            with self._changed:
                slot.predictions, slot.error = predictions, error
                self._read_all |= error is not None  # what follows an error is not wanted
                self._changed.notify_all()

    def _take(self) -> _Slot | None:
        """The next slot to predict; None: there is no more work."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting or self._read_all)
            return None if self._stopped or not self._waiting else self._waiting.popleft()
