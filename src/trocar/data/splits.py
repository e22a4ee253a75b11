"""Which records train, which choose, which judge: made once, written to a text file, checked whenever used.

A split file is YAML: the strategy and seed that made it, the data's fingerprint, the group of every record, and for
every fold the record names of train, val and test. A group on two sides, or a record on two sides, is refused unless
the file declares it (`cut_groups`, `shared_records`), and reports repeat what is declared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from trocar.config import Settings, SplitSettings
from trocar.data.balance import Amounts, worth_of
from trocar.data.dividing import divide
from trocar.data.files import atomic_write_text
from trocar.data.records import SIDES, Record, Side, Source, size_of
from trocar.documents import read_yaml
from trocar.errors import UserError, UserErrors


class Fold(Settings):
    """Record names of each side of one fold. A record may be on no side (a gap between training and validation)."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def side(self, side: Side) -> tuple[str, ...]:
        """Record names of one side."""
        names: tuple[str, ...] = getattr(self, side)
        return names


class Split(Settings):
    """A division of one source's records, whole: what made it, what it covers, what it declares."""

    format: Literal[1] = 1
    strategy: str
    seed: int | None = None
    fingerprint: str = Field(description="of the data it was made from (`Source.fingerprint`)")
    cut_groups: str | None = Field(None, description="why records of one group stand on two sides; null: none do")
    shared_records: str | None = Field(None, description="why records stand on two sides (a leak); null: none do")
    notes: tuple[str, ...] = ()
    file_bytes: Mapping[str, str] = Field(
        {}, description="sizes of each record's files, to name what changed; files of older versions lack it"
    )
    groups: Mapping[str, tuple[str, ...]] = Field(description="record names of each group")
    folds: Mapping[str, Fold]

    @model_validator(mode="after")
    def _declares_what_it_does(self) -> Split:
        for name, fold in self.folds.items():
            if self.shared_records is None and (shared := _on_two_sides(fold)):
                raise ValueError(
                    f"fold {name} has {len(shared)} records on two sides, first {shared[0]}; "
                    "if that is meant, say why under `shared_records`"
                )
            if self.cut_groups is None and (cut := _cut_groups(self.groups, fold)):
                raise ValueError(
                    f"fold {name} has group {cut[0]} on two sides; if that is meant, say why under `cut_groups`"
                )
        return self

    def fold(self, name: str | None = None) -> Fold:
        """The fold of this name, or the only one. Raises `UserError` where the choice is open or unknown."""
        names = ", ".join(self.folds)
        if name is None and len(self.folds) > 1:
            raise UserError("the split has several folds", where=names, mend="name one with --fold, or --fold all")
        if name is None:
            return next(iter(self.folds.values()))
        if name not in self.folds:
            raise UserError(f"the split has no fold {name}", mend=f"choose one of: {names}")
        return self.folds[name]

    def own_fingerprint(self) -> str:
        """SHA-256 over what the split says, notes and file sizes aside: two that divide alike have the same one."""
        tree = self.model_dump(mode="json", exclude={"notes", "file_bytes"})
        return f"sha256:{hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()}"

    def check_against(self, source: Source) -> None:
        """Refuse data other than the split was made from: records gone, added, of other files or in other groups.

        And a split that judges by records that their source declares to be for training only.
        """
        self._refuse_train_only(source)
        if self.fingerprint == source.fingerprint():
            return
        raise UserError(
            f"the split was made from other data: {'; '.join(self._changes(source))}",
            where=str(source.root),
            mend="use the data the split was made from, or make a new split",
        )

    def _refuse_train_only(self, source: Source) -> None:
        spare = {record.name: record.source for record in source.records if record.train_only}
        judging = [n for fold in self.folds.values() for side in ("val", "test") for n in fold.side(side) if n in spare]
        if judging:
            raise UserError(
                f"the split has {len(judging)} records of {spare[judging[0]]} in val or test ({_first(judging)}), "
                "a source that is for training only",
                mend=f"make a new split, or set data.sources.{spare[judging[0]]}.side=all",
            )

    def _changes(self, source: Source) -> list[str]:
        known = {record.name: file_bytes(record) for record in source.records}
        of_record = {name: group for group, names in self.groups.items() for name in names}
        listed = of_record.keys() | {name for fold in self.folds.values() for side in SIDES for name in fold.side(side)}
        gone, more = sorted(listed - known.keys()), sorted(known.keys() - of_record.keys())
        other = [name for name, text in known.items() if name in self.file_bytes and self.file_bytes[name] != text]
        moved = [
            record.name
            for records in source.groups.values()
            for record in records
            if of_record.get(record.name) != of_record.get(records[0].name) and record.name in of_record
        ]
        facts = [f"{len(gone)} of its records are gone ({_first(gone)})"] if gone else []
        facts += [f"{len(more)} records are not in it ({_first(more)})"] if more else []
        if other:
            sizes = f"{other[0]} had {self.file_bytes[other[0]]} bytes and has {known[other[0]]}"
            facts.append(f"{len(other)} records have files of other sizes ({_first(other)}: {sizes})")
        facts += [f"{len(moved)} records are in other groups ({_first(moved)})"] if moved else []
        return facts or ["the same records, but other files, sizes of files, groups or frame numbers"]


