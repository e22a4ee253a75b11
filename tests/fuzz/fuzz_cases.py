"""One case of the fuzz run: spoil a valid input by the number of the case, use it as a user would, see how that ends.

It ends well in an answer, in findings of `trocar check`, or in a `UserError` of STYLE's form. Anything else raised,
warnings of libraries included, is a defect of trocar, and so is an answer that breaks its own contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import fuzz_seeds
import numpy as np
from fuzz_seeds import LAYOUTS, Tree

import mutate
from trocar import comparing
from trocar.config import DataSettings, load_recipe
from trocar.data import convert, fetching, leakage
from trocar.data.checks import check
from trocar.data.files import read_image, read_mask_file, read_reduced_image
from trocar.data.records import IGNORE, Source
from trocar.data.sources import open_source
from trocar.data.sources.labels import image_size_hw
from trocar.data.splits import read_split
from trocar.errors import UserError, UserErrors
from trocar.inference.inputs import gather
from trocar.model_folder import fold_folders, read_card, resolve_model
from trocar.plain import without_nan

ODD_NAMES = (
    "\u0645\u0631\u064a\u0636", "\u60a3\u8005-\u624b\u672f", "\U0001f52a", "e\u0301", "\u00e9", "a\nb", "a\tb",
    "x" * 240,
    "caf\udce9", "\u202eabc", "1\u00b2", "\u0663", " ", "a:b", "a\\b", "-x", "*", "%s", "{}", "[red]", "a'b\"c",
)  # fmt: skip
SUBJECTS = (  # drawn evenly; frames of EndoVis 2017 are large, and take longer than all others
    *[name for name in LAYOUTS for _ in range(1 if name == "endovis17" else 4)],
    *[name for name in fuzz_seeds.OTHERS for _ in range(12 if name == "images" else 4)],
)


def spoil(number: int, seed: int, seeds: Path) -> tuple[str, str, Tree, random.Random]:
    """Subject, what was done to it, the spoilt files, and the source of what else is drawn for the case."""
    rng = random.Random(f"{seed}/{number}")
    subject = rng.choice(SUBJECTS)
    tree = _valid(seeds / subject.replace("/", "+"))
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(_worth_spoiling(tree, rng))
        what, tree[name] = mutate.mutate_often(tree[name], Path(name).suffix, rng, most=2)
        done.append(f"{what} of {name}")
        if subject == "model" and name.endswith("model.json") and rng.random() < 0.5:
            break
    return subject, ", ".join(done), tree, rng


_valid_trees: dict[Path, Tree] = {}


def _valid(root: Path) -> Tree:
    if root not in _valid_trees:
        _valid_trees[root] = fuzz_seeds.read_tree(root)
    return dict(_valid_trees[root])


def _worth_spoiling(tree: Tree, rng: random.Random) -> list[str]:
    """Files of one ending: a set has more images than files of labels."""
    endings = sorted({Path(name).suffix for name in tree})
    ending = rng.choice(endings)
    return [name for name in tree if Path(name).suffix == ending]


def spoil_the_folder(root: Path, rng: random.Random) -> str:
    """Something is not where, or not what, it should be."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    path, other = rng.choice(paths), rng.choice(paths)
    what = rng.randrange(11)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.unlink()
        path.mkdir()
    elif what == 2:
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
    elif what == 3:
        path.unlink()
        path.symlink_to(rng.choice(("nowhere", path.name, "/dev/zero", "/proc/self/mem", "..")))
    elif what == 4:
        (path.parent / "loop").symlink_to(rng.choice((path.parent, root)), target_is_directory=True)
    elif what == 5:
        path.unlink()
        os.mkfifo(path)
    elif what == 6:
        path.rename(path.with_name(rng.choice(ODD_NAMES) + path.suffix))
    elif what == 7:
        path.with_name(path.stem + rng.choice((".jpg", ".PNG", ".tif", ".txt", ""))).write_bytes(path.read_bytes())
    elif what == 8:
        folder = path.parent
        if folder != root:
            folder.rename(folder.with_name(rng.choice(ODD_NAMES)))
    elif what == 9:
        shutil.rmtree(
            path.parent if path.parent != root else root / path.relative_to(root).parts[0], ignore_errors=True
        )
    else:
        deep = path.parent.joinpath(*["d" * 200] * rng.choice((1, 15)))
        with contextlib.suppress(OSError):
            deep.mkdir(parents=True)
            shutil.copy(path, deep / path.name)
    return f"folder {what}"


