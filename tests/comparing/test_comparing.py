from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from trocar.comparing import compare
from trocar.comparing.results import short_names
from trocar.errors import UserError, UserErrors
from trocar.metrics.intervals import bootstrap
from trocar.plain import without_nan

RNG = np.random.default_rng(0)
BASE = RNG.uniform(0.6, 0.95, 48)  # 12 groups of 4
NOISE = RNG.normal(0, 0.01, 48)


def test_figures_are_those_of_the_frames(write_report) -> None:
    a, b = BASE, BASE - 0.03 + NOISE
    found = compare([write_report("a", a), write_report("b", b)], resamples=500)
    pair = found.pairs[0]
    groups = [f"OP{i // 4}" for i in range(48)]
    assert [one.name for one in found.standings] == ["a", "b"]
    assert found.standings[0].score == bootstrap(a, groups, resamples=500)
    assert pair.paired.difference == bootstrap(a - b, groups, resamples=500)
    assert (pair.outcome, pair.decided_by.of, pair.corrected_for) == ("higher", "groups", 1)
    assert found.ranks.first == (1.0, 0.0)
    biggest = int(np.abs(a - b).argmax())
    assert found.frames[0].record == f"OP{biggest // 4}/{biggest:03d}"
    assert found.frames[0].scores == (a[biggest], b[biggest])
    assert found.verdicts[0].startswith(f"a is better than b: mean Dice {a.mean():.3f} against {b.mean():.3f} over the")


def test_outlines_measured_in_other_units_are_not_compared(write_report) -> None:
    mm = {"inputs": {"nsd_tolerance": 1.0, "spacing_mm": [0.2, 0.2]}}
    one = write_report("a", BASE, nsd=BASE)
    two = write_report("b", BASE, nsd=BASE, told=mm)
    with pytest.raises(UserError, match=r"not measured alike: a in pixels.* at 2 px.*; b in mm"):
        compare([one, two], score="nsd", resamples=100)
    assert compare([one, two], resamples=100).pairs  # Dice has no unit
    assert compare([two, write_report("c", BASE, nsd=BASE, told=mm)], score="nsd", resamples=100).pairs


def test_chance_is_called_so(write_report) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE + NOISE - NOISE.mean())
    found = compare([a, b])
    assert found.pairs[0].outcome == "chance"
    assert "a and b cannot be told apart" in found.verdicts[0]
    assert "does not make them equal" in found.verdicts[0]


def test_few_groups_can_show_nothing_of_others(write_report) -> None:
    a, b = write_report("a", BASE, size=16), write_report("b", BASE - 0.03 + NOISE, size=16)
    found = compare([a, b])
    pair = found.pairs[0]
    assert (pair.outcome, pair.few_groups, pair.decided_by.of) == ("few groups", True, "frames")
    assert pair.paired.by_group.p == 0.25
    assert "3 groups cannot give a p under 0.25" in found.verdicts[0]
    assert "Frame by frame, as if those of one group were independent: p < 0.001" in found.verdicts[0]


def test_one_group_says_nothing_of_others(write_report) -> None:
    found = compare([write_report("a", BASE, size=48), write_report("b", BASE - 0.03 + NOISE, size=48)])
    assert found.pairs[0].outcome == "few groups"
    assert "All frames are of one group" in found.verdicts[0]


def test_frames_that_are_their_own_groups_are_flipped_one_by_one(write_report) -> None:
    found = compare([write_report("a", BASE, size=1), write_report("b", BASE - 0.03 + NOISE, size=1)])
    assert (found.pairs[0].outcome, found.pairs[0].few_groups) == ("higher", False)
    assert "sign flips of 48 frames" in found.verdicts[0]


def test_six_groups_are_enough_for_one_pair_and_too_few_for_three(write_report) -> None:
    a, b, c = (write_report(name, BASE + shift, size=8) for name, shift in (("a", 0), ("b", -0.1), ("c", -0.2)))
    assert not compare([a, b], resamples=100).pairs[0].few_groups
    three = compare([a, b, c], resamples=100)
    assert [pair.few_groups for pair in three.pairs] == [True] * 3
    assert "6 groups cannot give a corrected p under 0.09375" in three.verdicts[0]