def make_split(
    source: Source,
    settings: SplitSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
    remember: bool = False,
) -> Split:
    """Divide a source's records as settings say. Raises `UserError` where the data cannot be divided so.

    Pixels are read only where settings ask for balanced sides or for near-duplicates to stay together; `remember`
    takes what `trocar check` found out before, and keeps what is new.
    """
    if settings.strategy == "file":
        assert settings.file is not None
        split = read_split(Path(settings.file))
        split.check_against(source)
        return split
    grouped, worth, notes = _look_at_records(source, settings, progress, remember)
    folds: dict[str, Fold] = {}
    leaked = 0
    spare = [record for record in grouped.records if record.train_only]
    judged = dataclasses.replace(grouped, records=tuple(r for r in grouped.records if not r.train_only))
    apart = 0
    for name, (train, val, test) in divide(judged, settings, worth, tails=source).items():
        held_out = {record.group for record in (*val, *test)}
        added = [record for record in spare if record.group not in held_out]
        apart += len(spare) - len(added)
        train = [*train, *added]
        if not train or not val:
            raise UserError(
                f"fold {name} would have {len(train)} training and {len(val)} validation records",
                where=f"{len(source)} records in {len(grouped.groups)} groups, {source.root}",
                mend="split.val_from=tail cuts groups in time order; or change split.val_share; or label more groups",
            )
        leaked += len({record.name for record in train} & {record.name for record in val})
        folds[name] = Fold(train=_names(train), val=_names(val), test=_names(test))
    groups = {group: _names(records) for group, records in grouped.groups.items()}
    if spare:
        only = ", ".join(dict.fromkeys(record.source for record in spare))
        notes = (*notes, f"for training only: {only}, {len(spare)} records")
    if apart:  # groups were joined: they hold near-duplicates of what is judged
        notes = (*notes, f"of them {apart}, over all folds, stand on no side: their group is held out")
    return Split(
        strategy=settings.strategy,
        seed=settings.seed if _is_drawn(settings) else None,
        fingerprint=source.fingerprint(),
        cut_groups=_why_cut(sorted({cut for fold in folds.values() for cut in _cut_groups(groups, fold)}), settings),
        shared_records=f"the {leaked} validation records are training records too, as in the notebook: their figures "
        "are training figures"
        if leaked
        else None,
        notes=(*grouped.notes, *notes),
        file_bytes={record.name: text for record in source.records if (text := file_bytes(record))},
        groups=groups,
        folds=folds,
    )


def _look_at_records(
    source: Source, settings: SplitSettings, progress: Callable[[int, int], None] | None, remember: bool
) -> tuple[Source, dict[str, Amounts] | None, tuple[str, ...]]:
    """The source with joined groups, the worth of each record, what to say of both: as far as they are asked for."""
    notes: tuple[str, ...] = ("near-duplicates were not looked for: they may stand on two sides",)
    if not (settings.stratify or settings.join_near_duplicates):
        return source, None, notes
    from trocar.data import alike  # scipy, which a training without these settings does without

    facts = alike.read_facts(source, progress=progress, remember=remember)
    alike.refuse_faults(facts)
    grouped = source
    if settings.join_near_duplicates:
        grouped, notes = alike.join_groups(source, facts)
    if not settings.stratify:
        return grouped, None, notes
    words = "drawn groups are balanced by number of records, foreground share and classes"
    return grouped, worth_of(source, facts), (*notes, words)


def _is_drawn(settings: SplitSettings) -> bool:
    return settings.strategy in ("random-groups", "random-records", "k-fold") or settings.val_from not in (
        "tail",
        "every-sixth",
    )


def _why_cut(cuts: Sequence[str], settings: SplitSettings) -> str | None:
    """Why groups stand on two sides; None where none does."""
    if not cuts:
        return None
    if settings.strategy == "random-records":
        return f"test records are drawn one by one (seed {settings.seed}), whatever their groups"
    reasons = {
        "random-records": f"validation is drawn record by record (seed {settings.seed + 1}), whatever the groups",
        "leaked-records": "validation records are training records",
        "tail": f"validation is the last {settings.val_share:.0%} of each training group in time order"
        + (f", after a gap of {settings.gap_frames} frames of video" if settings.gap_frames else ""),
        "every-sixth": "validation is every sixth training record by name",
    }
    reason = [reasons[settings.val_from]] if settings.val_from in reasons else []
    if settings.strategy == "official":
        reason.insert(0, f"the official lists put {len(cuts)} groups on two sides, the first {cuts[0]}")
    return "; ".join(reason)


def write_split(split: Split, path: Path) -> None:
    """Write a split as YAML, atomically."""
    head = "# A trocar split: which records train, choose (val) and judge (test). Edit by hand if you must.\n"
    tree = split.model_dump(mode="json")
    atomic_write_text(path, head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def read_split(path: Path) -> Split:
    """Read and check a split file. Raises `UserError` with what is wrong in it."""
    tree = read_yaml(path, "the split", mend="give a split file")
    try:
        return Split.model_validate(tree)
    except ValidationError as error:
        problems = [
            UserError(
                f"{'.'.join(str(part) for part in detail['loc']) or 'split'}: "
                + str(detail["msg"]).removeprefix("Value error, "),
                where=str(path),
                mend="mend the file, or make a new split",
            )
            for detail in error.errors()
        ]
        raise UserErrors(problems) from None


def _cut_groups(groups: Mapping[str, Sequence[str]], fold: Fold) -> list[str]:
    """Names of the groups that stand on two sides."""
    of_record = {record: group for group, records in groups.items() for record in records}
    sides = [{of_record[name] for name in fold.side(side) if name in of_record} for side in SIDES]
    return sorted((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))


def _on_two_sides(fold: Fold) -> list[str]:
    train, val, test = (set(fold.side(side)) for side in SIDES)
    return sorted((train & val) | (train & test) | (val & test))


def file_bytes(record: Record) -> str:
    """Sizes of a record's files in their order, joined by +, as 48123+3204; -1 for one that is missing."""
    return "+".join(str(size_of(path)) for path in record.files)


def _first(names: Sequence[str], most: int = 3) -> str:
    return f"first {', '.join(names[:most])}"


def _names(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(record.name for record in records)
