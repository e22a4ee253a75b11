"""The page as a browser shows it. Skipped where playwright or a browser is not installed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import InStep, ScriptedFeed

from tiny import tiny_card
from trocar.errors import UserError
from trocar.inference.predictor import Predictor
from trocar.live.session import run


class Running:
    """A feed that is shown in a thread, and stalls after two frames until it is told to go on or to fail."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.error: UserError | None = None
        self.summary: Any = None
        step, ready, urls = InStep(), threading.Event(), []

        def then(number: int) -> None:
            if number == 1:
                assert self.go_on.wait(60)
                self.feed.error = self.error

        def told(url: str) -> None:
            urls.append(url)
            ready.set()

        def work() -> None:
            predictor = Predictor(step.engine, tiny_card())
            self.summary = run("rtsp://host/one", lambda: self.feed, predictor, port=0, ready=told)

        self.feed: ScriptedFeed = step.feed(2, then)
        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert ready.wait(60)
        self.url = urls[0]

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(60)


@pytest.fixture
def running() -> Iterator[Running]:
    started = Running()
    yield started
    started.end()


@pytest.fixture
def page(browser: Any, running: Running) -> Iterator[Any]:
    """The open page; nothing may be complained of, or fetched from elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    tab = context.new_page()
    complaints, fetched = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: fetched.append(request.url))
    tab.goto(running.url)
    yield tab
    context.close()
    assert not complaints
    assert {url for url in fetched if not url.startswith("data:")} == {
        running.url + name for name in ("", "page.css", "page.js", "video", "events")
    }


def test_the_picture_and_the_figures_show_and_it_says_what_it_is_for(page: Any, running: Running) -> None:
    page.wait_for_function("document.getElementById('picture').naturalWidth === 64")
    page.wait_for_function("document.getElementById('p50').textContent !== ''")
    assert page.get_by_text("For research only. Not a medical device.").is_visible()
    assert page.locator("#source").text_content() == "rtsp://host/one"
    for name in ("p50", "p95", "p99"):
        assert int(page.locator(f"#{name}").text_content()) >= 0
    assert page.locator("#dropped").text_content() == "0"
    assert "Model tiny" in page.locator("#about").text_content()


def test_a_feed_that_stalls_is_said(page: Any, running: Running) -> None:
    page.get_by_text("the picture is old").wait_for()


def test_the_end_is_said_and_the_page_stays_as_it_was(page: Any, running: Running) -> None:
    page.wait_for_function("document.getElementById('p50').textContent !== ''")
    running.end()
    page.get_by_text("Ended: the source ended. The picture is the last one.").wait_for()
    assert page.evaluate("document.getElementById('picture').naturalWidth") == 64
    assert running.summary.ended == "the source ended"


def test_a_source_that_fails_is_said(page: Any, running: Running) -> None:
    page.wait_for_function("document.getElementById('p50').textContent !== ''")
    running.error = UserError("the camera is gone")
    running.end()
    page.get_by_text("Ended: the source failed.").wait_for()
    assert running.summary.error["what"] == "the camera is gone"


def test_it_never_scrolls_sideways_light_or_dark(page: Any, running: Running) -> None:
    page.wait_for_function("document.getElementById('p50').textContent !== ''")
    style = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    for scheme, width in itertools.product(("light", "dark"), (360, 768, 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background, ink = page.evaluate(style)
        assert (lightness(background) > lightness(ink)) == (scheme == "light")
        assert page.get_by_text("Not a medical device").bounding_box()["y"] < 200  # seen without scrolling


def lightness(colour: str) -> int:
    """Of an rgb(r, g, b)."""
    return sum(int(part) for part in colour.strip("rgb()").split(","))
