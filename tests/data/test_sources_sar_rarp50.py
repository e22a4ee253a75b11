from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from test_sources_endovis15 import write_video

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

LABELS = (
    *("tool-clasper", "tool-wrist", "tool-shaft", "suturing-needle", "thread"),
    *("suction-tool", "needle-holder", "clamps", "catheter"),
)


def stripes() -> np.ndarray:
    """Four columns for each label, 0 to 9."""
    return np.tile(np.repeat(np.arange(10, dtype=np.uint8), 4), (16, 1))


def make_video(folder: Path, seconds: int = 2, *, rgb: bool = False) -> None:
    """Masks at 0, 60, ...; the frame of number N has brightness N, as stills or in a lossless video."""
    for number in range(0, 60 * seconds, 60):
        write_png(folder / f"segmentation/{number:09d}.png", stripes())
    if rgb:
        for number in range(0, 60 * seconds, 6):
            write_png(folder / f"rgb/{number:09d}.png", np.full((16, 40, 3), number, np.uint8))
    else:
        frames = [np.full((16, 40, 3), number, np.uint8) for number in range(60 * (seconds - 1) + 1)]
        write_video(folder / "video_left.avi", frames, codec="ffv1", pixels="bgr0")
    (folder / "action_discrete.txt").write_text("000000000,0\n")


def make(root: Path) -> None:
    make_video(root / "train1/video_01")
    make_video(root / "train2/video_11_1", rgb=True)
    make_video(root / "train2/video_11_2", rgb=True)
    make_video(root / "test/video_41", rgb=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sar-rarp50")
    make(root)
    return root


def test_images_from_stills_and_from_the_video(whole: Path) -> None:
    source = open_source(whole)
    assert (source.dataset, source.classes) == ("sar-rarp50", ("background", "instrument"))
    assert len(source) == 8
    assert source.findings == ()
    for name in ("train1/video_01/000000060", "test/video_41/000000060"):
        record = next(record for record in source.records if record.name == name)
        image, mask = pickle.loads(pickle.dumps(record)).read()
        assert (image == 60).all()
        np.testing.assert_array_equal(mask, np.isin(stripes(), [1, 2, 3, 6, 7]))


def test_nine_labels_as_parts_and_the_tool_whole_as_types(whole: Path) -> None:
    parts = open_source(whole, DataSettings(target="parts"))
    assert parts.classes == ("background", *LABELS)
    np.testing.assert_array_equal(parts.records[0].mask(), stripes())
    types = open_source(whole, DataSettings(target="types"))
    assert types.classes == ("background", "robotic-instrument", *LABELS[3:])
    np.testing.assert_array_equal(types.records[0].mask(), np.maximum(stripes(), 3) - 2 - (stripes() == 0))


def test_parts_of_a_video_are_one_group_and_count_on(whole: Path) -> None:
    source = open_source(whole)
    groups = {group: [record.frame for record in records] for group, records in source.groups.items()}
    assert groups == {"video_01": [0, 60], "video_11": [0, 60, 120, 180], "video_41": [0, 60]}
    assert [record.name for record in source.groups["video_11"]][2] == "train2/video_11_2/000000000"
    assert source.official is not None
    assert source.official["test"] == ("test/video_41/000000000", "test/video_41/000000060")
    assert len(source.official["train"]) == 6
    assert len(open_source(whole, DataSettings(every=120))) == 4


def test_faults(tmp_path: Path) -> None:
    make_video(tmp_path / "video_01", seconds=3)
    write_png(tmp_path / "video_01/segmentation/000000180.png", stripes())
    write_png(tmp_path / "video_02/segmentation/000000000.png", stripes() + 1)
    write_png(tmp_path / "video_02/segmentation/000000060.png", stripes() + 1)
    write_png(tmp_path / "video_02/rgb/000000000.png", np.zeros((16, 40, 3), np.uint8))
    source = open_source(tmp_path)
    assert [str(error.where).split(",")[0] for error in source.findings] == ["record video_02/000000060"]
    assert "the mask has no image" in source.findings[0].what
    with pytest.raises(UserError, match="the video ends after 121 frames; frame 180"):
        source.records[3].image()
    with pytest.raises(UserError, match="unexpected values 10"):
        source.records[4].mask()
