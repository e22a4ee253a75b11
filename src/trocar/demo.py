"""The main job on drawn scenes: draw, check, train, evaluate, predict; then the model that ships, on the same clip.

Needs no download and a few minutes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from trocar.config import load_recipe
from trocar.data.checks import CheckReport, check
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.errors import UserError, UserErrors
from trocar.evaluation import Evaluation, evaluate
from trocar.inference.predict import predict
from trocar.inference.summary import PredictionSummary
from trocar.progress import Watcher
from trocar.reporting.report import write_report
from trocar.sizes import shown_size
from trocar.synthetic import write_dataset
from trocar.training import train

CARD = "dataset.json"  # by which a drawn set is known
PROCEDURES, FRAMES, CLIP_FRAMES = 36, 4, 50


@dataclass(frozen=True)
class DemoResult:
    """Where everything is that the demo made, and what it found."""

    data: Path
    model: Path
    report: Path
    predictions: Path
    shipped: Path  # what the model that ships found in the clip
    checked: CheckReport
    evaluation: Evaluation
    predicted: PredictionSummary

    def paths(self) -> dict[str, str]:
        """Where to look, by what it is."""
        return {
            "report": str(self.report),
            "overlays": str(self.predictions / "overlays"),
            "masks": str(self.predictions / "masks"),
            "model": str(self.model),
            "data": str(self.data),
            "model that ships, on the clip": str(self.shipped / "overlays"),
        }


def clear_earlier(out: Path) -> None:
    """Remove what an earlier demo left in `out`. Anything that is no demo's stays, and makes it a `UserError`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    made_here = {"data", "run", "report", "predictions", "shipped"}
    if not out.is_dir() or {path.name for path in out.iterdir()} - made_here or not (out / "data" / CARD).is_file():
        raise UserError(
            "the folder of the demo holds something else", where=str(out), mend="give another folder with --out"
        )
    for name in made_here:
        shutil.rmtree(out / name, ignore_errors=True)


def demo(
    out: Path,
    *,
    preset: str = "demo",
    device: str = "auto",
    seed: int = 0,
    watcher: Watcher | None = None,
) -> DemoResult:
    """Draw scenes into `out/data`, train on some procedures, judge on others, predict those and a clip.

    The model that ships predicts the clip too.

    What an earlier demo left in `out` is replaced; anything else there is a `UserError`.
    """
    clear_earlier(out)
    watcher = watcher or Watcher()
    recipe = load_recipe("demo", [f"train.seed={seed}"])
    size_hw = recipe.preprocess.size_hw
    watcher.message(f"drawing {PROCEDURES} procedures of {FRAMES} frames, {shown_size(size_hw)}, and a clip")
    data = write_dataset(
        out / "data",
        procedures=PROCEDURES,
        frames_per_procedure=FRAMES,
        clip_frames=CLIP_FRAMES,
        size_hw=size_hw,
        preset=preset,
        seed=seed,
    )
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": str(data)})})
    source = open_source(data, recipe.data)
    checked = check([source])
    if not checked.ok:
        raise UserErrors(list(source.findings))
    watcher.message(f"checked {len(source)} frames: {len(checked.errors)} errors, {len(checked.warnings)} warnings")
    run = train(recipe, out=out / "run", device=device, watcher=watcher)
    watcher.message("evaluating on procedures that were held out")
    evaluation = evaluate(source, model=run.run, split=out / "run" / "split.yaml", side="test", device=device)
    report = write_report(evaluation, out / "report")
    held_out = source.select(read_split(out / "run" / "split.yaml").fold().test)
    watcher.message("predicting the held-out frames and the clip")
    clip = data / "clip" / "clip.mp4"
    predicted = predict(
        [*(record.files[0] for record in held_out), clip], run.model, out / "predictions", device=device
    )
    watcher.message("predicting the clip with the model that ships")
    predict([clip], None, out / "shipped", device=device)
    return DemoResult(data, run.model, report, out / "predictions", out / "shipped", checked, evaluation, predicted)
