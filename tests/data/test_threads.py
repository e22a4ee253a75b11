"""Records in threads: none lost, in order, and together where that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trocar.data import threads
from trocar.data.records import Record
from trocar.data.threads import in_batches, in_threads


def records(count: int, ending: str = ".jpg") -> list[Record]:
    empty = np.zeros((1, 1), np.uint8)
    return [Record(str(i), "g", "d", lambda: empty, lambda: empty, files=(Path(f"{i}{ending}"),)) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7, 100, 1000])
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_batches_hold_every_record_in_order(count: int, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    batches = in_batches(records(count))
    assert [record.name for batch in batches for record in batch] == [str(i) for i in range(count)]
    assert all(1 <= len(batch) <= 32 for batch in batches)
    assert len(batches) >= min(count, 4 * cores)  # no core is left without work


def test_frames_of_a_video_are_read_one_by_one() -> None:
    assert {len(batch) for batch in in_batches(records(500, ".mp4"))} == {1}
    assert {len(batch) for batch in in_batches([*records(500), *records(1, ".avi")])} == {1}


def test_results_come_in_order() -> None:
    assert list(in_threads(lambda number: number**2, range(200), 3)) == [number**2 for number in range(200)]
