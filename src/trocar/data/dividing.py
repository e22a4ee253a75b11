"""Which records of a source train, choose and judge, as settings say: the drawing behind `splits.make_split`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trocar.config import SplitSettings
from trocar.data.balance import Amounts, deal_groups
from trocar.data.records import Record, Source
from trocar.errors import UserError

Worth = Mapping[str, Amounts]  # of each record, by name, what a side gets with it: see `balance.worth_of`


class Division(NamedTuple):
    """The records of each side of one fold."""

    train: list[Record]
    val: list[Record]
    test: list[Record]


def divide(
    source: Source, settings: SplitSettings, worth: Worth | None = None, *, tails: Source | None = None
) -> dict[str, Division]:
    """Every fold by name; with `worth`, what is drawn by group is balanced by it.

    `tails` is the source before groups were joined: a tail is cut of each of its groups, as time runs in them alone.
    Raises `UserError` where the data cannot be divided so.
    """
    if settings.strategy == "official" and source.official and source.official.get("val"):
        lists = source.official
        return {"official": Division(*(source.select(lists[side]) for side in ("train", "val", "test")))}
    own_groups = {record.name: record.group for record in (tails or source).records}
    return {
        name: Division(*_take_validation(rest, settings, worth, own_groups), test)
        for name, rest, test in _held_out(source, settings, worth)
    }


def _held_out(
    source: Source, settings: SplitSettings, worth: Worth | None
) -> Iterator[tuple[str, list[Record], list[Record]]]:
    """Per fold: its name, the records left for training and validation, and those of the test."""
    if settings.strategy == "official":
        if source.official is None:
            raise UserError(
                "the data comes without an official split",
                where=str(source.root),
                mend="choose split.strategy leave-one-group-out, k-fold or random-groups",
            )
        yield "official", source.select(source.official["train"]), source.select(source.official["test"])
        return
    if settings.strategy == "random-records":
        yield "random-records", *_draw_records(source.records, settings.test_share, settings.seed)
        return
    for name, held_out in _groups_held_out(source, settings, worth).items():
        rest = [record for record in source.records if record.group not in held_out]
        yield name, rest, [record for record in source.records if record.group in held_out]


def _groups_held_out(source: Source, settings: SplitSettings, worth: Worth | None) -> dict[str, set[str]]:
    """Per fold: the groups of its test."""
    groups = source.groups
    if len(groups) < 2:
        raise UserError(
            f"all {len(source)} records are of one group, {next(iter(groups), 'none')}: nothing can be held out",
            where=str(source.root),
            mend="put the images of each patient or video in a folder of its own (data.group_by=folder), or, where "
            "every image is of another patient, set data.group_by=none",
        )
    if settings.strategy == "leave-one-group-out":
        return {name: {name} for name in groups}
    if settings.strategy == "k-fold":
        count = settings.folds
        if len(groups) < count:
            raise UserError(
                f"{len(groups)} groups cannot make {count} folds",
                where=str(source.root),
                mend=f"set split.folds={len(groups)} or less",
            )
        dealt = deal_groups(groups, [1 / count] * count, settings.seed, worth)
        return {f"{number}of{count}": held_out for number, held_out in enumerate(dealt, start=1)}
    drawn = _draw_groups(groups, settings.test_share, settings.seed, worth) if settings.test_share else set()
    return {"random-groups": drawn}


def _take_validation(
    records: Sequence[Record], settings: SplitSettings, worth: Worth | None, own_groups: Mapping[str, str]
) -> tuple[list[Record], list[Record]]:
    if settings.val_from in ("random-records", "leaked-records"):
        rest, val = _draw_records(records, settings.val_share, settings.seed + 1)
        return (rest if settings.val_from == "random-records" else list(records)), val
    groups: dict[str, list[Record]] = {}
    for record in records:
        group = own_groups[record.name] if settings.val_from == "tail" else record.group
        groups.setdefault(group, []).append(record)
    if settings.val_from == "groups":
        if len(groups) < 2:
            return list(records), []
        val_groups = _draw_groups(groups, settings.val_share, settings.seed + 1, worth)
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


def _draw_groups(groups: Mapping[str, Sequence[Record]], share: float, seed: int, worth: Worth | None) -> set[str]:
    """Whole groups, drawn by the seed until they hold about this share of the records; never all groups."""
    if worth is not None:
        return deal_groups(groups, (share, 1 - share), seed, worth)[0]
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
