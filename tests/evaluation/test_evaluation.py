from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import surface_distance

from fakes import GROUPS, FakePredictor, draw_mask, make_card, make_source, make_split, write_fold_run, write_run
from trocar.config import SplitSettings
from trocar.data import splits
from trocar.data.files import read_mask_file
from trocar.data.records import Record, join_classes
from trocar.data.sources import open_source
from trocar.errors import UserError, UserErrors
from trocar.evaluation import evaluate
from trocar.metrics.noise import noise_ceiling
from trocar.metrics.overlap import counts
from trocar.metrics.summary import worst_first
from trocar.model_folder import Ancestor, read_card, write_model
from trocar.reporting.report import write_report

FRAMES = sum(GROUPS.values())


def write_masks(folder: Path, source, *, value: int = 255, skip: tuple[str, ...] = (), shift: int = 2) -> Path:
    for record in source.records:
        if record.name in skip:
            continue
        mask = np.roll((record.mask() % 255 > 0).astype(np.uint8), shift, axis=1) * value
        path = folder / f"{record.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), mask)
    return folder


def expected_dice(record: Record, threshold: float, card) -> float:
    prediction = FakePredictor(card, threshold)(record.image())
    truth = record.mask()
    return counts(prediction.mask > 0, join_classes(truth) == 1, truth == 255).dice


# ------------------------------------------------------------------ models


def test_a_model_is_scored_on_one_side_of_a_split(tmp_path: Path) -> None:
    source = make_source()
    split = make_split(source, one="OP1")
    run = write_run(tmp_path / "run", source, fold="OP1", split=split)
    result = evaluate(source, model=run, split=split)
    assert [row.record for row in result.rows] == list(split.folds["OP1"].test)
    for row, record in zip(result.rows[:-1], source.select(split.folds["OP1"].test), strict=False):
        assert row.dice == expected_dice(record, 0.4, make_card(source))
        assert row.dice < 1
        assert (row.group, row.fold, row.threshold) == ("OP1", "OP1", 0.4)
        assert (row.height, row.width, row.ignored_pixels) == (48, 64, 9)
    assert result.side == "test"
    assert not result.warnings
    assert result.summary.scores["dice"].mean.value == pytest.approx(np.mean([row.dice for row in result.rows[:-1]]))


def test_frames_without_instrument_have_no_score_and_a_line_of_their_own(tmp_path: Path) -> None:
    source = make_source()
    result = evaluate(source, model=write_fold_run(tmp_path / "run", source))
    empty = [row for row in result.rows if row.empty_truth]
    assert [row.record for row in empty] == ["OP1/004", "OP2/005", "OP3/003"]
    assert all(math.isnan(value) for row in empty for value in (row.dice, row.jaccard, row.precision, row.recall))
    line = result.summary.empty
    assert (line.count, line.falsely_positive, line.records) == (3, 1, ("OP2/005",))
    assert line.false_share.mean.value == pytest.approx(40 / (48 * 64) / 3)
    dice = result.summary.scores["dice"]
    assert (dice.n, dice.undefined) == (FRAMES - 3, 3)


def test_folds_are_pooled_and_each_model_judges_its_own(tmp_path: Path, opened: list[Path]) -> None:
    source = make_source()
    run = write_fold_run(tmp_path / "run", source)
    result = evaluate(source, model=run)  # its own split is used
    assert {row.record: row.fold for row in result.rows} == {record.name: record.group for record in source.records}
    assert opened == [run / f"fold-{fold}" / "model" for fold in GROUPS]
    assert [part.name for part in result.summary.folds] == list(GROUPS)
    assert [part.frames for part in result.summary.folds] == list(GROUPS.values())
    assert "of 3 groups, then of the frames within each" in result.summary.scores["dice"].method
    assert not result.warnings
    assert list(result.curves) == list(GROUPS)
    assert result.curves["OP1"][0]["val_dice"] == "0.5"


def test_only_the_asked_side_of_folds_is_scored(tmp_path: Path) -> None:
    source = make_source()
    result = evaluate(source, model=write_fold_run(tmp_path / "run", source), side="val")
    assert {(row.fold, row.group) for row in result.rows} == {("OP1", "OP3"), ("OP2", "OP3"), ("OP3", "OP2")}
    assert any("was chosen with" in warning for warning in result.warnings)
    assert any("4 frames are scored in more than one fold" in warning for warning in result.warnings)


