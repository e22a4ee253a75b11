from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trocar.stopping import Stops, stop_requests, terminated_as_stopped

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


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


def test_what_is_left_as_a_whole_is_left_before_a_stop_raises() -> None:
    done: list[str] = []

    @contextmanager
    def files() -> Iterator[str]:
        try:
            yield "files"
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("closed")

    with pytest.raises(KeyboardInterrupt), Stops() as stops:  # noqa: PT012 - which line raises is what is tested
        with stops.held_at_the_end(files()) as opened:
            done.append(opened)
        done.append("went on")
    assert done == ["files", "closed"]
    done.clear()
    with pytest.raises(KeyboardInterrupt), Stops() as stops, stops.held_at_the_end(files()):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        done.append("went on")
    assert done == [], "the second one does not wait"


def test_afterwards_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in STOPPING]
    with Stops():
        assert signal.getsignal(signal.SIGINT) != before[0]
        assert signal.getsignal(signal.SIGTERM) == before[1], "by default the system ends the process: not ours"
    with terminated_as_stopped(), stop_requests():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in STOPPING] == before


@pytest.mark.parametrize("number", STOPPING)
def test_a_request_waits_to_be_asked_for_and_a_second_one_does_not(number: signal.Signals) -> None:
    with stop_requests() as asked:
        assert not asked.is_set()
        signal.raise_signal(number)
        assert asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", STOPPING)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with terminated_as_stopped(), Stops(), stop_requests() as asked:
            signal.raise_signal(number)
            assert not asked.is_set()
    finally:
        signal.signal(number, before)


VERB = """
import fcntl, sys, termios, time
from pathlib import Path
import typer
from trocar.cli.ending import ending_properly
from trocar.stopping import stop_requests

fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal is ours, as a shell would have it
app = typer.Typer()

@app.command()
@ending_properly
def train(saved: Path) -> None:
    with stop_requests() as asked:
        print("begun", flush=True)
        asked.wait()
        print("told to nobody", flush=True)
        saved.write_text("saved")
    raise KeyboardInterrupt("nor this")

app()
"""


def test_a_terminal_that_is_closed_stops_a_verb_properly(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", VERB, str(tmp_path / "saved")]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        assert os.read(ours, 100).startswith(b"begun")
        os.close(ours)
        assert child.wait(timeout=60) == 130
    finally:
        child.kill()
        child.wait()
    assert (tmp_path / "saved").read_text() == "saved"


def test_in_another_thread_it_does_nothing() -> None:
    done: list[str] = []

    def work() -> None:
        with Stops() as stops, stops.held():
            done.append("finished")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["finished"]
