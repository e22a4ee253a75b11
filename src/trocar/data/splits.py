"""Which records train, which choose, which judge: made once, written to a text file, checked whenever used.

A split file is YAML: the strategy and seed that made it, the data's fingerprint, the group of every record, and for
every fold the record names of train, val and test. A group on two sides, or a record on two sides, is refused unless
the file declares it (`cut_groups`, `shared_records`), and reports repeat what is declared.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from trocar.config import Settings, SplitSettings
from trocar.data.files import atomic_write_text
from trocar.data.records import SIDES, Record, Side, Source
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
            if self.cut_groups is None and (cut := self._groups_on_two_sides(fold)):
                raise ValueError(
                    f"fold {name} has group {cut[0]} on two sides; if that is meant, say why under `cut_groups`"
                )
        return self

    def _groups_on_two_sides(self, fold: Fold) -> list[str]:
        of_record = {record: group for group, records in self.groups.items() for record in records}
        sides = [{of_record[name] for name in fold.side(side) if name in of_record} for side in SIDES]
        return sorted((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))

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
        """SHA-256 over what the split says, notes aside: two files that divide alike have the same one."""
        tree = self.model_dump(mode="json", exclude={"notes"})
        return f"sha256:{hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()}"

    def check_against(self, source: Source) -> None:
        """Refuse data other than the split was made from: records gone, added or changed."""
        if self.fingerprint == source.fingerprint():
            return
        known = {record.name for record in source.records}
        listed = {name for fold in self.folds.values() for side in SIDES for name in fold.side(side)}
        gone, more = sorted(listed - known), sorted(known - {n for names in self.groups.values() for n in names})
        facts = [f"{len(gone)} of its records are gone (first {gone[0]})"] if gone else []
        facts += [f"{len(more)} records are not in it (first {more[0]})"] if more else []
        facts += [] if facts else ["the same records, but files of other sizes"]
        raise UserError(
            f"the split was made from other data: {'; '.join(facts)}",
            where=str(source.root),
            mend="use the data the split was made from, or make a new split",
        )


def make_split(source: Source, settings: SplitSettings) -> Split:
    """Divide a source's records as settings say. Raises `UserError` where the data cannot be divided so."""
    if settings.strategy == "file":
        assert settings.file is not None
        split = read_split(Path(settings.file))
        split.check_against(source)
        return split
    cuts: list[str] = []
    leaked = 0
    folds: dict[str, Fold] = {}
    for name, (rest, test) in _held_out(source, settings).items():
        train, val = _take_validation(rest, settings)
        leaked += len({record.name for record in train} & {record.name for record in val})
        if not train or not val:
            raise UserError(
                f"fold {name} would have {len(train)} training and {len(val)} validation records",
                where=f"{len(source)} records in {len(source.groups)} groups, {source.root}",
                mend="split.val_from=tail cuts groups in time order; or change split.val_share; or label more groups",
            )
        folds[name] = Fold(train=_names(train), val=_names(val), test=_names(test))
        sides = [{record.group for record in side} for side in (train, val, test)]
        cuts += sorted((sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2]))
    reason = None
    if cuts and settings.strategy == "random-records":
        reason = f"test records are drawn one by one (seed {settings.seed}), whatever their groups"
    elif cuts:
        reason = {
            "random-records": f"validation is drawn record by record (seed {settings.seed + 1}), whatever the groups",
            "leaked-records": "validation records are training records",
            "tail": f"validation is the last {settings.val_share:.0%} of each training group in time order"
            + (f", after a gap of {settings.gap_frames} frames of video" if settings.gap_frames else ""),
            "every-sixth": "validation is every sixth training record by name",
            "groups": "",
        }[settings.val_from]
    return Split(
        strategy=settings.strategy,
        seed=settings.seed if "random" in settings.strategy or settings.val_from.endswith("-records") else None,
        fingerprint=source.fingerprint(),
        cut_groups=reason,
        shared_records=f"the {leaked} validation records are training records too, as in the notebook: their figures "
        "are training figures"
        if leaked
        else None,
        notes=source.notes,
        groups={group: _names(records) for group, records in source.groups.items()},
        folds=folds,
    )


