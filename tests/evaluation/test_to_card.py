"""Scores of an evaluation on the card of its model: only of frames that took no part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import GROUPS, make_source, make_split, write_fold_run, write_run
from trocar.errors import UserError
from trocar.evaluation import evaluate, to_card
from trocar.model_folder import read_card


def test_the_test_side_of_the_models_own_split_stands_on_its_card(tmp_path: Path) -> None:
    source, fold = make_source(), list(GROUPS)[1]
    run = write_run(tmp_path / "run", source, fold=fold, split=make_split(source))
    before = read_card(run / "model")
    result = evaluate(source, model=run, split=make_split(source, one=fold))
    assert to_card(result) == run / "model"
    card = read_card(run / "model")  # which verifies the digests of all files
    (told,) = card.held_out
    report = json.loads(json.dumps(result.as_dict()["scores"]["dice"]))
    assert (told.frames, told.dice, told.dice_median) == (
        report["n"],
        report["mean"]["value"],
        report["median"]["value"],
    )
    assert told.dice_interval == (report["mean"]["low"], report["mean"]["high"])
    assert f"| {told.dice:.4f} (" in (run / "model" / "README.md").read_text()
    assert card.model_copy(update={"held_out": (), "files": {}}) == before.model_copy(update={"files": {}})
    to_card(result)
    assert read_card(run / "model").held_out == (told,)  # once


def test_frames_that_took_part_are_refused(tmp_path: Path) -> None:
    source = make_source()
    run = write_run(tmp_path / "run", source, fold=list(GROUPS)[1], split=make_split(source))
    result = evaluate(source, model=run)  # every record, those trained on too
    with pytest.raises(UserError, match="took no part: the model was trained on"):
        to_card(result)
    assert read_card(run / "model").held_out == ()


def test_a_card_tells_of_one_model_as_it_comes(tmp_path: Path) -> None:
    source = make_source()
    folds = write_fold_run(tmp_path / "folds", source)
    with pytest.raises(UserError, match="one model"):
        to_card(evaluate(source, model=folds))
    fold = list(GROUPS)[1]
    run = write_run(tmp_path / "run", source, fold=fold, split=make_split(source))
    moved = evaluate(source, model=run, split=make_split(source, one=fold), threshold=0.6)
    with pytest.raises(UserError, match="as it comes: threshold"):
        to_card(moved)