def test_loss_dice_and_jaccard_of_all_sides_stand_together(tmp_path: Path) -> None:
    source = make_source()
    split = make_split(source, one="OP1")
    result = evaluate(source, model=write_run(tmp_path / "run", source, fold="OP1", split=split), split=split)
    train, val, test = result.sides
    assert (train.side, train.frames, train.loss, train.dice, train.jaccard) == ("train", 10, 0.1, 0.95, 0.91)
    assert (val.side, val.dice) == ("val", 0.9)
    assert (test.side, test.frames) == ("test", 5)
    assert test.dice == result.summary.scores["dice"].mean.value
    # trained with cross-entropy, of which pixels of 255 are few: the loss over batches is near its mean over frames
    assert test.loss == pytest.approx(np.mean([row.cross_entropy for row in result.rows]), rel=0.01)


def test_the_training_loss_is_counted_over_batches_as_training_does(tmp_path: Path) -> None:
    import torch

    from trocar.config import LossSettings
    from trocar.losses import build_loss

    source = make_source()
    run = write_run(tmp_path / "run", source)
    text = (run / "recipe.yaml").read_text(encoding="utf-8").replace("batch_size: 8", "batch_size: 6")
    (run / "recipe.yaml").write_text(text, encoding="utf-8")
    result = evaluate(source, model=run)
    card = make_card(source)
    from trocar.data.preprocess import prepare_mask

    logits = np.stack([FakePredictor(card)(record.image()).network_logits for record in source.records])
    masks = np.stack([prepare_mask(record.mask(), card.preprocess) for record in source.records])
    loss = build_loss(LossSettings(name="cross-entropy"), 2)
    batches = [slice(0, 6), slice(6, 12), slice(12, 15)]
    expected = sum(
        float(loss(torch.from_numpy(logits[b]), torch.from_numpy(masks[b]))) * len(masks[b]) for b in batches
    )
    assert result.scores.training_loss == pytest.approx(expected / 15, rel=1e-6)


def test_without_a_split_every_record_is_scored_and_the_result_says_so(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source, fold="OP1", split=make_split(source))
    result = evaluate(source, model=run)
    assert len(result.rows) == FRAMES
    assert result.side == "all records"
    assert "no split was given" in result.protocol["scored"]
    assert f"was trained on {GROUPS['OP2']} of the {FRAMES} frames" in " ".join(result.warnings)
    assert f"was chosen with {GROUPS['OP3']} of the {FRAMES} frames" in " ".join(result.warnings)


def test_a_bare_model_folder_warns_by_the_groups_it_was_trained_on(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source, fold="OP1")
    bare = tmp_path / "bare"
    (run / "model").rename(bare)
    (warning,) = evaluate(source, model=bare).warnings
    assert "this very data; 6 of the 15 frames" in warning
    assert not evaluate(source, model=bare, split=make_split(source, one="OP1")).warnings


@pytest.mark.parametrize("joined", ["as trained on", "as scored"])
def test_a_group_is_known_by_its_own_name_below_that_of_a_source(tmp_path: Path, joined: str) -> None:
    """A model of all that lies in a folder is judged on a part of it, or the other way round."""
    source = make_source()
    within = replace(source, records=tuple(replace(one, group=f"rigid/{one.group}") for one in source.records))
    trained, scored = (within, source) if joined == "as trained on" else (source, within)
    run = write_run(tmp_path / "run", trained, fold="OP1")
    bare = tmp_path / "bare"
    (run / "model").rename(bare)
    card = read_card(bare)
    made = card.provenance
    if joined == "as trained on":
        made = made.model_copy(update={"groups": tuple(f"rigid/{group}" for group in made.groups)})
    write_model(bare, card.model_copy(update={"provenance": made}), {"zero": np.zeros(1)}, "licence")
    (warning,) = evaluate(scored, model=bare).warnings
    assert "data of the same kind" in warning
    assert "6 of the 15 frames" in warning


def test_a_part_of_the_models_data_is_known_record_by_record(tmp_path: Path, drawn: Path) -> None:
    source = open_source(drawn)
    split = splits.make_split(source, SplitSettings())
    run = write_run(tmp_path / "run", source, split=split)
    fold = split.fold()
    listed = [*fold.train[:2], *fold.val[:1], *fold.test]
    part = replace(source, records=tuple(source.select(listed)))
    assert evaluate(part, model=run).warnings == (
        f"the model was trained on 2 of the {len(listed)} frames scored: no held-out figure",
        f"the model was chosen with 1 of the {len(listed)} frames scored: no held-out figure",
    )


