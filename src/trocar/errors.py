"""The one kind of error a person can mend, and how it reads.

Everything else that is raised is a defect of trocar and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LONGEST = 2000  # characters of one part of a message


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and how to mend it.

    `str()` of it is the message of the command line: a line `what`, then the lines `where:` and `mend:` if given.
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        what, where, mend = legible(what), where and legible(where), mend and legible(mend)
        super().__init__(what, where, mend)  # all three, so that pickling (worker processes) keeps them
        self.what, self.where, self.mend = what, where, mend

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.where, self.mend)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON, for `--json`."""
        return {"what": self.what, "where": self.where, "mend": self.mend}


class UserErrors(UserError):
    """Several errors found in one pass, so that a person mends them in one go."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        assert errors, "an empty list of errors is no error"
        super().__init__(f"{len(errors)} problems" if len(errors) > 1 else errors[0].what)
        self.errors = list(errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return UserErrors, (self.errors,)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    def as_dict(self) -> dict[str, Any]:
        """All errors as JSON."""
        return {"what": self.what, "errors": [error.as_dict() for error in self.errors]}


def legible(text: str) -> str:
    """The text as any terminal and file can take it: names from files may hold what commands a terminal, or no text."""
    shown = text[:_LONGEST]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)
        shown = shown[:_LONGEST]
    return shown if len(text) <= _LONGEST else f"{shown}... (of {len(text)} characters)"


def _rebuild(kind: type[UserError], what: str, where: str | None, mend: str | None) -> UserError:
    return kind(what, where=where, mend=mend)
