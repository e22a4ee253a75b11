"""Which records an export is made and judged with: training ones calibrate int8, validation ones are the gate.

They are the sides of the split that the model was trained with, of the run that made it, or of `split` and `data`; of
data that is a part of what the split lists, those that it lists. Test records are never read. Other data than the
model's own is halved by record: calibration and gate in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from trocar.config import load_recipe
from trocar.data.joining import open_data
from trocar.data.recognising import records_in_split, records_of_groups
from trocar.data.records import Record, Source
from trocar.data.splits import Fold, read_split
from trocar.errors import UserError, UserErrors
from trocar.evaluation.parts import Part, Truth, truth_for
from trocar.model_folder import ModelCard

Chosen: TypeAlias = tuple[tuple[Record, ...], tuple[Record, ...], str]  # training, validation, where they come from


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
    train, val, origin = _by_split(run, card, source, split) or _in_turn(source)
    if not val or not train:
        raise UserError(
            f"the gate needs validation records, int8 training records: there are {len(val)} and {len(train)}",
            where=f"{source.root}; {origin}",
            mend="give other labelled frames with --data",
        )
    return Samples(_evenly(train, most), _evenly(val, most), truth, origin)


def _by_split(run: Path | None, card: ModelCard, source: Source, given: Path | None) -> Chosen | None:
    """The sides of the split that is given or beside the model; None where the records are none of those it lists.

    Raises `UserError` where records may be the model's own and no split tells which.
    """
    place = given or (run / "split.yaml" if run is not None and (run / "split.yaml").is_file() else None)
    fingerprint = source.fingerprint()
    if place is None:
        _refuse_what_may_be_its_own(card, source, fingerprint)
        return None
    split = read_split(place)
    names = records_in_split(split, source, fingerprint)
    whole = split.fingerprint == fingerprint
    if given is not None and (whole or not names):
        split.check_against(source)
    if not names:
        if not split.file_bytes:  # of an older version: it knows its data only as a whole
            _refuse_what_may_be_its_own(card, source, fingerprint)
        return None
    fold = split.fold(card.provenance.fold if card.provenance.fold in split.folds else None)
    train, val = _of_sides(source, fold, names)
    named = "/".join((given or place.parent).resolve().parts[-2:])  # into the card: a model travels, its place does not
    origin = f"training and validation side of {named}"
    return train, val, origin if whole else f"{origin}, which lists {len(names)} of the {len(source)} records given"


def _in_turn(source: Source) -> Chosen:
    named = source.root.resolve().name
    origin = f"other data than the model's own ({source.dataset}, {named}), record by record in turn"
    return source.records[::2], source.records[1::2], origin


def _of_sides(
    source: Source, fold: Fold, names: Mapping[str, Sequence[str]]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Training and validation records, in the order of the split, without any that may be for testing."""
    testing = set(fold.test)
    known = {
        name: record
        for record in source.records
        for name in names.get(record.name, ())
        if testing.isdisjoint(names[record.name])
    }
    train, val = (dict.fromkeys(known[name] for name in side if name in known) for side in (fold.train, fold.val))
    return tuple(train), tuple(val)


def _refuse_what_may_be_its_own(card: ModelCard, source: Source, fingerprint: str) -> None:
    """Raise `UserError` where records may be of the model's own data and nothing says which of them are for testing."""
    made = card.provenance
    mend = "give it with --split FILE: it is split.yaml of the run that made the model"
    if made.data_fingerprint == fingerprint:
        raise UserError(
            "this is the data that the model was trained on, but the split that says which records are for testing is "
            "not beside the model",
            where=str(source.root),
            mend=mend,
        )
    if known := records_of_groups(source, made.dataset, made.groups):
        raise UserError(
            f"{len(known)} of these {len(source)} records are of groups of the same names as the model was trained on "
            f"(first {known[0].group}), but the split that says which records are for testing is not beside the model",
            where=str(source.root),
            mend=f"{mend}; if these are other frames, divide them (`trocar split`) and give that file",
        )


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


def _evenly(records: Sequence[Record], most: int) -> tuple[Record, ...]:
    step = max(1, len(records) / most)
    return tuple(records[int(index * step)] for index in range(min(len(records), most)))


def _never() -> NoReturn:
    raise AssertionError("nothing is opened here")
