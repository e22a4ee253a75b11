"""Sections of the page that are there only where something was found, and the table of frames."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from full_report import Page, evaluate_pooled, with_everything, with_findings

from fakes import make_source
from trocar.data.records import Source
from trocar.evaluation import Evaluation
from trocar.metrics.summary import summarise
from trocar.metrics.traits import TRAITS
from trocar.plain import without_nan
from trocar.reporting.report import write_report
from trocar.reporting.table import ROWS_SHOWN, SCORE_NAMES, frame_table, per_image_csv
from trocar.reporting.words import UNDEFINED, verdict

HEADINGS = {
    "strata": "Where it is weak",
    "ceiling": "How good could it be: annotation noise",
    "conventions": "The same predictions under others' conventions",
    "thresholds": "Threshold: what the choice cost",
    "calibration": "Calibration: what a probability is worth",
    "failure": "Does it know when it fails?",
    "presence": "Telling the 12 frames with an instrument from the 3 without one",
    "stability": "Steadiness in video",
}
NOTHING = (
    dict.fromkeys(HEADINGS, ())
    | {"ceiling": {}, "thresholds": {}}
    | dict.fromkeys(("calibration", "failure", "presence"))
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Without the training's curves, which take longest to draw."""
    made = evaluate_pooled(tmp_path_factory.mktemp("pooled"))
    return replace(made, parts=tuple(replace(part, run=None) for part in made.parts))


@pytest.fixture(scope="module")
def full(plain: Evaluation) -> Evaluation:
    return with_everything(plain)


def page_of(evaluation: Evaluation, folder: Path) -> str:
    return write_report(evaluation, folder, pictures=False).read_text(encoding="utf-8")


