"""What an evaluation finds besides the scores of frames, against what follows from the frames by hand."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fakes import FakePredictor, draw_image, draw_mask, make_card, make_source, write_fold_run, write_run
from trocar.data.preprocess import loss_target
from trocar.data.records import Record, Source
from trocar.errors import UserErrors
from trocar.evaluation import Evaluation, evaluate, scoring
from trocar.metrics.calibration import logit_histogram, reliability_of_logits
from trocar.metrics.noise import noise_ceiling
from trocar.metrics.overlap import counts
from trocar.metrics.stability import Stability
from trocar.metrics.traits import traits_of
from trocar.model_folder import ModelCard, QualityLimit, TemperatureScaling, write_model


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks that are the truth moved by two pixels, and one missing."""
    folder = tmp_path_factory.mktemp("masks")
    for record in make_source().records[1:]:
        path = folder / f"{record.name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.roll((record.mask() == 1).astype(np.uint8), 2, axis=1))
    return folder


@pytest.fixture
def pooled(tmp_path: Path) -> Evaluation:
    source = make_source()
    return evaluate(source, model=write_fold_run(tmp_path / "run", source))


def with_card(run: Path, **changes: object) -> None:
    """Write the model of a run again with another card."""
    from trocar.model_folder import read_card

    card: ModelCard = read_card(run / "model").model_copy(update=changes)
    write_model(run / "model", card, {"zero": np.zeros(1)}, "licence of the test")


# ------------------------------------------------------------------ masks, and many processes


def test_several_processes_find_what_one_does(masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 4)
    source = make_source()
    stills = tuple(replace(record, frame=None) for record in source.records[:9])
    mixed = replace(source, records=(*stills, *source.records[9:]))  # and a video, which goes to one process whole
    one, two = (evaluate(mixed, predictions=masks, workers=workers) for workers in (1, 2))
    assert [row.record for row in two.rows] == [record.name for record in source.records]
    assert repr(one.as_dict()) == repr(two.as_dict())


def test_a_bad_mask_is_told_by_another_process_too(
    masks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 4)
    shutil.copytree(masks, tmp_path / "masks")
    bad = [record.name for record in make_source().records[2:9:6]]
    for name in bad:
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), np.zeros((5, 5), np.uint8))
    with pytest.raises(UserErrors) as raised:
        evaluate(make_source(), predictions=tmp_path / "masks", workers=2)
    assert len(raised.value.errors) == 2
    assert all(name in str(error) for name, error in zip(bad, raised.value.errors, strict=True))


def test_masks_have_no_probabilities_and_say_so(masks: Path) -> None:
    result = evaluate(make_source(), predictions=masks)
    missing = {one.name: one.missing for one in result.conventions if one.missing}
    assert missing.keys() == {"notebook", "kvasir"}
    assert all(missing.values())
    assert (result.thresholds, result.calibration, result.failure) == ({}, None, None)


def test_conventions_are_of_all_frames(masks: Path) -> None:
    source = make_source()
    result = evaluate(source, predictions=masks)
    figures = {one.name: one.figures for one in result.conventions}
    total = counts(np.zeros((1, 1), bool), np.zeros((1, 1), bool))
    for record in source.records:
        path = masks / f"{record.name}.png"
        pred = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == 1 if path.exists() else np.zeros((48, 64), bool)
        mask = record.mask()
        total += counts(pred, mask == 1, mask == 255)
    assert figures["pooled"]["dice"] == pytest.approx(total.dice, abs=1e-12)
    assert figures["per-image"]["dice"] == pytest.approx(result.summary.scores["dice"].mean.value, abs=1e-12)


def test_presence_is_told_by_what_is_predicted(pooled: Evaluation, masks: Path) -> None:
    assert pooled.presence is not None
    positives = [not row.empty_truth for row in pooled.rows]
    expected = roc_auc_score(positives, [row.presence for row in pooled.rows])
    assert pooled.presence.auroc == pytest.approx(expected, abs=1e-12)
    assert (pooled.presence.with_instrument, pooled.presence.without) == (12, 3)
    found = evaluate(make_source(), predictions=masks)
    shares = [row.presence for row in found.rows]
    assert shares == [row.predicted_pixels / (48 * 64) if not row.empty_truth else 0 for row in found.rows]


def test_frames_of_several_data_sets_are_strata(pooled: Evaluation) -> None:
    assert not any(stratum.trait == "Data set" for stratum in pooled.strata)
    records = [replace(r, dataset="other" if r.group == "OP1" else r.dataset) for p in pooled.parts for r in p.records]
    mixed = replace(pooled, parts=(replace(pooled.parts[0], records=tuple(records)),))
    found = {stratum.level: stratum.frames for stratum in mixed.strata if stratum.trait == "Data set"}
    assert found == {"other": 4, "drawn": 8}


@pytest.mark.parametrize("datasets", ["one", "one a source", "two a source"])
def test_frames_of_several_sources_are_strata(pooled: Evaluation, datasets: str) -> None:
    def of(record: Record) -> Record:
        source = "first" if record.group == "OP1" else "second"
        dataset = {"one": "drawn", "one a source": source, "two a source": record.group}[datasets]
        return replace(record, source=source, dataset=dataset)

    parts = tuple(replace(part, records=tuple(map(of, part.records))) for part in pooled.parts)
    found = replace(pooled, parts=parts).strata
    assert {one.level: one.frames for one in found if one.trait == "Source"} == {"first": 4, "second": 8}
    assert any(one.trait == "Data set" for one in found) == (datasets == "two a source")


