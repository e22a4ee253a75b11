from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trocar.config import AugmentSettings, BoxBlur, Dilate, PreprocessSettings
from trocar.data import store as module
from trocar.data.augment import Augment
from trocar.data.files import write_png
from trocar.data.loading import Batch, PreparedSet, shuffled_plan
from trocar.data.records import Record, Source
from trocar.data.sources import open_source
from trocar.data.store import Store, open_store, remove_set, stored_sets
from trocar.errors import UserErrors

SMALL = PreprocessSettings(size_hw=(32, 48))
COUNT = 12


def write_data(root: Path, count: int = COUNT, hw: tuple[int, int] = (40, 56)) -> Path:
    for index in range(count):
        generator = np.random.default_rng(index)
        write_png(root / f"images/p{index % 3}/{index}.png", generator.integers(0, 255, (*hw, 3), dtype=np.uint8))
        write_png(root / f"masks/p{index % 3}/{index}.png", generator.integers(0, 2, hw, dtype=np.uint8) * 255)
    age(root)
    return root


def age(root: Path) -> None:
    """As if written a minute ago: what was changed just now is not kept."""
    before = time.time() - 60
    for path in root.rglob("*.png"):
        os.utime(path, (before, before))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def opening(tmp_path: Path, data: Path, told: list[str]) -> Iterator[SimpleNamespace]:
    """Opens stores, and closes them at the end."""
    opened: list[Store] = []

    def open_one(settings: PreprocessSettings = SMALL, limit: int = 10**9, source: Source | None = None) -> Store:
        store = open_store(
            source or open_source(data), settings, join=True, limit=limit, say=told.append, folder=tmp_path / "cache"
        )
        assert store is not None
        opened.append(store)
        return store

    yield SimpleNamespace(open=open_one, opened=opened)
    for store in opened:
        store.close()


class Counting:
    """A set of prepared records that counts how many were read from the originals."""

    def __init__(
        self, records: tuple[Record, ...], settings: PreprocessSettings, store: Store | None, **options: object
    ):
        self.reads = 0
        outer = self

        class Counted(PreparedSet):
            def _read(self, record: Record):  # type: ignore[no-untyped-def]
                outer.reads += 1
                return super()._read(record)

        self.set = Counted(records, settings, join=True, store=store, **options)  # type: ignore[arg-type]

    def samples(self, epoch: int = 0) -> list[Batch]:
        return list(self.set.batches(shuffled_plan(len(self.set), 4, seed=0, epoch=epoch)))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        a.names == b.names and torch.equal(a.frames, b.frames) and torch.equal(a.masks, b.masks)
        for a, b in zip(one, other, strict=True)
    )


def rows_of(store: Store) -> list[Path]:
    return sorted(store.folder.glob("rows/*/*.row"))


