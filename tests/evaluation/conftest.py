from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakePredictor
from trocar.evaluation import parts
from trocar.model_folder import read_card


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Models are opened as fakes; the folders opened are listed."""
    folders: list[Path] = []

    def open_fake(folder: Path, device: str, threshold: float | None) -> FakePredictor:
        folders.append(folder)
        return FakePredictor(read_card(folder), threshold)

    monkeypatch.setattr(parts, "open_predictor", open_fake)
    return folders
