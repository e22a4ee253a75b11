from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

# The second task of the paper, as its class table lists it: label -> name, over labels 7 to 35.
SECOND_TASK = {
    **dict.fromkeys([7, 8, 10, 27, 20, 32], "cannula"),
    **dict.fromkeys([9, 22], "capsulorhexis-cystotome"),
    **dict.fromkeys([11, 33], "tissue-forceps"),
    **dict.fromkeys([12, 28], "primary-knife"),
    **dict.fromkeys([13, 21], "phacoemulsifier-handpiece"),
    **dict.fromkeys([14, 24], "lens-injector"),
    **dict.fromkeys([15, 18], "irrigation-aspiration-handpiece"),
    **dict.fromkeys([16, 23], "secondary-knife"),
    17: "micromanipulator",
    19: "capsulorhexis-forceps",
    **dict.fromkeys([25, 26, 29, 30, 31, 34, 35], "ignored"),
}


def stripes() -> np.ndarray:
    """A column for each label, 0 to 35."""
    return np.tile(np.arange(36, dtype=np.uint8), (6, 1))


def make(root: Path, videos: tuple[int, ...] = (1, 5, 12)) -> None:
    for video in videos:
        for number in (900, 1010):
            name = f"Video{video}_frame{number:06d}.png"
            write_png(root / f"Video{video:02d}/Images" / name, np.full((6, 36, 3), video, np.uint8))
            write_png(root / f"Video{video:02d}/Labels" / name, stripes())


def test_instruments_of_the_first_task(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("cadis", ("background", "instrument"))
    image, mask = pickle.loads(pickle.dumps(source.records[2])).read()
    assert source.records[2].name == "Video05/Video5_frame000900"
    assert image[0, 0].tolist() == [5, 5, 5]
    np.testing.assert_array_equal(mask, stripes() >= 7)


def test_types_of_the_second_task(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path, DataSettings(target="types"))
    row = source.records[0].mask()[0]
    assert not row[:7].any()
    named = {label: "ignored" if row[label] == 255 else source.classes[row[label]] for label in range(7, 36)}
    assert named == SECOND_TASK
    assert len(source.classes) == 11


def test_the_official_split_is_by_video(tmp_path: Path) -> None:
    make(tmp_path, videos=tuple(range(1, 26)))
    source = open_source(tmp_path)
    assert source.official is not None
    videos = {side: {name.split("/")[0] for name in names} for side, names in source.official.items()}
    assert videos["val"] == {"Video05", "Video07", "Video16"}
    assert videos["test"] == {"Video02", "Video12", "Video22"}
    assert len(videos["train"]) == 19
    assert [record.frame for record in source.groups["Video03"]] == [900, 1010]


def test_faults(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "Video01/Images/Video1_frame000900.png").unlink()
    (tmp_path / "Video01/Labels/Video1_frame001010.png").unlink()
    write_png(tmp_path / "Video05/Labels/Video5_frame000900.png", stripes() + 1)
    source = open_source(tmp_path)
    assert len(source.findings) == 2
    assert list(source.groups) == ["Video05", "Video12"]
    with pytest.raises(UserError, match=r"unexpected values 36, 2\.78%"):
        source.records[0].mask()
