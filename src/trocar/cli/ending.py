"""How a verb ends: done, or with the error form and exit code 2, or stopped with exit code 130."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from trocar import console
from trocar.errors import UserError
from trocar.stopping import terminated_as_stopped

P = ParamSpec("P")
R = TypeVar("R")


def ending_properly(function: Callable[P, R]) -> Callable[P, R]:
    """A verb that ends with words and an exit code on what a person can mend, and where it is stopped."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with terminated_as_stopped():
                return function(*args, **kwargs)
        except UserError as error:
            console.print_error(error, as_json=bool(kwargs.get("json")))
            leave(2)
        except PermissionError as error:  # wherever it comes from, it is for the user to grant
            told = UserError(
                f"no permission: {error.strerror}", where=str(error.filename), mend="grant it, or choose another place"
            )
            console.print_error(told, as_json=bool(kwargs.get("json")))
            leave(2)
        except KeyboardInterrupt as stopped:
            sys.stderr.write(f"\n{stopped if str(stopped) else 'stopped'}\n")
            leave(130)

    return run


def leave(code: int) -> NoReturn:
    """End the command with this exit code."""
    raise typer.Exit(code)
