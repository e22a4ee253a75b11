"""Values as JSON can say them, and counts as people do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


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