def heads(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_what_was_found_has_its_section_with_its_figures(full: Evaluation, tmp_path: Path) -> None:
    source = page_of(full, tmp_path)
    text = Page(source).text
    for heading in HEADINGS.values():
        assert heading in text, heading
    for words in (
        TRAITS["instrument_share"].definition,
        "Pixels of all frames are counted together.",
        "mean class iou",
        "not computed: needs probabilities",
        "Kvasir <b>",
        "0.4 was used, with mean Dice 0.556 over 1 frames",
        "would have been 0.95, with 0.800: the choice cost 0.244",
        "temperature 1.25",
        "AUROC 0.875; sensitivity 0.750 at specificity 0.90",
        "this evaluation",
    ):
        assert words in text, words
    assert "nan" not in text


def test_what_was_not_found_leaves_no_trace(plain: Evaluation, tmp_path: Path) -> None:
    text = Page(page_of(with_findings(plain, **NOTHING), tmp_path)).text
    for heading in HEADINGS.values():
        assert heading not in text, heading
    assert "NSD at" not in text


@pytest.mark.parametrize("name", HEADINGS)
def test_each_section_stands_by_itself(full: Evaluation, plain: Evaluation, name: str, tmp_path: Path) -> None:
    only = with_findings(plain, **{**NOTHING, name: getattr(full, name)})
    text = Page(page_of(only, tmp_path)).text
    assert [shown for shown in HEADINGS.values() if shown in text] == [HEADINGS[name]]


def test_the_weakest_level_stands_first_and_its_trait_with_it(full: Evaluation, tmp_path: Path) -> None:
    names = list({stratum.trait for stratum in full.strata})
    assert len(names) == 2
    for shown in (names, names[::-1]):  # the order of the names is not that of the traits
        renamed = dict(zip(names, shown, strict=True))
        strata = tuple(replace(stratum, trait=renamed[stratum.trait]) for stratum in full.strata)
        source = page_of(with_findings(full, strata=strata), tmp_path)
        table = re.search(r'<table class="strata">.*?</table>', source, re.DOTALL)
        assert table is not None
        blocks = [
            [float(value) for value in re.findall(r'</th><td class="n">([\d.]+)', block)]
            for block in table[0].split("<tbody>")[1:]
        ]
        assert len(blocks) == 2
        assert all(block == sorted(block) for block in blocks)
        assert blocks[0][0] < blocks[1][0]
        assert blocks[0][0] == pytest.approx(full.strata[0].dice.mean.value, abs=5e-4)


def test_the_table_of_frames_holds_what_the_rows_hold(full: Evaluation) -> None:
    table = frame_table(full.rows, {(full.rows[0].fold, full.rows[0].record): "frame-1"})
    titles = [column.title for column in table.columns]
    assert titles[:4] == ["Record", "Group", "Fold", "Dice"]
    assert table.sorted_by == 3
    by_record = {row.cells[0]: dict(zip(titles, row.cells, strict=True)) for row in table.rows}
    assert len(by_record) == len(full.rows)
    for row in full.rows:
        cells = by_record[row.record]
        assert cells["Dice"] == (UNDEFINED if row.empty_truth else f"{row.dice:.3f}")
        assert cells["HD95, px"] == (UNDEFINED if math.isnan(row.hd95) else f"{row.hd95:.1f}")
        assert cells["True pixels"] == str(row.truth_pixels)
        assert cells["Brightness, %"] == f"{100 * row.traits['brightness']:.3g}"
        assert cells["At the border"] == (UNDEFINED if row.empty_truth else "0")
    assert "clDice" not in titles  # no frame has it
    assert "Touching" not in titles
    assert [row.cells[0] for row in table.rows if row.pictures] == [full.rows[0].record]
    shown = [float(row.cells[3]) for row in table.rows if row.cells[3] != UNDEFINED]
    assert shown == sorted(shown)
    assert [row.cells[3] for row in table.rows[len(shown) :]] == [UNDEFINED] * 3  # those without instrument are last


def test_a_long_table_is_cut_to_the_worst(full: Evaluation) -> None:
    many = [replace(full.rows[0], record=str(n), dice=n / 5000) for n in range(ROWS_SHOWN + 5)]
    table = frame_table(many[::-1], {})
    assert [row.cells[0] for row in table.rows] == [str(n) for n in range(ROWS_SHOWN)]


def test_traits_are_columns_of_the_csv(full: Evaluation) -> None:
    rows = list(csv.DictReader(io.StringIO(per_image_csv(full.rows))))
    assert list(rows[0])[:4] == ["record", "group", "fold", "dice"]
    for row, told in zip(full.rows, rows, strict=True):
        for name in TRAITS:
            value = row.traits[name]
            assert told[f"trait_{name}"] == ("" if math.isnan(value) else str(value))
    assert per_image_csv([]).startswith("record,group,fold,dice,")


def test_every_score_has_a_name(full: Evaluation) -> None:
    fields = dict.fromkeys(SCORE_NAMES, 0.5)
    assert set(summarise([replace(row, **fields) for row in full.rows]).scores) == set(SCORE_NAMES)


def grouped(source: Source, group_of: dict[str, str] | None) -> dict[str, str]:
    return {record.name: (group_of or {}).get(record.group, record.name) for record in source.records}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            {"OP1": "a", "OP2": "a", "OP3": "a"},
            "All of them are of one group, so the interval says nothing about other",
        ),
        (None, "No two of them share a group"),
        ({"OP1": "a", "OP2": "a", "OP3": "b"}, ""),
    ],
)
def test_the_verdict_says_what_the_interval_does_not_cover(
    plain: Evaluation, groups: dict[str, str] | None, words: str
) -> None:
    names = grouped(make_source(), groups)
    said = verdict(with_findings(plain, rows=tuple(replace(row, group=names[row.record]) for row in plain.rows)))
    assert words in said
    assert ("All of them" in said, "No two" in said) == (words.startswith("All"), words.startswith("No"))
    assert "\n" not in said


def test_the_page_and_the_json_tell_the_same_strata(full: Evaluation, tmp_path: Path) -> None:
    page_of(full, tmp_path)
    tree = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [one["level"] for one in tree["strata"]] == [stratum.level for stratum in full.strata]
    assert tree["presence"]["auroc"] == 0.875
    assert tree["stability"][0]["true_flicker_rate"] is None


def test_what_json_cannot_say_is_null() -> None:
    tree = {1: (math.nan, [math.inf, -math.inf]), "a": {"b": 0.5, "c": "nan", "d": None, "e": True}}
    assert without_nan(tree) == {"1": [None, [None, None]], "a": {"b": 0.5, "c": "nan", "d": None, "e": True}}
