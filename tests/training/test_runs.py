import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trocar import checkpoint
from trocar.box import DEFAULT, shipped_models
from trocar.config import Recipe, load_recipe
from trocar.data.loading import NativeMasks, PreparedSet
from trocar.data.preprocess import fit_mask
from trocar.data.records import join_classes
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.errors import UserError, UserErrors
from trocar.inference.engines.torch import load_network
from trocar.inference.predictor import Predictor, sigmoid
from trocar.losses import build_loss
from trocar.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    logit_histogram,
    reliability_bins,
)
from trocar.metrics.failure import dice_bound
from trocar.metrics.overlap import THRESHOLDS, instrument_counts
from trocar.model_folder import read_card
from trocar.progress import Watcher
from trocar.training import Interrupted, resume, train, train_folds
from trocar.training.judging import judge, quality_limit, temperature_scaling
from trocar.training.runs import _start_of_fold

TINY = [
    "preprocess.size_hw=[32, 48]",
    "model.encoder=resnet18",
    "model.encoder_weights=none",
    "model.pyramid_width=16",
    "model.decoder_width=16",
    "model.low_level_width=8",
    "train.batch_size=4",
    "train.epochs=3",
    "train.deterministic=true",
    "train.precision=fp32",
    "train.checkpoint_minutes=0",
    "train.keep=last",  # the best may be from before an interruption, and hide what came after it
]


@pytest.fixture(scope="module")
def recipe(drawn: Path) -> Recipe:
    return load_recipe(None, [f"data.source={drawn}", *TINY])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


class StopAfter(Watcher):
    """Sends the signal of Ctrl-C after some steps, as a person would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, done: int, total: int, loss: float) -> None:
        if done == self.steps:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def finished(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    train(recipe, out=run)
    return run


def test_a_run_holds_what_it_promises(finished: Path, recipe: Recipe) -> None:
    rows = list(csv.DictReader((finished / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(np.isfinite(float(row["train_loss"])) for row in rows)
    assert (finished / "curves.png").stat().st_size > 5000
    assert any((finished / "tensorboard").iterdir())
    assert load_recipe(finished / "recipe.yaml").train == recipe.train
    split = read_split(finished / "split.yaml")
    card = json.loads((finished / "model" / "model.json").read_text())
    assert card["scores"]["val"]["records"] == len(split.fold().val)
    assert card["scores"]["train"]["records"] == len(split.fold().train)
    assert 0.05 <= card["threshold"] <= 0.95
    assert card["provenance"]["split_fingerprint"] == split.own_fingerprint()
    assert card["provenance"]["best_epoch"] == 3


def test_the_card_tells_threshold_curve_calibration_and_quality_of_validation(finished: Path) -> None:
    card = read_card(finished / "model")
    curve, scaling, limit = card.threshold_curve, card.calibration, card.quality
    assert curve is not None
    assert scaling is not None
    assert limit is not None
    assert curve.thresholds == THRESHOLDS
    assert curve.dice[THRESHOLDS.index(card.threshold)] == max(curve.dice)
    assert max(curve.dice) == pytest.approx(card.scores["val"].dice)
    assert curve.frames == card.scores["val"].records - card.scores["val"].undefined
    assert scaling.frames == card.scores["val"].records
    assert scaling.ece is not None
    assert limit.limit is None  # three validation frames
    assert "too few" in limit.assumption
    assert "Quality promises nothing" in (finished / "model" / "README.md").read_text()


def test_what_the_card_learns_equals_what_prediction_gives(finished: Path, drawn: Path) -> None:
    """Every frame through `judge` and through the Predictor, which share neither batches nor resizing calls."""
    source, card = open_source(drawn), read_card(finished / "model")
    settings, threshold = card.preprocess, 0.5
    predictor = Predictor.open(finished / "model", "cpu", threshold=threshold)
    judged = judge(
        load_network(finished / "model", card),
        PreparedSet(source.records, settings, join=True),
        NativeMasks.read(source.records, settings, join=True),
        build_loss(card.loss, 2),
        device=torch.device("cpu"),
        batch_size=3,
        threshold=threshold,
        sweep=True,
    )
    qualities, dices, logits, targets = [], [], [], []
    for record in source.records:
        image, mask = record.read()
        found, truth = predictor(image), join_classes(mask)
        counted = instrument_counts(found.mask, truth)
        qualities.append(found.quality)
        dices.append(counted.dice if counted.true else np.nan)
        kept = fit_mask(truth, settings) != 255
        logits.append(found.network_logits[0][kept])
        targets.append(fit_mask(truth, settings)[kept])
    assert np.isfinite(qualities).sum() >= 9
    np.testing.assert_allclose(judged.quality, qualities, atol=1e-4)
    np.testing.assert_allclose(judged.instrument_dice, dices, atol=1e-4)
    assert quality_limit(judged).limit == pytest.approx(dice_bound(qualities, dices).limit, abs=1e-3)
    scores, truths = np.concatenate(logits)[None], np.concatenate(targets)[None]
    scaling = temperature_scaling(judged)
    fitted = fit_temperature(logit_histogram(scores, truths))
    assert scaling.temperature == pytest.approx(fitted, rel=1e-3)
    before, after = (reliability_bins(sigmoid(scores / t), truths) for t in (1, np.float32(fitted)))
    assert scaling.ece == pytest.approx(expected_calibration_error(before), abs=2e-3)
    assert scaling.ece_after == pytest.approx(expected_calibration_error(after), abs=2e-3)


def test_the_best_epoch_on_validation_becomes_the_model(recipe: Recipe, tmp_path: Path) -> None:
    best = recipe.model_copy(update={"train": recipe.train.model_copy(update={"keep": "best", "epochs": 4})})
    card = train(best, out=tmp_path / "run").card
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").read_text().splitlines()))
    assert card.provenance.best_epoch == int(max(rows, key=lambda row: float(row["val_dice"]))["epoch"])


def test_training_twice_gives_the_same_weights(finished: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, out=tmp_path / "again")
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, weights(tmp_path / "again")[name]), name


@pytest.mark.parametrize("steps", [1, 4])
def test_ctrl_c_saves_and_resuming_gives_the_same_weights(
    finished: Path, recipe: Recipe, tmp_path: Path, steps: int
) -> None:
    with pytest.raises(Interrupted, match="trocar train --resume"):
        train(recipe, out=tmp_path / "run", watcher=StopAfter(steps))
    assert not (tmp_path / "run" / "model").exists()
    resume(tmp_path / "run")
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, weights(tmp_path / "run")[name]), name
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") == 4


CHILD = """
import sys
from pathlib import Path
from trocar.config import load_recipe
from trocar.training import resume, train
run = Path(sys.argv[1])
if (run / "run.json").is_file():
    resume(run)
