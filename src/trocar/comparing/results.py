"""Results as `trocar evaluate` left them on disk: tables of frames, read and laid side by side.

One result is one report, or a folder of several: seeds or runs of one recipe. Nothing is predicted here.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.config import nearest
from trocar.documents import read_json, refuse_what_is_no_file
from trocar.errors import UserError, UserErrors
from trocar.metrics.boundary import Edge
from trocar.metrics.frames import PIXELS, Ruler
from trocar.plain import some

FloatArray: TypeAlias = NDArray[np.float64]

NAMED_AT_MOST = 8  # missing records in one message
# Columns of numbers that say nothing of how good a result is: not proposed, though they can be asked for.
_NO_SCORES = ("fold", "height", "width", "truth_pixels", "predicted_pixels", "ignored_pixels", "empty_truth", "missing")
_OF_OUTLINES = ("nsd", "instance_nsd", "hd95", "hausdorff", "average_distance", "boundary_iou")
_SAME_IN_ALL = ("height", "width", "truth_pixels", "ignored_pixels")  # of one frame and one truth


@dataclass(frozen=True, eq=False)
class Report:
    """One report: a table of frames, and what report.json tells about it."""

    name: str
    path: Path  # the folder, or the table where it stands alone
    groups: Mapping[str, str]  # of each record, in the order of the table
    columns: Mapping[str, FloatArray]  # numeric ones, one value a record, NaN where blank
    told: Mapping[str, Any]  # report.json; empty where the table stands alone
    notes: tuple[str, ...] = ()

    def values(self, column: str, records: Sequence[str]) -> FloatArray:
        """A column for these records, in their order; NaN throughout where the table lacks it. Shapes: -> (N,)."""
        if column not in self.columns:
            return np.full(len(records), np.nan)
        place = {record: number for number, record in enumerate(self.groups)}
        return self.columns[column][[place[record] for record in records]]


@dataclass(frozen=True, eq=False)
class Result:
    """What is compared: one report, or several runs of one recipe."""

    name: str
    path: Path
    runs: tuple[Report, ...]

    def run_values(self, column: str, records: Sequence[str]) -> FloatArray:
        """A column of each run. Shapes: -> (runs, N)."""
        return np.stack([run.values(column, records) for run in self.runs])


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Read every result. Raises `UserError` / `UserErrors` for what is no report, all of them at once."""
    resolved = [Path(os.path.realpath(path.expanduser())) for path in paths]  # also of links in a circle
    for path, count in Counter(resolved).items():
        if count > 1:
            raise UserError("one report is given twice", where=str(path), mend="name each report once")
    results, problems = [], []
    for name, path in zip(short_names(resolved), paths, strict=True):
        try:
            results.append(_read_result(name, path.expanduser()))
        except UserErrors as several:
            problems += several.errors
        except UserError as problem:
            problems.append(problem)
    if problems:
        raise UserErrors(problems)
    return results


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths that tell them apart, less names that trocar gives: `a` of a/report."""
    parts = []
    for path in paths:
        own = list(path.parts)
        while len(own) > 1 and own[-1] in ("per_image.csv", "report"):
            own.pop()
        parts.append(own)
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]).removesuffix(".csv") for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read_result(name: str, path: Path) -> Result:
    if path.is_file():
        return Result(name, path, (_read_report(name, path),))
    if (path / "per_image.csv").is_file():
        return Result(name, path, (_read_report(name, path / "per_image.csv"),))
    runs = sorted(file.parent for file in path.glob("*/report.json"))
    if not runs:
        problem = "no report in this folder" if path.is_dir() else "no such report"
        raise UserError(
            problem,
            where=str(path),
            mend="give a folder that `trocar evaluate --out` wrote, one that holds several of them, or a per_image.csv",
        )
    return Result(name, path, tuple(_read_report(run.name, run / "per_image.csv") for run in runs))


def _read_report(name: str, table: Path) -> Report:
    header, rows = _read_table(table)
    own = table.name == "per_image.csv"
    records = [row["record"] for row in rows]
    groups = {row["record"]: row["group"] for row in rows}
    place = {record: number for number, record in enumerate(groups)}
    where = np.array([place[record] for record in records], np.int64)
    times = np.bincount(where, minlength=len(groups))
    columns = {}
    for column in header:
        values = None if column in ("record", "group", "fold") else _numbers([row[column] for row in rows])
        if values is not None and np.isinf(values).any():
            record = rows[int(np.isinf(values).argmax())]["record"]
            raise UserError(f"{column} of record {record} is infinite", where=str(table), mend="evaluate again")
        if values is not None:
            columns[column] = np.bincount(where, values, minlength=len(groups)) / times  # undefined in one: undefined
    twice = int((times > 1).sum())
    notes = (f"scored in several folds: {twice} of the frames; the mean of their rows counts",) if twice else ()
    told = _read_json(table.with_name("report.json")) if own else {}
    return Report(name, table.parent if own else table, groups, columns, told, notes)


def _read_table(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        refuse_what_is_no_file(table)
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            header = list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read the table of frames: {error}", where=str(table), mend="evaluate again") from None
    if header[:2] != ["record", "group"]:
        begins = ", ".join(header[:4]) or "nothing"
        raise UserError(
            f"no table of frames: its columns begin with {begins}",
            where=str(table),
            mend="give a per_image.csv, whose columns begin with record, group, fold, dice",
        )
    if any(None in row or None in row.values() for row in rows):
        raise UserError("rows of the table differ in length", where=str(table), mend="evaluate again")
    if not rows:
        raise UserError("the table has no frames", where=str(table), mend="evaluate again")
    return header, rows


def _numbers(cells: Sequence[str]) -> FloatArray | None:
    """The cells as numbers, blank ones NaN; None where one is text."""
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    told = read_json(path, "the report", mend="evaluate again")
    if not isinstance(told, dict) or not _is_told_as_written(told):
        raise UserError("this is no report", where=str(path), mend="evaluate again")
    return told


def _is_told_as_written(told: dict[str, Any]) -> bool:
    """Whether what is used of it is of the kind that `evaluate` writes."""
    warnings = told.get("warnings", [])
    parts = [told.get(part) for part in ("protocol", "inputs")]
    texts = isinstance(warnings, list) and all(isinstance(warning, str) for warning in warnings)
    return texts and all(isinstance(part, dict | None) for part in parts)


# ------------------------------------------------------------------ side by side


def find_column(results: Sequence[Result], score: str) -> str:
    """The column of this name in all tables; `nsd` also finds a single `nsd_...`. Raises `UserError` where none is."""
    held = [set(run.columns) for result in results for run in result.runs]
    common = set.intersection(*held)
    if score in common:
        return score
    longer = sorted(column for column in common if column.startswith(f"{score}_"))
    if len(longer) == 1:
        return longer[0]
    known = sorted(column for column in common - set(_NO_SCORES) if not column.startswith("trait_"))
    if longer:
        raise UserError(f"several columns are called {score}", mend=f"--score {' or --score '.join(longer)}")
    if any(score in columns for columns in held):
        lacking = [label(result, run) for result, run in _all_runs(results) if score not in run.columns]
        what = f"{score} is not in every table: {', '.join(lacking)} {'lack' if len(lacking) > 1 else 'lacks'} it"
    else:
        what = f"no table has a column of numbers called {score}"
    near = nearest(score, known, 1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UserError(what, mend=f"{guess}all have {', '.join(known) or 'no score in common'}")


def common_records(results: Sequence[Result], *, common: bool) -> tuple[list[str], list[str]]:
    """Records that are in every table, in the order of the first, and sentences on what is missing where.

    Raises `UserError` where something is missing, unless `common`; and always where nothing is left.
    """
    runs = list(_all_runs(results))
    everywhere = set.intersection(*(set(run.groups) for _, run in runs))
    anywhere = {record: None for _, run in runs for record in run.groups}
    kept = [record for record in anywhere if record in everywhere]
    lacking = []
    for result, run in runs:
        missing = [record for record in anywhere if record not in run.groups]
        if missing:
            names = some(missing, NAMED_AT_MOST)
            words = f"{label(result, run)} lacks {len(missing)} of {len(anywhere)} frames: {names}"
            lacking.append((words, run.path))
    sentences = [words for words, _ in lacking]
    if not kept:
        mend = "evaluate them on the same frames, read from the same folder: records are named by their path below it"
        raise UserError("the reports have no frame in common", where="; ".join(sentences), mend=mend)
    if lacking and not common:
        mend = f"evaluate on the same frames, or go on with the {len(kept)} common ones: --common"
        raise UserErrors([UserError(words, where=str(path), mend=mend) for words, path in lacking])
    return kept, sentences


def common_groups(results: Sequence[Result], records: Sequence[str]) -> list[str]:
    """The group of each record. Raises `UserError` where tables disagree."""
    first = results[0].runs[0]
    for result, run in _all_runs(results):
        for record in records:
            if run.groups[record] != first.groups[record]:
                raise UserError(
                    f"record {record} is of two groups: {first.groups[record]} and {run.groups[record]}",
                    where=f"{first.path} and {run.path}",
                    mend=f"evaluate {label(result, run)} with the same data settings",
                )
    return [first.groups[record] for record in records]


def different_truth(results: Sequence[Result], records: Sequence[str]) -> list[str]:
    """A sentence for each report whose frames or truth are not those of the first."""
    first = results[0].runs[0]
    sentences = []
    for result, run in list(_all_runs(results))[1:]:
        shared = [column for column in _SAME_IN_ALL if column in first.columns and column in run.columns]
        differs = np.zeros(len(records), bool)
        for column in shared:
            differs |= first.values(column, records) != run.values(column, records)
        if differs.any():
            example = records[int(differs.argmax())]
            sentences.append(
                f"the truth of {int(differs.sum())} frames is not the same in {label(results[0], first)} and "
                f"{label(result, run)}, as of {example}: were masks altered, or read another way? This is not fair"
            )
    return sentences


def refuse_other_rulers(results: Sequence[Result], column: str) -> None:
    """Raises `UserError` where a score of outlines was taken in another unit, or at another tolerance."""
    if column not in _OF_OUTLINES:
        return
    rulers = {label(result, run): _ruler(run) for result, run in _all_runs(results)}
    if len(set(rulers.values())) > 1:
        raise UserError(
            f"{column} was not measured alike: {'; '.join(f'{name} {one.in_words()}' for name, one in rulers.items())}",
            mend="evaluate again with the same --nsd-tolerance, --spacing-mm and --edge",
        )


def _ruler(run: Report) -> Ruler:
    """What an older report does not name was 2 px."""
    inputs = run.told.get("inputs") or {}
    spacing = inputs.get("spacing_mm")
    height_width = (float(spacing[0]), float(spacing[1])) if spacing else None
    edge: Edge = "open" if inputs.get("edge") == "open" else "closed"
    return Ruler(float(inputs.get("nsd_tolerance", PIXELS.tolerance)), height_width, edge)


def label(result: Result, run: Report) -> str:
    """The name of a run: of the result, and of the run where there are several."""
    return result.name if len(result.runs) == 1 else f"{result.name}/{run.name}"


def _all_runs(results: Sequence[Result]) -> Iterable[tuple[Result, Report]]:
    return [(result, run) for result in results for run in result.runs]
