from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trocar.caching import cache, clear_cache
from trocar.cli import app
from trocar.config import PreprocessSettings
from trocar.data.checks import check
from trocar.data.loading import PreparedSet
from trocar.data.sources import open_source
from trocar.data.store import Store, open_store

SIZES = {(32, 48): "old", (48, 64): "new"}


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """Two sets of prepared frames, the first not used for ten days, and what a check found out."""
    before = time.time() - 60
    for path in drawn.rglob("*.png"):
        os.utime(path, (before, before))
    source = open_source(drawn)
    for size_hw, name in SIZES.items():
        store = opened(drawn, tmp_path, size_hw)
        PreparedSet(source.records, PreprocessSettings(size_hw=size_hw), join=True, store=store)
        store.close()
        if name == "old":
            then = time.time() - 10 * 24 * 3600
            os.utime(store.folder / "set.json", (then, then))
    check([source], remember=True, cache_folder=tmp_path)
    return tmp_path


def opened(drawn: Path, folder: Path, size_hw: tuple[int, int]) -> Store:
    settings = PreprocessSettings(size_hw=size_hw)
    store = open_store(open_source(drawn), settings, join=True, limit=10**9, say=print, folder=folder)
    assert store is not None
    return store


def on_disk(folder: Path) -> int:
    kept = (path for path in folder.rglob("*") if path.suffix == ".row" or "sqlite" in path.name)
    return sum(path.stat().st_size for path in kept)


def test_all_that_is_kept_is_listed_with_its_size(folder: Path) -> None:
    found = cache(folder)
    assert [entry.kind for entry in found.entries] == ["prepared frames", "prepared frames", "checks"]
    assert [entry.rows for entry in found.entries] == [20, 20, None]
    assert ["64x48" in entry.about for entry in found.entries] == [True, False, False]
    assert found.bytes == on_disk(folder)
    assert found.entries[0].bytes == 20 * (48 * 64 * 4 + 4)
    assert found.free


def test_clearing_takes_all_or_what_was_not_used_for_long(folder: Path) -> None:
    some = clear_cache(5, folder)
    assert [entry.rows for entry in some.removed] == [20]
    assert "48x32" in some.removed[0].about
    assert len(some.entries) == 2
    rest = clear_cache(folder=folder)
    assert (len(rest.removed), rest.entries, rest.bytes, on_disk(folder)) == (2, (), 0, 0)
    assert clear_cache(folder=folder).removed == ()


def test_a_set_that_is_open_stays_and_is_named(folder: Path, drawn: Path) -> None:
    store = opened(drawn, folder, (48, 64))
    cleared = clear_cache(folder=folder)
    assert [entry.about for entry in cleared.in_use] == [entry.about for entry in cleared.entries]
    assert "64x48" in cleared.in_use[0].about
    store.close()
    assert clear_cache(folder=folder).in_use == ()


def test_the_verb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROCAR_CACHE", str(folder))
    run = CliRunner()
    listed = run.invoke(app, ["cache"])
    assert listed.exit_code == 0
    assert "10 days ago" in listed.output
    told = json.loads(run.invoke(app, ["cache", "list", "--json"]).stdout)
    assert told["bytes"] == on_disk(folder)
    assert run.invoke(app, ["cache", "--older-than", "3"]).exit_code == 2
    cleared = run.invoke(app, ["cache", "clear", "--older-than", "3"])
    assert "removed: prepared frames" in cleared.output
    told = json.loads(run.invoke(app, ["cache", "clear", "--json"]).stdout)
    assert (len(told["removed"]), told["bytes"]) == (2, 0)
    assert "nothing to remove" in run.invoke(app, ["cache", "clear"]).output


def test_an_empty_or_absent_folder_is_no_error(tmp_path: Path) -> None:
    assert cache(tmp_path / "none").entries == ()
    assert clear_cache(folder=tmp_path / "none").removed == ()