def run(number: int, seed: int, seeds: Path, place: Path) -> tuple[str, str]:
    """Do it below `place`, a new folder: what was done, and how it ended. Raises where it does not end well."""
    subject, what, tree, rng = spoil(number, seed, seeds)
    root = place / "data"
    fuzz_seeds.write_tree(tree, root)
    if rng.random() < 0.15:
        what += f", {spoil_the_folder(root, rng)}"
    use = USES.get(subject)
    try:
        ended = use(root, rng) if use else _use_layout(root, subject.split("/")[0], rng)
    except UserError as error:
        see_that_it_helps(error)
        ended = "refused"
    return f"{subject}: {what}", ended


# ------------------------------------------------------------------ what a user does with it


def _use_layout(root: Path, layout: str, rng: random.Random) -> str:
    kind = layout if rng.random() < 0.7 else "auto"
    target = rng.choice(("instrument", "instrument", "parts", "types"))
    source = open_source(root, DataSettings(kind=kind, target=target, every=rng.choice((1, 1, 2))))
    report = check([source])
    json.dumps(without_nan(report.to_dict()), allow_nan=False)
    for error in source.findings:
        see_that_it_helps(error)
    for record in source.records[:3]:
        with contextlib.suppress(UserError):
            _see_record(source, record)
    source.fingerprint()
    if rng.random() < 0.25:
        _convert(source, root.with_name("out"), rng)
    return "findings" if report.findings else "fine"


def _see_record(source: Source, record) -> None:
    image, mask = record.read()
    assert image.dtype == mask.dtype == np.uint8, (image.dtype, mask.dtype)
    assert image.ndim == 3, image.shape
    values = set(np.unique(mask).tolist()) - {IGNORE}
    assert not values or max(values) < len(source.classes), (values, source.classes)
    if record.instances:
        instances = record.instances()
        assert instances.dtype == np.uint8, instances.dtype
        assert instances.ndim == 2, instances.shape


def _convert(source: Source, out: Path, rng: random.Random) -> None:
    to = rng.choice(convert.FORMATS)
    convert.convert(source, to, out)
    again = open_source(out)
    assert len(again) == len(source), (to, len(again), len(source))


def _use_archive(root: Path, rng: random.Random) -> str:
    out = root.with_name("out")
    try:
        fetching.fetch("kvasir-instrument", out, archive=root / "set.zip")
    except UserError:
        assert not out.exists(), "something was left behind"
        raise
    assert {path.name for path in root.parent.iterdir()} <= {"data", "out", "out.lock.json"}, sorted(
        root.parent.iterdir()
    )
    return "fine"


def _use_split(root: Path, rng: random.Random) -> str:
    source = open_source(root / "data")
    refused = 0
    for name in ("split.yaml", "sides.json", "sides.csv", "lists"):
        for read in (read_split, leakage.read_lists):
            try:
                made = read(root / name)
                if read is read_split:
                    made.check_against(source)
            except UserError as error:
                see_that_it_helps(error)
                refused += 1
    leakage.audit(root / rng.choice(("split.yaml", "sides.csv", "lists")), source)
    return "refused" if refused > 4 else "fine"


def _use_recipe(root: Path, rng: random.Random) -> str:
    load_recipe(root / "recipe.yaml")
    return "fine"


def _use_model(root: Path, rng: random.Random) -> str:
    run = rng.choice([*sorted((root / "run").glob("fold-*")), root / "run"])
    fold_folders(root / "run")
    read_card(resolve_model(run))
    return "fine"


def _use_reports(root: Path, rng: random.Random) -> str:
    result = comparing.compare([root / "a", root / "b"])
    json.dumps(without_nan(result.as_dict()), allow_nan=False, ensure_ascii=False).encode()
    return "fine"


def _use_images(root: Path, rng: random.Random) -> str:
    items, problems = gather([root])
    refused = 0
    for error in problems:
        see_that_it_helps(error)
    for item in items:
        for read in (read_image, read_mask_file, lambda path: read_reduced_image(path, 8)[0], image_size_hw):
            try:
                read(item.path)
            except UserError as error:
                see_that_it_helps(error)
                refused += 1
    return "refused" if refused > 6 else "fine"  # six are refused as they are: JPEG as masks, 16 bits, CMYK


USES: dict[str, Callable[[Path, random.Random], str]] = {
    "archive": _use_archive,
    "split": _use_split,
    "recipe": _use_recipe,
    "model": _use_model,
    "reports": _use_reports,
    "images": _use_images,
}


def see_that_it_helps(error: UserError) -> None:
    """A message that can be printed and read: text, not pages of it; and it says what is wrong."""
    for one in error.errors if isinstance(error, UserErrors) else [error]:
        str(one).encode()
        json.dumps(one.as_dict(), ensure_ascii=False).encode()
        assert one.what.strip(), "the message is empty"
        assert len(str(one)) < 5000, f"{len(str(one))} characters: {str(one)[:300]}"
