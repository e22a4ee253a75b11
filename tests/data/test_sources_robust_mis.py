from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError


def make_frame(folder: Path, values: tuple[int, ...] = (50, 100)) -> None:
    """A frame with a square for each value; without values it has no mask, as in the release."""
    number = int(folder.name) % 251
    write_png(folder / "raw.png", np.full((20, 40, 3), number, np.uint8))
    (folder / "10s_video.zip").write_bytes(b"PK")
    if values:
        write_png(folder / "instrument_instances.png", squares(*values))


def squares(*values: int) -> np.ndarray:
    mask = np.zeros((20, 40), np.uint8)
    for number, value in enumerate(values):
        mask[2:12, 2 + 12 * number : 10 + 12 * number] = value
    return mask


def make(root: Path) -> None:
    make_frame(root / "Training/Rectal resection/1/9000")
    make_frame(root / "Training/Rectal resection/1/25", values=())
    make_frame(root / "Training/Proctocolectomy/1/400", values=(200, 7, 3))
    make_frame(root / "Testing/Stage_1/Rectal resection/1/9300")
    make_frame(root / "Testing/Stage_3/Sigmoid/2/50", values=())
    make_frame(root / "Testing/Stage_3/Sigmoid/2/75")


def test_frames_masks_and_instances(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("robust-mis", ("background", "instrument"))
    by_name = {record.name: pickle.loads(pickle.dumps(record)) for record in source.records}
    record = by_name["Training/Proctocolectomy/1/400"]
    image, mask = record.read()
    assert image[0, 0].tolist() == [149, 149, 149]
    np.testing.assert_array_equal(mask, squares(1, 1, 1))
    np.testing.assert_array_equal(record.instances(), squares(3, 2, 1))  # counted in the order of their values


def test_no_mask_means_no_instrument_and_is_counted(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    record = next(record for record in source.records if record.name.endswith("/25"))
    image, mask = record.read()
    assert image.shape[:2] == mask.shape == (20, 40)
    assert not mask.any()
    assert record.instances is not None
    assert not record.instances().any()
    assert "Training: 1 of 3 frames have no instrument_instances.png: they show no instrument" in source.notes
    assert source.findings == ()


def test_groups_are_procedures_whatever_the_side(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    groups = {group: [record.frame for record in records] for group, records in source.groups.items()}
    assert groups == {"Proctocolectomy/1": [400], "Rectal resection/1": [9300, 25, 9000], "Sigmoid/2": [50, 75]}
    assert source.official is not None
    assert source.official["test"] == (
        "Testing/Stage_1/Rectal resection/1/9300",
        "Testing/Stage_3/Sigmoid/2/50",
        "Testing/Stage_3/Sigmoid/2/75",
    )
    assert len(source.official["train"]) == 3
    assert any("cuts these groups" in note for note in source.notes)
    assert open_source(tmp_path / "Training").official is None
    assert list(open_source(tmp_path / "Training").groups) == ["Proctocolectomy/1", "Rectal resection/1"]


def test_a_part_without_any_mask_is_unlabelled_not_empty(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "Testing/Stage_3/Sigmoid/2/75/instrument_instances.png").unlink()
    source = open_source(tmp_path)
    assert not any("Stage_3" in record.name for record in source.records)
    assert "Testing/Stage_3: none of 2 frames has a mask: they are taken as unlabelled and left out" in source.notes
    with pytest.raises(UserError, match="no labelled frames of ROBUST-MIS"):
        open_source(tmp_path / "Testing/Stage_3", DataSettings(kind="robust-mis"))


def test_faults(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "Training/Rectal resection/1/9000/raw.png").unlink()
    coloured = np.zeros((20, 40, 3), np.uint8)
    coloured[0, 0] = [1, 2, 3]
    write_png(tmp_path / "Training/Proctocolectomy/1/400/instrument_instances.png", coloured)
    source = open_source(tmp_path)
    assert "raw.png is missing" in source.findings[0].what
    record = next(record for record in source.records if record.name.endswith("/400"))
    with pytest.raises(UserError, match="coloured"):
        record.mask()
