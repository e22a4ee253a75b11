"""What an evaluation leaves: rows, figures, how they came about, and a way to look at single frames again."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trocar import __version__
from trocar.data.records import ImageArray, MaskArray, Source
from trocar.evaluation import findings
from trocar.evaluation.parts import Guess, Part, Truth
from trocar.evaluation.scoring import Scores
from trocar.metrics.calibration import Calibration
from trocar.metrics.failure import FailureFinding
from trocar.metrics.findings import ConventionFigures, Presence, ThresholdChoice, VideoStability
from trocar.metrics.frames import FrameScores, Ruler
from trocar.metrics.intervals import Estimates
from trocar.metrics.strata import Stratum, stratify
from trocar.metrics.summary import Summary, summarise, worst_first
from trocar.model_folder import ModelCard


@dataclass(frozen=True, eq=False)
class View:
    """One frame to be looked at: its row, its pixels, its truth and what was predicted."""

    row: FrameScores
    image: ImageArray
    truth: MaskArray
    guess: Guess


@dataclass(frozen=True)
class SideScores:
    """Loss, Dice and Jaccard of one side of the split. NaN where it was not taken."""

    side: str
    frames: int
    loss: float
    dice: float
    jaccard: float


@dataclass(frozen=True)
class Evaluation:
    """Rows of all frames scored, and everything a reader must know to judge them."""

    source: Source
    parts: tuple[Part, ...]
    scores: Scores
    ruler: Ruler  # of outlines
    side: str  # "train", "val", "test", or "all records"
    truth: Truth
    protocol: Mapping[str, str]  # how it was done, in words, in the order to be shown
    warnings: tuple[str, ...]  # what makes the figures mean less than they seem
    notes: tuple[str, ...]
    inputs: Mapping[str, Any]  # paths and choices, so that single frames can be looked at again later

    @cached_property
    def rows(self) -> tuple[FrameScores, ...]:
        """The per-image table."""
        return tuple(self.scores.rows)

    @cached_property
    def summary(self) -> Summary:
        """All figures; intervals are resampled on first use."""
        return summarise(self.rows)

    @cached_property
    def sides(self) -> tuple[SideScores, ...]:
        """Train and validation as the cards of the models tell, then the side scored here."""
        cards = [part.card for part in self.parts if part.card is not None]
        scores = self.summary.scores
        kind = "mean_class_" if self.truth.classes else ""
        here = SideScores(
            self.side,
            len(self.rows),
            self.scores.training_loss,
            *(scores[kind + key].mean.value if kind + key in scores else math.nan for key in ("dice", "jaccard")),
        )
        return (*(row for side in ("train", "val") if (row := _side_of_cards(side, cards))), here)

    @cached_property
    def conventions(self) -> tuple[ConventionFigures, ...]:
        """The same predictions by others' conventions."""
        return findings.by_conventions(self.scores)

    @cached_property
    def strata(self) -> tuple[Stratum, ...]:
        """Scores by what may make a frame hard, and by where it comes from, weakest first."""
        records = {record.name: record for part in self.parts for record in part.records}
        origins = [records[row.record] for row in self.rows]
        labels = {"Source": [one.source for one in origins], "Data set": [one.dataset for one in origins]}
        if len(set(labels["Source"])) == len(set(labels["Data set"])) == len(set(zip(*labels.values(), strict=True))):
            del labels["Data set"]  # each source is a data set of its own: one table is enough
        return stratify(self.rows, labels)

    @cached_property
    def ceiling(self) -> dict[int, tuple[Estimates, Estimates]]:
        """Dice and NSD of the truth against itself moved by some pixels, of up to 200 frames taken evenly."""
        truths = [(record, self.truth) for part in self.parts for record in part.records]
        return findings.noise_ceilings(truths, self.ruler)

    @cached_property
    def presence(self) -> Presence | None:
        """How well frames with an instrument are told from others; None where there are no others."""
        return findings.presence(self.rows, of_masks=all(part.card is None for part in self.parts))

    @cached_property
    def thresholds(self) -> dict[str, ThresholdChoice]:
        """What the choice of the threshold costs, by fold ("" where there are none)."""
        return findings.threshold_choices(self.scores, self.parts)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Reliability of the probabilities, before and after the models' own temperatures; None without models."""
        return findings.reliability(self.scores, self.parts)

    @cached_property
    def failure(self) -> FailureFinding | None:
        """How well the models know their bad frames; None without models."""
        return findings.failure(self.scores, self.parts)

    @cached_property
    def disagreement(self) -> FailureFinding | None:
        """How well the disagreement of mirror images finds bad frames; None without flips."""
        return findings.failure_by_disagreement(self.scores)

    @cached_property
    def stability(self) -> tuple[VideoStability, ...]:
        """How steady the masks of each video are; empty where the data are stills."""
        return findings.video_stability(self.rows)

    @cached_property
    def curves(self) -> dict[str, list[dict[str, str]]]:
        """Rows of log.csv of the runs that made the models, by fold ("" where there are no folds)."""
        logs = {part.fold or "": part.run / "log.csv" for part in self.parts if part.run is not None}
        return {fold: _read_log(path) for fold, path in logs.items() if path.is_file()}

    def views(self, rows: Iterable[FrameScores]) -> Iterator[View]:
        """Predict these frames once more and show them, fold by fold; one is held at a time."""
        wanted = {(row.fold, row.record): row for row in rows}
        for part in self.parts:
            chosen = [record for record in part.records if (part.fold, record.name) in wanted]
            if not chosen:
                continue
            guess = part.open()
            for record in chosen:
                image, mask = self.truth.read(record)
                yield View(wanted[part.fold, record.name], image, mask, guess(record, image))

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON: what report.json holds. NaN is still NaN."""
        summary = self.summary
        return {
            "format": 1,
            "trocar_version": __version__,
            "side": self.side,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "protocol": dict(self.protocol),
            "inputs": dict(self.inputs),
            "frames": summary.frames,
            "scores": {key: asdict(value) for key, value in summary.scores.items()},
            "classes": {key: asdict(value) for key, value in summary.classes.items()},
            "empty_frames": asdict(summary.empty),
            "missing_predictions": {"count": len(summary.missing), "records": list(summary.missing)},
            "sides": [asdict(side) for side in self.sides],
            "conventions": [asdict(one) for one in self.conventions],
            "strata": [asdict(stratum) for stratum in self.strata],
            "annotation_noise": {
                str(px): {"dice": asdict(dice), "nsd": asdict(nsd)} for px, (dice, nsd) in self.ceiling.items()
            },
            "thresholds": {fold: {**asdict(one), "cost": one.cost} for fold, one in self.thresholds.items()},
            "calibration": self.calibration and asdict(self.calibration),
            "failure": self.failure and asdict(self.failure),
            "failure_by_disagreement": self.disagreement and asdict(self.disagreement),
            "presence": self.presence and asdict(self.presence),
            "stability": [asdict(video) for video in self.stability],
            "groups": [asdict(part) for part in summary.groups],
            "folds": [asdict(part) for part in summary.folds],
            "worst": [
                {"record": row.record, "fold": row.fold, "dice": row.dice} for row in worst_first(self.rows)[:10]
            ],
        }


def _side_of_cards(side: str, cards: Sequence[ModelCard]) -> SideScores | None:
    """One side over all folds, each weighted by the frames it counts; None where no card tells."""
    scores = [card.scores[side] for card in cards if side in card.scores]
    if not scores or len(scores) < len(cards):
        return None

    def mean(values: Sequence[float | None], weights: Sequence[int]) -> float:
        told = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
        if len(told) == 1:
            return told[0][0]  # exactly as the card has it
        return sum(v * w for v, w in told) / sum(w for _, w in told) if told else math.nan

    frames = [one.records for one in scores]
    scored = [one.records - one.undefined for one in scores]
    return SideScores(
        side,
        sum(frames),
        mean([one.loss for one in scores], frames),
        mean([one.dice for one in scores], scored),
        mean([one.jaccard for one in scores], scored),
    )


def _read_log(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