else:
    train(load_recipe(Path(sys.argv[2])), out=run)
"""


def test_killed_at_random_moments_it_ends_with_the_same_weights(finished: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    run = tmp_path / "run"
    draw = random.Random(0)
    kills = 0
    for _ in range(40):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(run), str(tmp_path / "recipe.yaml")])
        wanted = _checkpoints_made(run) + draw.randint(1, 4)
        deadline = time.monotonic() + 120
        while child.poll() is None and _checkpoints_made(run) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        if child.poll() is not None:
            break
        child.kill()
        child.wait()
        kills += 1
    assert child.returncode == 0
    assert kills >= 2
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, weights(run)[name]), name


def _checkpoints_made(run: Path) -> int:
    last = checkpoint.latest_checkpoint(run / "checkpoints")
    return int(last.name.removeprefix("step-")) if last else 0


def test_a_full_disk_leaves_the_last_good_checkpoint(
    finished: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = checkpoint._write_tensors

    def write_until_full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "step-00000003" in str(path):
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        real_write(tensors, path)

    monkeypatch.setattr(checkpoint, "_write_tensors", write_until_full)
    with pytest.raises(UserError, match="No space left") as caught:
        train(recipe, out=tmp_path / "run")
    assert "step-00000002" in str(caught.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    resume(tmp_path / "run")
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, weights(tmp_path / "run")[name]), name


def test_a_damaged_checkpoint_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(recipe, out=tmp_path / "run", watcher=StopAfter(2))
    last = checkpoint.latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    tensors = last / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("folds", [False, True])
def test_a_stop_before_the_first_step_says_how_to_go_on(recipe: Recipe, tmp_path: Path, folds: bool) -> None:
    class StopEarly(Watcher):
        def preparing(self, what: str, done: int, total: int) -> None:
            signal.raise_signal(signal.SIGINT)

    begin = train_folds if folds else train
    with pytest.raises(Interrupted, match=f"go on with: trocar train --resume {re.escape(str(tmp_path / 'run'))}$"):
        begin(recipe, out=tmp_path / "run", watcher=StopEarly())


def test_folds_are_trained_each_and_a_stop_is_resumed(recipe: Recipe, tmp_path: Path) -> None:
    loo = recipe.model_copy(
        update={
            "split": recipe.split.model_copy(update={"strategy": "leave-one-group-out", "val_from": "tail"}),
            "train": recipe.train.model_copy(update={"epochs": 1}),
        }
    )
    with pytest.raises(Interrupted, match=f"--resume {tmp_path / 'run'}"):
        train_folds(loo, out=tmp_path / "run", watcher=StopAfter(2))
    results = resume(tmp_path / "run")
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())["folds"]
    assert len(results) == len(folds) == 4
    split = read_split(tmp_path / "run" / "split.yaml")
    for result, (name, folder) in zip(results, folds.items(), strict=True):
        assert result.run == tmp_path / "run" / folder
        assert result.card.provenance.fold == name
        assert name not in result.card.provenance.groups
        assert result.card.scores["val"].records == len(split.fold(name).val)

    train_folds(loo, out=tmp_path / "on", start_from=tmp_path / "run")
    for name, folder in folds.items():
        facts = json.loads((tmp_path / "on" / folder / "run.json").read_text())
        assert facts["start_from"] == str(tmp_path / "run" / folder / "model")  # what saw the same groups
        (before,) = read_card(tmp_path / "on" / folder / "model").provenance.began_from
        assert name not in before.groups
    with pytest.raises(UserError, match="several folds"):
        train(recipe, out=tmp_path / "one", start_from=tmp_path / "run")
    assert not (tmp_path / "one").exists()


def test_test_records_are_never_opened(recipe: Recipe, tmp_path: Path, drawn: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": str(data)})})
    from trocar.data.sources import open_source
    from trocar.data.splits import make_split

    source = open_source(data)
    for record in source.select(make_split(source, moved.split).fold().test):
        for path in record.files:
            path.write_bytes(b"\0" * path.stat().st_size)  # unreadable, of the same size
    one_epoch = moved.model_copy(update={"train": moved.train.model_copy(update={"epochs": 1})})
    assert train(one_epoch, out=tmp_path / "run").model.is_dir()


def test_parts_are_learnt_by_the_same_code(recipe: Recipe, tmp_path: Path) -> None:
    parts = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"target": "parts"}),
            "train": recipe.train.model_copy(update={"epochs": 1}),
        }
    )
    card = train(parts, out=tmp_path / "run").card
    assert card.classes == ("background", "shaft", "tip")
    assert card.threshold is None
    assert card.scores["val"].dice is not None
    assert card.threshold_curve is card.calibration is None
    assert card.quality is not None


def test_fine_tuning_loads_what_fits_and_lists_the_rest(recipe: Recipe, finished: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    class Listen(Watcher):
        def message(self, text: str) -> None:
            lines.append(text)

    parts = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"target": "parts"}),
            "train": recipe.train.model_copy(update={"epochs": 1}),
        }
    )
    card = train(parts, out=tmp_path / "run", start_from=finished, watcher=Listen()).card
    (before,) = card.provenance.began_from
    assert (before.name, before.groups) == (read_card(finished / "model").name, card.provenance.groups)
    total = len(weights(finished))
    assert any(f"{total - 2} of {total} tensors loaded" in line for line in lines)
    left_out = [line for line in lines if line.startswith("not loaded")]
    assert len(left_out) == 2  # kernel and bias of the classifier
    assert "(1, 16, 1, 1) there, (3, 16, 1, 1) here" in "\n".join(left_out)


def test_a_start_is_found_as_every_model_is(tmp_path: Path) -> None:
    """By the name of one that ships too, wherever the run is resumed from; a bad list of folds is named."""
    assert _start_of_fold(Path(DEFAULT), None) == shipped_models()[DEFAULT]
    with pytest.raises(UserError, match="cannot look for a model"):
        _start_of_fold(Path("x" * 300), None)
    (tmp_path / "folds.json").write_text("{")
    with pytest.raises(UserError, match="the list of folds"):
        _start_of_fold(tmp_path, "OP1")


def test_patience_stops_early(recipe: Recipe, tmp_path: Path) -> None:
    still = recipe.train.model_copy(update={"epochs": 30, "patience": 2, "learning_rate": 1e-12, "ema_decay": None})
    card = train(recipe.model_copy(update={"train": still}), out=tmp_path / "run").card
    assert card.provenance.epochs < 30


def test_a_used_folder_is_refused(recipe: Recipe, finished: Path) -> None:
    with pytest.raises(UserError, match="not empty"):
        train(recipe, out=finished)


def test_bad_data_is_refused_before_anything_is_written(recipe: Recipe, drawn: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    masks = sorted((data / "masks").rglob("*.png"))
    masks[0].unlink()
    masks[7].unlink()
    bad = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": str(data)})})
    with pytest.raises(UserErrors) as caught:
        train(bad, out=tmp_path / "run")
    assert len(caught.value.errors) == 2
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_repeated(finished: Path) -> None:
    before = (finished / "model" / "weights.safetensors").stat().st_mtime_ns
    assert resume(finished)[0].model == finished / "model"
    assert (finished / "model" / "weights.safetensors").stat().st_mtime_ns == before


def test_no_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        resume(tmp_path)


def test_memory_that_runs_out_names_the_settings(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("trocar.training.loop.train_step", fail)
    with pytest.raises(UserError, match=r"train\.batch_size"):
        train(recipe, out=tmp_path / "run")
