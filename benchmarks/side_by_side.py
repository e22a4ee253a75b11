"""The notebook's procedure, the sound one and ours on the same frames; and what each of its habits adds to its figures.

    python benchmarks/side_by_side.py train --data ENDOVIS15/rigid --weights RESNET50.safetensors --out RUNS --fold OP1
    python benchmarks/side_by_side.py table --data ENDOVIS15/rigid --out RUNS

`train` makes one run for each procedure and fold named (again: goes on where it stopped), `table` prints the Markdown
for docs/results.md. All procedures hold the same groups out, start from the same ImageNet weights and see one size.
`--no-leak` trains a fourth: the notebook with its leak closed and nothing else changed, so that the leak is measured
alone (but for the frames it no longer trains on); without it the sound procedure stands in, and the table says so.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trocar.config import Recipe, load_recipe
from trocar.data.preprocess import altered_mask, loss_target, prepare_image
from trocar.data.records import Record, Side, join_classes
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.evaluation import evaluate
from trocar.inference.predictor import Predictor, sigmoid
from trocar.metrics.notebook import mean_of_batches, soft_batch_dice, soft_batch_jaccard
from trocar.metrics.summary import summarise
from trocar.progress import Watcher
from trocar.training import resume, train

PROCEDURES = {  # title, recipe, what differs from it
    "notebook": ("the notebook's procedure", "notebook", []),
    "sound": ("the same network, sound", "notebook-sound", []),
    "ours": ("our recipe", "endovis15", []),
    "no-leak": ("the notebook, its leak closed", "notebook", ["split.val_from=random-records"]),
}


def main() -> None:
    """Parse and run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training, table = commands.add_parser("train"), commands.add_parser("table")
    for command in (training, table):
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
    training.add_argument("--weights", required=True, help="timm's ResNet-50 as safetensors, imagenet, or none")
    training.add_argument("--fold", action="append", required=True, help="group held out; repeatable")
    training.add_argument("--size", default="[256,320]", help="network size, height first")
    training.add_argument("--epochs", type=int, default=25)
    training.add_argument("--ours-epochs", type=int, default=30)
    training.add_argument("--no-leak", action="store_true", help="train the fourth too")
    training.add_argument("--only", choices=PROCEDURES, help="train this procedure only")
    training.add_argument("--set", action="append", default=[], help="a setting of all procedures")
    options = parser.parse_args()
    if options.command == "train":
        train_all(options)
    else:
        print_tables(options.data, options.out)


# ------------------------------------------------------------------ training


def train_all(options: argparse.Namespace) -> None:
    """Every procedure on every fold; finished runs are left alone, stopped ones go on."""
    for fold in options.fold:
        for name in PROCEDURES:
            if name == (options.only or name) and (name != "no-leak" or options.no_leak or options.only):
                run = options.out / f"{name}-{fold.replace('/', '-')}"
                print(f"{run}", flush=True)
                if (run / "run.json").is_file():
                    resume(run, watcher=Lines())
                else:
                    train(recipe_of(name, options), out=run, fold=fold, watcher=Lines())


def recipe_of(name: str, options: argparse.Namespace) -> Recipe:
    """The procedure's recipe with what all have in common: data, held-out groups, start, size, precision."""
    _, recipe, own = PROCEDURES[name]
    epochs = options.ours_epochs if name == "ours" else options.epochs
    common = [
        f"data.source={options.data}",
        "split.strategy=leave-one-group-out",
        f"preprocess.size_hw={options.size}",
        f"model.encoder_weights={options.weights}",
        f"train.epochs={epochs}",
        "train.precision=auto",
    ]
    return load_recipe(recipe, [*common, *own, *options.set])