def test_several_pairs_are_corrected_after_holm(write_report) -> None:
    rng = np.random.default_rng(4)
    shifts = {"a": 0.0, "b": -0.004, "c": -0.03}
    paths = [write_report(name, BASE + shift + rng.normal(0, 0.012, 48)) for name, shift in shifts.items()]
    found = compare(paths, resamples=500)
    raw = [pair.decided_by.p for pair in found.pairs]
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    ranked = sorted(zip(raw, [pair.p for pair in found.pairs], strict=True))
    assert ranked[0][1] == pytest.approx(3 * ranked[0][0])
    assert ranked[2][1] == pytest.approx(max(ranked[2][0], ranked[1][1]))
    assert "corrected for 3 pairs" in found.verdicts[0]
    assert len(found.ranks.first) == 3


def test_runs_of_one_recipe_are_one_result_with_a_spread(write_report) -> None:
    runs = [BASE + shift + np.roll(NOISE, number) for number, shift in enumerate((0, 0.01, 0.02))]
    for number, run in enumerate(runs):
        write_report(f"recipe/seed{number}", run)
    single = write_report("single", BASE - 0.1)
    found = compare([single.parent / "recipe", single], resamples=200)
    many, one = found.standings
    assert many.runs == ("seed0", "seed1", "seed2")
    assert many.score.mean.value == pytest.approx(np.mean(runs))
    assert many.spread.means == pytest.approx([run.mean() for run in runs])
    assert many.spread.std == pytest.approx(np.std([run.mean() for run in runs], ddof=1))
    assert (many.spread.low, many.spread.high) == (min(many.spread.means), max(many.spread.means))
    assert one.spread is None
    assert found.frames[0].scores[0] == pytest.approx(np.mean([run[int(found.frames[0].record[-3:])] for run in runs]))
    assert "of a single run: single." in " ".join(found.notes)


def test_a_difference_that_seeds_make_is_not_the_recipes(write_report) -> None:
    for number, shift in enumerate((-0.05, 0, 0.05)):
        write_report(f"a/{number}", BASE + shift)
        write_report(f"b/{number}", BASE + shift - 0.02 + NOISE)
    folder = write_report("unused", BASE).parent
    found = compare([folder / "a", folder / "b"], resamples=500)
    pair = found.pairs[0]
    assert pair.outcome == "seeds"
    assert pair.seed_error == pytest.approx(math.sqrt(2 * 0.05**2 / 3), rel=0.05)
    assert "by no more than other seeds would change" in found.verdicts[0]


def test_undefined_in_one_run_is_undefined_and_counted(write_report) -> None:
    first, second = BASE.copy(), BASE.copy()
    first[3] = math.nan
    write_report("recipe/0", first)
    write_report("recipe/1", second)
    other = write_report("other", BASE - 0.02)
    found = compare([other.parent / "recipe", other], resamples=100)
    assert (found.standings[0].score.n, found.standings[0].score.undefined) == (47, 1)
    assert found.pairs[0].paired.second_only == 1
    assert found.standings[0].spread.means[0] == found.standings[0].spread.means[1]  # over the same frames
    assert "Left out: 1 frame defined in only one of the two." in found.verdicts[0]
    assert math.isnan(found.frames[-1].change)


def test_other_frames_are_refused_with_what_is_missing_where(write_report) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE[:44])
    with pytest.raises(UserErrors, match="b lacks 4 of 48 frames: OP11/044, OP11/045, OP11/046, OP11/047"):
        compare([a, b])
    found = compare([a, b], common=True, resamples=100)
    assert found.pairs[0].paired.difference.n == 44
    assert "only the 44 common frames are compared: b lacks 4" in found.warnings[0]
    c = write_report("c", BASE, prefix="other")
    with pytest.raises(UserError, match="no frame in common"):
        compare([a, c], common=True)


