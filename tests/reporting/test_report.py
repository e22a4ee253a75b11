from __future__ import annotations

import csv
import errno
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from full_report import Page

from fakes import GROUPS, FakePredictor, make_source, make_split, write_fold_run, write_run
from trocar.errors import UserError
from trocar.evaluation import Evaluation, evaluate, parts
from trocar.metrics import intervals
from trocar.model_folder import read_card
from trocar.reporting.report import verdict, write_report


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three folds pooled. Evaluated once: nothing below changes it."""
    source = make_source()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "open_predictor", lambda folder, *_, **__: FakePredictor(read_card(folder)))
        return evaluate(source, model=write_fold_run(tmp_path_factory.mktemp("pooled") / "run", source))


@pytest.fixture(scope="module")
def plain(pooled: Evaluation) -> Evaluation:
    """The same without the curves of its training, which take longest to draw."""
    without = tuple(replace(part, run=None) for part in pooled.parts)
    return replace(pooled, parts=without)


@pytest.fixture(scope="module")
def written(pooled: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with everything."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "open_predictor", lambda folder, *_, **__: FakePredictor(read_card(folder)))
        return write_report(pooled, tmp_path_factory.mktemp("written"))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_needs_nothing_else(written: Path) -> None:
    assert sorted(file.name for file in written.parent.iterdir()) == ["per_image.csv", "report.html", "report.json"]
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "http" not in text
    assert text.count("<script") == 1
    assert not re.search(r"<script[^>]+src", text)
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#", "", text)


def test_the_page_holds_what_a_reader_needs(pooled: Evaluation, written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    for words in (
        verdict(pooled),
        "data fingerprint",
        pooled.source.fingerprint(),
        "leave-one-group-out, folds OP1, OP2, OP3",
        "none: no group stands on two sides",
        "native size of each frame: 64x48 (15)",
        "highest mean Dice on validation records",
        "per-image: each frame by itself",
        "whatever was predicted",
        "3 of 15 frames show no instrument",
        "In 1 of them something was falsely found",
        "training side",
        "validation side",
        "test side, scored here",
        "0.950",
        "Worst frames",
        "threshold 0.4, as scored",
        "threshold 0.99",
        "which may be of patients",
        "not a medical device",
    ):
        assert words in page.text, words
    assert text.count("<svg") == 2 + 3 * 4 + 2  # histogram, strip; of each fold curves and threshold; reliability, risk
    assert (
        text.count("<img") == 12 * 6 + 3 * 3
    )  # image, truth and four thresholds; of frames without instrument only the scored one
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_worst_frames_come_first(pooled: Evaluation, written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    shown = [float(found) for found in re.findall(r"<h4>.*? Dice ([\d.]+) ", text)]
    assert shown[:8] == sorted(shown[:8])
    assert shown[0] == pytest.approx(min(row.dice for row in pooled.rows if not row.empty_truth), abs=5e-4)
    assert len(shown) == len(set(re.findall(r"<h4>(\S+)", text))) - 3  # each frame once; three have no Dice


def test_without_pictures_there_is_no_frame(plain: Evaluation, tmp_path: Path, opened: list[Path]) -> None:
    opened.clear()
    text = write_report(plain, tmp_path, pictures=False).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "data:image" not in text
    assert "patients" not in text
    assert not opened  # nothing is predicted again
    assert "<svg" in text


def test_report_json_holds_what_the_csv_gives(pooled: Evaluation, written: Path) -> None:
    tree = json.loads(written.with_name("report.json").read_text(encoding="utf-8"))
    rows = read_rows(written.with_name("per_image.csv"))
    assert list(rows[0])[:4] == ["record", "group", "fold", "dice"]
    assert [row["record"] for row in rows] == [row.record for row in pooled.rows]
    for key in ("dice", "jaccard", "precision", "recall", "cross_entropy"):
        values = np.array([float(row[key]) for row in rows if row[key] != ""])
        told = tree["scores"][key]
        assert told["mean"]["value"] == pytest.approx(values.mean(), rel=1e-12)
        assert told["median"]["value"] == pytest.approx(np.median(values), rel=1e-12)
        assert told["p5"]["value"] == pytest.approx(np.percentile(values, 5), rel=1e-12)
        assert (told["n"], told["undefined"]) == (len(values), len(rows) - len(values))
    again = intervals.bootstrap([float(row["dice"] or "nan") for row in rows], [row["group"] for row in rows])
    assert tree["scores"]["dice"]["mean"] == {
        "value": again.mean.value,
        "low": again.mean.low,
        "high": again.mean.high,
    }
    assert tree["empty_frames"]["count"] == sum(row["empty_truth"] == "1" for row in rows)
    assert tree["frames"] == len(rows)
    assert {part["name"]: part["frames"] for part in tree["folds"]} == GROUPS
    assert tree["verdict"] == verdict(pooled)


def test_undefined_is_null_in_json_and_blank_in_csv(tmp_path: Path) -> None:
    source = make_source()
    empty_only = replace(source, records=tuple(r for r in source.records if not (r.mask() % 255).any()))
    result = evaluate(empty_only, model=write_run(tmp_path / "run", empty_only))
    text = write_report(result, tmp_path / "out").read_text(encoding="utf-8")
    raw = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert "NaN" not in raw
    dice = json.loads(raw)["scores"]["dice"]
    assert dice["mean"] == {"value": None, "low": None, "high": None}
    assert (dice["n"], dice["undefined"]) == (0, 3)
    assert {row["dice"] for row in read_rows(tmp_path / "out" / "per_image.csv")} == {""}
    assert "None of the 3 frames has a Dice: 3 show no instrument." in Page(text).text
    assert "nan" not in Page(text).text


def test_warnings_stand_in_the_page(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source, fold="OP1", split=make_split(source))
    text = write_report(evaluate(source, model=run), tmp_path / "out", pictures=False).read_text(encoding="utf-8")
    assert 'role="alert"' in text
    assert "no held-out figure" in text
    assert "every record: no split was given" in text


def test_several_classes_have_their_lines_and_columns(tmp_path: Path) -> None:
    source = make_source(parts=True)
    result = evaluate(source, model=write_run(tmp_path / "run", source, parts=True))
    text = Page(write_report(result, tmp_path / "out").read_text(encoding="utf-8")).text
    assert "Dice of shaft" in text
    assert "Dice, mean over classes" in text
    rows = read_rows(tmp_path / "out" / "per_image.csv")
    assert [name for name in rows[0] if name.startswith("dice_")] == ["dice_shaft", "dice_tip"]
    assert float(rows[0]["dice_tip"]) == result.rows[0].class_dice["tip"]
    assert rows[-1]["dice_tip"] == ""


def test_names_cannot_inject_markup(tmp_path: Path) -> None:
    source = make_source()
    evil = "<script>alert(1)</script>"
    records = tuple(replace(record, group=evil + record.group) for record in source.records)
    result = evaluate(replace(source, records=records), model=write_run(tmp_path / "run", source))
    text = write_report(result, tmp_path / "out").read_text(encoding="utf-8")
    assert text.count("<script") == 1  # the page's own
    assert evil in Page(text).text


def test_the_verdict_says_the_figure_its_interval_and_what_it_is_of(pooled: Evaluation) -> None:
    said = verdict(pooled)
    dice = pooled.summary.scores["dice"].mean
    assert f"Mean Dice per image {dice.value:.3f} (95% interval {dice.low:.3f} to {dice.high:.3f})" in said
    assert "12 frames with instruments, 3 groups, test side, 3 folds pooled" in said
    assert "3 further frames without instrument: something was falsely found in 1." in said


def test_a_report_twice_into_one_folder_replaces_the_first(plain: Evaluation, tmp_path: Path) -> None:
    write_report(plain, tmp_path / "out", pictures=False)
    write_report(plain, tmp_path / "out", pictures=False)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_no_write_permission_is_the_users_business(
    plain: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)  # a locked folder would not stop root, as which CI may run
    with pytest.raises(UserError, match="cannot write the file: Permission denied"):
        write_report(plain, tmp_path, pictures=False)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_the_users_business(plain: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_report(plain, tmp_path / "out", pictures=False)


def test_no_figure_is_computed_twice_over(pooled: Evaluation) -> None:
    assert pooled.summary is pooled.summary
    assert not math.isnan(pooled.summary.scores["dice"].mean.low)