def write_split(split: Split, path: Path) -> None:
    """Write a split as YAML, atomically."""
    head = "# A trocar split: which records train, choose (val) and judge (test). Edit by hand if you must.\n"
    tree = split.model_dump(mode="json")
    atomic_write_text(path, head + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def read_split(path: Path) -> Split:
    """Read and check a split file. Raises `UserError` with what is wrong in it."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return Split.model_validate(tree)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the split: {error}", where=str(path), mend="give a split file") from None
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


def _held_out(source: Source, settings: SplitSettings) -> dict[str, tuple[list[Record], list[Record]]]:
    """Per fold: the records left for training and validation, and those of the test."""
    records = list(source.records)
    if settings.strategy == "official":
        if source.official is None:
            raise UserError(
                "the data comes without an official split",
                where=str(source.root),
                mend="choose split.strategy leave-one-group-out or random-groups",
            )
        return {"official": (source.select(source.official["train"]), source.select(source.official["test"]))}
    groups = source.groups
    if settings.strategy == "random-records":
        rest, test = _draw_records(records, settings.test_share, settings.seed)
        return {"random-records": (rest, test)}
    if len(groups) < 2:
        raise UserError(
            f"all {len(records)} records are of one group, {next(iter(groups), 'none')}: nothing can be held out",
            where=str(source.root),
            mend="put the images of each patient or video in a folder of its own (data.group_by=folder), or, where "
            "every image is of another patient, set data.group_by=none",
        )
    if settings.strategy == "leave-one-group-out":
        return {
            name: ([record for record in records if record.group != name], members) for name, members in groups.items()
        }
    test_groups = _draw_groups(groups, settings.test_share, settings.seed) if settings.test_share else set()
    return {
        "random-groups": (
            [record for record in records if record.group not in test_groups],
            [record for record in records if record.group in test_groups],
        )
    }


def _take_validation(records: Sequence[Record], settings: SplitSettings) -> tuple[list[Record], list[Record]]:
    if settings.val_from in ("random-records", "leaked-records"):
        rest, val = _draw_records(records, settings.val_share, settings.seed + 1)
        return (rest if settings.val_from == "random-records" else list(records)), val
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    if settings.val_from == "groups":
        if len(groups) < 2:
            return list(records), []
        val_groups = _draw_groups(groups, settings.val_share, settings.seed + 1)
        return (
            [record for record in records if record.group not in val_groups],
            [record for record in records if record.group in val_groups],
        )
    if settings.val_from == "every-sixth":
        by_name = sorted(records, key=lambda record: record.name)
        val = by_name[5::6]
        chosen = {record.name for record in val}
        return [record for record in by_name if record.name not in chosen], val
    train, val = [], []
    for members in groups.values():
        head, tail = _cut_tail(members, settings)
        train += head
        val += tail
    return train, val


def _cut_tail(members: Sequence[Record], settings: SplitSettings) -> tuple[list[Record], list[Record]]:
    """The first part of a group, and its last `val_share`; of a video, `gap_frames` between them are left out."""
    count = round(len(members) * settings.val_share)
    head, tail = list(members[: len(members) - count]), list(members[len(members) - count :])
    if tail and (first := tail[0].frame) is not None:
        head = [record for record in head if record.frame is None or record.frame < first - settings.gap_frames]
    return head, tail


def _draw_records(records: Sequence[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """The records left and those drawn, each in the order of the draw: scikit-learn's train_test_split of this seed."""
    order = np.random.RandomState(seed).permutation(len(records))  # what scikit-learn draws with
    count = math.ceil(share * len(records))
    return [records[index] for index in order[count:]], [records[index] for index in order[:count]]


def _draw_groups(groups: Mapping[str, Sequence[Record]], share: float, seed: int) -> set[str]:
    """Whole groups, drawn by the seed until they hold about this share of the records; never all groups."""
    names = sorted(groups)
    np.random.default_rng(seed).shuffle(names)
    wanted = share * sum(len(members) for members in groups.values())
    drawn: set[str] = set()
    held = 0
    for name in names[:-1]:
        if drawn and held + len(groups[name]) / 2 > wanted:
            break
        drawn.add(name)
        held += len(groups[name])
    return drawn


def _on_two_sides(fold: Fold) -> list[str]:
    train, val, test = (set(fold.side(side)) for side in SIDES)
    return sorted((train & val) | (train & test) | (val & test))


def _names(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(record.name for record in records)
