"""Settings by dotted key: which there are, what they mean, their defaults, and which is meant by a misspelt one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from trocar.config.base import Settings


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known words most like `word`: by spelling of the whole dotted key, then of its last part."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=count, cutoff=0.75)
    leaf = word.rpartition(".")[2]
    by_leaf = {key.rpartition(".")[2]: key for key in reversed(known)}
    near += [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=count, cutoff=0.7)]
    return list(dict.fromkeys(near))[:count]


def known_keys(kind: type[BaseModel]) -> dict[str, str]:
    """Every dotted key of a settings tree with its description."""
    keys: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        child = _settings_of(field.annotation)
        if child is None:
            keys[name] = field.description or ""
        else:
            keys |= {f"{name}.{sub}": text for sub, text in known_keys(child).items()}
        if (entry := _settings_by_name(field.annotation)) is not None:
            keys |= {f"{name}.NAME.{sub}": text for sub, text in known_keys(entry).items()}
    return keys


def default_of(kind: type[BaseModel], key: str) -> Any:
    """The default of a dotted key of `known_keys`, as plain data; an ellipsis where it must be given."""
    name, _, rest = key.partition(".")
    field = kind.model_fields[name]
    if rest:
        child = _settings_of(field.annotation)
        if child is not None:
            return default_of(child, rest)
        entry = _settings_by_name(field.annotation)
        assert entry is not None, key
        return default_of(entry, rest.removeprefix("NAME."))
    return ... if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))


def _settings_of(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        found = [_settings_of(arg) for arg in get_args(annotation)]
        return next((child for child in found if child is not None), None)
    return None


def _settings_by_name(annotation: Any) -> type[Settings] | None:
    """The settings that stand in a mapping from names; None where the annotation is no such mapping."""
    return _settings_of(get_args(annotation)[1]) if get_origin(annotation) is Mapping else None


def description_of(kind: type[BaseModel], location: Sequence[str]) -> str | None:
    """What the setting at this place of a tree means; None where it has no description."""
    known = known_keys(kind)
    key = re.sub(r"(^|\.)sources\.[^.]+", r"\1sources.NAME", ".".join(location))
    return known.get(key) or known.get(key.rpartition(".")[0]) or None
