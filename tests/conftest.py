"""What several tests share: the real frames, where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real frames and encoder weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("TROCAR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data" / "endovis15").is_dir():
        pytest.skip(f"no real frames at {folder}; set TROCAR_SHARED to the folder that holds data/ and weights/")
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set: four procedures of five frames, 64x80, one clip."""
    from trocar.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("drawn") / "data"
    return write_dataset(folder, procedures=4, frames_per_procedure=5, empty_share=0.2, clip_frames=4, size_hw=(64, 80))
