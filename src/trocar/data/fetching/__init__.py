"""Research sets from their homes to a folder that every verb reads: `trocar fetch`, the one verb that uses a network.

`sets` knows them, `download` gets an archive, `lock` compares it with what was trusted before, `unpack` distrusts it,
and `fetch` puts the pieces in their places. The folder appears when all is done and not before.
"""

from __future__ import annotations

import dataclasses
import datetime
import secrets
import shutil
from pathlib import Path
from typing import Any

from trocar.config import DataSettings
from trocar.data.fetching.download import Manner, cannot_write, download
from trocar.data.fetching.lock import Lock, digest, digest_of_folder, lock_path, read_lock, write_lock
from trocar.data.fetching.sets import KNOWN, KnownSet, by_hand, known
from trocar.data.fetching.unpack import BadArchive, Budget, unpack_tar, unpack_zip
from trocar.data.files import IMAGE_SUFFIXES
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.documents import refuse_what_is_no_file
from trocar.errors import UserError
from trocar.progress import Watcher

__all__ = ["KNOWN", "Fetched", "KnownSet", "Manner", "fetch"]

_SILENT = Watcher()
_PATIENT = Manner()


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What is in the folder now, and how far it can be trusted."""

    out: Path
    lock: Lock
    trust: str  # "first": recorded, compared with nothing; "compared": the same archive; "unchanged": nothing was done
    records: int
    official: dict[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            **vars(self),
            "out": str(self.out),
            "lock_file": str(lock_path(self.out)),
            "lock": self.lock.model_dump(),
        }


def fetch(
    name: str,
    out: str | Path | None = None,
    *,
    archive: str | Path | None = None,
    url: str | None = None,
    manner: Manner = _PATIENT,
    watcher: Watcher = _SILENT,
) -> Fetched:
    """Download a set, check, unpack and lay it out in the new folder `out` (default: its name).

    `archive` is unpacked instead of a download, `url` replaces the address. A folder that an earlier call made is
    compared with its lock, and nothing is downloaded. Raises `UserError` for a set that has to be asked for, with its
    page and layout; for a download that breaks off, which the next call goes on with; and for an archive that is not
    what the lock says, damaged or hostile, which is thrown away.
    """
    wanted = known(name)
    if wanted.url is None:
        raise by_hand(wanted)
    out = Path(out if out is not None else wanted.name).expanduser()
    if out.name in ("", ".."):
        out = out.resolve()  # names are formed from its name
    lock = read_lock(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _already_there(wanted, out, lock)
    if archive is not None:
        return _put(wanted, Path(archive), str(archive), out, lock, watcher)
    kept = out.with_name(f".{out.name}.download")  # by name, so that the next call finds it
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(kept, error) from None
    size = lock.size if lock else None
    address = url or wanted.url
    try:
        came = download(address, kept, manner=manner, watcher=watcher, size=size, about_mb=wanted.about_mb)
    except UserError:
        if not any(path.stat().st_size for path in kept.glob("*.part")):
            shutil.rmtree(kept, ignore_errors=True)  # nothing came that could be gone on with
        raise
    try:
        fetched = _put(wanted, came, address, out, lock, watcher)
    except BadArchive:
        shutil.rmtree(kept, ignore_errors=True)  # else the next call would take it for the whole file
        raise
    shutil.rmtree(kept, ignore_errors=True)
    return fetched


def _already_there(wanted: KnownSet, out: Path, lock: Lock | None) -> Fetched:
    if lock is None or lock.name != wanted.name:
        says = "no lock file says what it is" if lock is None else f"its lock file says it is {lock.name}"
        raise UserError(
            f"the place to write to holds something, and {says}",
            where=str(out),
            mend="give a new folder; if this is the set already, `trocar check` reads it as it is",
        )
    files, folder_sha256 = digest_of_folder(out)
    if folder_sha256 != lock.folder_sha256:
        raise UserError(
            f"the folder is not as it was fetched: it had {lock.files} files and has {files}, or some have changed",
            where=str(out),
            mend="keep what you changed elsewhere, remove the folder (not its lock file) and fetch again",
        )
    return _fetched(wanted, out, lock, "unchanged", [])


# ------------------------------------------------------------------ from the archive to the folder


def _put(wanted: KnownSet, archive: Path, origin: str, out: Path, lock: Lock | None, watcher: Watcher) -> Fetched:
    """Compare, unpack beside `out`, lay out, check, lock, and only then let `out` appear."""
    size, sha256 = _compared(archive, lock)
    part = out.with_name(f".{out.name[:20]}.{secrets.token_hex(6)}.part")
    budget = Budget()
    try:
        unpack_zip(archive, part / "unpacked", budget, watcher)
        notes = _lay_out_kvasir(part / "unpacked", part / "laid", budget, watcher)
        _refuse_what_is_not_recognised(wanted, part / "laid")
        files, folder_sha256 = digest_of_folder(part / "laid")
        new = Lock(
            name=wanted.name,
            url=origin if lock is None else lock.url,
            size=size,
            sha256=sha256,
            files=files,
            folder_sha256=folder_sha256,
            fetched=str(datetime.date.today()) if lock is None else lock.fetched,
        )
        write_lock(out, new)
        if out.is_dir():
            out.rmdir()  # empty, as was seen
        (part / "laid").rename(out)
    except OSError as error:
        raise cannot_write(out, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if budget.left_out:
        notes.append(f"{budget.left_out} files of the packer's file system (.DS_Store and the like) were left out")
    return _fetched(wanted, out, new, "first" if lock is None else "compared", notes)


def _compared(archive: Path, lock: Lock | None) -> tuple[int, str]:
    """Size and SHA-256 of the archive; refused where they are not those of the lock."""
    try:
        refuse_what_is_no_file(archive)
        size, sha256 = archive.stat().st_size, digest(archive)
    except OSError as error:
        raise UserError(f"cannot read the archive: {error.strerror}", where=str(archive)) from None
    if lock is not None and (size, sha256) != (lock.size, lock.sha256):
        raise BadArchive(
            f"this is not the archive that was trusted on {lock.fetched}: it has {size} bytes, SHA-256 {sha256}; the "
            f"lock says {lock.size} bytes, {lock.sha256}",
            where=str(archive),
            mend="ask its publisher; if there is a new version that you trust, remove the lock file and fetch again",
        )
    return size, sha256


def _refuse_what_is_not_recognised(wanted: KnownSet, folder: Path) -> None:
    source = open_source(folder)
    if source.dataset != wanted.name or not source.records:
        raise BadArchive(
            f"what was unpacked is not {wanted.title}: it reads as {source.dataset} of {len(source.records)} records",
            mend=f"look on {wanted.page} whether the set has changed",
        )


def _fetched(wanted: KnownSet, out: Path, lock: Lock, trust: str, notes: list[str]) -> Fetched:
    source: Source = open_source(out, DataSettings(kind="kvasir-instrument"))
    if source.findings:
        notes.append(f"{len(source.findings)} records have something wrong: `trocar check` says what")
    official = {str(side): len(names) for side, names in (source.official or {}).items()}
    terms = [f"terms of use: {wanted.terms}"] if wanted.terms else []
    return Fetched(out, lock, trust, len(source.records), official, (*notes, *terms))


# ------------------------------------------------------------------ Kvasir-Instrument


def _lay_out_kvasir(unpacked: Path, laid: Path, budget: Budget, watcher: Watcher) -> list[str]:
    """Images, masks and both lists in one folder, however deep they lay. Gives notes on what was left behind."""
    for part in ("images", "masks"):
        for packed in sorted(unpacked.rglob(f"{part}.tar.gz")):
            unpack_tar(packed, packed.with_name(f"{part}.tar.gz.unpacked") / part, budget, watcher)
            packed.unlink()
    laid.mkdir(parents=True)
    for part in ("images", "masks"):
        _only([path for path in _folders_of_images(unpacked) if _is_of(path, part, unpacked)], part).rename(laid / part)
    base = _only(list(unpacked.rglob("train.txt")), "train.txt").parent
    for path in sorted(base.iterdir()):
        if path.is_file():
            path.rename(laid / path.name)
    rest = sorted(path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file())
    return [f"{len(rest)} files of the archive were left out, such as {rest[0]}"] if rest else []


def _folders_of_images(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES})


def _is_of(folder: Path, part: str, root: Path) -> bool:
    """Whether the last of the names images and masks in its path is `part`."""
    named = [name for name in folder.relative_to(root).parts if name in ("images", "masks")]
    return named[-1:] == [part]


def _only(found: list[Path], what: str) -> Path:
    if len(found) == 1:
        return found[0]
    raise BadArchive(
        f"the archive has {len(found) or 'no'} {what}, and Kvasir-Instrument has one",
        mend=f"look on {known('kvasir-instrument').page} whether the set has changed",
    )
