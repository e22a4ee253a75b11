"""How `trocar predict` speaks on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trocar.console import out, tell
from trocar.plain import many

if TYPE_CHECKING:
    from trocar.inference.summary import PredictionSummary


def show_predictions(summary: PredictionSummary, folder: Path, to: Console = out) -> None:
    """How many inputs, and where their masks are."""
    frames = sum(one.frames for one in summary.predictions)
    videos = sum(one.kind == "video" for one in summary.predictions)
    counts = [(len(summary.predictions) - videos, "image"), (videos, "video")]
    inputs = " and ".join(many(count, what) for count, what in counts if count)
    to.print(f"{inputs}, {many(frames, 'frame')}" if videos else inputs)
    if summary.quality_limit is not None:
        _show_quality(summary, frames, to)
    for one in summary.predictions:
        if one.lost_frames or one.damaged_frames or not one.complete:
            end = "" if one.complete else "; it cannot be read to its end"
            text = f"warning: {one.file}: {many(one.lost_frames, 'frame')} lost, {one.damaged_frames} damaged{end}"
            tell(text, to)
        if one.sound and "left out" in one.sound:
            tell(f"warning: {one.file}: sound {one.sound}", to)
        if one.reconnections:
            tell(f"warning: {one.file}: connected again {many(one.reconnections, 'time')}", to)
    for what in _written(summary):
        tell(f"{what}: {folder / what}", to)
    if (folder / "frames.jsonl").is_file():  # one of an earlier prediction was removed
        tell(f"a line for each frame: {folder / 'frames.jsonl'}", to)
    tell(f"list of all: {folder / 'predictions.json'}", to)


def _written(summary: PredictionSummary) -> list[str]:
    """Folders that this prediction wrote into; those of an earlier one may lie beside them."""
    every = summary.predictions
    made = {
        "masks": any(one.mask for one in every),
        "overlays": any(one.overlay for one in every),
        "probabilities": any(one.probabilities for one in every),
        "instances": any(one.instance_ids for one in every),
    }
    return [name for name, written in made.items() if written]


def _show_quality(summary: PredictionSummary, frames: int, to: Console) -> None:
    """How many frames are to be looked at, how many have no quality, and how far to trust that."""
    videos = [one for one in summary.predictions if one.kind == "video"]
    images = [one for one in summary.predictions if one.kind == "image"]
    marked = sum(one.look_at is True for one in images) + sum(len(one.frames_to_look_at) for one in videos)
    unknown = sum(one.quality is None for one in images) + sum(one.frame_quality.count(None) for one in videos)
    text = f"{marked} of {frames} frames to look at (quality under {summary.quality_limit:.3f}; see predictions.json)"
    empty = f"; {unknown} in which nothing was found have no quality" if unknown else ""
    tell(text + empty, to)
    otherwise = " and ".join(summary.unlike_fitting)
    promise = "the limit was fitted on the model's validation frames; elsewhere it is a hint"
    promise = f"the limit promises nothing {otherwise}: here it is a hint" if otherwise else promise
    tell(promise, to)  # the whole of it is in predictions.json and docs/predict.md
