"""An evaluation of the drawn world with everything found that a report can show, and its page."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fakes import FakePredictor, make_source, write_fold_run
from trocar.evaluation import Evaluation, evaluate, parts
from trocar.metrics.calibration import calibration, reliability_bins, threshold_curve
from trocar.metrics.failure import failure_finding
from trocar.metrics.findings import ConventionFigures, Presence, ThresholdChoice, VideoStability
from trocar.metrics.intervals import bootstrap
from trocar.metrics.noise import noise_ceiling
from trocar.metrics.strata import stratify
from trocar.metrics.traits import traits_of
from trocar.model_folder import read_card
from trocar.reporting.report import write_report


class Page(HTMLParser):
    """Tags that must be closed are; addresses and text are collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "link", "br", "hr", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


CONVENTIONS = (
    ConventionFigures(
        "pooled",
        "Pooled over all pixels",
        "as confusion matrices are made",
        "Pixels of all frames are counted together.",
        "count as any other",
        {"dice": 0.8125, "mean_class_iou": 0.7},
    ),
    ConventionFigures("kvasir", "Kvasir <b>", "a & b", "At network size.", "1", {}, missing="needs probabilities"),
)


def evaluate_pooled(folder: Path) -> Evaluation:
    """Three folds pooled, predicted by fakes."""
    source = make_source()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "open_predictor", lambda model, *_, **__: FakePredictor(read_card(model)))
        return evaluate(source, model=write_fold_run(folder / "run", source))


def with_findings(evaluation: Evaluation, **found: object) -> Evaluation:
    """The same with these attributes, however they come about."""
    copy = replace(evaluation)
    copy.__dict__.update(found)
    return copy


def with_everything(plain: Evaluation) -> Evaluation:
    """Findings that follow from the drawn frames, or are made up where that would take long."""
    records = {record.name: record for record in plain.source.records}
    rows = tuple(
        replace(
            row,
            traits=traits_of(*records[row.record].read()),
            nsd=row.dice / 2,
            hd95=0.5 + 3 * number if number else math.nan,
        )
        for number, row in enumerate(plain.rows)
    )
    ceilings = [noise_ceiling(records[row.record].mask(), (1, 3)) for row in rows]
    groups = [row.group for row in rows]
    ceiling = {
        px: tuple(bootstrap([one[px][which] for one in ceilings], groups, resamples=200) for which in (0, 1))
        for px in (1, 3)
    }
    rng = np.random.default_rng(0)
    probability = rng.random((200, 200))
    truth = (rng.random((200, 200)) < probability**1.5).astype(np.uint8)
    table = reliability_bins(probability, truth)
    quality = [min(1.0, row.dice + 0.1) for row in rows]
    curve = threshold_curve([np.linspace(0.5, 0.9, 91), np.linspace(0.9, 0.3, 91)])
    return with_findings(
        plain,
        rows=rows,
        conventions=CONVENTIONS,
        strata=stratify(rows, resamples=200),
        ceiling=ceiling,
        thresholds={"": ThresholdChoice(0.4, curve, threshold_curve([np.linspace(0.4, 0.8, 91)]))},
        calibration=calibration(table, table, 1.25),
        failure=failure_finding(quality, [row.dice for row in rows], limit=0.8, promised=0.1),
        presence=Presence("the largest probability", 12, 3, 0.875, {0.9: 0.75}),
        stability=(VideoStability("OP1", 5, 0.91, 0.02, 0.95, math.nan),),
    )


def write_full(folder: Path) -> Path:
    """The page with all sections and pictures."""
    evaluation = with_everything(evaluate_pooled(folder))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "open_predictor", lambda model, *_, **__: FakePredictor(read_card(model)))
        return write_report(evaluation, folder / "report")
