from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from test_sources_folder import noise, shape_mask

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError


def make(root: Path, videos: tuple[str, ...] = ("v2", "v10"), images: str = "images", masks: str = "masks") -> None:
    for video in videos:
        for number in (1, 5, 10):
            write_png(root / video / images / f"frame{number}.png", noise(number))
            write_png(root / video / masks / f"frame{number}.png", shape_mask(number) * 255)


def test_one_folder_per_video(tmp_path: Path) -> None:
    make(tmp_path)
    write_png(tmp_path / "v2/instances/frame5.png", shape_mask(5) * 2)
    (tmp_path / "notes").mkdir()
    source = open_source(tmp_path)
    assert (source.dataset, source.classes, source.mask_encoding) == ("videos", ("background", "instrument"), "0/255")
    assert [record.name for record in source.records][:3] == ["v2/frame1", "v2/frame5", "v2/frame10"]
    assert [record.frame for record in source.records] == [1, 5, 10] * 2
    assert list(source.groups) == ["v2", "v10"]
    image, mask = pickle.loads(pickle.dumps(source.records[1])).read()
    np.testing.assert_array_equal(image, noise(5))
    np.testing.assert_array_equal(mask, shape_mask(5))
    assert source.records[1].instances is not None
    np.testing.assert_array_equal(source.records[1].instances(), shape_mask(5) * 2)
    assert source.records[0].instances is None
    assert source.notes == ("folders that are no video were passed over: notes",)
    assert [record.name for record in open_source(tmp_path, DataSettings(every=5)).records] == [
        f"{video}/frame{number}" for video in ("v2", "v10") for number in (5, 10)
    ]


def test_other_names_and_a_class_table(tmp_path: Path) -> None:
    make(tmp_path, masks="binary_masks")
    with pytest.raises(UserError, match="no known layout"):
        open_source(tmp_path)
    settings = DataSettings(kind="videos", masks="binary_masks", target="parts")
    (tmp_path / "classes.json").write_text(json.dumps({"background": 0, "shaft": 255}))
    source = open_source(tmp_path, settings)
    assert source.classes == ("background", "shaft")
    with pytest.raises(UserError, match="no folder here holds images and labels"):
        open_source(tmp_path, DataSettings(kind="videos", masks="labels"))


def test_faults_are_findings(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "v2/images/frame1.png").unlink()
    (tmp_path / "v10/masks/frame10.png").unlink()
    source = open_source(tmp_path)
    assert len(source) == 4
    assert [str(error.where).split(",")[0] for error in source.findings] == ["record v2/frame1", "record v10/frame10"]


def test_videos_below_one_folder_of_images_are_a_plain_folder(tmp_path: Path) -> None:
    for video in ("v1", "v2"):
        write_png(tmp_path / "images" / video / "0001.png", noise())
        write_png(tmp_path / "masks" / video / "0001.png", shape_mask())
    source = open_source(tmp_path)
    assert source.dataset == "folder"
    assert list(source.groups) == ["v1", "v2"]