class Lines(Watcher):
    """A line an epoch."""

    def message(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def epoch(self, row: dict[str, float]) -> None:
        """Print the figures of an epoch."""
        print(
            f"  epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation Dice {row['val_dice']:.4f}", flush=True
        )


# ------------------------------------------------------------------ tables


def print_tables(data: Path, out: Path) -> None:
    """Both tables as Markdown."""
    runs = {name: sorted(path for path in out.glob(f"{name}-*") if is_of(path, name)) for name in PROCEDURES}
    folds = {name: [read_fold(run) for run in found] for name, found in runs.items() if found}
    print(
        f"Held out: {', '.join(folds['notebook'])} of {data.name}; test frames as labelled, native size, per image.\n"
    )
    columns = "mean Dice (95 % interval)", "median", "5th percentile", "mean Jaccard", "own validation Dice", "minutes"
    print(f"| procedure | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, found in runs.items():
        if found and folds[name] == folds["notebook"]:
            print_row(PROCEDURES[name][0], data, found)
    print()
    print_ladder(data, runs)


def is_of(run: Path, name: str) -> bool:
    """Whether a finished run is of this procedure: no-leak-OP1 begins like nothing else."""
    return (run / "model" / "model.json").is_file() and run.name.startswith(f"{name}-")


def read_fold(run: Path) -> str:
    """The group a run held out."""
    return Predictor.open(run, "cpu").card.provenance.fold or "the only fold"


def print_row(title: str, data: Path, runs: Sequence[Path]) -> None:
    """One procedure: its test rows pooled over folds."""
    scores = summarise(test_rows(data, runs, as_labelled=True)).scores
    dice, jaccard = scores["dice"], scores["jaccard"]
    cards = [Predictor.open(run, "cpu").card for run in runs]
    own = np.mean([card.scores["val"].dice for card in cards])
    minutes = sum(float(row["seconds"]) for run in runs for row in log(run)) / 60
    print(
        f"| {title} | {dice.mean.value:.4f} ({dice.mean.low:.3f} to {dice.mean.high:.3f}) | {dice.median.value:.4f} "
        f"| {dice.p5.value:.4f} | {jaccard.mean.value:.4f} | {own:.4f} | {minutes:.0f} |"
    )


def print_ladder(data: Path, runs: dict[str, list[Path]]) -> None:
    """From the honest figure of the notebook's model to the one it would have published, a habit at a time."""
    models = runs["notebook"]
    honest = mean_dice(test_rows(data, models, as_labelled=True))
    dilated = mean_dice(test_rows(data, models, as_labelled=False))
    soft, soft_jaccard = batch_scores(data, models, "test")
    leaky, leaky_jaccard = batch_scores(data, models, "val")
    clean_runs, stands_in = (runs["no-leak"], "") if runs["no-leak"] else (runs["sound"], " (the sound procedure)")
    clean, clean_jaccard = batch_scores(data, clean_runs, "val", as_in=models)
    print("| what is measured, of the notebook's model unless said | Dice | Jaccard | adds to Dice |")
    print("|---|---|---|---|")
    rows: list[tuple[str, float, float, float | None]] = [
        ("test, per image at native size, masks as labelled", *honest, None),
        ("the same, test masks dilated", *dilated, dilated[0] - honest[0]),
        ('soft batch Dice on dilated, blurred test masks: its "test" figure', soft, soft_jaccard, soft - dilated[0]),
        (f"soft batch Dice on validation records never trained on{stands_in}", clean, clean_jaccard, None),
        (
            'soft batch Dice on the leaked validation records: its "validation" figure',
            leaky,
            leaky_jaccard,
            leaky - clean,
        ),
    ]
    for title, dice, jaccard, added in rows:
        print(f"| {title} | {dice:.4f} | {jaccard:.4f} | {'' if added is None else f'{added:+.4f}'} |")


def test_rows(data: Path, runs: Sequence[Path], *, as_labelled: bool) -> list[Any]:
    """Rows of the test records of all folds."""
    rows: list[Any] = []
    for run in runs:
        source = open_source(data, load_recipe(run / "recipe.yaml").data)
        rows += evaluate(source, model=run, split=run / "split.yaml", device="cpu", as_labelled=as_labelled).rows
    return rows


def mean_dice(rows: Sequence[Any]) -> tuple[float, float]:
    """Mean Dice and Jaccard over frames with an instrument."""
    return float(np.nanmean([row.dice for row in rows])), float(np.nanmean([row.jaccard for row in rows]))


def batch_scores(data: Path, runs: Sequence[Path], side: Side, as_in: Sequence[Path] = ()) -> tuple[float, float]:
    """Soft batch Dice and Jaccard as the notebook has them, the mean over folds.

    `as_in` names the runs whose masks and records are judged (the notebook's), where other models are.
    """
    scores = []
    for run, reference in zip(runs, as_in or runs, strict=True):
        recipe, split = load_recipe(reference / "recipe.yaml"), read_split(reference / "split.yaml")
        fold = Predictor.open(reference, "cpu").card.provenance.fold
        records = open_source(data, recipe.data).select(split.fold(fold).side(side))
        predictor = Predictor.open(run, "cpu")
        pairs = [soft_pair(predictor, record, recipe) for record in records]
        targets, probabilities = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        scores.append(
            [mean_of_batches(score, targets, probabilities) for score in (soft_batch_dice, soft_batch_jaccard)]
        )
    dice, jaccard = np.mean(scores, axis=0)
    return float(dice), float(jaccard)


def soft_pair(predictor: Predictor, record: Record, recipe: Recipe) -> tuple[Any, Any]:
    """The notebook's target of a record and the model's probabilities, both at network size."""
    image, mask = record.read()
    target = loss_target(altered_mask(join_classes(mask), recipe.preprocess), recipe.preprocess)
    logits = predictor.engine(prepare_image(image, predictor.preprocess)[0][None])
    return target, sigmoid(logits)[0, 0]


def log(run: Path) -> list[dict[str, str]]:
    """Rows of a run's log."""
    with (run / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
