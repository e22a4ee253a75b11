"""Score a model, or masks made by any tool, against the truth of a source.

`evaluate` decides which records are judged by whom (`parts`), scores them one at a time (`scoring`) and keeps only
their rows (`result`); what the figures mean is `metrics.summary`, how they look is `reporting`. Pictures are made
later, by predicting the few frames that are shown once more, so that memory does not grow with the number of frames.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

from trocar.data.records import Side, Source
from trocar.data.splits import Split, read_split
from trocar.errors import UserError, UserErrors
from trocar.evaluation.parts import Choices, parts_of_masks, parts_of_models, truth_for
from trocar.evaluation.protocol import find_warnings, protocol_in_words
from trocar.evaluation.result import Evaluation, SideScores, View
from trocar.evaluation.scoring import Judge, Progress, score
from trocar.evaluation.to_card import to_card
from trocar.metrics.boundary import Edge
from trocar.metrics.frames import Ruler
from trocar.model_folder import fold_folders

__all__ = ["Evaluation", "Progress", "SideScores", "View", "evaluate", "to_card"]


def evaluate(
    source: Source,
    *,
    model: Path | None = None,
    predictions: Path | None = None,
    split: Split | Path | None = None,
    side: Side = "test",
    device: str = "auto",
    engine: str = "torch",
    threshold: float | None = None,
    flips: bool = False,
    tiles: float | None = None,
    min_area: tuple[str, ...] = (),
    fill_holes: tuple[str, ...] = (),
    as_labelled: bool = False,
    centreline: bool = False,
    nsd_tolerance: float | None = None,
    spacing_mm: tuple[float, float] | None = None,
    edge: Edge = "closed",
    workers: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model (a model folder, a run, or a run of several folds) or a folder of masks on one side of a split.

    Without a split every record is scored, except that a run of several folds brings its own; each of its models is
    judged on its own fold and the rows are pooled. `predictions` holds DIR/<record name>.png or
    DIR/masks/<record name>.png; a missing one counts as an empty mask and is listed. `threshold` replaces the model's,
    `engine`, `flips`, `tiles`, `min_area` and `fill_holes` are those of `Predictor.open`.
    `as_labelled` scores against the masks as they are, where the model's recipe (the notebook's) would alter them too.
    `centreline` adds clDice, which takes longer than all else. Outlines are measured in pixels, NSD at 2 unless
    `nsd_tolerance` says otherwise; with `spacing_mm` (height and width of a pixel) in mm, at a tolerance to be given.
    `edge` is that of `metrics.boundary`.
    Masks are read and scored by so many processes; more than one needs a caller that can be imported
    (`if __name__ == "__main__"`). A model takes all cores by itself.
    Raises `UserError` / `UserErrors` for what a person can mend, every unreadable record at once.
    """
    if (model is None) == (predictions is None):
        raise UserError("give either a model or a folder of predictions", mend="--model MODEL, or --predictions DIR")
    if source.findings:
        raise UserErrors(source.findings)
    ruler = replace(_ruler(nsd_tolerance, spacing_mm), edge=edge)
    choices = Choices(engine, threshold, flips, tiles, min_area, fill_holes)
    split_file = split if isinstance(split, Path) else None
    split = read_split(split) if isinstance(split, Path) else split
    folders = fold_folders(model) if model is not None else {}
    if model is not None and folders and split is None:
        split_file = model / "split.yaml"
        split = read_split(split_file)
    if split is not None:
        split.check_against(source)
    if model is not None:
        parts = parts_of_models(source, folders or {None: model}, split, side, device, choices)
        truth = truth_for(parts, source, as_labelled=as_labelled)
    else:
        assert predictions is not None
        _refuse_choices(choices)
        parts, truth = parts_of_masks(source, predictions, split, side)
    if not any(part.records for part in parts):
        of_what = f"the split has no {side} records" if split is not None else "the data has no records"
        raise UserError(of_what, where=str(source.root), mend="choose another side, another split or other data")
    scores = score(parts, Judge(truth, centreline, ruler), workers=workers, progress=progress)
    rows = scores.rows
    if rows and all(row.missing for row in rows):
        raise UserError(
            f"none of the {len(rows)} records has a prediction",
            where=str(predictions),
            mend=f"name masks as their records, for example {rows[0].record}.png",
        )
    return Evaluation(
        source=source,
        parts=parts,
        scores=scores,
        ruler=ruler,
        side=side if split is not None else "all records",
        truth=truth,
        protocol=protocol_in_words(source, parts, scores, split, side, predictions, truth, choices, ruler),
        warnings=tuple(find_warnings(source, parts, rows, split, side)),
        notes=(*truth.notes, *source.notes),
        inputs={
            "source": _absolute(source.root),
            "data": source.settings and source.settings.model_dump(mode="json"),
            "model": _absolute(model),
            "predictions": _absolute(predictions),
            "split": _absolute(split_file),
            "side": side,
            **asdict(choices),
            "as_labelled": as_labelled,
            "nsd_tolerance": ruler.tolerance,
            "spacing_mm": ruler.spacing_mm,
            "edge": ruler.edge,
        },
    )


def _ruler(tolerance: float | None, spacing_mm: tuple[float, float] | None) -> Ruler:
    if tolerance is not None and not (tolerance >= 0 and math.isfinite(tolerance)):
        raise UserError(f"a tolerance of {tolerance}", mend="give one that is not below 0")
    if spacing_mm is None:
        return Ruler() if tolerance is None else Ruler(tolerance)
    if not all(side > 0 and math.isfinite(side) for side in spacing_mm):
        raise UserError(f"a pixel of {spacing_mm[0]} x {spacing_mm[1]} mm", mend="give height and width above 0")
    if tolerance is None:
        raise UserError("in mm, no tolerance of the surface Dice is usual", mend="give one in mm: --nsd-tolerance 1")
    return Ruler(tolerance, spacing_mm)


def _refuse_choices(choices: Choices) -> None:
    """Masks were predicted and cleaned by whoever made them."""
    if choices.threshold is not None:
        raise UserError("masks have no threshold", mend="leave the threshold out")
    if choices.flips or choices.tiles is not None:
        raise UserError("masks cannot be predicted once more, mirrored or in tiles", mend="leave flips and tiles out")
    if choices.min_area or choices.fill_holes:
        raise UserError("masks are scored as they are", mend="clean them up before, or score the model")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
