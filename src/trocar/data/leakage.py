"""What leaks from one side of a split to another, in a split of whatever origin.

Measured, not believed: records on two sides, groups on two sides, and nearly the same pictures on two sides. A split of
trocar's own declares what it knows of; an audit finds it either way.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.config import nearest
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import SIDES, Side, Source
from trocar.documents import read_text, read_yaml
from trocar.errors import UserError
from trocar.plain import many

if TYPE_CHECKING:
    from trocar.data.alike import Twins

WORDS: Mapping[Side, str] = {"train": "training", "val": "validation", "test": "test"}
PAIRS: tuple[tuple[Side, Side], ...] = (("train", "test"), ("train", "val"), ("val", "test"))  # seen before, judged

_SIDE_OF: Mapping[str, Side] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_RECORD_COLUMNS = ("record", "name", "image", "file", "filename", "id")
_SIDE_COLUMNS = ("side", "split", "set", "subset", "partition")
_EXPECTED = (
    "give a split file of trocar, a folder with train.txt and test.txt, a JSON or YAML file of lists by side, or a CSV "
    "file with the columns record and side"
)


@dataclass(frozen=True)
class Listed:
    """Names as a split lists them, by fold and side, and what it says of itself."""

    folds: Mapping[str, Mapping[Side, tuple[str, ...]]]
    fingerprint: str | None = None
    declares: tuple[str, ...] = ()  # leaks it admits to


@dataclass(frozen=True)
class Twin:
    """A judged record and one of the side seen before that shows nearly the same."""

    judged: str
    seen: str
    alike: float  # correlation of their thumbnails, 0.9 to 1


@dataclass(frozen=True)
class Crossing:
    """What stands on two sides of one fold: `seen` is the side that was learnt or chosen from, `judged` the other."""

    fold: str
    seen: Side
    judged: Side
    frames: int  # records of the judged side
    shared: tuple[str, ...] = ()  # records on both sides
    groups: tuple[str, ...] = ()  # groups on both sides
    of_groups: int = 0  # judged records that are of these groups
    twins: tuple[Twin, ...] = ()  # of judged records that are not shared, those with one; most alike first

    @property
    def leaks(self) -> bool:
        """Whether anything stands on both sides."""
        return bool(self.shared or self.groups or self.twins)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; shares of no frames are None."""
        counts = {"shared": len(self.shared), "near_duplicate": len(self.twins), "group": self.of_groups}
        return {
            **vars(self),
            "shared": list(self.shared),
            "groups": list(self.groups),
            "twins": [vars(twin) for twin in self.twins],
            "shares": {what: count / self.frames if self.frames else None for what, count in counts.items()},
        }


@dataclass(frozen=True)
class Audit:
    """What was found in a split, fold by fold."""

    split: str
    dataset: str
    root: str
    sides: Mapping[str, Mapping[Side, int]]  # fold -> records of each side
    crossings: tuple[Crossing, ...]  # of sides that both have records
    notes: tuple[str, ...]  # what limits the audit, and what is odd about the split, one sentence each

    @property
    def leaks(self) -> tuple[Crossing, ...]:
        """The crossings in which something was found."""
        return tuple(crossing for crossing in self.crossings if crossing.leaks)

    @property
    def findings(self) -> tuple[str, ...]:
        """What was found, one sentence each; empty where nothing leaks."""
        several = len(self.sides) > 1
        return tuple(
            (f"fold {crossing.fold}: " if several else "") + sentence
            for crossing in self.leaks
            for sentence in _in_words(crossing)
        )

    @property
    def verdict(self) -> str:
        """The result in one paragraph."""
        if not self.leaks:
            return "No leak was found: no record, group or near-duplicate stands on two sides."
        tested = sum(crossing.judged == "test" for crossing in self.leaks)
        where = "Scores on the test are too good to be trusted" if tested else "Scores on validation are flattered"
        more = f"; and {len(self.findings) - 3} more" if len(self.findings) > 3 else ""
        return f"This split leaks. {where}: {'; '.join(self.findings[:3])}{more}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "ok": not self.leaks,
            "verdict": self.verdict,
            "findings": list(self.findings),
            **vars(self),
            "sides": {fold: dict(counts) for fold, counts in self.sides.items()},
            "crossings": [crossing.to_dict() for crossing in self.crossings],
            "notes": list(self.notes),
        }


