"""The whole way with a real, untrained network: evaluation and training must score alike."""

from __future__ import annotations

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
from trocar.evaluation.scoring import LOSS_BATCH
from trocar.losses import build_loss
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


def test_importing_evaluation_and_report_loads_no_torch() -> None:
    code = "import sys, trocar.evaluation, trocar.reporting.report; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