def test_disagreement_is_judged_where_mirror_images_were_predicted(pooled: Evaluation) -> None:
    assert pooled.disagreement is None
    rows = [replace(row, disagreement=1 - (row.dice if row.dice > 0 else 0)) for row in pooled.rows]
    found = replace(pooled, scores=replace(pooled.scores, rows=rows)).disagreement
    assert found is not None
    assert found.aurc == pytest.approx(found.aurc_best)  # it knows the Dice here


def test_traits_are_those_of_image_and_truth(pooled: Evaluation) -> None:
    record = pooled.source.records[3]
    row = next(row for row in pooled.rows if row.record == record.name)
    assert row.traits == pytest.approx(traits_of(*record.read()), nan_ok=True)


def test_the_ceiling_is_that_of_the_truth(pooled: Evaluation) -> None:
    expected = [noise_ceiling(record.mask())[3] for record in pooled.source.records]
    dice, nsd = pooled.ceiling[3]
    assert dice.mean.value == pytest.approx(np.nanmean([one[0] for one in expected]))
    assert nsd.mean.value == pytest.approx(np.nanmean([one[1] for one in expected]))


# ------------------------------------------------------------------ thresholds, calibration, failure


def test_the_curve_of_the_side_scored_is_of_its_own_dice(pooled: Evaluation) -> None:
    choice = pooled.thresholds["OP1"]
    own = [row.dice for row in pooled.rows if row.fold == "OP1" and not math.isnan(row.dice)]
    assert choice.chosen == 0.4
    assert choice.scored.at(0.4) == pytest.approx(np.mean(own))
    assert choice.cost == pytest.approx(max(choice.scored.dice) - np.mean(own))
    assert choice.validation is None  # the card of a fake has no curve


def test_each_model_is_scaled_by_its_own_temperature(tmp_path: Path) -> None:
    source = make_source()
    run = write_fold_run(tmp_path / "run", source)
    temperatures = {"OP1": 0.5, "OP2": 1.0, "OP3": 2.0}
    for fold, temperature in temperatures.items():
        scaling = TemperatureScaling(temperature=temperature, ece=0.1, ece_after=0.05, frames=4)
        with_card(run / f"fold-{fold}", calibration=scaling)
    result = evaluate(source, model=run)
    assert result.calibration is not None
    plain, scaled = np.zeros((15, 3)), np.zeros((15, 3))
    for record in source.records:
        card = make_card(source, fold=record.group)
        logits = FakePredictor(card)(record.image()).network_logits[0]
        histogram = logit_histogram(logits, loss_target(record.mask(), card.preprocess))
        plain += reliability_of_logits(histogram)
        scaled += reliability_of_logits(histogram, temperatures[record.group])
    assert [one.pixels for one in result.calibration.bins] == pytest.approx(plain[:, 0].tolist())
    assert [one.pixels for one in result.calibration.bins_after] == pytest.approx(scaled[:, 0].tolist())
    assert result.calibration.temperature == pytest.approx(3.5 / 3)


def test_frames_are_marked_by_the_limit_of_their_own_model(tmp_path: Path) -> None:
    source = make_source()
    run = write_fold_run(tmp_path / "run", source)
    for fold, limit in {"OP1": 0.0, "OP2": 1.0}.items():
        factor = 0.0 if limit == 0 else 1e9
        kept = QualityLimit(limit=limit, factor=factor, bad_dice=0.7, alpha=0.1, frames=20, assumption="made up")
        with_card(run / f"fold-{fold}", quality=kept)
    result = evaluate(source, model=run)
    assert result.failure is not None
    with_quality = [row for row in result.rows if row.fold == "OP2" and not math.isnan(row.quality)]
    assert result.failure.marked == len(with_quality)  # OP1 passes all, OP3 has no limit
    assert result.failure.frames == sum(not math.isnan(row.quality) for row in result.rows)


# ------------------------------------------------------------------ videos


def video_source(frames: list[int]) -> Source:
    """One procedure whose instrument grows from frame to frame, on texture."""
    noise = np.random.default_rng(0).integers(0, 40, (48, 64, 1), np.uint8)
    records = []
    for place, frame in enumerate(frames):
        mask = draw_mask(0, place)
        image = draw_image(mask)
        image[..., :2] -= noise
        records.append(
            Record(f"V/{frame:03d}", "V", "drawn", partial(np.copy, image), partial(np.copy, mask), frame=frame)
        )
    return Source("drawn", Path("drawn"), ("background", "instrument"), tuple(records))


def test_a_video_is_followed_frame_by_frame(tmp_path: Path) -> None:
    source = video_source([0, 5, 10, 15])
    result = evaluate(source, model=write_run(tmp_path / "run", source))
    by_hand, predictor = Stability(), FakePredictor(make_card(source))
    for record in source.records:
        by_hand.add(record.image(), predictor(record.image()).mask)
    (video,) = result.stability
    assert (video.group, video.frames) == ("V", 4)
    assert video.warped_iou == pytest.approx(by_hand.warped_iou)
    assert video.flicker_rate == pytest.approx(by_hand.flicker_rate, nan_ok=True)
    assert not math.isnan(video.true_warped_iou)


def test_where_frames_are_missing_a_video_begins_anew(tmp_path: Path) -> None:
    source = video_source([0, 5, 10, 50, 55])
    rows = evaluate(source, model=write_run(tmp_path / "run", source)).rows
    assert [math.isnan(row.true_warped_iou) for row in rows] == [True, False, False, True, False]


def test_stills_have_no_stability(masks: Path) -> None:
    source = make_source()
    stills = replace(source, records=tuple(replace(record, frame=None) for record in source.records))
    assert evaluate(stills, predictions=masks).stability == ()
