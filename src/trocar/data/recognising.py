"""Which records a model has met before, where the data is not whole the data it was trained on.

A part of that data, a copy of it, or a folder around it has another fingerprint and other names. With the split at
hand its records are recognised one by one; without it there are only the names of the groups trained on.
"""

from __future__ import annotations

from collections.abc import Iterable

from trocar.data.records import Record, Source
from trocar.data.splits import Split, file_bytes


def records_in_split(split: Split, source: Source, fingerprint: str | None = None) -> dict[str, tuple[str, ...]]:
    """By record, the names it has in the split; records that are not in it are left out.

    A record is one of the split's where one's name ends with the other's, folder by folder, and their images have the
    same number of bytes: masks may have been mended since. Where several of the split's are like it, those count whose
    masks have the same number of bytes too, if any. A split that holds no sizes knows its own data only as a whole.
    `fingerprint` is that of the source, where it is known already.
    """
    if split.fingerprint == (fingerprint or source.fingerprint()):
        return {record.name: (record.name,) for record in source.records}
    listed: dict[tuple[str, str], list[str]] = {}
    for name, sizes in split.file_bytes.items():
        listed.setdefault((_last(name), _image(sizes)), []).append(name)
    found = {}
    for record in source.records:
        sizes = file_bytes(record)
        alike = [name for name in listed.get((_last(record.name), _image(sizes)), ()) if _ends_alike(name, record.name)]
        same = [name for name in alike if split.file_bytes[name] == sizes]
        if alike:
            found[record.name] = tuple(same or alike)
    return found


def records_of_groups(source: Source, dataset: str, groups: Iterable[str]) -> list[Record]:
    """Records that may be among those of `groups` of `dataset`, as names tell; none where that is data of another kind.

    `OP1` is `rigid/OP1` too: data of several sources, and a folder around them, put a name before it.
    """
    if not set(dataset.split(" + ")) & set(source.dataset.split(" + ")):
        return []
    groups = tuple(groups)
    own = {group: any(_ends_alike(group, one) for one in groups) for group in source.groups}
    return [record for record in source.records if own[record.group]]


def _ends_alike(one: str, other: str) -> bool:
    return one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _image(sizes: str) -> str:
    """Bytes of the image: it is the first of a record's files."""
    return sizes.partition("+")[0]