def audit(
    split: Path,
    source: Source,
    *,
    progress: Callable[[int, int], None] | None = None,
    remember: bool = False,
) -> Audit:
    """Measure what leaks between the sides of a split of this data. Reads every image (`remember`: as in a check).

    Raises `UserError` where the file is no split, or lists none of the data's records.
    """
    from trocar.data import alike  # scipy

    listed = read_lists(split)
    folds, notes = _match(listed, source, split)
    facts = alike.read_facts(source, progress=progress, remember=remember)
    unread = sum(fact.picture is None for fact in facts)
    if unread:
        notes.append(f"{unread} images could not be read and were not compared: `trocar check` says why")
    known = alike.groups_known(source)
    if not known:
        notes.append("patients are not known: whether one is on two sides cannot be seen, near-duplicates only")
    if listed.fingerprint not in (None, source.fingerprint()):
        notes.append("the data is not what the split was made from")
    notes += [f"the split itself declares: {text}" for text in listed.declares]
    twins = alike.Twins(facts)
    place = {record.name: number for number, record in enumerate(source.records)}
    crossings = [
        _cross(Crossing(fold, seen, judged, len(sides[judged])), sides, source, place, twins, by_group=known)
        for fold, sides in folds.items()
        for seen, judged in PAIRS
        if sides[seen] and sides[judged]
    ]
    return Audit(
        split=str(split),
        dataset=source.dataset,
        root=str(source.root),
        sides={fold: {side: len(names) for side, names in sides.items()} for fold, sides in folds.items()},
        crossings=tuple(crossings),
        notes=tuple(notes),
    )


def _cross(
    empty: Crossing,
    sides: Mapping[Side, Sequence[str]],
    source: Source,
    place: Mapping[str, int],
    twins: Twins,
    *,
    by_group: bool,
) -> Crossing:
    judged, seen = sides[empty.judged], set(sides[empty.seen])
    group = {name: source.records[place[name]].group for name in (*judged, *seen)}
    groups = {group[name] for name in seen} & {group[name] for name in judged} if by_group else set()
    own = [place[name] for name in judged if name not in seen]
    found = twins.nearest(own, [place[name] for name in sides[empty.seen]])
    return dataclasses.replace(
        empty,
        shared=tuple(name for name in judged if name in seen),
        groups=tuple(sorted(groups)),
        of_groups=sum(group[name] in groups for name in judged),
        twins=tuple(Twin(source.records[i].name, source.records[j].name, round(score, 4)) for i, j, score in found),
    )


def _in_words(crossing: Crossing) -> list[str]:
    judged = f"of {many(crossing.frames, f'{WORDS[crossing.judged]} image')}"
    used = "trained on" if crossing.seen == "train" else "validation images, which the model was chosen by"
    sentences = []
    if crossing.shared:
        sentences.append(f"{len(crossing.shared)} {judged} are {used}")
    if crossing.twins:
        share = f"{len(crossing.twins) / crossing.frames:.1%}"
        sentences.append(f"{len(crossing.twins)} {judged} ({share}) have a near-duplicate in {WORDS[crossing.seen]}")
    if crossing.groups:
        groups = many(len(crossing.groups), "group")
        sentences.append(f"{crossing.of_groups} {judged} are of {groups} that {WORDS[crossing.seen]} has too")
    return sentences


# ------------------------------------------------------------------ reading splits of any origin


def read_lists(path: Path) -> Listed:
    """The names that a split lists, whoever wrote it. Raises `UserError` where it is none.

    A split file of trocar, leaks and all; a folder with train.txt, val.txt and test.txt, a name a line; JSON or YAML
    with lists by side; or CSV with a column of names and one of sides.
    """
    if path.is_dir():
        return _one_fold(path, _read_folder(path))
    if path.suffix.lower() == ".csv":
        return _one_fold(path, _read_csv(path))
    tree = read_yaml(path, "the split", mend=_EXPECTED)
    if not isinstance(tree, dict):
        raise UserError("the file is no split", where=str(path), mend=_EXPECTED)
    if not isinstance(folds := tree.get("folds"), dict):
        return _one_fold(path, _by_side(tree))
    declares = tuple(str(tree[key]) for key in ("shared_records", "cut_groups") if tree.get(key))
    listed = {str(name): _by_side(sides if isinstance(sides, dict) else {}) for name, sides in folds.items()}
    for name, sides in listed.items():
        _refuse_one_side(path, sides, f"fold {name} of {path}")
    return Listed(listed, tree.get("fingerprint"), declares)


def _one_fold(path: Path, sides: dict[Side, tuple[str, ...]]) -> Listed:
    _refuse_one_side(path, sides, str(path))
    return Listed({"the only": sides})


