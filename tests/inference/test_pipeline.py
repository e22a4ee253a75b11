"""Each way a stage can fail, block or be slow; a hang fails by the time limit, and no thread may stay."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.errors import UserError
from trocar.inference import pipeline
from trocar.inference.frames import Frame
from trocar.inference.pipeline import stream
from trocar.inference.predictor import Prediction, Predictor

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("trocar-stream")] == []


def numbered(
    count: int, *, fail_at: int | None = None, pause: float = 0, seen: list[int] | None = None
) -> Iterator[Frame]:
    """Frames that say their number by their brightness; an error in the place of one of them."""
    for number in range(count):
        if number == fail_at:
            raise UserError(f"frame {number} cannot be read")
        time.sleep(pause)
        if seen is not None:
            seen.append(number)
        yield Frame(np.full((4, 5, 3), number, np.uint8), Fraction(number, 25))


class Fake:
    """Gives the number of each frame back, as slow as it is told; fails at a number."""

    side_by_side = 1

    def __init__(
        self,
        *,
        fail_at: int | None = None,
        pause: Callable[[], float] = lambda: 0,
        error: type[BaseException] = ValueError,
    ):
        self.fail_at, self.pause, self.error = fail_at, pause, error
        self.calls: list[int] = []
        self.at_once, self.most = 0, 0
        self._lock = threading.Lock()

    def predict_batch(self, images: Sequence[Any], **_: Any) -> list[Any]:
        with self._lock:
            self.calls.append(len(images))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.pause())
        with self._lock:
            self.at_once -= 1
        numbers = [int(image[0, 0, 0]) for image in images]
        if self.fail_at in numbers:
            raise self.error(f"the network fails at {self.fail_at}")
        return numbers


def numbers(results: Iterator[tuple[Frame, Any]]) -> list[int]:
    found = []
    for frame, number in results:
        assert int(frame.image[0, 0, 0]) == number, "a frame got the prediction of another"
        found.append(number)
    return found


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_is_kept_whatever_each_frame_takes(workers: int, batch_size: int) -> None:
    slow = random.Random(0)
    fake = Fake(pause=lambda: slow.random() / 200)
    assert numbers(stream(fake, numbered(50), workers=workers, batch_size=batch_size)) == list(range(50))
    assert sum(fake.calls) == 50
    assert max(fake.calls) == batch_size
    assert fake.most <= workers


def test_two_frames_are_predicted_at_the_same_time() -> None:
    """Each waits for the other; one after the other would fail."""
    together = threading.Barrier(2, timeout=20)
    assert numbers(stream(Fake(pause=lambda: together.wait() * 0.0), numbered(10), workers=2)) == list(range(10))


def test_reading_and_predicting_go_on_while_the_caller_is_busy() -> None:
    seen: list[int] = []
    fake = Fake()
    with contextlib.closing(stream(fake, numbered(10, seen=seen), ahead=2, workers=2)) as results:
        next(results)
        deadline = time.monotonic() + 20
        while (len(seen), len(fake.calls)) != (5, 5) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (len(seen), len(fake.calls)) == (5, 5), "one is with the caller, four are ready"


def test_no_frames() -> None:
    assert numbers(stream(Fake(), iter(()))) == []


def test_predictions_are_those_of_the_predictor(tiny_model: Any, rng: np.random.Generator) -> None:
    predictor = Predictor.open(tiny_model, "cpu")
    images = [rng.integers(0, 256, (51, 77, 3), dtype=np.uint8) for _ in range(6)]
    given = list(stream(predictor, (Frame(image, Fraction(n)) for n, image in enumerate(images))))
    for image, (frame, prediction) in zip(images, given, strict=True):
        expected: Prediction = predictor(image)
        assert frame.image is image
        np.testing.assert_array_equal(prediction.mask, expected.mask)
        np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)
        assert prediction.quality == pytest.approx(expected.quality, nan_ok=True, abs=0)


def test_an_error_of_the_source_comes_after_the_frames_before_it() -> None:
    found: list[int] = []
    with pytest.raises(UserError, match="frame 7 cannot be read"):
        found.extend(number for _, number in stream(Fake(), numbered(20, fail_at=7), batch_size=3))
    assert found == list(range(7))


@pytest.mark.parametrize("error", [ValueError, UserError, KeyboardInterrupt, MemoryError])
def test_an_error_of_the_network_comes_after_the_frames_before_it_and_ends_reading(error: type[BaseException]) -> None:
    found: list[int] = []
    seen: list[int] = []
    results = stream(Fake(fail_at=9, error=error), numbered(200, pause=0.001, seen=seen))
    with pytest.raises(error, match="fails at 9"):
        found.extend(number for _, number in results)
    assert found == list(range(9))
    assert len(seen) < 30


def test_a_source_that_cannot_be_iterated_is_an_error_not_a_hang() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Frame]:
            raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        list(stream(Fake(), Broken()))


def test_a_caller_that_fails_ends_the_threads() -> None:
    """As a writer does when the disk is full: the reader would fill its queue and wait for ever."""
    seen: list[int] = []

    def write_all() -> None:
        with contextlib.closing(stream(Fake(), numbered(200, seen=seen))) as results:
            for _, number in results:
                if number == 5:
                    raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_all()
    assert len(seen) < 20


def test_a_slow_caller_holds_the_source_back() -> None:
    seen: list[int] = []
    for done, _ in enumerate(stream(Fake(), numbered(60, seen=seen), ahead=3, workers=2), start=1):
        time.sleep(0.004)
        assert len(seen) <= done + 3 + 2


def test_of_large_frames_fewer_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MOST_BYTES", 2 * 4 * 5 * 3)
    seen: list[int] = []
    for done, _ in enumerate(stream(Fake(), numbered(60, seen=seen), ahead=9, workers=2), start=1):
        time.sleep(0.004)
        assert len(seen) <= done + 2


def test_a_caller_that_loses_interest_closes_it() -> None:
    results = stream(Fake(), numbered(200))
    assert next(results)[1] == 0
    results.close()
    never_begun = stream(Fake(), numbered(10))
    never_begun.close()


class Stalling:
    """A source that gives three frames and then waits until it is told to stop."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        yield from numbered(3)
        self.stopped.wait(30)

    def stop(self) -> None:
        self.stopped.set()


