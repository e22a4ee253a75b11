"""Writing a model folder, or adding to one: whole or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from trocar.config import ModelSettings
from trocar.errors import UserError
from trocar.model_folder.card import CARD, LICENCE, README, WEIGHTS, Export, HeldOut, ModelCard
from trocar.model_folder.reading import digest, read_card
from trocar.model_folder.words import readme

if TYPE_CHECKING:
    from torch import Tensor


def write_model(
    folder: str | Path,
    card: ModelCard,
    tensors: Mapping[str, Tensor | NDArray[Any]],
    licence_text: str,
    *,
    half: bool = False,
) -> ModelCard:
    """Write a model folder whole or not at all; returns the card as written, with the digests of the files.

    Floating tensors are stored as float32, or with `half` as float16; others as they are. Everything is written to a
    hidden folder beside `folder` and renamed at the end, so there is never half a model (on other systems than Linux a
    kill between the last two renames leaves the old one in that hidden folder). Only a model is ever replaced: any
    other folder with something in it is refused.
    """
    folder = Path(folder)
    _refuse_to_replace(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            card = _fill(new, card, tensors, licence_text, np.float16 if half else np.float32)
            _swap(new, folder, aside=Path(scratch) / "old")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the model: {getattr(error, 'strerror', None) or error}",
            where=str(folder),
            mend="free space there, or give a folder that may be written to",
        ) from error
    return card


def add_export(folder: str | Path, key: str, export: Export, write: Callable[[Path], None]) -> ModelCard:
    """Add an exported form to a model, or replace the one of the same key; all else stays. Returns the new card.

    `write` fills the folder of the form. The model is made anew beside itself, of hard links, and changes places with
    the old one when it is complete: whatever stops this, there is a whole model, the old or the new.
    """
    folder = Path(folder).resolve()
    card = read_card(folder)
    return _remake(folder, card.model_copy(update={"exports": {**card.exports, key: export}}), key, write)


def add_held_out(folder: str | Path, scores: HeldOut) -> ModelCard:
    """Add scores on unseen frames to a model's card and README, or replace those of the same data and models.

    Whole or not at all, as `add_export`. Returns the new card.
    """
    folder = Path(folder).resolve()
    card = read_card(folder)
    others = [one for one in card.held_out if (one.data, one.models) != (scores.data, scores.models)]
    return _remake(folder, card.model_copy(update={"held_out": (*others, scores)}))


def _remake(
    folder: Path, card: ModelCard, key: str | None = None, write: Callable[[Path], None] | None = None
) -> ModelCard:
    """The model once more with this card and, where given, the folder `key` as `write` fills it."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            _link_all(folder, new, leave_out={CARD, README} | ({key} if key else set()))
            (new / README).write_text(readme(card), encoding="utf-8", newline="\n")
            added = [README]
            if key is not None and write is not None:
                (new / key).mkdir()
                write(new / key)
                added += [path.relative_to(new).as_posix() for path in _files(new / key)]
            others = {name: digest for name, digest in card.files.items() if PurePosixPath(name).parts[0] != key}
            card = card.model_copy(update={"files": others | {name: digest(new / name) for name in added}})
            (new / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
            _sync([new / CARD, *(new / name for name in added)])
            _swap(new, folder, aside=Path(scratch) / "old")
    except OSError as error:
        raise UserError(
            f"cannot write the model: {error.strerror or error}",
            where=str(folder if key is None else folder / key),
            mend="free space there, or copy the model to a folder that may be written to",
        ) from error
    return card


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _link_all(folder: Path, new: Path, leave_out: set[str]) -> None:
    """The files of a folder once more, without taking space where the disk can do that."""
    new.mkdir()
    for path in _files(folder):
        name = path.relative_to(folder)
        if name.parts[0] in leave_out:
            continue
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, new / name)
        except OSError:
            shutil.copy2(path, new / name)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # renaming must not overtake the content on a power cut


def _refuse_to_replace(folder: Path) -> None:
    if folder.is_dir() and ((folder / CARD).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise UserError(
            "something that is not a model is in the way of the model", where=str(folder), mend="give another folder"
        )


def _fill(
    folder: Path,
    card: ModelCard,
    tensors: Mapping[str, Tensor | NDArray[Any]],
    licence_text: str,
    floats: type[np.floating[Any]],
) -> ModelCard:
    card = card.model_copy(update={"model": _without_place(card.model)})
    save_file({name: _as_array(tensor, floats) for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / LICENCE).write_text(licence_text, encoding="utf-8", newline="\n")
    shutil.copymode(folder / LICENCE, folder / WEIGHTS)  # safetensors leaves it to its owner alone
    (folder / README).write_text(readme(card), encoding="utf-8", newline="\n")
    digests = {name: digest(folder / name) for name in (WEIGHTS, README, LICENCE)}
    card = card.model_copy(update={"files": digests})
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")
    _sync(folder.iterdir())
    return card


def _without_place(model: ModelSettings) -> ModelSettings:
    """A model travels; where a file of encoder weights lay on this machine does not."""
    return model.model_copy(update={"encoder_weights": Path(model.encoder_weights).name})


def _as_array(tensor: Tensor | NDArray[Any], floats: type[np.floating[Any]]) -> NDArray[Any]:
    """Numpy, C order, of type `floats` if it is floating. safetensors would store a channels_last tensor scrambled."""
    if not isinstance(tensor, np.ndarray):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if np.issubdtype(tensor.dtype, np.floating):
        tensor = tensor.astype(floats, copy=False)
    return np.asarray(tensor, order="C")


def _swap(new: Path, folder: Path, aside: Path) -> None:
    if folder.exists() and _exchange(new, folder):
        return
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    except BaseException:  # Ctrl-C too
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once, which Linux can; False where that is not to be had."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:  # an old or another C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
