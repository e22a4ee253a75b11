"""Values as JSON can say them, counts as people do, and some of many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


def without_nan(value: Any) -> Any:
    """The same tree as plain data, with None for every float that JSON cannot say: NaN and the infinities."""
    if isinstance(value, BaseModel):
        return without_nan(value.model_dump(mode="python"))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def none_for_nan(value: float) -> float | None:
    """A number as JSON can say it."""
    return value if math.isfinite(value) else None


def many(count: int, what: str) -> str:
    """A count of things, their name with an s where there is not one."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, the first and the last among them, the others evenly between; in their order."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / max(most - 1, 1))] for place in range(most)]


def some(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