def test_what_the_model_began_from_is_known_to_it_too(tmp_path: Path) -> None:
    source, split = make_source(), make_split(make_source())
    run = write_run(tmp_path / "run", source, fold="OP1", split=split)
    card = read_card(run / "model")
    before = Ancestor(
        name="first", dataset=source.dataset, data_fingerprint=source.fingerprint(), groups=("OP1", "OP2")
    )
    assert not evaluate(source, model=run, split=split).warnings
    began = card.provenance.model_copy(update={"began_from": (before,)})
    write_model(run / "model", card.model_copy(update={"provenance": began}), {"zero": np.zeros(1)}, "licence")
    (warning,) = evaluate(source, model=run, split=split).warnings
    assert "first, which the model began from" in warning
    assert f"{GROUPS['OP1']} of the {GROUPS['OP1']} frames" in warning
    assert "began from: first, trained on" in (run / "model" / "README.md").read_text()


def test_data_the_model_has_never_seen_brings_no_warning(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source, fold="OP1", split=make_split(source))
    assert not evaluate(replace(source, dataset="other", records=source.records[:4]), model=run).warnings


def test_a_threshold_given_by_hand_replaces_the_models_own(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source)
    own, given = evaluate(source, model=run), evaluate(source, model=run, threshold=0.6)
    assert own.rows[0].predicted_pixels > given.rows[0].predicted_pixels
    assert given.rows[0].precision == 1
    assert given.rows[0].threshold == 0.6
    assert "0.6, given by hand" in given.protocol["threshold"]


def test_several_classes_are_scored_one_by_one_and_together(tmp_path: Path) -> None:
    source = make_source(parts=True)
    result = evaluate(source, model=write_run(tmp_path / "run", source, parts=True))
    record, row = source.records[0], result.rows[0]
    truth, pred = record.mask(), FakePredictor(make_card(source, parts=True))(record.image()).mask
    ignore = truth == 255
    one_by_one = [counts(pred == c, truth == c, ignore).dice for c in (1, 2)]
    assert row.class_dice == dict(zip(("shaft", "tip"), one_by_one, strict=True))
    assert row.mean_class_dice == pytest.approx(np.mean(one_by_one))
    assert row.dice == counts(pred > 0, np.isin(truth, [1, 2]), ignore).dice
    assert row.dice > row.mean_class_dice
    assert list(result.summary.classes) == ["shaft", "tip"]
    assert result.sides[-1].dice == result.summary.scores["mean_class_dice"].mean.value
    assert not math.isnan(row.cross_entropy)


def test_a_model_of_one_class_joins_the_parts_of_the_truth(tmp_path: Path) -> None:
    source = make_source(parts=True)
    result = evaluate(source, model=write_run(tmp_path / "run", source))
    assert result.rows[0].truth_pixels == np.isin(source.records[0].mask(), [1, 2]).sum()
    assert not result.summary.classes


def test_a_model_of_parts_on_truth_without_them_is_judged_on_the_instrument(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_source(parts=True), parts=True)
    result = evaluate(make_source(), model=run)
    assert not result.summary.classes
    assert any("data.target=parts" in note for note in result.notes)
    assert math.isnan(result.scores.training_loss)
    assert math.isnan(result.rows[0].cross_entropy)


def test_frames_can_be_looked_at_again(tmp_path: Path, opened: list[Path]) -> None:
    source = make_source()
    result = evaluate(source, model=write_fold_run(tmp_path / "run", source))
    opened.clear()
    rows = [worst_first(result.rows)[0], next(row for row in result.rows if row.fold == "OP2")]
    views = {view.row.record: view for view in result.views(rows)}
    assert set(views) == {row.record for row in rows}
    assert len(opened) == len({row.fold for row in rows})
    for row in rows:
        view = views[row.record]
        assert counts(view.guess.mask == 1, view.truth == 1, view.truth == 255).dice == row.dice
        assert view.image.shape == (48, 64, 3)


def test_progress_is_told_record_by_record(tmp_path: Path) -> None:
    source = make_source()
    told: list[tuple[int, int]] = []
    evaluate(source, model=write_fold_run(tmp_path / "run", source), progress=lambda *at: told.append(at))
    assert told == [(n, FRAMES) for n in range(1, FRAMES + 1)]


# ------------------------------------------------------------------ outlines in mm