def test_another_truth_or_grouping_is_said(write_report) -> None:
    truth = np.full(48, 1000)
    a = write_report("a", BASE, truth_pixels=truth)
    b = write_report("b", BASE, truth_pixels=np.where(np.arange(48) < 2, 1100, truth))
    found = compare([a, b], resamples=100)
    assert found.warnings[0].startswith("the truth of 2 frames is not the same in a and b, as of OP0/000")
    rows = (b / "per_image.csv").read_text().replace("OP0/001,OP0", "OP0/001,elsewhere")
    (b / "per_image.csv").write_text(rows)
    with pytest.raises(UserError, match="of two groups: OP0 and elsewhere"):
        compare([a, b])


def test_warnings_of_the_reports_come_along(write_report) -> None:
    a = write_report("a", BASE, told={"warnings": ["the model was trained on 3 of the 48 frames"]})
    found = compare([a, write_report("b", BASE)], resamples=100)
    assert found.warnings == ("a: the model was trained on 3 of the 48 frames",)


def test_equal_results_are_equal(write_report) -> None:
    found = compare([write_report("a", BASE), write_report("b", BASE)], resamples=100)
    assert found.pairs[0].outcome == "equal"
    assert found.verdicts == ["a and b have the same Dice in all 48 frames."]
    assert found.ranks.first[0] == pytest.approx(0.5, abs=0.2)


def test_turned_results_say_the_same(write_report) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE - 0.03 + NOISE)
    there, back = compare([a, b]), compare([b, a])
    assert (there.pairs[0].outcome, back.pairs[0].outcome) == ("higher", "lower")
    assert there.pairs[0].p == back.pairs[0].p
    assert there.verdicts[0].split(" (")[0] == back.verdicts[0].split(" (")[0]
    assert there.ranks.first == back.ranks.first[::-1]


def test_distances_are_better_when_low(write_report) -> None:
    a = write_report("a", BASE, hd95=10 * BASE)
    b = write_report("b", BASE, hd95=10 * BASE + 1 + NOISE)
    found = compare([a, b], score="hd95", resamples=200)
    assert not found.higher_is_better
    assert found.pairs[0].outcome == "lower"
    assert "a is better than b: mean HD95" in found.verdicts[0]
    assert found.ranks.first == (1.0, 0.0)
    assert compare([a, b], score="hd95", higher_is_better=True, resamples=200).ranks.first == (0.0, 1.0)


def test_scores_are_found_by_name(write_report) -> None:
    a = write_report("a", BASE, nsd_2px=BASE, source=["x"] * 48)
    b = write_report("b", BASE, nsd_2px=BASE, nsd_5px=BASE, source=["x"] * 48)
    c = write_report("c", BASE, nsd_2px=BASE, nsd_5px=BASE)
    assert compare([a, b], score="nsd", resamples=100).score == "nsd_2px"
    with pytest.raises(UserError, match="several columns are called nsd"):
        compare([b, c], score="nsd")
    with pytest.raises(UserError, match="nsd_5px is not in every table: a lacks it"):
        compare([a, b], score="nsd_5px")
    with pytest.raises(UserError, match=r"no table has a column of numbers called source[\s\S]*all have dice, nsd_2px"):
        compare([a, b], score="source")


def test_false_alarms_are_counted_where_dice_is_blind(write_report) -> None:
    dice = BASE.copy()
    dice[:3] = math.nan
    empty = [1, 1, 1] + [0] * 45
    a = write_report("a", dice, empty_truth=empty, predicted_pixels=[5, 0, 9] + [50] * 45)
    b = write_report("b", dice, empty_truth=empty, predicted_pixels=[0, 0, 0] + [50] * 45)
    found = compare([a, b], resamples=100)
    assert [(one.frames_without, one.falsely_found) for one in found.standings] == [(3, 2), (3, 0)]
    assert found.pairs[0].paired.neither == 3


