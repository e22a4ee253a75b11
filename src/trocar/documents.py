"""Text, JSON and YAML that others wrote, read whole: every way in which that goes wrong becomes a `UserError`.

Beyond what the parsers themselves refuse: pipes and devices, which may never end; files too large for any text;
nesting so deep that a parser, or whoever walks the tree, runs out of stack (libyaml's crashes the process); YAML whose
aliases unfold to more than memory holds; halves of characters, which can be written nowhere.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from trocar.errors import UserError

MAX_BYTES = 2**30  # of one text
_DEEPEST = 100  # brackets inside brackets
_MOST_NODES = 10**7  # of a YAML tree with its aliases unfolded
_TOO_DEEP = f"it is nested more than {_DEEPEST} deep"
# Beside its own errors PyYAML raises what Python does with impossible dates, numbers and keys.
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse_what_is_no_file(path: Path) -> None:
    """Raise an `OSError` for what is missing, and for what is no plain file: reading a pipe or a device may not end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "it is a directory, not a file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(22, "it is a pipe or a device, not a file", str(path))


def read_text(path: Path, what: str, mend: str) -> str:
    """The text of a file, UTF-8 with or without a mark at its beginning. `what` it is stands in the messages."""
    try:
        refuse_what_is_no_file(path)
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{what}: more than {MAX_BYTES >> 20} MiB in one file", where=str(path), mend=mend)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no path
        raise UserError(f"cannot read {what}: {reason(error)}", where=str(path), mend=mend) from None


def reason(error: Exception) -> str:
    """Why, in one line; without the number and the path that an `OSError` repeats."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return " ".join(str(words).split())


def read_json(path: Path, what: str, mend: str) -> Any:
    """The document of a JSON file."""
    text = read_text(path, what, mend)
    try:
        document = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
        refuse_depth(document)
        return document
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {what}, it is no JSON: {reason(error)}", where=str(path), mend=mend) from None


def read_yaml(path: Path, what: str, mend: str) -> Any:
    """The document of a YAML file; JSON is YAML. Nothing but plain data is made."""
    text = read_text(path, what, mend)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UserError(f"cannot read {what}, it is no YAML: {reason(error)}", where=str(path), mend=mend) from None


def parse_yaml(text: str) -> Any:
    """The document of a text. Raises `ValueError` for all that is wrong with it."""
    try:
        _refuse_events(text)
        document = yaml.load(text, Loader=_LOADER)
        refuse_depth(document, most=_MOST_NODES)
        if "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False, default=str).encode()
        return document
    except _YAML_FAULTS as error:
        raise ValueError(reason(error)) from None


def _refuse_events(text: str) -> None:
    """Raise `ValueError` for what must not reach libyaml's loader: it recurses, and unfolds merges into memory."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(_TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise ValueError("merging by << is not read: write the keys out")


def refuse_depth(document: Any, *, most: int | None = None) -> None:
    """Raise `ValueError` where a tree is deeper than any of ours, or has more than `most` nodes."""
    level, nodes = [document], 0
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for node in level:
            below += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            if most is not None and nodes + len(below) > most:
                raise ValueError("its aliases unfold to more than memory holds")
        nodes += len(below)
        level = [node for node in below if isinstance(node, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
