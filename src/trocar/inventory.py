"""The models at hand: those that ship with trocar, and those below folders of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trocar import box
from trocar.errors import UserError
from trocar.model_folder import CARD, LICENCE, LICENCE_HEADING, ModelCard, read_card


@dataclass(frozen=True)
class ModelEntry:
    """One model: its folder, and its card, or why that cannot be used."""

    name: str  # what `--model` takes: the name of a shipped one, else the path
    folder: Path
    shipped: bool
    card: ModelCard | None
    problem: UserError | None = None

    @property
    def default(self) -> bool:
        """Whether it is what predicts where no model is named."""
        return self.shipped and self.name == box.DEFAULT

    @property
    def size_mb(self) -> float:
        """All files of the folder, in 10^6 bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / 1e6

    @property
    def licence(self) -> str:
        """First line of the licence of the weights that says more than its heading; empty without one."""
        try:
            lines = (self.folder / LICENCE).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ""
        said = (line.strip().removeprefix(LICENCE_HEADING).lstrip(": ") for line in lines)
        return next((line for line in said if line), "")

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON, the whole card included."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "shipped": self.shipped,
            "default": self.default,
            "size_mb": round(self.size_mb, 2),
            "licence": self.licence,
            "card": None if self.card is None else self.card.model_dump(mode="json"),
            "problem": None if self.problem is None else self.problem.as_dict(),
        }


def models(folders: Sequence[str | Path] = ()) -> list[ModelEntry]:
    """The models that ship with trocar, then those at or below `folders`, in the order of their paths.

    A model whose card or files are damaged is listed with its problem. Raises `UserError` where a folder is not there.
    """
    missing = [str(folder) for folder in folders if not Path(folder).is_dir()]
    if missing:
        raise UserError(f"no such folder: {', '.join(missing)}", mend="give folders that hold models or runs")
    entries = [_entry(name, folder, shipped=True) for name, folder in box.shipped_models().items()]
    found = dict.fromkeys(folder for base in folders for folder in _model_folders(Path(base)))
    return entries + [_entry(str(folder), folder, shipped=False) for folder in found]


def _entry(name: str, folder: Path, *, shipped: bool) -> ModelEntry:
    try:
        return ModelEntry(name, folder, shipped, read_card(folder))
    except UserError as problem:
        return ModelEntry(name, folder, shipped, None, problem)


def _model_folders(base: Path) -> Iterator[Path]:
    """Folders with a card; hidden ones, such as those of a writing under way, are passed over."""
    for parent, children, files in os.walk(base):
        children[:] = sorted(name for name in children if not name.startswith("."))
        if CARD in files:
            children.clear()
            yield Path(parent)