def test_frames_of_several_folds_count_once(write_report) -> None:
    a = write_report("a", BASE)
    table = (a / "per_image.csv").read_text()
    (a / "per_image.csv").write_text(table + f"OP0/000,OP0,2,{BASE[0] - 0.2}\n")
    found = compare([a, write_report("b", BASE)], resamples=100)
    assert found.frames[0].record == "OP0/000"
    assert found.frames[0].change == pytest.approx(0.1)
    assert "a: scored in several folds: 1 of the frames" in found.notes[0]


def test_a_table_alone_is_a_result(write_report, tmp_path: Path) -> None:
    a = write_report("a", BASE)
    bare = Path(shutil.copy(a / "per_image.csv", tmp_path / "bare.csv"))
    found = compare([a / "per_image.csv", bare], resamples=100)
    assert [one.name for one in found.standings] == ["a", "bare"]
    assert "bare is a bare table" in " ".join(found.notes)
    assert found.results[0].runs[0].told  # report.json beside it is read


def test_everything_is_plain_data(write_report) -> None:
    found = compare([write_report("a", BASE), write_report("b", BASE - 0.01)], published=["x=0.9/0.85"], resamples=100)
    tree = json.loads(json.dumps(without_nan(found.as_dict()), allow_nan=False))
    assert tree["pairs"][0]["paired"]["difference"]["mean"]["value"] == pytest.approx(0.01)
    assert tree["published"][0]["check"]["possible"] is True
    assert tree["ranks"]["first"] == {"a": 1.0, "b": 0.0}
    assert len(tree["frames"]) == 48
    assert tree["verdicts"] == found.verdicts


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a/report", "x/b/report"], ["a", "b"]),
        (["x/a", "y/a"], ["x/a", "y/a"]),
        (["x/a", "x/b/per_image.csv"], ["a", "b"]),
        (["x/a", "other.csv"], ["a", "other"]),
        (["x/report"], ["x"]),
    ],
)
def test_names_are_short_and_differ(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names


def test_what_is_no_report_is_said_all_at_once(write_report, tmp_path: Path) -> None:
    good = write_report("good", BASE)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "ragged.csv").write_text("record,group,fold,dice\nx,y\n")
    (tmp_path / "none.csv").write_text("record,group,fold,dice\n")
    (tmp_path / "infinite.csv").write_text("record,group,fold,dice\nx,y,0,0.5\nz,y,0,inf\n")
    names = ("empty", "nowhere", "other.csv", "ragged.csv", "none.csv", "infinite.csv")
    paths = [good, *(tmp_path / name for name in names)]
    with pytest.raises(UserErrors) as caught:
        compare(paths)
    said = str(caught.value)
    assert len(caught.value.errors) == 6
    for words in ("no report in this folder", "no such report", "begin with a, b", "differ in length", "has no frames"):
        assert words in said
    assert "dice of record z is infinite" in said
    with pytest.raises(UserError, match="given twice"):
        compare([good, good / ".." / "good"])
    with pytest.raises(UserError, match="nothing to compare"):
        compare([good])


def test_a_published_pair_is_checked_beside_one_report(write_report) -> None:
    found = compare([write_report("a", BASE)], published=["them=0.90/0.95", "notebook=0.9013/0.8234"], resamples=100)
    assert found.pairs == ()
    assert found.ranks is None
    assert [one.check.possible for one in found.published] == [False, True]
    assert found.warnings[0].startswith("them: Dice 0.90, Jaccard 0.95 cannot be means over one set of images")


@pytest.mark.parametrize("told", [{"warnings": 5}, {"warnings": [1]}, {"protocol": []}, {"inputs": "x"}])
def test_a_report_that_evaluate_did_not_write_is_refused(write_report, told: dict) -> None:
    folders = [write_report("a", [0.5] * 8), write_report("b", [0.6] * 8, told=told)]
    with pytest.raises(UserError, match="this is no report"):
        compare(folders)
