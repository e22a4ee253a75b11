from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from faulty import PLANTED, plant
from trocar.cli import app
from trocar.data.checks import KINDS, CheckReport, check
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.errors import UserError
from trocar.reporting import doctor
from trocar.reporting.doctor import verdict, write_check
from trocar.synthetic import write_dataset


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("doctor")
    write_dataset(
        folder / "clean",
        procedures=5,
        frames_per_procedure=6,
        empty_share=0,
        clip_frames=1,
        size_hw=(256, 320),
        seed=3,
    )
    return open_source(plant(folder / "clean", folder / "<b>faulty & co"))


@pytest.fixture(scope="module")
def report(faulty: Source) -> CheckReport:
    return check([faulty])


@pytest.fixture(scope="module")
def page(report: CheckReport, faulty: Source, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_check(report, [faulty], tmp_path_factory.mktemp("page")).read_text()


class Page(HTMLParser):
    """Tags that must be closed are; addresses, identifiers and pictures are collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.identifiers: list[str] = []
        self.captions: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "xlink:href", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")
            if name == "alt":
                self.captions.append(value or "")
        assert tag != "script"
        if tag not in ("meta", "img", "link", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_needs_nothing_else_and_is_sound(page: str) -> None:
    parsed = Page(page)
    for address in parsed.addresses:
        assert address.startswith(("#", "data:image/jpeg;base64,")), address[:60]
    assert len(set(parsed.identifiers)) == len(parsed.identifiers)
    for address in parsed.addresses:
        assert not address.startswith("#") or address[1:] in parsed.identifiers
    assert not re.search(r"url\((?!#)", page)
    assert "<b>faulty" not in page


def test_every_kind_found_has_its_section_with_pictures(page: str) -> None:
    captions = Page(page).captions
    for kind, records in PLANTED.items():
        assert f'<h2 id="{kind}">{KINDS[kind].title}: 1</h2>' in page
        if kind not in ("holes", "duplicate", "near-duplicate", "text"):
            assert any(caption.startswith(records[0]) for caption in captions), kind
    assert any("procedure-05/copy, group procedure-05" in caption for caption in captions)
    for words in ("mask mirrored left to right", "mask where it fits better", "tiny parts ringed", "mask as stored"):
        assert any(words in caption for caption in captions), words
    assert "may be of patients" in page


def test_without_pictures_no_frame_is_read_or_shown(
    report: CheckReport, faulty: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a frame is read")

    monkeypatch.setattr(doctor, "suspect", forbidden)
    monkeypatch.setattr(doctor, "thumbnail", forbidden)
    text = write_check(report, [faulty], tmp_path, pictures=False).read_text()
    captions = Page(text).captions
    assert len(captions) == 1
    assert captions[0].startswith("Share of the frames in which each place is instrument")
    assert "may be of patients" not in text
    assert "procedure-02/0003" in text


def test_the_json_says_the_same(report: CheckReport, faulty: Source, tmp_path: Path) -> None:
    write_check(report, [faulty], tmp_path, pictures=False)
    tree = json.loads((tmp_path / "check.json").read_text())
    assert tree["kinds"] == {kind: len(found) for kind, found in report.by_kind.items()}
    assert len(tree["findings"]) == len(report.findings)
    assert tree["verdict"] == verdict(report)
    histogram = tree["sources"][0]["histograms"][0]
    assert sum(histogram["counts"]) == tree["sources"][0]["read"]
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_pictures_of_files_that_vanished_are_left_out(faulty: Source, report: CheckReport, tmp_path: Path) -> None:
    moved = Path(str(faulty.root) + " away")
    shutil.move(faulty.root, moved)
    try:
        text = write_check(report, [faulty], tmp_path).read_text()
    finally:
        shutil.move(moved, faulty.root)
    assert "procedure-02/0003" in text


def test_a_place_that_cannot_be_written_to(report: CheckReport, faulty: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_check(report, [faulty], tmp_path / "file", pictures=False)


def test_the_verdict_of_a_clean_set(tmp_path: Path) -> None:
    write_dataset(tmp_path, procedures=2, frames_per_procedure=2, empty_share=1, clip_frames=1, size_hw=(64, 80))
    report = check([open_source(tmp_path)])
    assert verdict(report) == (
        "No errors: every record can be used. 4 of 4 records could be read and fit together. "
        "1 warning to look at: no instrument at all."
    )


def test_the_command_writes_the_page_and_exits_by_errors(faulty: Source, drawn: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    bad = run(app, ["check", str(faulty.root), "--out", str(tmp_path / "bad"), "--no-pictures", "--no-cache"])
    assert bad.exit_code == 1
    assert (tmp_path / "bad/check.html").is_file()
    assert "error: Unreadable files" in bad.stdout
    assert "page: " in bad.stdout
    good = run(app, ["check", str(drawn), "--json", "--no-cache"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["page"] is None
    both = run(app, ["check", str(drawn), str(faulty.root), "--json", "--no-cache"])
    assert both.exit_code == 1
    tree = json.loads(both.stdout)
    assert {place["source"] for finding in tree["findings"] for place in finding["at"]} == {1}
