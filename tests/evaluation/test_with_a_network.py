"""The whole way with a real, untrained network: evaluation and training must score alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import SIZE_HW, make_card, make_source
from trocar.config import LossSettings, ModelSettings, PreprocessSettings
from trocar.data.loading import NativeMasks, PreparedSet
from trocar.evaluation import evaluate
from trocar.evaluation.parts import Choices
from trocar.evaluation.scoring import LOSS_BATCH
from trocar.inference.predictor import Predictor
from trocar.losses import build_loss
from trocar.metrics.overlap import counts
from trocar.model_folder import write_model
from trocar.models.build import build_model
from trocar.reporting.report import write_report
from trocar.training.judging import judge


@pytest.fixture(autouse=True)
def opened() -> None:
    """Models are opened for what they are here."""


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_evaluation_scores_as_training_does(tmp_path: Path, *, parts: bool, fit: str) -> None:
    source = make_source(parts=parts)
    settings = PreprocessSettings(size_hw=SIZE_HW, fit=fit)
    kind = ModelSettings(encoder="mobilenetv2_100", encoder_weights="none")
    loss = LossSettings(name="cross-entropy+dice")
    torch.manual_seed(0)
    network = build_model(kind, settings, 3 if parts else 2).eval()
    card = make_card(source, threshold=0.5, parts=parts).model_copy(
        update={"model": kind, "preprocess": settings, "loss": loss}
    )
    write_model(tmp_path / "model", card, network.state_dict(), "licence of the test")
    result = evaluate(source, model=tmp_path / "model", device="cpu")
    expected = judge(
        network,
        PreparedSet(source.records, settings, join=not parts),
        NativeMasks.read(source.records, settings, join=not parts),
        build_loss(loss, len(card.classes)),
        device=torch.device("cpu"),
        batch_size=LOSS_BATCH,
    )
    here = result.sides[-1]
    assert here.dice == pytest.approx(expected.mean_dice, abs=1e-3)  # sigmoids of numpy and torch differ in a last bit
    assert here.jaccard == pytest.approx(expected.mean_jaccard, abs=1e-3)
    assert here.loss == pytest.approx(expected.loss, rel=1e-4)
    assert [row.empty_truth for row in result.rows] == [bool(np.isnan(value)) for value in expected.dice]
    assert write_report(result, tmp_path / "report").is_file()


def test_choices_reach_the_model_and_the_report(tmp_path: Path) -> None:
    """Tiles: what is counted at network size is of the whole frame, so that loss and calibration have their figures."""
    source, settings = make_source(), PreprocessSettings(size_hw=(32, 48))
    kind = ModelSettings(encoder="mobilenetv2_100", encoder_weights="none")
    torch.manual_seed(0)
    network = build_model(kind, settings, 2)
    network(torch.randint(0, 256, (4, 32, 48, 3), dtype=torch.uint8))  # batch norms see something: logits spread
    card = make_card(source, threshold=0.5).model_copy(update={"model": kind, "preprocess": settings})
    write_model(tmp_path / "model", card, network.state_dict(), "licence of the test")
    plain, tiled = (evaluate(source, model=tmp_path / "model", device="cpu", tiles=tiles) for tiles in (None, 1.0))
    assert tiled.protocol["tiles"].startswith("frames larger than the network's at scale 1")
    assert "tiles" not in plain.protocol
    assert [row.dice for row in plain.rows] != [row.dice for row in tiled.rows]
    assert np.isfinite(tiled.scores.training_loss)
    assert tiled.calibration is not None
    predictor = Predictor.open(tmp_path / "model", "cpu", tiles=1.0)
    for row, record in zip(tiled.rows, source.records, strict=True):
        image, truth = record.read()
        found = counts(predictor(image).mask == 1, truth == 1, truth == 255)
        assert row.dice == pytest.approx(found.dice, nan_ok=True) or row.empty_truth
    cleaned = evaluate(source, model=tmp_path / "model", device="cpu", min_area=("100%",))
    assert cleaned.protocol["clean-up"].startswith("pieces of instrument under 100% dropped")
    assert not any(row.predicted_pixels for row in cleaned.rows)
    assert any(row.predicted_pixels for row in plain.rows)
    inputs = json.loads((write_report(tiled, tmp_path / "r").parent / "report.json").read_text())["inputs"]
    assert Choices.of(inputs) == Choices(tiles=1.0)
    assert Choices.of({"threshold": 0.3, "min_area": ["5"]}) == Choices(threshold=0.3, min_area=("5",))


def test_importing_evaluation_and_report_loads_no_torch() -> None:
    code = "import sys, trocar.evaluation, trocar.reporting.report; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
