"""Opening a model folder: its card, its files unaltered, its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from trocar import __version__
from trocar.config import validate
from trocar.documents import read_json, refuse_what_is_no_file
from trocar.errors import UserError, UserErrors
from trocar.model_folder.card import CARD, FORMAT, WEIGHTS, ModelCard

if TYPE_CHECKING:
    from torch import Tensor

PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"}
COPY_AGAIN = "copy the whole folder again from where it came from, or train it again"


def read_card(folder: str | Path) -> ModelCard:
    """The card of a model folder, after checking that every file of it is present and unaltered.

    Raises `UserErrors` that list every missing or altered file at once, `UserError` where the card cannot be read.
    """
    folder = Path(folder)
    card = _parse_card(folder / CARD)
    problems = [problem for name, known in card.files.items() if (problem := _check_file(folder, name, known))]
    if WEIGHTS not in card.files:
        problems.append(UserError(f"the card does not list {WEIGHTS}", where=str(folder / CARD), mend=COPY_AGAIN))
    problems += [
        UserError(
            "a model folder holds no pickle: opening one could run code",
            where=str(path),
            mend="remove that file; trocar reads weights from safetensors only",
        )
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICKLE_SUFFIXES
    ]
    if problems:
        raise UserErrors(problems)
    return card


def _parse_card(path: Path) -> ModelCard:
    if not path.exists():
        found = "the model has no card" if path.parent.is_dir() else "no such model folder"
        raise UserError(found, where=str(path), mend="give a model folder, or the run that made it")
    tree = read_json(path, "the model's card", mend=COPY_AGAIN)
    if not isinstance(tree, dict) or not isinstance(tree.get("format"), int):
        raise UserError("the model's card names no format", where=str(path), mend=COPY_AGAIN)
    if tree["format"] > FORMAT:
        raise UserError(
            f"the model is of format {tree['format']}; this trocar {__version__} reads format {FORMAT}",
            where=str(path),
            mend=f"install a newer trocar (the model was made by {tree.get('trocar_version', 'a newer one')})",
        )
    return validate(ModelCard, tree, where=str(path))


def _check_file(folder: Path, name: str, expected: str) -> UserError | None:
    path = folder / name
    try:
        refuse_what_is_no_file(path)
        if digest(path) == expected:
            return None
    except FileNotFoundError:
        return UserError(f"the model lacks {name}", where=str(path), mend=COPY_AGAIN)
    except OSError as error:
        return UserError(f"cannot read {name} of the model: {error.strerror}", where=str(path))
    return UserError(
        f"{name} is not what the model was written with (SHA-256 differs)", where=str(path), mend=COPY_AGAIN
    )


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The weights on the CPU, by name. They are checked by `read_card`, which comes first."""
    from safetensors.torch import load_file  # torch only when weights are wanted

    path = Path(folder) / WEIGHTS
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read the weights: {error}", where=str(path), mend=COPY_AGAIN) from None
    return tensors


def digest(path: Path) -> str:
    """`sha256:` and the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
