"""Prepared frames on disk, so that a frame is decoded and resized once and not in every epoch of every training.

One folder a source and way of preparing, in the user's cache folder; in it one small file a record, its row: frame,
mask and a checksum. A row is written beside its place and renamed, so it is whole or absent: a killed training has left
what it had finished, several processes may read and write at once, and the folds of a split share their rows. A row's
name says how its record is read and in which state its files were (`cache_folder.state_of_files`): after an edit the
name is another, and the old row is taken away. Every row is checked when a training opens it.

Nothing depends on the store: what it cannot keep is read from the originals, with the same samples.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import pickle
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trocar import __version__
from trocar.config import PreprocessSettings
from trocar.data.cache_folder import cache_folder, state_of_files
from trocar.data.files import atomic_write_text
from trocar.data.locks import Lock
from trocar.data.preprocess import PreparedMask
from trocar.data.records import ImageArray, Record, Source
from trocar.data.threads import in_threads, threads_for
from trocar.errors import UserError
from trocar.sizes import shown_size

FORMAT = 1
LEAVE_FREE = 1 << 30  # bytes of the disk that are never taken

_ABOUT, _IN_USE, _WRITING, _ROWS = "set.json", "in-use.lock", "writing.lock", "rows"
_CHECKSUM_BYTES = 4
_STALE_PART_SECONDS = 3600  # a row takes a second to write: what is older was left by a kill

Prepare = Callable[[Record], tuple[ImageArray, PreparedMask]]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass
class Store:
    """The rows of one source, prepared in one way. Picklable: worker processes open rows by themselves."""

    folder: Path
    size_hw: tuple[int, int]
    mask_type: str  # numpy's name: uint8 class indices, float32 shares
    limit: int  # bytes of all sets together
    say: Say = field(repr=False)
    in_use: Lock = field(repr=False)  # held, shared, as long as the store is open: nobody takes its rows away

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "say": None, "in_use": None}

    @property
    def row_bytes(self) -> int:
        """Size of a row's file."""
        return math.prod(self.size_hw) * (3 + np.dtype(self.mask_type).itemsize) + _CHECKSUM_BYTES

    def close(self) -> None:
        """Let others take the rows away where they need the room."""
        self.in_use.release()

    def read(self, row: Path) -> tuple[NDArray[np.uint8], NDArray[Any]] | None:
        """Frame and mask of a row, mapped into memory and free to be changed there; None where it is gone by now.

        Shapes: -> (h, w, 3) uint8, (h, w) of the mask type.
        """
        pixels = math.prod(self.size_hw)
        try:
            flat = np.memmap(row, np.uint8, "c", shape=(self.row_bytes,))  # c: changes stay in this process
        except (OSError, ValueError):
            return None
        frame = np.asarray(flat[: 3 * pixels]).reshape(*self.size_hw, 3)
        mask = np.asarray(flat[3 * pixels : -_CHECKSUM_BYTES]).view(self.mask_type).reshape(self.size_hw)
        return frame, mask

    def rows(
        self,
        records: Sequence[Record],
        prepare: Prepare,
        *,
        variant: str,
        problems: dict[int, UserError],
        progress: Progress | None = None,
    ) -> list[Path | None]:
        """The row of each record, prepared where there is none yet; None where it cannot be kept.

        `variant` tells apart what `prepare` may make of the same record. Why a record cannot be prepared goes to
        `problems`, by its index.
        """
        wanted = [self._place(record, variant) for record in records]
        count, done = sum(row is not None for row in wanted), 0

        def tell() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, count)

        with self._writing():
            present = {path.name for path in (self.folder / _ROWS).glob("*/*.row")}
            made = [row for row in wanted if row is not None and row.name in present]
            damaged = set()
            for row, sound in zip(made, in_threads(self._is_sound, made, threads_for(records)), strict=True):
                if sound:
                    tell()
                else:
                    damaged.add(row)
            if damaged:
                self.say(f"{len(damaged)} prepared frames in {self.folder} were damaged and are made anew")
            missing = {
                index: row
                for index, row in enumerate(wanted)
                if row is not None and (row.name not in present or row in damaged)
            }
            self._remove_superseded(present, {row.name for row in wanted if row is not None})
            if missing and self._has_room(len(missing)):
                found = self._make([(records[index], row) for index, row in missing.items()], prepare, tell)
                problems.update({index: found[place] for place, index in enumerate(missing) if place in found})
        return [row if row is not None and row.is_file() else None for row in wanted]

    # -------------------------------------------------------------- rows

    def _place(self, record: Record, variant: str) -> Path | None:
        """Where the row of a record lies; None where a reader cannot be named or its files change at this moment."""
        state = state_of_files(record)
        if state is None:
            return None
        try:
            # pickled to be hashed, never to be loaded: a reader is named by its function and all it is called with
            reader = pickle.dumps((record.image, record.mask, variant), protocol=4)
        except (pickle.PicklingError, AttributeError, TypeError):
            return None
        slot = hashlib.blake2b(reader, digest_size=12).hexdigest()
        version = hashlib.blake2b(state.encode(), digest_size=8).hexdigest()
        return self.folder / _ROWS / slot[:2] / f"{slot}-{version}.row"

    def _is_sound(self, row: Path) -> bool:
        """Whether length and checksum are right; a row that is not is taken away."""
        with suppress(OSError):
            data = row.read_bytes()
            if len(data) == self.row_bytes and data[-_CHECKSUM_BYTES:] == _checksum(data[:-_CHECKSUM_BYTES]):
                return True
            row.unlink()
        return False

    def _make(
        self,
        work: Sequence[tuple[Record, Path]],
        prepare: Prepare,
        tell: Callable[[], None],
    ) -> dict[int, UserError]:
        """Prepare and write rows in threads; why some cannot be, by their place.

        On a full or failing disk it says so and leaves the rest.
        """
        failed = threading.Event()

        def make(item: tuple[Record, Path]) -> UserError | OSError | None:
            record, row = item
            if failed.is_set():
                return None
            try:
                frame, mask = prepare(record)
            except UserError as problem:
                return problem
            try:
                self._write(row, np.ascontiguousarray(frame).tobytes() + np.ascontiguousarray(mask).tobytes())
            except OSError as error:
                failed.set()
                return error
            return None

        first: OSError | None = None
        problems: dict[int, UserError] = {}
        for place, outcome in enumerate(in_threads(make, work, threads_for([record for record, _ in work]))):
            if isinstance(outcome, UserError):
                problems[place] = outcome
            elif outcome is not None:
                first = first or outcome
            tell()
        if first is not None:
            why = "the disk is full" if first.errno in (errno.ENOSPC, errno.EDQUOT) else first.strerror or str(first)
            self.say(f"prepared frames cannot be kept in {self.folder}: {why}. The rest is read from the originals")
        return problems

    def _write(self, row: Path, data: bytes) -> None:
        assert len(data) == self.row_bytes - _CHECKSUM_BYTES, (len(data), self.row_bytes)
        row.parent.mkdir(parents=True, exist_ok=True)
        part = row.with_name(f"{row.stem}.{secrets.token_hex(4)}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.write(_checksum(data))
            part.replace(row)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def _remove_superseded(self, present: set[str], kept: set[str]) -> None:
        """Rows of records whose files have changed since, and what a kill left half written."""
        slots = {name.partition("-")[0] for name in kept}
        for name in present - kept:
            if name.partition("-")[0] in slots:
                with suppress(OSError):
                    (self.folder / _ROWS / name[:2] / name).unlink()
        for part in (self.folder / _ROWS).glob("*/*.part"):
            with suppress(OSError):
                if part.stat().st_mtime < time.time() - _STALE_PART_SECONDS:
                    part.unlink()

    # -------------------------------------------------------------- room

    def _has_room(self, rows: int) -> bool:
        """Whether so many rows may be added; other sets go where they are in the way, first those not used longest."""
        need = rows * self.row_bytes
        sets = {one.folder.name: one for one in stored_sets(self.folder.parent)}
        total = sum(one.bytes for one in sets.values())
        own = sets.pop(self.folder.name).bytes
        if own + need > self.limit:
            self.say(
                f"{rows} more prepared frames would take {_gigabytes(own + need)} of the disk, and train.prepared_gb "
                f"allows {_gigabytes(self.limit)}: they are not kept there"
            )
            return False
        for one in sorted(sets.values(), key=lambda one: one.used):
            if total + need <= self.limit:
                break
            if remove_set(one.folder):
                self.say(f"prepared frames of {one.about} are removed to make room ({_gigabytes(one.bytes)})")
                total -= one.bytes
        if total + need > self.limit:
            self.say("other trainings use the room of train.prepared_gb: prepared frames are not kept on disk")
            return False
        if need + LEAVE_FREE > (free := shutil.disk_usage(self.folder).free):
            self.say(
                f"prepared frames need {_gigabytes(need)}, the disk has {_gigabytes(free)}: they are not kept there"
            )
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process at a time adds rows to a set; who comes later finds them made."""
        lock = Lock(self.folder / _WRITING)
        if not lock.acquire(shared=False, wait=False):
            self.say("another training prepares frames of this data: waiting for it")
            lock.acquire(shared=False, wait=True)
        try:
            yield
        finally:
            lock.release()


def open_store(
    source: Source,
    settings: PreprocessSettings,
    *,
    join: bool,
    limit: int,
    say: Say,
    folder: Path | None = None,
) -> Store | None:
    """The store of a source prepared so, below the user's cache folder; None where it cannot be or `limit` is 0.

    Why not is told through `say`, as is all else that a person should know.
    """
    if limit <= 0:
        return None
    tree = settings.model_dump(mode="json", exclude={"mean", "std"})  # those are part of the network
    facts = (FORMAT, __version__, source.dataset, str(source.root.absolute()), join, tree)
    name = hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
    place = (folder or cache_folder()) / "prepared" / name
    about = {
        "format": FORMAT,
        "about": f"{source.dataset}, {source.root.absolute()}, {shown_size(settings.size_hw)}",
        "trocar": __version__,
        "one_class": join,
        "preprocess": tree,
    }
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # frames of patients
        in_use = _hold(place)
        atomic_write_text(place / _ABOUT, json.dumps(about, indent=1) + "\n", sync=False)  # its time is that of use
    except (OSError, UserError) as error:
        why = error.what if isinstance(error, UserError) else error.strerror
        say(f"prepared frames cannot be kept in {place}: {why}")
        return None
    mask_type = "float32" if settings.mask_resize == "bilinear" else "uint8"
    return Store(place, settings.size_hw, mask_type, limit, say, in_use)


def _hold(place: Path) -> Lock:
    """Make a set's folder and hold it; again, where somebody took it away in between."""
    while True:
        (place / _ROWS).mkdir(parents=True, exist_ok=True)
        lock = Lock(place / _IN_USE)
        with suppress(FileNotFoundError):
            lock.acquire(shared=True, wait=True)
            if lock.is_still_there():
                return lock
        lock.release()


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little")


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


# ------------------------------------------------------------------ all sets


@dataclass(frozen=True)
class StoredSet:
    """What one set holds. `used` is when a training opened it last, in seconds since 1970."""

    folder: Path
    about: str
    rows: int
    bytes: int
    used: float


def stored_sets(parent: Path | None = None) -> list[StoredSet]:
    """All sets of the store, the one used last first."""
    parent = parent or cache_folder() / "prepared"
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        if not folder.is_dir():
            continue
        about, used = "an unfinished or removed set", 0.0
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = str(json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["about"])
            used = (folder / _ABOUT).stat().st_mtime
        sizes = [path.stat().st_size for path in folder.glob(f"{_ROWS}/*/*") if path.is_file()]
        found.append(StoredSet(folder, about, len(sizes), sum(sizes), used))
    return sorted(found, key=lambda one: -one.used)


def remove_set(folder: Path) -> bool:
    """Take a set away; False where a training has it open, or where it cannot be."""
    lock = Lock(folder / _IN_USE)
    gone = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.removed")
    try:
        if not lock.acquire(shared=False, wait=False):
            return False
        folder.rename(gone)
    except OSError:
        return False
    finally:
        lock.release()
    shutil.rmtree(gone, ignore_errors=True)
    return True
