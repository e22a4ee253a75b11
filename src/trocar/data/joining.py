"""Several sources as one: `open_data` gives what a recipe names, whether it is one folder or several sources.

Names and groups of a joined source begin with the name that the recipe gives to their source (`rigid/OP1/img_01`);
masks hold the recipe's common classes. Nothing is read here but lists of files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trocar.config import BACKGROUND, IGNORED, INSTRUMENT, DataSettings, nearest
from trocar.data.records import IGNORE, SIDES, MaskArray, Record, Side, Source
from trocar.data.sources import open_source
from trocar.errors import UserError, UserErrors

Table = tuple[int, ...]  # common class of each of a source's classes


def open_data(settings: DataSettings) -> Source:
    """The data that settings name: `source`, or all `sources` joined. Raises `UserErrors` with all that is wrong."""
    if settings.sources:
        return join(open_parts(settings), settings)
    if settings.source is None:
        raise UserError("no data is named", mend="give --data FOLDER, or data.source in the recipe")
    return open_source(settings.source, settings)


def open_parts(settings: DataSettings) -> list[Source]:
    """Each of several sources by itself, with names, groups and classes as in the joined one."""
    parts, problems = [], []
    for name, one in settings.sources.items():
        try:
            source = open_source(one.source, settings.of(name))
            parts.append(_as_part(name, source, settings))
        except UserError as error:
            several = error.errors if isinstance(error, UserErrors) else [error]
            problems += [_of_source(name, each) for each in several]
    problems += [
        UserError(
            f"data.exclude names {name}, which begins with the name of no source",
            mend=f"give SOURCE/RECORD as `trocar check --json` lists them; sources: {', '.join(settings.sources)}",
        )
        for name in settings.exclude
        if name.partition("/")[0] not in settings.sources
    ]
    if problems:
        raise UserErrors(problems)
    return parts


def join(parts: Sequence[Source], settings: DataSettings) -> Source:
    """The parts as one source. Official lists are joined where every source that is judged has them."""
    names = list(settings.sources)
    told = [f"{name}: {note}" for name, part in zip(names, parts, strict=True) for note in part.notes]
    official, lists = _official(parts, settings)
    return Source(
        dataset=" + ".join(dict.fromkeys(part.dataset for part in parts)),
        root=_common_folder([part.root for part in parts]),
        classes=settings.common_classes,
        records=tuple(record for part in parts for record in part.records),
        official=official,
        mask_encoding="; ".join(
            f"{name}: {part.mask_encoding}" for name, part in zip(names, parts, strict=True) if part.mask_encoding
        ),
        notes=(*_notes(parts, settings), *lists, *told),
        findings=tuple(finding for part in parts for finding in part.findings),
        settings=rooted(settings),
    )


def rooted(settings: DataSettings) -> DataSettings:
    """The settings with absolute paths, so that the data can be opened from anywhere."""
    sources = {
        name: one.model_copy(update={"source": str(Path(one.source).expanduser().resolve())})
        for name, one in settings.sources.items()
    }
    source = None if settings.source is None else str(Path(settings.source).expanduser().resolve())
    return settings.model_copy(update={"source": source, "sources": sources})


# ------------------------------------------------------------------ one source


def _as_part(name: str, source: Source, settings: DataSettings) -> Source:
    """A source as it stands in the joined one. Raises `UserErrors` for every class without a common one."""
    one = settings.sources[name]
    table = _table(name, source, settings)
    records = tuple(
        dataclasses.replace(
            record,
            name=f"{name}/{record.name}",
            group=f"{name}/{record.group}",
            mask=record.mask if _changes_nothing(table) else partial(_translate, record.mask, table),
            instances=_instances(record, table),
            source=name,
            weight=one.weight,
            train_only=one.side == "train",
        )
        for record in source.records
    )
    return dataclasses.replace(
        source,
        records=records,
        classes=settings.common_classes,
        findings=tuple(_of_source(name, finding) for finding in source.findings),
        official=source.official
        and {side: tuple(f"{name}/{one}" for one in listed) for side, listed in source.official.items()},
    )


def _table(name: str, source: Source, settings: DataSettings) -> Table:
    common, given = settings.common_classes, settings.sources[name].classes
    key = f"data.sources.{name}.classes"
    problems = [_unknown(theirs, source, key) for theirs in given if theirs not in source.classes]
    ours = [_ours(theirs, given, settings) for theirs in source.classes[1:]]
    if missing := [theirs for theirs, found in zip(source.classes[1:], ours, strict=True) if found is None]:
        problems.append(
            UserError(
                f"{len(missing)} classes have no common class: {', '.join(missing)}",
                where=str(source.root),
                mend=f"give each in {key}, as {{{missing[0]}: {common[-1]}}}: one of {', '.join((*common, IGNORED))}",
            )
        )
    if problems:
        raise UserErrors(problems)
    return (0, *(IGNORE if name == IGNORED else common.index(name or BACKGROUND) for name in ours))


def _ours(theirs: str, given: Mapping[str, str], settings: DataSettings) -> str | None:
    """The common class of one of a source's; None where the recipe does not say."""
    if theirs in given:
        return given[theirs]
    if settings.target == "instrument":
        return INSTRUMENT
    return theirs if theirs in settings.classes else None