@pytest.mark.filterwarnings("ignore:Please (use|import):DeprecationWarning")  # surface-distance
def test_outlines_are_measured_in_mm_where_a_spacing_is_given(tmp_path: Path) -> None:
    source = make_source()
    masks = write_masks(tmp_path, source)
    plain, same, wide = (
        evaluate(source, predictions=masks, **how)
        for how in (
            {},
            {"spacing_mm": (0.5, 0.5), "nsd_tolerance": 1.0},  # 2 px
            {"spacing_mm": (0.2, 0.4), "nsd_tolerance": 0.5},
        )
    )
    records = {record.name: record for record in source.records}
    for a, b, c in zip(plain.rows, same.rows, wide.rows, strict=True):
        assert b.nsd == pytest.approx(a.nsd, nan_ok=True)
        assert b.hd95 == pytest.approx(a.hd95 / 2, nan_ok=True)
        assert (c.dice, c.boundary_iou) == pytest.approx((a.dice, a.boundary_iou), nan_ok=True)
        if a.empty_truth:
            continue
        truth = records[c.record].mask()
        found = read_mask_file(masks / f"{c.record}.png") > 0
        distances = surface_distance.compute_surface_distances(truth == 1, found, (0.2, 0.4))
        assert c.nsd == pytest.approx(surface_distance.compute_surface_dice_at_tolerance(distances, 0.5), abs=1e-9)
    assert plain.protocol["outlines"].startswith("in pixels of the native image; normalised surface Dice at 2 px; the")
    assert "a pixel being 0.2 mm high and 0.4 mm wide" in wide.protocol["outlines"]
    dice, nsd = wide.ceiling[2]
    ceilings = [noise_ceiling(r.mask(), (2,), tolerance=0.5, spacing=(0.2, 0.4))[2] for r in source.records]
    assert nsd.mean.value == pytest.approx(np.nanmean([one[1] for one in ceilings]))
    assert dice.mean.value == pytest.approx(plain.ceiling[2][0].mean.value)
    page = write_report(wide, tmp_path / "out").read_text(encoding="utf-8")
    assert "Normalised surface Dice at 0.5 mm" in page
    assert "HD95, mm" in page
    assert not re.search(r"at 2 px|HD95, px|distance, px", page)


def test_the_edge_of_the_image_is_outline_or_not(tmp_path: Path) -> None:
    """A bar across the frame, predicted one pixel lower: closed, its two ends count as outline too."""
    truth = np.zeros((48, 64), np.uint8)
    truth[10:20] = 1
    image = np.full((48, 64, 3), 90, np.uint8)
    record = Record("a", "a", "drawn", image=partial(np.copy, image), mask=partial(np.copy, truth))
    source = replace(make_source(), records=(record,))
    assert cv2.imwrite(str(tmp_path / "a.png"), np.roll(truth, 1, axis=0) * 255)
    closed, opened = (
        evaluate(source, predictions=tmp_path, edge=edge, nsd_tolerance=0.5).rows[0] for edge in ("closed", "open")
    )
    assert opened.nsd == 0  # both lines are a pixel off
    assert closed.nsd > 0.1  # the ends lie on one another
    assert closed.boundary_iou != opened.boundary_iou
    assert closed.dice == opened.dice


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"spacing_mm": (1.0, 1.0)}, "no tolerance"),
        ({"spacing_mm": (0.0, 1.0), "nsd_tolerance": 1.0}, "a pixel of"),
        ({"nsd_tolerance": -1.0}, "a tolerance of"),
        ({"nsd_tolerance": math.nan}, "a tolerance of"),
        ({"tiles": 1.0}, "in tiles"),
        ({"min_area": ("5",)}, "as they are"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, how: dict[str, object], what: str) -> None:
    source = make_source()
    with pytest.raises(UserError, match=what):
        evaluate(source, predictions=write_masks(tmp_path, source), **how)


# ------------------------------------------------------------------ masks made elsewhere


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("below", ["", "masks"])
def test_a_folder_of_masks_is_scored_like_a_model(tmp_path: Path, value: int, below: str) -> None:
    source = make_source()
    write_masks(tmp_path / "p" / below, source, value=value)
    result = evaluate(source, predictions=tmp_path / "p")
    model = evaluate(source, model=write_run(tmp_path / "run", source))
    assert [row.dice for row in result.rows[:4]] == [row.dice for row in model.rows[:4]]
    assert math.isnan(result.scores.training_loss)
    assert "cross_entropy" not in result.summary.scores
    assert [side.side for side in result.sides] == ["all records"]


def test_missing_predictions_are_listed_and_count_as_empty(tmp_path: Path) -> None:
    source = make_source()
    skip = ("OP1/001", "OP2/005")  # the second shows no instrument
    result = evaluate(source, predictions=write_masks(tmp_path, source, skip=skip))
    assert result.summary.missing == skip
    rows = {row.record: row for row in result.rows}
    assert rows["OP1/001"].dice == rows["OP1/001"].recall == 0
    assert math.isnan(rows["OP1/001"].precision)
    assert math.isnan(rows["OP2/005"].dice)
    assert result.as_dict()["missing_predictions"] == {"count": 2, "records": list(skip)}
    assert any("2 of 15 frames have no prediction" in warning for warning in result.warnings)


