from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from trocar.errors import UserError
from trocar.metrics.calibration import calibration, threshold_curve
from trocar.metrics.failure import failure_finding
from trocar.metrics.findings import ThresholdChoice
from trocar.reporting.figures import (
    TRAIN_COLOUR,
    VAL_COLOUR,
    curve_svgs,
    histogram_svg,
    plot_curves,
    reliability_svg,
    risk_coverage_svg,
    strip_svg,
    threshold_svg,
)

LOG = [
    {"epoch": e, "train_loss": 1 / e, "train_dice": 1 - 1 / e, "train_jaccard": 0.5, "val_loss": 1.1 / e}
    | {"val_dice": 0.9 - 1 / e, "val_jaccard": 0.4}
    for e in range(1, 8)
]


TABLE = np.array([[0, 0, 0], [10, 6, 5], [4, 3.5, 4]])  # of an empty bin and two that hold pixels


def decode(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_curves_are_a_png(tmp_path: Path) -> None:
    plot_curves(LOG, tmp_path / "deep" / "curves.png")
    buffer = io.BytesIO()
    plot_curves(LOG, buffer)
    for data in ((tmp_path / "deep" / "curves.png").read_bytes(), buffer.getvalue()):
        assert data.startswith(b"\x89PNG")
        assert decode(data).std() > 5
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["curves.png"]  # no temporary file stays


def test_curves_of_text_are_those_of_numbers() -> None:
    numbers, text = io.BytesIO(), io.BytesIO()
    plot_curves(LOG, numbers)
    plot_curves([{key: str(value) for key, value in row.items()} for row in LOG], text)
    np.testing.assert_array_equal(decode(numbers.getvalue()), decode(text.getvalue()))


def test_train_and_validation_are_drawn_each_from_its_own_column() -> None:
    pictures = []
    for column in (None, "train_dice", "val_dice"):
        buffer = io.BytesIO()
        plot_curves([row | ({column: 0.1} if column else {}) for row in LOG], buffer)
        pictures.append(decode(buffer.getvalue()))
    for changed in pictures[1:]:
        moved = np.flatnonzero((pictures[0] != changed).any(axis=(0, 2))) / pictures[0].shape[1]
        assert 1 / 3 < moved.min() < moved.max() < 2 / 3  # only the middle panel, which is Dice, differs


@pytest.mark.parametrize("rows", [[], LOG[:1], [{"epoch": 1}], [{"epoch": "1", "val_dice": "nan", "train_dice": ""}]])
def test_curves_of_little_or_nothing_can_be_drawn(rows: list[dict[str, object]]) -> None:
    buffer = io.BytesIO()
    plot_curves(rows, buffer)
    assert decode(buffer.getvalue()) is not None


def test_curves_that_cannot_be_written_are_the_users_business(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError):
        plot_curves(LOG, tmp_path / "file" / "curves.png")


def test_no_pyplot_is_loaded() -> None:
    code = (
        "import io, sys; from trocar.reporting.figures import plot_curves; plot_curves([], io.BytesIO()); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def svgs() -> list[str]:
    values = {"OP<1>": [0.2, math.nan, 0.9], "OP2": [math.nan], "OP3": [0.7]}
    curve = threshold_curve([np.linspace(0.4, 0.8, 91)])
    return [
        *curve_svgs(LOG),
        histogram_svg([0.2, 0.9, math.nan, 0.7], "Dice"),
        strip_svg(values, "Dice"),
        threshold_svg(ThresholdChoice(0.4, curve, curve), "test side"),
        reliability_svg(calibration(TABLE, TABLE, 1.5)),
        risk_coverage_svg(failure_finding([0.9, 0.5, 0.4], [0.8, 0.2, 0.9])),
    ]


def test_svgs_refer_to_nothing_outside_and_take_the_pages_ink(svgs: list[str]) -> None:
    for svg in svgs:
        assert svg.startswith("<svg")
        assert "http" not in svg
        assert "currentColor" in svg
        assert 'role="img" aria-label="' in svg
        assert "#010203" not in svg
        HTMLParser().feed(svg)


def test_identifiers_of_several_svgs_do_not_meet(svgs: list[str]) -> None:
    found = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in svgs]
    assert sum(map(len, found)) == len(set.union(*found))
    for svg, own in zip(svgs, found, strict=True):
        referred = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert {a or b for a, b in referred} <= set(re.findall(r'\bid="([^"]+)"', svg))
        assert own


def test_little_or_nothing_can_be_drawn() -> None:
    nothing = threshold_curve([])
    curve = threshold_curve([np.linspace(0.4, 0.8, 91)])
    for svg in (
        threshold_svg(ThresholdChoice(0.4, None, curve), "test side"),
        threshold_svg(ThresholdChoice(0.4, nothing, nothing), "test side"),
        reliability_svg(calibration(TABLE)),
        reliability_svg(calibration(np.zeros((3, 3)))),
        risk_coverage_svg(failure_finding([math.nan], [0.5])),
    ):
        HTMLParser().feed(svg)
        assert svg.endswith("</svg>\n")


def test_what_is_known_of_validation_is_drawn_beside_what_was_scored() -> None:
    curve = threshold_curve([np.linspace(0.4, 0.8, 91)])
    pale, both = (threshold_svg(ThresholdChoice(0.4, before, curve), "test side") for before in (None, curve))
    assert TRAIN_COLOUR.lower() in pale
    assert VAL_COLOUR.lower() not in pale
    assert VAL_COLOUR.lower() in both
    assert VAL_COLOUR.lower() in reliability_svg(calibration(TABLE, TABLE, 1.5))  # after scaling
    assert VAL_COLOUR.lower() not in reliability_svg(calibration(TABLE))


def test_many_groups_are_cut_to_the_lowest() -> None:
    svg = strip_svg({f"g{i}": [i / 40] for i in range(40)}, "Dice")
    assert "of the 25 lowest of 40 groups" in svg
