"""The table of docs/results.md from finished evaluations: one row a run and part of the data, pooled over folds.

    python tools/results_table.py NAME=RUN:REPORT...

RUN is a run of several folds (for the minutes), REPORT the folder that `trocar evaluate` wrote (for the scores). Rows
are made for all frames and for each first part of the group names (rigid, robotic). Intervals resample groups, then
frames.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from trocar.metrics.intervals import Interval, bootstrap


def main(arguments: list[str]) -> None:
    """Print the table."""
    print("| network | frames | groups | Dice mean | Dice median | Dice 5th percentile | Jaccard mean | min a fold |")
    print("|---|---|---|---|---|---|---|---|")
    for argument in arguments:
        name, _, places = argument.partition("=")
        run, _, report = places.rpartition(":")
        rows = read_csv(Path(report) / "per_image.csv")
        kinds = sorted({row["group"].partition("/")[0] for row in rows})
        for kind in [*kinds, "all"] if len(kinds) > 1 else kinds:
            chosen = [row for row in rows if kind in ("all", row["group"].partition("/")[0])]
            print(table_row(f"{name}, {kind}", chosen, minutes_a_fold(Path(run))))


def table_row(title: str, rows: list[dict[str, str]], minutes: float) -> str:
    """One line of the table."""
    groups = [row["group"] for row in rows]
    dice, jaccard = (bootstrap([float(row[key] or "nan") for row in rows], groups) for key in ("dice", "jaccard"))
    figures = [in_words(one) for one in (dice.mean, dice.median, dice.p5, jaccard.mean)]
    return f"| {title} | {len(rows)} | {len(set(groups))} | {' | '.join(figures)} | {minutes:.1f} |"


def in_words(interval: Interval) -> str:
    """0.912 (0.890 to 0.931)."""
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def minutes_a_fold(run: Path) -> float:
    """Mean minutes of training steps of a fold; validation and preparing come on top."""
    folds = json.loads((run / "folds.json").read_text(encoding="utf-8"))["folds"].values()
    seconds = [float(row["seconds"]) for fold in folds for row in read_csv(run / fold / "log.csv")]
    return sum(seconds) / len(folds) / 60


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


if __name__ == "__main__":
    main(sys.argv[1:])