def test_folds_of_masks_keep_their_column(tmp_path: Path) -> None:
    source = make_source()
    result = evaluate(source, predictions=write_masks(tmp_path, source), split=make_split(source))
    assert {row.fold for row in result.rows} == set(GROUPS)


def test_indexed_masks_with_their_classes_are_scored_one_by_one(tmp_path: Path) -> None:
    source = make_source(parts=True)
    for record in source.records:
        path = tmp_path / "masks" / f"{record.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = record.mask()
        assert cv2.imwrite(str(path), np.where(mask == 255, 0, mask))
    (tmp_path / "classes.json").write_text(json.dumps({"background": 0, "shaft": 1, "tip": 2}), encoding="utf-8")
    result = evaluate(source, predictions=tmp_path)
    assert result.rows[0].class_dice == {"shaft": 1.0, "tip": 1.0}
    (tmp_path / "classes.json").write_text(json.dumps(["background", "tip", "shaft"]), encoding="utf-8")
    with pytest.raises(UserError, match="predictions know the classes background, tip, shaft"):
        evaluate(source, predictions=tmp_path)


# ------------------------------------------------------------------ what a person can mend


def test_all_bad_predictions_are_told_at_once(tmp_path: Path) -> None:
    source = make_source()
    write_masks(tmp_path, source)
    cv2.imwrite(str(tmp_path / "OP1/000.png"), np.zeros((20, 30), np.uint8))
    cv2.imwrite(str(tmp_path / "OP2/000.png"), np.full((48, 64), 127, np.uint8))
    cv2.imwrite(str(tmp_path / "OP3/000.png"), np.dstack([draw_mask(0, 0), *[np.zeros((48, 64), np.uint8)] * 2]))
    with pytest.raises(UserErrors) as caught:
        evaluate(source, predictions=tmp_path)
    said = [str(error) for error in caught.value.errors]
    assert "the predicted mask is 30x20, its image 64x48" in said[0]
    assert "holds 127; expected 0 and 1, or 0 and 255" in said[1]
    assert "in colour" in said[2]


def test_a_folder_without_any_prediction_is_the_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 15 records has a prediction"):
        evaluate(make_source(), predictions=tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        evaluate(make_source(), predictions=tmp_path / "nowhere")


def test_model_or_masks_but_not_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="either a model or"):
        evaluate(make_source())
    with pytest.raises(UserError, match="either a model or"):
        evaluate(make_source(), model=tmp_path, predictions=tmp_path)
    with pytest.raises(UserError, match="no threshold"):
        evaluate(make_source(), predictions=tmp_path, threshold=0.5)


def test_a_source_with_findings_is_refused(tmp_path: Path) -> None:
    source = replace(make_source(), findings=(UserError("an image without mask", where="x.png"),))
    with pytest.raises(UserErrors, match="an image without mask"):
        evaluate(source, predictions=tmp_path)


def test_a_split_of_other_data_is_refused(tmp_path: Path) -> None:
    source = make_source()
    other = replace(source, records=source.records[1:])
    with pytest.raises(UserError, match="made from other data"):
        evaluate(other, model=write_fold_run(tmp_path / "run", source))


def test_models_of_other_classes_are_refused(tmp_path: Path) -> None:
    source = make_source(parts=True)
    run = write_run(tmp_path / "run", source, parts=True)
    with pytest.raises(UserError, match="the model knows the classes background, shaft, tip, the data background, a"):
        evaluate(replace(source, classes=("background", "a", "b")), model=run)


def test_a_side_without_records_is_refused(tmp_path: Path) -> None:
    source = make_source()
    split = make_split(source, one="OP1")
    fold = split.folds["OP1"].model_copy(update={"test": ()})
    split = split.model_copy(update={"folds": {"OP1": fold}})
    with pytest.raises(UserError, match="no test records"):
        evaluate(source, model=write_run(tmp_path / "run", source), split=split)


def test_records_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    source = make_source()

    def broken() -> np.ndarray:
        raise UserError("the file is damaged")

    records = tuple(replace(r, image=broken) if r.name.endswith("001") else r for r in source.records)
    with pytest.raises(UserErrors) as caught:
        evaluate(replace(source, records=records), model=write_run(tmp_path / "run", source))
    assert len(caught.value.errors) == 3
