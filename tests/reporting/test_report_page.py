"""The page as a browser shows it. Skipped where playwright or a browser is not installed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from full_report import write_full

from trocar.reporting.words import UNDEFINED


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full(tmp_path_factory.mktemp("full"))


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report opened from disk, the network closed; nothing may be complained of or fetched."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    context.set_default_timeout(10_000)
    tab = context.new_page()
    complaints, fetched = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: fetched.append(request.url))
    tab.goto(report.as_uri())
    yield tab
    context.close()
    assert not complaints
    assert [url for url in fetched if not url.startswith("data:")] == [report.as_uri()]


def column(page: Any, title: str, *, shown: bool = True) -> list[str]:
    index = page.locator("#frames thead th").all_text_contents().index(title) + 1
    rows = "tr:not([hidden])" if shown else "tr"
    return page.locator(f"#frames tbody {rows} > :nth-child({index})").all_text_contents()  # type: ignore[no-any-return]


def sort_of(page: Any, title: str) -> str | None:
    return page.locator("#frames").get_by_role("columnheader", name=title, exact=True).get_attribute("aria-sort")  # type: ignore[no-any-return]


def press(page: Any, title: str) -> None:
    page.locator("#frames thead").get_by_role("button", name=title, exact=True).click()


def test_any_column_sorts_and_undefined_stays_last(page: Any) -> None:
    assert sort_of(page, "Dice") == "ascending"
    start = column(page, "Dice")
    assert start[-3:] == [UNDEFINED] * 3
    press(page, "Dice")
    assert sort_of(page, "Dice") == "descending"
    turned = column(page, "Dice")
    assert [float(text) for text in turned[:-3]] == sorted(map(float, start[:-3]), reverse=True)
    assert turned[-3:] == [UNDEFINED] * 3
    press(page, "HD95, px")
    assert sort_of(page, "HD95, px") == "ascending"
    assert sort_of(page, "Dice") is None
    rising = [f"{0.5 + 3 * n:.1f}" for n in range(1, 15)]  # as numbers: as text 12.5 comes before 3.5
    assert column(page, "HD95, px") == [*rising, UNDEFINED]
    press(page, "HD95, px")
    assert column(page, "HD95, px") == [*rising[::-1], UNDEFINED]
    press(page, "Record")
    assert column(page, "Record") == sorted(column(page, "Record"))
    assert len(column(page, "Record")) == 15


def test_sorting_works_from_the_keyboard(page: Any) -> None:
    page.locator("#frames thead").get_by_role("button", name="Recall", exact=True).focus()
    page.keyboard.press("Enter")
    assert sort_of(page, "Recall") == "ascending"
    page.keyboard.press("Space")
    assert sort_of(page, "Recall") == "descending"


def test_the_filter_keeps_rows_that_hold_every_word(page: Any) -> None:
    field = page.get_by_label("Filter by name or group")
    field.fill("op2")
    assert set(column(page, "Group")) == {"OP2"}
    assert page.locator("#shown").text_content() == "6 of 15 frames"
    press(page, "Dice")
    assert set(column(page, "Group")) == {"OP2"}
    field.fill("OP2 003")
    assert column(page, "Record") == ["OP2/003"]
    field.fill("0.9")  # figures are not names
    assert column(page, "Record") == []
    field.fill("")
    assert len(column(page, "Record")) == 15


def test_a_row_opens_its_frames_pictures(page: Any) -> None:
    dialog = page.locator("dialog")
    assert not dialog.is_visible()
    record = column(page, "Record")[0]
    page.locator("#frames tbody tr").first.locator("td").nth(2).click()
    assert dialog.is_visible()
    assert record in (dialog.locator("h4").text_content() or "")
    loaded = dialog.locator("img").evaluate_all(
        "all => Promise.all(all.map(one => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(loaded) == 6
    assert all(width > 0 for width in loaded)
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.get_by_role("link", name="OP1/004").focus()
    page.keyboard.press("Enter")
    assert "OP1/004" in (dialog.locator("h4").text_content() or "")
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "OP1/004"  # back where one was
    assert page.evaluate("location.hash") == ""


def test_without_scripts_links_lead_to_the_pictures(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert not tab.get_by_label("Filter by name or group").is_visible()
    link = tab.locator("#frames a").first
    link.click()
    target = tab.locator(f"[id='{(link.get_attribute('href') or '')[1:]}']")
    assert link.text_content() in (target.locator("h4").text_content() or "-")
    assert not tab.locator("dialog").is_visible()
    context.close()


def test_the_page_never_scrolls_sideways_light_or_dark(page: Any) -> None:
    style = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    for scheme, width in itertools.product(("light", "dark"), (360, 768, 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background, ink = page.evaluate(style)
        assert (lightness(background) > lightness(ink)) == (scheme == "light")
        assert page.locator("svg").first.evaluate("one => getComputedStyle(one).color") == ink


def lightness(colour: str) -> int:
    """Of an rgb(r, g, b)."""
    return sum(int(part) for part in colour.strip("rgb()").split(","))


def test_print_hides_what_only_a_screen_can_use(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.get_by_label("Filter by name or group").is_visible()
    assert page.locator(".frames").evaluate("one => getComputedStyle(one).overflowY") == "visible"
