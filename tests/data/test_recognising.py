from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trocar.config import SplitSettings
from trocar.data.recognising import records_in_split, records_of_groups
from trocar.data.records import Record, Source
from trocar.data.splits import Split, make_split

SIZES = {"a/1": (10, 5), "a/2": (20, 5), "b/1": (30, 5), "b/2": (10, 6), "c/1": (10, 7)}


def source_of(folder: Path, sizes: dict[str, tuple[int, int]]) -> Source:
    """Records of files that hold nothing but their number of bytes: (image, mask)."""
    records = []
    for name, both in sizes.items():
        files = (folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png")
        for path, size in zip(files, both, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        nothing = partial(np.zeros, (2, 2), np.uint8)
        records.append(Record(name, name.rpartition("/")[0] or name, "folder", nothing, nothing, files=files))
    return Source("folder", folder, ("background", "instrument"), tuple(records))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return make_split(source_of(tmp_path / "whole", SIZES), SplitSettings(strategy="random-groups"))


def test_the_whole_is_known_by_its_names(split: Split, tmp_path: Path) -> None:
    copy = source_of(tmp_path / "copy", SIZES)
    assert records_in_split(split, copy) == {name: (name,) for name in SIZES}
    assert records_in_split(split.model_copy(update={"file_bytes": {}}), copy) == {name: (name,) for name in SIZES}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"a/1": (10, 5), "a/2": (20, 5)}, {"a/1": ("a/1",), "a/2": ("a/2",)}),  # a part
        ({"2": (20, 5)}, {"2": ("a/2",)}),  # a part that begins further down
        ({"all/a/2": (20, 5), "all/d/2": (20, 5)}, {"all/a/2": ("a/2",)}),  # a folder around it
        ({"a/2": (21, 5)}, {}),  # another image of that name
        ({"a/2": (20, 9)}, {"a/2": ("a/2",)}),  # its mask was mended
        ({"1": (10, 7)}, {"1": ("c/1",)}),  # of two images alike in name and size the mask tells
        ({"1": (10, 9)}, {"1": ("a/1", "c/1")}),
        ({"a2": (20, 5), "xa/2": (20, 5)}, {}),  # names end alike by whole folders only
    ],
)
def test_a_record_is_known_by_the_end_of_its_name_and_the_size_of_its_image(
    split: Split, tmp_path: Path, given: dict[str, tuple[int, int]], found: dict[str, tuple[str, ...]]
) -> None:
    assert records_in_split(split, source_of(tmp_path / "given", given)) == found


def test_a_split_without_sizes_knows_no_part(split: Split, tmp_path: Path) -> None:
    part = source_of(tmp_path / "part", {"a/1": (10, 5)})
    assert not records_in_split(split.model_copy(update={"file_bytes": {}}), part)


def test_groups_are_known_by_the_end_of_their_name_in_data_of_the_same_kind(tmp_path: Path) -> None:
    source = source_of(tmp_path, SIZES)
    assert [record.name for record in records_of_groups(source, "folder", ["x/a", "c"])] == ["a/1", "a/2", "c/1"]
    assert [record.name for record in records_of_groups(source, "coco + folder", ["b"])] == ["b/1", "b/2"]
    assert not records_of_groups(replace(source, dataset="coco"), "folder", ["a"])
