"""The notebook's procedure as a recipe: its split, its batches, its masks, and what says so afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from trocar.config import LossSettings, load_recipe
from trocar.data.loading import fixed_batches_plan
from trocar.data.records import Record, Source
from trocar.data.sources import open_source
from trocar.data.splits import make_split, read_split
from trocar.evaluation import evaluate
from trocar.losses import build_loss
from trocar.model_folder import read_card
from trocar.reporting.previews import draw_figures, foreground_share
from trocar.training import train
from trocar.training.step import batch_overlap

TINY = ["preprocess.size_hw=[32,48]", "model.encoder_weights=none", "train.epochs=1", "train.batch_size=4"]


def make_source(count: int, groups: int | None = None) -> Source:
    records = [
        Record(
            name=f"{index:04d}",
            group=f"{index % groups}" if groups else f"{index:04d}",
            dataset="made",
            image=lambda: np.zeros((4, 4, 3), np.uint8),
            mask=lambda: np.zeros((4, 4), np.uint8),
        )
        for index in range(count)
    ]
    return Source("made", Path("made"), ("background", "instrument"), tuple(records))


@pytest.mark.parametrize("count", [590, 61])
def test_the_split_is_scikit_learns(count: int) -> None:
    source = make_source(count)
    names = [record.name for record in source.records]
    train_names, test_names = train_test_split(names, test_size=0.1, random_state=3)
    rest_names, val_names = train_test_split(train_names, test_size=0.15, random_state=4)
    leaky = make_split(source, load_recipe("notebook").split)
    fold = leaky.fold()
    assert (list(fold.train), list(fold.val), list(fold.test)) == (train_names, val_names, test_names)
    assert leaky.shared_records is not None
    assert f"the {len(val_names)} validation records are training records too" in leaky.shared_records
    sound = make_split(source, load_recipe("notebook-sound").split)
    assert (list(sound.fold().train), list(sound.fold().val), list(sound.fold().test)) == (
        rest_names,
        val_names,
        test_names,
    )
    assert sound.shared_records is None
    assert sound.cut_groups is None
    if count == 590:
        assert (len(fold.train), len(fold.val), len(fold.test)) == (531, 80, 59)


def test_drawing_single_records_declares_the_groups_it_cuts() -> None:
    for recipe in ("notebook", "notebook-sound"):
        split = make_split(make_source(60, groups=3), load_recipe(recipe).split)
        assert split.cut_groups is not None
        assert "one by one" in split.cut_groups


def test_the_leak_also_goes_with_folds_of_held_out_groups() -> None:
    settings = load_recipe("notebook", ["split.strategy=leave-one-group-out"]).split
    split = make_split(make_source(60, groups=3), settings)
    group_of = {record: group for group, records in split.groups.items() for record in records}
    for name, fold in split.folds.items():
        assert (len(fold.train), len(fold.val), len(fold.test)) == (40, 6, 20)
        assert set(fold.val) < set(fold.train)
        assert {group_of[record] for record in fold.test} == {name}
        assert name not in {group_of[record] for record in fold.train}
    assert split.shared_records is not None
    assert split.seed == 3


def test_batches_are_formed_once_and_then_shuffled() -> None:
    plans = [fixed_batches_plan(531, 8, seed=0, epoch=epoch) for epoch in (0, 1)]
    batches = [sorted(tuple(index for _, index in batch) for batch in plan) for plan in plans]
    assert batches[0] == batches[1]
    assert batches[0][0] == tuple(range(8))
    assert [len(batch) for batch in batches[0]] == [8] * 66 + [3]
    assert [batch[0][1] for batch in plans[0]] != [batch[0][1] for batch in plans[1]]
    assert {epoch for epoch, _ in plans[1][0]} == {1}
    assert [len(batch) for batch in sorted(fixed_batches_plan(17, 8, seed=0, epoch=0), key=len)] == [8, 9]


def test_the_loss_takes_shares_of_two_classes() -> None:
    logits = torch.randn(2, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    shares = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(1))
    shares[0, 0] = 255.0
    loss = build_loss(LossSettings(name="cross-entropy"), 2)
    p, t = logits[:, 0].sigmoid(), shares
    expected = -(t * p.log() + (1 - t) * (1 - p).log())[shares != 255].mean()
    torch.testing.assert_close(loss(logits, shares), expected)
    whole = (shares.round() * (shares != 255) + 255 * (shares == 255)).to(torch.uint8)
    torch.testing.assert_close(loss(logits, whole.float()), loss(logits, whole))
    for ours, theirs in zip(batch_overlap(logits, shares), batch_overlap(logits, whole), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="two classes"):
        build_loss(LossSettings(name="cross-entropy"), 3)(torch.zeros(2, 3, 6, 8), shares)


@pytest.fixture(scope="module")
def runs(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both recipes, trained for one epoch at a toy size."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("notebook", "notebook-sound"):
        train(load_recipe(name, [*TINY, f"data.source={drawn}"]), out=folder / name, device="cpu")
    return {name: folder / name for name in ("notebook", "notebook-sound")}


def test_card_split_and_report_say_what_the_notebook_did(runs: dict[str, Path], drawn: Path) -> None:
    source = open_source(drawn)
    leaky = runs["notebook"]
    assert read_split(leaky / "split.yaml").shared_records is not None
    assert "two sides" in read_card(leaky / "model").threshold_from
    text = (leaky / "model" / "README.md").read_text()
    assert "binarise; dilate 2x2, 1 time" in text
    assert "not comparable with scores against masks as labelled" in text
    sound = (runs["notebook-sound"] / "model" / "README.md").read_text()
    assert "before training" in sound
    assert "not comparable" not in sound
    dilated = evaluate(source, model=leaky, split=leaky / "split.yaml", device="cpu")
    plain = evaluate(source, model=leaky, split=leaky / "split.yaml", device="cpu", as_labelled=True)
    assert any("truth was altered before scoring" in note for note in dilated.notes)
    assert not any("altered" in note for note in plain.notes)
    assert any("two sides" in warning for warning in dilated.warnings)
    pairs = [(a, b) for a, b in zip(dilated.rows, plain.rows, strict=True) if a.truth_pixels]
    assert pairs
    assert all(a.truth_pixels > b.truth_pixels for a, b in pairs)
    other = evaluate(source, model=runs["notebook-sound"], split=leaky / "split.yaml", device="cpu")
    assert [row.truth_pixels for row in other.rows] == [row.truth_pixels for row in plain.rows]


def test_figures_show_the_side_they_claim(runs: dict[str, Path], drawn: Path, tmp_path: Path) -> None:
    made = draw_figures(
        open_source(drawn),
        load_recipe(None),
        tmp_path,
        model=runs["notebook"],
        split=runs["notebook"] / "split.yaml",
        side="val",
        frames=2,
        device="cpu",
    )
    assert [path.name for path in made] == ["preprocessing.png", "panels.png"]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
    from trocar.reporting import previews

    records, title = previews._records(open_source(drawn), runs["notebook"] / "split.yaml", "val", None)
    assert [record.name for record in records] == list(read_split(runs["notebook"] / "split.yaml").fold().val)
    assert "side val" in title
    assert "training records too" in title


def test_foreground_share_counts_what_counts() -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert foreground_share(mask) == pytest.approx(2 / 3)
    assert foreground_share(np.array([[0.5, 0.0, 255.0]], np.float32)) == pytest.approx(0.25)


def test_training_logs_are_complete(runs: dict[str, Path]) -> None:
    facts = json.loads((runs["notebook"] / "run.json").read_text())
    assert facts["fold"] is None
    card = read_card(runs["notebook"] / "model")
    assert card.provenance.best_epoch == 1
    assert card.model.architecture == "notebook"