def _unknown(theirs: str, source: Source, key: str) -> UserError:
    near = nearest(theirs, source.classes)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(source.classes[1:])}"
    return UserError(f"{key} names {theirs}, which is no class of it", where=str(source.root), mend=hint)


def _of_source(name: str, error: UserError) -> UserError:
    return UserError(f"source {name}: {error.what}", where=error.where, mend=error.mend)


def _changes_nothing(table: Table) -> bool:
    return table == tuple(range(len(table)))


def _translate(read: Callable[[], MaskArray], table: Table) -> MaskArray:
    """The mask in common classes; 255 stays. Shapes: -> (H, W)."""
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[: len(table)] = table
    return lookup[read()]


def _instances(record: Record, table: Table) -> Callable[[], MaskArray] | None:
    """The record's instances without those of classes that are not learnt."""
    if record.instances is None or not ({0, IGNORE} & set(table[1:])):
        return record.instances
    return partial(_instances_left, record.instances, record.mask, table)


def _instances_left(read: Callable[[], MaskArray], mask: Callable[[], MaskArray], table: Table) -> MaskArray:
    classes = _translate(mask, table)
    return np.where((classes == 0) | (classes == IGNORE), np.uint8(0), read()).astype(np.uint8)


# ------------------------------------------------------------------ all of them


def _official(
    parts: Sequence[Source], settings: DataSettings
) -> tuple[dict[Side, tuple[str, ...]] | None, tuple[str, ...]]:
    """The joined lists of the sources that are judged, and what to say of them.

    Where only some have a validation list, its records go back to training: validation is then drawn from all alike.
    """
    judged = {
        name: part for (name, one), part in zip(settings.sources.items(), parts, strict=True) if one.side != "train"
    }
    with_lists = {name: part.official for name, part in judged.items() if part.official is not None}
    if not with_lists:
        return None, ()
    if without := [name for name in judged if name not in with_lists]:
        return None, (f"there is no joined official split: {', '.join(without)} has none",)
    joined: dict[Side, tuple[str, ...]] = {
        side: tuple(name for lists in with_lists.values() for name in lists.get(side, ())) for side in SIDES
    }
    no_val = [name for name, lists in with_lists.items() if not lists.get("val")]
    if joined["val"] and no_val:
        joined["train"], joined["val"] = joined["train"] + joined["val"], ()
        return joined, (f"official validation lists are not used: {', '.join(no_val)} has none",)
    return joined, ()


def _notes(parts: Sequence[Source], settings: DataSettings) -> Iterator[str]:
    for (name, one), part in zip(settings.sources.items(), parts, strict=True):
        only = ", for training only" if one.side == "train" else ""
        weight = f", weight {one.weight:g}" if one.weight != 1 else ""
        yield f"{name}: {len(part)} records in {len(part.groups)} groups of {part.dataset}{only}{weight}"


def _common_folder(roots: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([root.resolve() for root in roots]))
    except ValueError:  # on several drives
        return roots[0]
