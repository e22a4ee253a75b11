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