def test_a_source_that_waits_is_told_to_stop() -> None:
    source = Stalling()
    with contextlib.closing(stream(Fake(), source)) as results:
        assert [next(results)[1] for _ in range(3)] == [0, 1, 2]
    assert source.stopped.is_set()


def test_an_error_of_the_network_is_not_held_up_by_a_source_that_waits() -> None:
    with pytest.raises(ValueError, match="fails at 2"):
        list(stream(Fake(fail_at=2), Stalling()))


def test_a_source_that_never_returns_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_PATIENCE_S", 0.1)
    stuck, release = threading.Event(), threading.Event()

    def dead() -> Iterator[Frame]:
        yield from numbered(1)
        stuck.set()
        release.wait(60)

    with contextlib.closing(stream(Fake(), dead())) as results:
        next(results)
        assert stuck.wait(60)
        started = time.monotonic()
    assert time.monotonic() - started < 20
    (left,) = [thread for thread in threading.enumerate() if thread.name.startswith("trocar-stream")]
    assert left.daemon
    release.set()
    left.join(10)


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 12),
    source_fails=st.none() | st.integers(0, 11),
    network_fails=st.none() | st.integers(0, 11),
    caller_stops=st.none() | st.integers(0, 11),
    ahead=st.integers(0, 4),
    workers=st.integers(1, 4),
    batch_size=st.integers(1, 4),
)
def test_the_first_thing_that_ends_it_is_what_the_caller_sees(
    count: int,
    source_fails: int | None,
    network_fails: int | None,
    caller_stops: int | None,
    ahead: int,
    workers: int,
    batch_size: int,
) -> None:
    fake = Fake(fail_at=network_fails, pause=lambda: random.random() / 1000)
    found, ended = [], "end"
    source = numbered(count, fail_at=source_fails, pause=0.0002)
    results = stream(fake, source, ahead=ahead, workers=workers, batch_size=batch_size)
    try:
        with contextlib.closing(results):
            for _, number in results:
                found.append(number)
                if number == caller_stops:
                    ended = "caller"
                    break
    except UserError:
        ended = "source"
    except ValueError:
        ended = "network"
    assert found == list(range(len(found)))
    readable = min(count, count if source_fails is None else source_fails)
    fails = network_fails is not None and network_fails < readable
    whole = network_fails // batch_size * batch_size if fails else readable  # frames in front of the failing batch
    if caller_stops is not None and caller_stops < whole:
        assert (ended, len(found)) == ("caller", caller_stops + 1)
    elif fails:
        assert (ended, len(found)) == ("network", whole)
    else:
        assert (ended, len(found)) == (
            "source" if source_fails is not None and source_fails < count else "end",
            readable,
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trocar-stream")]
