from __future__ import annotations

import signal
import threading

import pytest

from trocar.stopping import Stops, terminated_as_stopped

STOPPING = [signal.SIGINT, signal.SIGTERM]


def stopped_inside(stops: Stops, *numbers: signal.Signals) -> list[str]:
    """What was done of a held block in which these signals came."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), stops.held():  # noqa: PT012 - which line raises is what is tested
        for number in numbers:
            signal.raise_signal(number)
        done.append("finished")
    return done


@pytest.mark.parametrize("number", STOPPING)
def test_a_stop_waits_for_what_is_held_and_for_nothing_else(number: signal.Signals) -> None:
    with terminated_as_stopped(), Stops() as stops:
        assert stopped_inside(stops, number) == ["finished"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with stops.held():
            pass  # an earlier one is not raised again


def test_a_second_stop_does_not_wait() -> None:
    with Stops() as stops:
        assert stopped_inside(stops, signal.SIGINT, signal.SIGINT) == []


def test_afterwards_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with Stops():
        assert signal.getsignal(signal.SIGINT) != before[0]
        assert signal.getsignal(signal.SIGTERM) == before[1], "by default the system ends the process: not ours"
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_in_another_thread_it_does_nothing() -> None:
    done: list[str] = []

    def work() -> None:
        with Stops() as stops, stops.held():
            done.append("finished")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["finished"]