VARIANTS = {
    "plain": SMALL,
    "shares": PreprocessSettings(size_hw=(32, 48), mask_resize="bilinear", resize="tensorflow", fit="squash"),
    "steps": PreprocessSettings(size_hw=(32, 48), image_steps=(BoxBlur(),), mask_steps=(Dilate(),)),
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine of one core
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_samples_equal_those_of_the_originals_and_are_read_once(
    data: Path, opening: SimpleNamespace, settings: PreprocessSettings
) -> None:
    source, augment = open_source(data), Augment(AugmentSettings())
    options = {"training": True, "augment": augment, "memory_mb": 0}
    streamed = Counting(source.records, settings, None, **options)
    first = Counting(source.records, settings, opening.open(settings), **options)
    again = Counting(open_source(data).records, settings, opening.open(settings), **options)
    for epoch in (0, 1):
        assert same(streamed.samples(epoch), first.samples(epoch))
        assert same(streamed.samples(epoch), again.samples(epoch))
    assert (streamed.reads, first.reads, again.reads) == (4 * COUNT, COUNT, 0)
    plan = shuffled_plan(COUNT, 4, seed=0, epoch=1)
    assert same(streamed.samples(1), list(again.set.batches(plan, workers=2)))
    assert pickle.loads(pickle.dumps(opening.opened[0])).row_bytes == opening.opened[0].row_bytes


def test_training_masks_and_judged_masks_are_kept_apart_where_they_differ(data: Path, opening: SimpleNamespace) -> None:
    source = open_source(data)
    for settings, rows in ((SMALL, COUNT), (VARIANTS["steps"], 2 * COUNT)):
        store = opening.open(settings)
        sides = [
            Counting(source.records, settings, store, training=training, memory_mb=0) for training in (True, False)
        ]
        assert len(rows_of(store)) == rows
        alone = Counting(source.records, settings, None, memory_mb=0)
        assert same(sides[1].samples(), alone.samples())


def test_folds_share_rows(data: Path, opening: SimpleNamespace) -> None:
    records = open_source(data).records
    one = Counting(records[:8], SMALL, opening.open(), training=True)
    other = Counting(records[4:], SMALL, opening.open())
    assert (one.reads, other.reads) == (8, 4)


def test_an_edit_that_keeps_name_and_size_is_noticed(data: Path, opening: SimpleNamespace) -> None:
    Counting(open_source(data).records, SMALL, opening.open())
    path = data / "images/p1/4.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    changed = np.random.default_rng(99).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    write_png(path, changed)
    path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))  # padded: PNG ends at IEND
    if path.stat().st_size != before.st_size:
        pytest.skip("the two pictures do not compress alike")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # even with its old time set back
    source = open_source(data)
    again = Counting(source.records, SMALL, opening.open(), memory_mb=0)
    assert again.reads == 1
    assert same(again.samples(), Counting(source.records, SMALL, None, memory_mb=0).samples())
    assert len(rows_of(opening.opened[0])) == COUNT  # the old row is gone


def test_other_preprocessing_is_another_set(data: Path, opening: SimpleNamespace) -> None:
    one = opening.open()
    other = opening.open(SMALL.model_copy(update={"fit": "squash"}))
    normalised = opening.open(SMALL.model_copy(update={"mean": (0.0, 0.0, 0.0)}))
    assert one.folder == normalised.folder != other.folder


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "longer"])
def test_damaged_rows_are_made_anew(data: Path, opening: SimpleNamespace, told: list[str], damage: str) -> None:
    records = open_source(data).records
    expected = Counting(records, SMALL, None, memory_mb=0).samples()
    store = opening.open()
    Counting(records, SMALL, store)
    row = rows_of(store)[3]
    content = bytearray(row.read_bytes())
    content[100] ^= 1
    row.write_bytes({"cut": content[:500], "empty": b"", "flipped": content, "longer": content + b"x"}[damage])
    again = Counting(records, SMALL, opening.open(), memory_mb=0)
    assert again.reads == 1
    assert same(again.samples(), expected)
    assert any("1 prepared frames" in text and "damaged" in text for text in told)


def test_rows_taken_away_meanwhile_are_read_from_the_originals(data: Path, opening: SimpleNamespace) -> None:
    records = open_source(data).records
    prepared = Counting(records, SMALL, store := opening.open(), memory_mb=0)
    for row in rows_of(store)[:5]:
        row.unlink()
    assert same(prepared.samples(), Counting(records, SMALL, None, memory_mb=0).samples())


