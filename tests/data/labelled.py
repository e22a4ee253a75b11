"""What the tests of the annotation tools' formats share: images on disk, and sources opened and read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

SIZE = (24, 32)

BRUSHED = np.zeros((5, 7), bool)
BRUSHED[1:4, 2:5], BRUSHED[2, 3], BRUSHED[4, 6] = True, False, True
# Made by mask2rle and encode_rle of label-studio-sdk 2.1.2 (converter/brush.py) of that mask.
MASK2RLE = "0000008c391bfe2300b7ff7c023ff8c023ffbe016fff0f8047fe"


def add_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    write_png(path, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


def add_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """True from the first to before the last row and column."""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def refusal(root: Path, kind: str = "auto") -> UserError:
    with pytest.raises(UserError) as caught:
        open_source(root, DataSettings(kind=kind))
    return caught.value


def only_finding(root: Path) -> UserError:
    (finding,) = open_source(root).findings
    assert finding.where
    return finding


def reading(root: Path) -> UserError:
    """What reading the one record's mask says."""
    (record,) = open_source(root).records
    with pytest.raises(UserError) as caught:
        record.read()
    assert record.name in str(caught.value.where)
    return caught.value
