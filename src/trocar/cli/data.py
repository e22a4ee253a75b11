"""Verbs around labelled frames: check, split, fetch, convert, and the cache of what is prepared of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from trocar import console
from trocar.cli.ending import leave
from trocar.cli.opening import is_recipe, open_by, open_each, open_records
from trocar.cli.options import (
    SOURCE_HELP,
    DataOverrides,
    Json,
    Overrides,
)
from trocar.config import load_recipe
from trocar.errors import UserError

if TYPE_CHECKING:
    from trocar.data.records import Source


def check(
    sources: Annotated[
        list[Path], Argument(metavar="SOURCE...", help="folders of labelled frames, or recipes that name them")
    ],
    out: Annotated[Path | None, Option(help="write a page with pictures, check.html, and check.json there")] = None,
    pictures: Annotated[bool, Option(help="embed frames (of patients) in the page")] = True,
    cache: Annotated[
        bool, Option(help="do not read again what an earlier check read and has not changed since")
    ] = True,
    overrides: DataOverrides = None,
    json: Json = False,
) -> None:
    """Read every record and say what is wrong with the data and how to mend it. Exit code 1 where it found errors."""
    from trocar.console.check import show_check
    from trocar.data import checks

    opened = [source for path in sources for source in open_each(path, overrides)]
    with console.counting("checking") as progress:
        report = checks.check(opened, progress=progress, remember=cache)
    page = None
    if out is not None:
        from trocar.reporting.doctor import write_check  # draws with matplotlib

        page = write_check(report, opened, out, pictures=pictures)
    if json:
        console.print_json({"page": None if page is None else str(page), **report.to_dict()})
    else:
        show_check(report, page)
    if not report.ok:
        leave(1)


def split(
    source: Annotated[Path, Argument(help=SOURCE_HELP)],
    out: Annotated[
        Path | None, Option(help="split file that is written; with --audit the folder of its page, audit.html")
    ] = None,
    strategy: Annotated[
        Literal["official", "leave-one-group-out", "k-fold", "random-groups", "random-records"] | None,
        Option(help="who is held out for the test; as split.strategy, by default random-groups", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None, Option(metavar="RECIPE", help="divide as this recipe does, instead of by the defaults here")
    ] = None,
    folds: Annotated[int | None, Option(min=2, help="k-fold: number of folds, by default 5")] = None,
    test_share: Annotated[
        float | None, Option(min=0, max=1, help="random-...: share held out, by default 0.2", show_default=False)
    ] = None,
    val_from: Annotated[
        Literal["groups", "tail", "every-sixth", "random-records", "leaked-records"] | None,
        Option(help="where validation comes from, by default whole groups", show_default=False),
    ] = None,
    val_share: Annotated[
        float | None, Option(min=0, max=1, help="share of the rest for validation, by default 0.2", show_default=False)
    ] = None,
    seed: Annotated[int | None, Option(min=0, help="of all that is drawn, by default 0", show_default=False)] = None,
    stratify: Annotated[
        bool | None,
        Option(help="balance sides by foreground share and classes; on, unless a recipe is given", show_default=False),
    ] = None,
    join: Annotated[
        bool | None,
        Option(
            "--join-near-duplicates/--no-join-near-duplicates",
            help="keep near-duplicates on one side; on, unless a recipe is given",
            show_default=False,
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        Option(metavar="FILE", help="measure what leaks in this split, of whatever origin, instead of making one"),
    ] = None,
    pictures: Annotated[bool, Option(help="--audit: embed frames (of patients) in the page")] = True,
    cache: Annotated[bool, Option(help="do not read again what `trocar check` read and has not changed since")] = True,
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Divide records into train, val and test without leaks, or measure the leaks of a split. Exit 1 where it leaks."""
    from trocar.errors import UserErrors

    drawing = {
        "strategy": strategy,
        "folds": folds,
        "test_share": test_share,
        "val_from": val_from,
        "val_share": val_share,
        "seed": seed,
        "stratify": stratify,
        "join_near_duplicates": join,
    }
    given = [f"split.{name}={value}" for name, value in drawing.items() if value is not None]
    if audit is not None and (given or recipe):
        raise UserError("--audit measures a split as it is", mend="leave out the options of how to draw one")
    recipe = recipe or (str(source) if is_recipe(source) else None)
    defaults = [] if recipe else ["split.stratify=true", "split.join_near_duplicates=true"]
    chosen = load_recipe(recipe, [*defaults, *given, *(overrides or [])])
    opened = open_by(source, chosen, overrides)
    if audit is not None:
        _audit(audit, opened, out, pictures=pictures, cache=cache, as_json=json)
        return
    if out is None:
        raise UserError("no file is named for the split", mend="give --out FILE, such as --out split.yaml")
    if opened.findings:
        raise UserErrors(opened.findings)
    from trocar.console.split import show_split
    from trocar.data.splits import make_split, write_split

    with console.counting("reading") as progress:
        made = make_split(opened, chosen.split, progress=progress, remember=cache)
    write_split(made, out)
    if json:
        tree = made.model_dump(mode="json", exclude={"file_bytes"})
        console.print_json({"split": str(out), "own_fingerprint": made.own_fingerprint(), **tree})
    else:
        show_split(made, out)


