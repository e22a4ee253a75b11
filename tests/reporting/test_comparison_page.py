from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fakes import write_run
from trocar.comparing import Comparison, compare
from trocar.comparing.again import look_again
from trocar.comparing.results import read_results
from trocar.config import SplitSettings
from trocar.data.sources import open_source
from trocar.data.splits import make_split, write_split
from trocar.errors import UserError
from trocar.evaluation import Evaluation, evaluate
from trocar.reporting.comparison import changed_frames, write_comparison

SHIFTS = {"near": 1, "far": 4, "other": 2}  # pixels by which the masks of each are off


def write_result(result: Evaluation, folder: Path, **inputs: Any) -> None:
    """What a comparison reads of a report, without the figures that take long to resample."""
    folder.mkdir(parents=True)
    columns = ("record", "group", "fold", "dice", "truth_pixels", "predicted_pixels", "empty_truth")
    lines = [",".join(columns)]
    for row in result.rows:
        cells = [getattr(row, column) for column in columns]
        lines.append(",".join("" if cell is None or cell != cell else str(cell * 1) for cell in cells))
    (folder / "per_image.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = {"source": str(result.source.root), "data": {}, "model": None, "predictions": None, "split": None}
    told |= {"side": "all records", "threshold": None, **inputs}
    tree = {"warnings": list(result.warnings), "protocol": dict(result.protocol), "inputs": told}
    (folder / "report.json").write_text(json.dumps(tree), encoding="utf-8")


@pytest.fixture(scope="module")
def reports(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of masks that are the truth moved aside."""
    root = tmp_path_factory.mktemp("compared")
    source = open_source(drawn)
    for name, shift in SHIFTS.items():
        for number, record in enumerate(source.records):
            mask = np.roll((record.mask() > 0).astype(np.uint8), shift * (1 + number % 3), axis=1)
            path = root / "masks" / name / f"{record.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask * 255)
        masks = root / "masks" / name
        write_result(evaluate(source, predictions=masks), root / name, predictions=str(masks))
    return root


@pytest.fixture(scope="module")
def compared(reports: Path) -> Comparison:
    return compare([reports / "near", reports / "far"], published=["them=0.90/0.95"], resamples=200)


@pytest.fixture(scope="module")
def text(compared: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    page = write_comparison(compared, tmp_path_factory.mktemp("page"))
    assert sorted(file.name for file in page.parent.iterdir()) == ["compare.html", "compare.json"]
    return page.read_text(encoding="utf-8")


def plain(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_the_page_needs_nothing_else(text: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in text
    assert "<script" not in text
    assert "@import" not in text


def test_the_page_says_what_was_found(compared: Comparison, text: str) -> None:
    shown = plain(text)
    pair, means = compared.pairs[0], [one.score.mean.value for one in compared.standings]
    for words in (
        compared.verdicts[0],
        "near − far",  # noqa: RUF001
        *(f"{mean:.3f}" for mean in means),
        f"{pair.paired.difference.mean.value:+.3f}",
        f"{pair.paired.higher}, {pair.paired.equal}, {pair.paired.lower}",
        "them: Dice 0.90, Jaccard 0.95 cannot be means over one set of images",
        "impossible",
        "By group: most changed first",
        "which may be of patients",
        "masks of",  # the protocol tells the results apart
        "data fingerprint",
        "not a medical device",
    ):
        assert words in shown, words
    assert text.count("<svg") == 2
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_frames_that_changed_most_stand_side_by_side(compared: Comparison, text: str) -> None:
    heads = re.findall(r"<h3>(\S+) ", text)
    assert heads == [frame.record for frame in compared.frames[:8]]
    assert text.count("<img") == 8 * 4  # image, truth and the errors of both
    first = compared.frames[0]
    assert f"near: Dice {first.scores[0]:.3f}" in text
    assert f"far: Dice {first.scores[1]:.3f}" in text
    assert "There are no pictures" not in text


def test_json_holds_the_same_figures(compared: Comparison, tmp_path: Path) -> None:
    write_comparison(compared, tmp_path, pictures=False)
    raw = (tmp_path / "compare.json").read_text(encoding="utf-8")
    assert "NaN" not in raw
    tree = json.loads(raw)
    assert tree["pairs"][0]["paired"]["difference"]["mean"]["value"] == compared.pairs[0].paired.difference.mean.value
    assert len(tree["frames"]) == len(compared.frames)


def test_without_pictures_there_is_no_frame(compared: Comparison, tmp_path: Path) -> None:
    text = write_comparison(compared, tmp_path, pictures=False).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "patients" not in text
    assert "left out (--no-pictures)" in text


def test_three_results_share_one_page(reports: Path, tmp_path: Path) -> None:
    found = compare([reports / name for name in SHIFTS], resamples=200)
    text = write_comparison(found, tmp_path).read_text(encoding="utf-8")
    assert "Comparison of near, far and other" in text
    assert "Rank orders under resampling" in text
    assert text.count("<svg") == 1 + 3  # the forest and a scatter for each pair
    assert text.count("<img") == 8 * 5


def test_what_is_gone_is_said_and_the_rest_is_shown(reports: Path, tmp_path: Path) -> None:
    for name in ("near", "far"):
        shutil.copytree(reports / name, tmp_path / name)
    told = json.loads((tmp_path / "far" / "report.json").read_text())
    told["inputs"]["predictions"] = str(tmp_path / "gone")
    (tmp_path / "far" / "report.json").write_text(json.dumps(told))
    shown, reasons = changed_frames(compare([tmp_path / "near", tmp_path / "far"], resamples=100))
    assert [len(one.panels) for one in shown] == [3] * 8
    assert len(reasons) == 1
    assert reasons[0].startswith("far: no such folder of predictions")
    del told["inputs"]
    for name in ("near", "far"):
        (tmp_path / name / "report.json").write_text(json.dumps(told))
    page = write_comparison(compare([tmp_path / "near", tmp_path / "far"], resamples=100), tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "There are no pictures." in text
    assert text.count("does not say what it was made from") == 2


def test_damaged_inputs_are_the_users_business(reports: Path, tmp_path: Path) -> None:
    shutil.copytree(reports / "near", tmp_path / "near")
    for inputs in ({}, {"source": 3}, {"source": "nowhere", "data": {"kindd": 1}, "split": None, "model": None}):
        (tmp_path / "near" / "report.json").write_text(json.dumps({"inputs": inputs}))
        report = read_results([tmp_path / "near"])[0].runs[0]
        with pytest.raises(UserError):
            list(look_again(report, ["procedure-00/0000"]))


def test_masks_changed_since_are_noticed(reports: Path, tmp_path: Path) -> None:
    shutil.copytree(reports / "near", tmp_path / "near")
    shutil.copytree(reports / "masks" / "near", tmp_path / "masks")
    told = json.loads((tmp_path / "near" / "report.json").read_text())
    told["inputs"]["predictions"] = str(tmp_path / "masks")
    (tmp_path / "near" / "report.json").write_text(json.dumps(told))
    found = compare([tmp_path / "near", reports / "far"], resamples=100)
    path = tmp_path / "masks" / f"{found.frames[0].record}.png"
    cv2.imwrite(str(path), np.zeros_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))
    shown, reasons = changed_frames(found)
    assert "predicted again, 1 frame came out otherwise" in reasons[0]
    assert shown[0].panels[2].caption.endswith("now Dice 0.000")


def test_models_of_folds_are_opened_as_the_evaluation_opened_them(drawn: Path, tmp_path: Path) -> None:
    source = open_source(drawn)
    split = make_split(source, SplitSettings(strategy="leave-one-group-out", val_share=0.3))
    run = tmp_path / "run"
    for name in split.folds:
        write_run(run / f"fold-{name}", source, fold=name)
    write_split(split, run / "split.yaml")
    folds = {name: f"fold-{name}" for name in split.folds}
    (run / "folds.json").write_text(json.dumps({"format": 1, "folds": folds}), encoding="utf-8")
    result = evaluate(source, model=run, threshold=0.6)
    write_result(result, tmp_path / "report", model=str(run), side="test", threshold=0.6)
    report = read_results([tmp_path / "report"])[0].runs[0]
    views = list(look_again(report, [row.record for row in result.rows]))
    assert [view.row.record for view in views] == [row.record for row in result.rows]
    assert [view.row.fold for view in views] == [row.fold for row in result.rows]
    assert [view.row.predicted_pixels for view in views] == [row.predicted_pixels for row in result.rows]
    assert len({row.fold for row in result.rows}) == 4


def test_names_cannot_inject_markup(reports: Path, tmp_path: Path) -> None:
    evil = tmp_path / "<b>bold"
    shutil.copytree(reports / "near", evil)
    found = compare([evil, reports / "far"], resamples=100)
    text = write_comparison(found, tmp_path / "out", pictures=False).read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b&gt;bold" in text


def test_a_lone_report_has_its_page(reports: Path, tmp_path: Path) -> None:
    found = compare([reports / "near"], published=["them=0.90/0.85"], resamples=100)
    text = write_comparison(found, tmp_path).read_text(encoding="utf-8")
    assert "Published figures" in text
    assert "Frames that changed most" not in text
