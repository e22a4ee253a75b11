from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trocar.data.cache_folder import cache_folder
from trocar.data.checks import CheckReport, cache, check, checking
from trocar.data.checks.cache import Cache, key_of, open_cache
from trocar.data.checks.facts import Facts, examine, facts_from_json
from trocar.data.files import write_jpeg, write_png
from trocar.data.sources import open_source

LONG_AGO = time.time() - 3600


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def age(root: Path, seconds: float = 0) -> None:
    """Files made just now are not remembered: let them be of an hour ago."""
    for path in root.rglob("*.*"):
        os.utime(path, (LONG_AGO + seconds, LONG_AGO + seconds))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six records, two of them with the same image, one with a mask of another size."""
    root = tmp_path / "data"
    for index in range(6):
        write_png(root / f"images/p{index % 2}/{index}.png", noise(min(index, 4)))
        mask = np.zeros((24, 32), np.uint8)
        mask[4:10, 8 : 20 + index] = 255
        write_png(root / f"masks/p{index % 2}/{index}.png", mask if index else mask[:12])
    age(root)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(data: Path, folder: Path) -> CheckReport:
    return check([open_source(data)], remember=True, cache_folder=folder)


def forbidden(*_: object) -> object:
    raise AssertionError("a record was read that is remembered")


def test_unchanged_data_is_not_read_again_and_the_report_is_the_same(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = check([open_source(data)])
    first = run(data, folder)
    monkeypatch.setattr(checking, "examine", forbidden)
    monkeypatch.setattr(checking, "image_digest", forbidden)
    second = run(data, folder)
    assert first == plain
    assert dataclasses.replace(second, remembered=0) == plain
    assert (plain.remembered, first.remembered, second.remembered) == (0, 0, 6)
    assert {finding.kind for finding in plain.findings} == {"size", "duplicate"}


def test_what_changed_is_read_again(data: Path, folder: Path) -> None:
    run(data, folder)
    path = data / "masks/p1/1.png"
    stored = path.read_bytes()
    path.write_bytes(b"\0" * len(stored))  # as long as before
    os.utime(path, (LONG_AGO + 5, LONG_AGO + 5))
    report = run(data, folder)
    assert report.remembered == 5
    assert [finding.record for finding in report.by_kind["unreadable"]] == ["p1/1"]
    os.utime(path, (LONG_AGO, LONG_AGO))  # the time is put back: the file system still knows
    assert run(data, folder).remembered == 5


def test_another_meaning_of_the_values_is_another_key(data: Path, folder: Path) -> None:
    run(data, folder)
    (data / "classes.json").write_text('{"background": 0, "shaft": 255}')
    report = run(data, folder)
    assert report.remembered == 0
    assert report.sources[0].classes == ("background", "shaft")


def test_what_was_written_just_now_is_not_remembered(data: Path, folder: Path) -> None:
    path = data / "masks/p1/1.png"
    path.touch()
    assert key_of(next(r for r in open_source(data).records if r.name == "p1/1")) is None
    run(data, folder)
    assert run(data, folder).remembered == 5


def test_a_check_without_remembering_writes_no_texts_and_no_file(
    data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Facts, "to_json", forbidden)
    check([open_source(data)], cache_folder=folder)
    assert not folder.exists()


@pytest.mark.parametrize("spoil", ["garbage", "cut", "table", "rows", "empty"])
def test_a_damaged_cache_is_made_anew(spoil: str, data: Path, folder: Path) -> None:
    plain = run(data, folder)
    path = folder / "check.sqlite"
    if spoil == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:4500])
    elif spoil == "empty":
        path.write_bytes(b"")
    else:
        database = sqlite3.connect(path)
        if spoil == "table":
            database.execute("DROP TABLE remembered")
        else:
            values = ("nonsense", "[1, 2]", "{}", '{"picture": 5}', "null", b"\xff")
            keys = [row[0] for row in database.execute("SELECT key FROM remembered WHERE length(key) = 32")]
            database.executemany("UPDATE remembered SET value = ? WHERE key = ?", zip(values, keys, strict=True))
        database.commit()
        database.close()
    again = run(data, folder)
    assert dataclasses.replace(again, remembered=0) == plain
    assert again.remembered == 0
    after = run(data, folder)
    assert dataclasses.replace(after, remembered=0) == plain
    assert after.remembered == 6


@pytest.mark.parametrize(
    ("error", "stays"), [(sqlite3.DatabaseError("malformed"), False), (sqlite3.OperationalError("locked"), True)]
)
def test_an_error_in_use_ends_remembering(error: sqlite3.Error, stays: bool, folder: Path) -> None:
    class Broken:
        def execute(self, *_: object) -> None:
            raise error

        def close(self) -> None:
            pass

    with open_cache(folder) as own:
        own._connection.close()
        own._connection = Broken()
        assert own.text("key") is None
        assert not own.keeps
        own.remember("key", "text")
    assert (folder / "check.sqlite").exists() is stays


def test_a_folder_that_cannot_be_written_to_is_done_without(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(data, tmp_path / "file") == check([open_source(data)])


def test_a_cache_grown_too_large_is_begun_anew(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(data, folder)
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    assert run(data, folder).remembered == 0


def _write_some(arguments: tuple[Path, int]) -> None:
    folder, number = arguments
    with open_cache(folder) as own:
        for index in range(200):
            own.remember(f"{number}-{index}", f"text {number} {index}")
            own.flush()


def test_several_processes_may_write_at_once(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_write_some, [(folder, number) for number in range(3)])
    with open_cache(folder) as all_of_them:
        for number in range(3):
            assert all_of_them.text(f"{number}-199") == f"text {number} 199"
            assert all_of_them.text(f"{number}-0") == f"text {number} 0"


def test_facts_come_back_from_text_as_they_were(data: Path) -> None:
    write_jpeg(data / "images/p0/x.jpg", np.kron(noise(9), np.ones((20, 20, 1), np.uint8)))
    write_png(data / "masks/p0/x.png", np.kron(np.eye(24, 32), np.ones((20, 20))).astype(np.uint8) * 255)
    every = examine(open_source(data).records)
    assert [facts_from_json(facts.to_json()) for facts in every] == every
    assert any(facts.outline for facts in every)
    assert any(facts.faults for facts in every)


def test_another_process_finds_what_this_one_remembered(data: Path, folder: Path) -> None:
    code = "import sys; from trocar.cli import main; sys.argv = ['trocar', *sys.argv[1:]]; main()"
    environment = {**os.environ, "TROCAR_CACHE": str(folder)}
    for arguments, told in (([], False), ([], True), (["--no-cache"], False)):
        command = [sys.executable, "-c", code, "check", str(data), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert ("6 records have not changed" in done.stdout) is told


def test_the_folder_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TROCAR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "trocar"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "trocar"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / "Library/Caches/trocar"


def test_nothing_is_kept_without_a_file() -> None:
    nothing = Cache()
    nothing.remember("key", json.dumps("text"))
    nothing.close()
    assert nothing.text("key") is None
    assert not nothing.keeps
