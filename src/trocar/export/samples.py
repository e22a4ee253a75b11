"""Which records an export is made and judged with: training ones calibrate int8, validation ones are the gate.

They are the sides of the split that the model was trained with, of the run that made it, or of `split` and `data`.
Test records are never read. Other data than the model's own is halved by record: calibration and gate in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trocar.config import load_recipe
from trocar.data.joining import open_data
from trocar.data.records import Record, Source
from trocar.data.splits import Split, read_split
from trocar.errors import UserError, UserErrors
from trocar.evaluation.parts import Part, Truth, truth_for
from trocar.model_folder import ModelCard


@dataclass(frozen=True)
class Samples:
    """Records, and where they come from, in words."""

    calibration: tuple[Record, ...]
    gate: tuple[Record, ...]
    truth: Truth
    origin: str


def find_samples(folder: Path, card: ModelCard, data: Source | None, split: Path | None, most: int) -> Samples:
    """At most `most` records of each kind, evenly over the side. Raises `UserError` where there are none to be had."""
    run = folder.parent if (folder.parent / "recipe.yaml").is_file() else None
    source = data if data is not None else _source_of_run(run)
    if source.findings:
        raise UserErrors(source.findings)
    truth = truth_for((Part(None, (), _never, card),), source)
    chosen = _split(run, source, split)
    if chosen is not None:
        sides = chosen.fold(card.provenance.fold if card.provenance.fold in chosen.folds else None)
        train, val = source.select(sides.train), source.select(sides.val)
        place = split or run
        assert place is not None
        named = "/".join(place.resolve().parts[-2:])  # it goes into the card: a model travels, its place does not
        origin = f"training and validation side of {named}"
    elif _is_its_own_data(card, source):
        raise UserError(
            "this is the data that the model was trained on, but the split that says which records are for testing is "
            "not beside the model",
            where=str(source.root),
            mend="give it with --split FILE: it is split.yaml of the run that made the model",
        )
    else:
        train, val = list(source.records[::2]), list(source.records[1::2])
        named = source.root.resolve().name
        origin = f"other data than the model's own ({source.dataset}, {named}), record by record in turn"
    if not val or not train:
        raise UserError(
            f"the gate needs validation records, int8 training records: there are {len(val)} and {len(train)}",
            where=str(source.root),
            mend="give other labelled frames with --data",
        )
    return Samples(_evenly(train, most), _evenly(val, most), truth, origin)


def _source_of_run(run: Path | None) -> Source:
    mend = "give labelled frames with --data SOURCE: best the data that the model was trained on"
    if run is None:
        raise UserError("the gate needs labelled frames, and the run that made the model is not here", mend=mend)
    try:
        return open_data(load_recipe(run / "recipe.yaml").data)
    except UserError as error:
        raise UserError(
            f"the gate needs labelled frames, and those of the model's run cannot be opened: {error.what}",
            where=error.where or str(run / "recipe.yaml"),
            mend=mend,
        ) from None


def _split(run: Path | None, source: Source, given: Path | None) -> Split | None:
    if given is not None:
        split = read_split(given)
        split.check_against(source)
        return split
    if run is None or not (run / "split.yaml").is_file():
        return None
    split = read_split(run / "split.yaml")
    return split if split.fingerprint == source.fingerprint() else None


def _is_its_own_data(card: ModelCard, source: Source) -> bool:
    return card.provenance.data_fingerprint == source.fingerprint()


def _evenly(records: Sequence[Record], most: int) -> tuple[Record, ...]:
    step = max(1, len(records) / most)
    return tuple(records[int(index * step)] for index in range(min(len(records), most)))


def _never() -> NoReturn:
    raise AssertionError("nothing is opened here")
