"""The window itself, in a process of its own: Tk ends its process with the display. Skipped without one and Xvfb."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("tkinter", reason="needs Tk")

START = """
import numpy as np
from trocar.inference.window import NOTICE, Window
picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
with Window("a feed") as window:
    for shown in (picture[::-1], picture):
        window.show(shown, "3 ms")
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("needs a display, or Xvfb on the path")
    reading, writing = os.pipe()
    with subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-nolisten", "tcp"], pass_fds=[writing]) as server:
        os.close(writing)
        with os.fdopen(reading) as told:
            yield f":{told.readline().strip()}"
        server.terminate()


@pytest.fixture
def run(display: str) -> Callable[[str], str]:
    def run_there(code: str, shown_on: str = display) -> str:
        environment = os.environ | {"DISPLAY": shown_on}
        command = [sys.executable, "-c", START + code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    return run_there


def test_it_shows_the_picture_as_it_is_and_says_what_it_is_for(run: Callable[[str], str]) -> None:
    code = """
    assert (window._image.width(), window._image.height()) == (60, 40)
    assert window._image.get(10, 20) == tuple(int(value) for value in picture[20, 10])
    assert window._text.cget("text") == NOTICE + "  3 ms"
    assert not window.closed()
    window.show(np.zeros((2160, 3840, 3), np.uint8))
    assert (window._image.width(), window._image.height()) == (1280, 720)
    print("fine")
"""
    assert run(code) == "fine\n"


@pytest.mark.parametrize(
    "closing",
    [
        "window._root.event_generate('<Escape>')",
        "window._root.event_generate('<Key-q>')",
        "window._root.tk.call(window._root.protocol('WM_DELETE_WINDOW'))",
    ],
    ids=["Esc", "q", "closed"],
)
def test_its_user_closes_it(run: Callable[[str], str], closing: str) -> None:
    code = f"""
    window._root.focus_force()
    window._root.update()
    {closing}
    print(window.closed())
"""
    assert run(code) == "True\n"


def test_without_a_display_it_is_said(run: Callable[[str, str], str]) -> None:
    told = run("", ":9999")
    assert "UserError: no window can be opened" in told
    assert "leave --window out" in told
