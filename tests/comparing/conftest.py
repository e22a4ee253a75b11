from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WriteReport = Callable[..., Path]


@pytest.fixture
def write_report(tmp_path: Path) -> WriteReport:
    """Writes a report as `evaluate` does, of scores given frame by frame; every `size` frames are a group."""

    def write(
        name: str,
        dice: Sequence[float],
        *,
        size: int = 4,
        prefix: str = "OP",
        told: dict[str, Any] | None = None,
        **columns: Sequence[Any],
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        with (folder / "per_image.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["record", "group", "fold", "dice", *columns])
            for number, value in enumerate(dice):
                group = f"{prefix}{number // size}"
                cells = [column[number] for column in columns.values()]
                writer.writerow([f"{group}/{number:03d}", group, "", "" if np.isnan(value) else value, *cells])
        (folder / "report.json").write_text(json.dumps(told or {"warnings": []}), encoding="utf-8")
        return folder

    return write