def _refuse_one_side(path: Path, sides: Mapping[Side, tuple[str, ...]], where: str) -> None:
    if sum(bool(names) for names in sides.values()) < 2:
        there = ", ".join(side for side, names in sides.items() if names) or "none"
        raise UserError(
            f"{path.name} lists fewer than two sides of train, val and test ({there})", where=where, mend=_EXPECTED
        )


def _by_side(tree: Mapping[Any, Any]) -> dict[Side, tuple[str, ...]]:
    sides: dict[Side, tuple[str, ...]] = dict.fromkeys(SIDES, ())
    for key, names in tree.items():
        side = _SIDE_OF.get(str(key).lower())
        if side is not None and isinstance(names, list):
            sides[side] += tuple(str(name) for name in names if isinstance(name, str | int))
    return sides


def _read_folder(folder: Path) -> dict[Side, tuple[str, ...]]:
    lists: dict[Any, Any] = {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem.lower() in _SIDE_OF:
            lines = read_text(path, "the list", mend=_EXPECTED).splitlines()
            lists[path.stem] = [line.strip() for line in lines if line.strip()]
    return _by_side(lists)


def _read_csv(path: Path) -> dict[Side, tuple[str, ...]]:
    text = read_text(path, "the split", mend=_EXPECTED)
    try:
        return _by_side(_lists_in(path, text))
    except csv.Error as error:
        raise UserError(f"cannot read the split: {error}", where=str(path), mend=_EXPECTED) from None


def _lists_in(path: Path, text: str) -> dict[Any, list[str]]:
    rows = csv.DictReader(text.splitlines())
    columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    record = next((columns[name] for name in _RECORD_COLUMNS if name in columns), None)
    side = next((columns[name] for name in _SIDE_COLUMNS if name in columns), None)
    if record is None or side is None:
        raise UserError(
            f"the CSV file has no columns of records and sides, but {', '.join(columns) or 'none'}",
            where=str(path),
            mend=f"name them record and side (or {', '.join(_RECORD_COLUMNS[1:])}; {', '.join(_SIDE_COLUMNS[1:])})",
        )
    lists: dict[Any, list[str]] = {}
    for row in rows:
        lists.setdefault((row[side] or "").strip(), []).append((row[record] or "").strip())
    return lists


def _match(listed: Listed, source: Source, path: Path) -> tuple[dict[str, dict[Side, tuple[str, ...]]], list[str]]:
    """The record names that the lists mean, and notes on what does not fit."""
    known = {record.name for record in source.records}
    last = Counter(name.rpartition("/")[2] for name in known)
    by_last = {name.rpartition("/")[2]: name for name in known if last[name.rpartition("/")[2]] == 1}
    unknown: dict[str, None] = {}
    twice: dict[str, None] = {}
    folds: dict[str, dict[Side, tuple[str, ...]]] = {}
    for fold, sides in listed.folds.items():
        folds[fold] = {}
        for side, names in sides.items():
            meant = [_record_meant(name, known, by_last) for name in names]
            unknown |= dict.fromkeys(name for name, record in zip(names, meant, strict=True) if record is None)
            counts = Counter(record for record in meant if record is not None)
            twice |= dict.fromkeys(name for name, count in counts.items() if count > 1)
            folds[fold][side] = tuple(counts)
    used = {name for sides in folds.values() for names in sides.values() for name in names}
    if not used:
        first = next(iter(unknown))
        near = nearest(first, sorted(known))
        raise UserError(
            f"the split lists none of the data's {len(known)} records; its first is {first}",
            where=f"{path}, {source.root}",
            mend=f"names are as `trocar check --json` lists them, such as {(near or sorted(known) or ['none'])[0]}",
        )
    notes = (
        [f"{len(unknown)} names of the split are not in the data, the first {next(iter(unknown))}"] if unknown else []
    )
    notes += [f"{len(twice)} records stand twice on one side, the first {next(iter(twice))}"] if twice else []
    left = sorted(known - used)
    notes += [f"{len(left)} records of the data are on no side, the first {left[0]}"] if left else []
    return folds, notes


def _record_meant(name: str, known: set[str], by_last: Mapping[str, str]) -> str | None:
    """The record of this name, or of its file's; of the last part of a path, where that is enough."""
    plain = name.replace("\\", "/").removeprefix("./")
    stem = plain[: plain.rindex(".")] if plain.lower().endswith(IMAGE_SUFFIXES) else plain
    for text in (name, plain, stem):
        if text in known:
            return text
    return by_last.get(stem.rpartition("/")[2])
