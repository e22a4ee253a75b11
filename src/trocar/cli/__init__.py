"""The command line: each verb parses, calls the library function of its name, and prints what it made.

Results go to stdout (`--json`: one document and nothing else), progress and errors to stderr. Exit codes: 0 done;
1 `check` found errors or `split --audit` a leak; 2 something the user can mend; 130 Ctrl-C, SIGTERM, SIGHUP.
Heavy imports happen inside the verbs, so that `--help` answers at once.

A verb is a function of a module here (`data`, `training`, `evaluating`, `predicting`, `model_folders`); `VERBS` lists
all of them. How each shows its results is a module of `trocar.console`.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer
from typer import Option

from trocar import __version__, console
from trocar.cli.data import cache, check, convert, fetch, split
from trocar.cli.ending import ending_properly, leave
from trocar.cli.evaluating import compare, evaluate, figures
from trocar.cli.model_folders import convert_keras, export, models
from trocar.cli.predicting import bench, live, predict
from trocar.cli.training import demo, train

VERBS: Final[tuple[Any, ...]] = (  # in the order of --help
    *(check, split, train, evaluate, compare, predict, live, bench),
    *(models, cache, export, figures, fetch, convert, convert_keras, demo),
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a defect keeps Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment medical instruments in endoscopic and surgical images and video. For research, not a medical device.",
)
for _verb in VERBS:
    app.command(name=_verb.__name__.replace("_", "-"))(ending_properly(_verb))


def main() -> None:
    """Entry of the `trocar` command."""
    console.escape_what_cannot_be_printed()
    app()


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, Option("--version", help="print the version and leave")] = False,
) -> None:
    if version:
        sys.stdout.write(f"trocar {__version__}\n")
        leave(0)