def test_bad_records_are_named_all_at_once_and_the_rest_is_kept(data: Path, opening: SimpleNamespace) -> None:
    for name in ("p0/3", "p2/5"):
        (data / f"images/{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    write_png(data / "masks/p1/7.png", np.zeros((9, 9), np.uint8))  # just now: of no row
    age(data / "images")
    records, store = open_source(data).records, opening.open()
    with pytest.raises(UserErrors) as caught:
        Counting(records, SMALL, store)
    assert len(caught.value.errors) == 3
    assert len(rows_of(store)) == COUNT - 3


@pytest.mark.parametrize(("memory_mb", "reads"), [(4096, COUNT), (0, COUNT - 2 + 2 * 2)])
def test_what_cannot_be_kept_is_held_or_read_anew(
    data: Path, opening: SimpleNamespace, memory_mb: int, reads: int
) -> None:
    records = list(open_source(data).records)
    first = records[0]
    records[0] = Record("lambda", "g", "made", lambda: first.image(), lambda: first.mask(), files=first.files)
    os.utime(records[1].files[0])  # changed this very moment
    prepared = Counting(tuple(records), SMALL, store := opening.open(), memory_mb=memory_mb)
    assert len(rows_of(store)) == COUNT - 2
    assert same(prepared.samples(), prepared.samples())
    assert prepared.reads == reads


# ------------------------------------------------------------------ the disk


def test_a_set_larger_than_the_limit_streams(data: Path, opening: SimpleNamespace, told: list[str]) -> None:
    store = opening.open(limit=10**9)
    few = opening.open(limit=(COUNT - 1) * store.row_bytes)
    prepared = Counting(open_source(data).records, SMALL, few, memory_mb=0)
    assert not rows_of(few)
    assert same(prepared.samples(), Counting(open_source(data).records, SMALL, None, memory_mb=0).samples())
    assert "train.prepared_gb allows" in told[0]


def test_sets_not_used_longest_make_room_and_used_ones_stay(
    data: Path, opening: SimpleNamespace, told: list[str]
) -> None:
    records = open_source(data).records
    fits, resizes = ("letterbox", "squash"), ("area-linear", "tensorflow")
    kinds = [SMALL.model_copy(update={"fit": fit, "resize": resize}) for fit in fits for resize in resizes]
    stores = [opening.open(kind) for kind in kinds[:3]]
    for place, (kind, store) in enumerate(zip(kinds, stores, strict=False)):
        Counting(records, kind, store)
        os.utime(store.folder / "set.json", (place + 1, place + 1))
    stores[0].close()  # used longest ago; the second is open
    stores[2].close()
    limit = 3 * COUNT * stores[0].row_bytes
    Counting(records, kinds[3], opening.open(kinds[3], limit))
    assert [store.folder.is_dir() for store in stores] == [False, True, True]
    assert "removed to make room" in told[0]
    Counting(records, kinds[0], opening.open(kinds[0], limit))
    assert [store.folder.is_dir() for store in stores] == [True, True, False]
    told.clear()
    blocked = Counting(records, kinds[2], opening.open(kinds[2], limit), memory_mb=0)  # all three are in use
    assert "other trainings use the room" in told[0]
    assert same(blocked.samples(), Counting(records, kinds[2], None, memory_mb=0).samples())


def test_a_full_disk_is_said_and_the_rest_streams(
    data: Path, opening: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Store._write, []

    def full(self: Store, row: Path, content: bytes) -> None:
        if len(written) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(row)
        write(self, row, content)

    monkeypatch.setattr(Store, "_write", full)
    records = open_source(data).records
    prepared = Counting(records, SMALL, store := opening.open(), memory_mb=0)
    assert 4 <= len(rows_of(store)) < COUNT
    assert same(prepared.samples(), Counting(records, SMALL, None, memory_mb=0).samples())
    assert any("the disk is full" in text for text in told)
    assert not list(store.folder.rglob("*.part"))


def test_a_disk_without_room_is_left_alone(
    data: Path, opening: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_FREE", 10**18)
    Counting(open_source(data).records, SMALL, store := opening.open())
    assert not rows_of(store)
    assert "the disk has" in told[0]


def test_a_folder_that_cannot_be_written_is_said(data: Path, tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = open_store(open_source(data), SMALL, join=True, limit=1, say=told.append, folder=tmp_path / "cache")
    assert store is None
    assert "cannot be kept" in told[0]
    assert open_store(open_source(data), SMALL, join=True, limit=0, say=told.append, folder=tmp_path) is None
    assert len(told) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said(data: Path, tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    store = open_store(open_source(data), SMALL, join=True, limit=1, say=told.append, folder=tmp_path / "cache")
    assert store is None
    assert "cannot be kept" in told[0]


# ------------------------------------------------------------------ processes


PREPARE = """
import sys, time
from pathlib import Path
from trocar.config import PreprocessSettings
from trocar.data.loading import PreparedSet
from trocar.data.sources import open_source
from trocar.data.store import open_store

reads, slow = 0, float(sys.argv[3])

class Slow(PreparedSet):
    def _read(self, record):
        global reads
        reads += 1
        time.sleep(slow)
        return super()._read(record)

source, settings = open_source(sys.argv[1]), PreprocessSettings(size_hw=(32, 48))
store = open_store(source, settings, join=True, limit=10**9, say=lambda text: None, folder=Path(sys.argv[2]))
Slow(source.records, settings, join=True, store=store)
print(reads)
"""


def prepare(data: Path, cache: Path, slow: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, str(data), str(cache), str(slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_it_goes_on_where_it_was(data: Path, opening: SimpleNamespace, tmp_path: Path) -> None:
    process = prepare(data, tmp_path / "cache", 0.3)
    while not list((tmp_path / "cache").rglob("*.row")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = len(list((tmp_path / "cache").rglob("*.row")))
    assert 0 < left < COUNT
    records = open_source(data).records
    again = Counting(records, SMALL, store := opening.open(), memory_mb=0)
    assert again.reads == COUNT - left
    assert same(again.samples(), Counting(records, SMALL, None, memory_mb=0).samples())
    assert len(rows_of(store)) == COUNT


def test_two_processes_at_once_do_the_work_once(data: Path, tmp_path: Path) -> None:
    processes = [prepare(data, tmp_path / "cache", 0.05) for _ in range(3)]
    reads = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(reads) == COUNT
    assert [process.returncode for process in processes] == [0, 0, 0]
    (one,) = stored_sets(tmp_path / "cache/prepared")
    assert one.rows == COUNT


def test_a_set_in_use_by_another_process_is_not_removed(data: Path, opening: SimpleNamespace) -> None:
    Counting(open_source(data).records, SMALL, store := opening.open())
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert not pool.apply(remove_set, (store.folder,))
        store.close()
        assert pool.apply(remove_set, (store.folder,))
    assert not store.folder.exists()
    assert not list(store.folder.parent.iterdir())


def test_what_is_known_of_a_set_can_be_listed(data: Path, opening: SimpleNamespace) -> None:
    Counting(open_source(data).records, SMALL, store := opening.open())
    (one,) = stored_sets(store.folder.parent)
    assert (one.rows, one.bytes) == (COUNT, COUNT * (32 * 48 * 4 + 4))
    assert "folder" in one.about
    assert "48x32" in one.about
    assert str(data) in one.about
    assert json.loads((store.folder / "set.json").read_text())["preprocess"]["fit"] == "letterbox"
    (store.folder / "set.json").write_text("{")
    assert stored_sets(store.folder.parent)[0].rows == COUNT


def test_what_a_kill_left_half_written_is_taken_away(data: Path, opening: SimpleNamespace) -> None:
    store = opening.open()
    old, new = (store.folder / "rows" / "ab" / f"{name}.part" for name in ("old", "new"))
    old.parent.mkdir()
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    Counting(open_source(data).records, SMALL, store)
    assert not old.exists()
    assert new.exists()


def test_partials_of_equal_arguments_have_one_row(data: Path, opening: SimpleNamespace) -> None:
    records = open_source(data).records
    twins = [Record("twin", "g", "made", partial(r.image), partial(r.mask), files=r.files) for r in records[:1]]
    store = opening.open()
    assert store._place(records[0], "") != store._place(records[1], "")
    assert store._place(twins[0], "") == store._place(
        Record("other", "g", "made", partial(records[0].image), partial(records[0].mask), files=records[0].files), ""
    )
