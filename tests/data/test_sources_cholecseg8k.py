from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

CODES = (50, 11, 21, 13, 12, 31, 23, 24, 25, 32, 22, 33, 5, 0, 255)  # the thirteen classes, unlabelled, border


def watershed() -> np.ndarray:
    """A column for each code. Shapes: -> (20, 15)."""
    return np.tile(np.array(CODES, np.uint8), (20, 1))


def channels(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2)


def make(root: Path) -> None:
    for video, first in (("video01", 80), ("video01", 160), ("video09", 9)):
        clip = root / video / f"{video}_{first:05d}"
        for number in (first, first + 1):
            write_png(clip / f"frame_{number}_endo.png", np.full((20, 15, 3), number, np.uint8))
            write_png(clip / f"frame_{number}_endo_watershed_mask.png", channels(watershed()))
            write_png(clip / f"frame_{number}_endo_mask.png", channels(watershed() // 2))
            write_png(clip / f"frame_{number}_endo_color_mask.png", channels(255 - watershed()))


def test_grasper_and_hook_are_instruments_and_two_codes_are_ignored(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("cholecseg8k", ("background", "instrument"))
    image, mask = pickle.loads(pickle.dumps(source.records[1])).read()
    assert source.records[1].name == "video01/video01_00080/frame_81"
    assert image[0, 0].tolist() == [81, 81, 81]
    row = [1 if code in (31, 32) else 255 if code in (0, 255) else 0 for code in CODES]
    np.testing.assert_array_equal(mask, np.tile(np.array(row, np.uint8), (20, 1)))


def test_types_tell_them_apart(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path, DataSettings(target="types"))
    assert source.classes == ("background", "grasper", "l-hook-electrocautery")
    mask = source.records[0].mask()
    assert (mask[0, CODES.index(31)], mask[0, CODES.index(32)]) == (1, 2)
    assert not (mask == 1)[:, [i for i, code in enumerate(CODES) if code != 31]].any()


def test_groups_are_videos_in_time_order(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    groups = {group: [record.frame for record in records] for group, records in source.groups.items()}
    assert groups == {"video01": [80, 81, 160, 161], "video09": [9, 10]}
    assert source.official is None
    assert [record.frame for record in open_source(tmp_path, DataSettings(every=10)).records] == [80, 160, 10]


def test_stray_codes_are_ignored_and_more_of_them_refused(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "video01/video01_00080/frame_80_endo_watershed_mask.png"
    record = open_source(tmp_path).records[0]
    mask = watershed()
    mask[0, :3] = 35  # 3 of 300 pixels
    write_png(path, channels(mask))
    assert record.mask()[0, :4].tolist() == [255, 255, 255, 0]
    mask[0, :4] = 35
    write_png(path, channels(mask))
    with pytest.raises(UserError, match=r"unexpected values 35, 1\.33% of its pixels"):
        record.mask()


def test_faults(tmp_path: Path) -> None:
    make(tmp_path)
    clip = tmp_path / "video09/video09_00009"
    (clip / "frame_9_endo.png").unlink()
    (clip / "frame_10_endo_watershed_mask.png").unlink()
    source = open_source(tmp_path)
    assert ["no mask of its name" in error.what for error in source.findings] == [False, True]
    coloured = channels(watershed())
    coloured[0, 0, 1] = 9
    write_png(tmp_path / "video01/video01_00160/frame_160_endo_watershed_mask.png", coloured)
    with pytest.raises(UserError, match="three equal channels"):
        source.records[2].mask()