def _audit(file: Path, source: Source, out: Path | None, *, pictures: bool, cache: bool, as_json: bool) -> None:
    from trocar.console.split import show_audit
    from trocar.data import leakage

    with console.counting("comparing") as progress:
        found = leakage.audit(file, source, progress=progress, remember=cache)
    page = None
    if out is not None:
        from trocar.reporting.audit import write_audit

        page = write_audit(found, source, out, pictures=pictures)
    if as_json:
        console.print_json({"page": None if page is None else str(page), **found.to_dict()})
    else:
        show_audit(found, page)
    if found.leaks:
        leave(1)


def fetch(
    name: Annotated[str | None, Argument(metavar="[NAME]", help="a research set; none: list those known")] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="new folder of the set; default: its name")] = None,
    archive: Annotated[
        Path | None, Option(metavar="FILE", help="unpack this archive, downloaded by other means; no network is used")
    ] = None,
    json: Json = False,
) -> None:
    """Download a research set, check it and lay it out, or say how to get it. Goes online."""
    from trocar.console.fetch import show_fetched, show_known
    from trocar.data import fetching

    if name is None:
        if json:
            console.print_json({"sets": [one.to_dict() for one in fetching.KNOWN]})
        else:
            show_known(fetching.KNOWN)
        return
    with console.Bars() as watcher:
        fetched = fetching.fetch(name, out, archive=archive, watcher=watcher)
    if json:
        console.print_json(fetched.to_dict())
    else:
        show_fetched(fetched)


def convert(
    source: Annotated[Path, Argument(help="folder of labelled frames, in any layout that `trocar check` reads")],
    to: Annotated[
        Literal["coco", "labelme", "cvat", "cvat-masks", "label-studio", "yolo", "png"],
        Option(help="format of the labels that are written"),
    ],
    out: Annotated[Path, Option(help="new folder for images and labels")],
    polygons: Annotated[
        bool, Option("--polygons", help="coco, labelme, cvat: polygons instead of run lengths or PNG masks")
    ] = False,
    link: Annotated[bool, Option("--link", help="hard links to the images instead of copies")] = False,
    overrides: DataOverrides = None,
    json: Json = False,
) -> None:
    """Write labelled frames in the format of an annotation tool. Nothing of the source is changed."""
    from trocar.console.convert import show_converted
    from trocar.data import convert as conversion

    opened = open_records(source, overrides)
    with console.counting("converting") as progress:
        made = conversion.convert(opened, to, out, polygons=polygons, link=link, progress=progress)
    if json:
        console.print_json(made.to_dict())
    else:
        show_converted(made)


def cache(
    action: Annotated[Literal["list", "clear"], Argument(metavar="[list|clear]", help="what to do")] = "list",
    older_than: Annotated[
        float | None, Option(min=0, metavar="DAYS", help="clear: only what was not used for so many days")
    ] = None,
    json: Json = False,
) -> None:
    """List or clear what is kept to save time: prepared frames of trainings, and what checks found out."""
    from trocar import caching
    from trocar.console.cache import show_cache, show_cleared

    if action == "list" and older_than is not None:
        raise UserError("--older-than is an option of clearing", mend=f"trocar cache clear --older-than {older_than:g}")
    found = caching.cache() if action == "list" else caching.clear_cache(older_than)
    if json:
        console.print_json(found.to_dict())
    else:
        (show_cache if action == "list" else show_cleared)(found)
