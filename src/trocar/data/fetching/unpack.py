"""Zip and tar archives from strangers: only plain files, only below one folder, only so many and so large.

A name that leads out, a link, a device, a name given twice or an encrypted member ends the unpacking, instead of being
mended in silence. Sizes are counted as they come, not as the archive states them.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import lzma
import re
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from trocar.data.fetching.download import cannot_write
from trocar.data.sources.listing import hidden
from trocar.errors import UserError
from trocar.progress import Watcher

_CHUNK = 2**20
_LONGEST_READ = 2**23  # of a zip's list of files (180,000 of them); contents come in chunks
_LONGEST_HEADER = 2**16  # of a tar member, where long names and the like are
# Older tarfile searches headers in time quadratic in the length of a row of digits (CVE-2024-6232).
_SLOW_HEADER = re.compile(rb"\d{256}")
_SLACK = 2**20  # small archives may well shrink a hundredfold
_DEEPEST = 16
_FAULTS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, struct.error,
    RuntimeError, ValueError, LookupError,
)  # fmt: skip


class BadArchive(UserError):
    """The archive itself is at fault, not the disk or the network: it is of no use to keep it."""


@dataclasses.dataclass
class Budget:
    """How much may still be unpacked. Shared by an archive and those inside it."""

    files: int = 20_000
    size: int = 4 * 2**30  # bytes
    ratio: int = 100  # of unpacked to packed; images and masks are packed already and hardly shrink
    left_out: int = 0  # files of the file system's own, such as .DS_Store

    def take_file(self, name: str) -> None:
        """One more file."""
        self.files -= 1
        if self.files < 0:
            raise _hostile("it holds more files than any known set", name)

    def take_size(self, size: int, name: str) -> None:
        """That many more bytes."""
        self.size -= size
        if self.size < 0:
            raise _hostile("it unpacks to more than any known set", name)


def unpack_zip(archive: Path, into: Path, budget: Budget, watcher: Watcher) -> None:
    """Every file of a zip below the folder `into`. Raises `UserError` for what is damaged or hostile."""
    with _faults(archive), archive.open("rb") as raw, zipfile.ZipFile(_Bounded(raw)) as opened:
        members = [info for info in opened.infolist() if not info.is_dir()]
        allowed = _Allowance(archive, budget)
        for number, info in enumerate(members, start=1):
            _refuse_zip_member(info)
            path = _place(into, info.filename, budget)
            if path is not None:
                with opened.open(info) as source:
                    _write(source, path, allowed)
            watcher.preparing("unpacking", number, len(members))


def unpack_tar(archive: Path, into: Path, budget: Budget, watcher: Watcher) -> None:
    """Every file of a tar.gz below the folder `into`. Raises `UserError` for what is damaged or hostile."""
    with _faults(archive), gzip.open(archive) as raw, tarfile.open(fileobj=_TarHeaders(raw), mode="r:") as opened:
        allowed = _Allowance(archive, budget)
        size = max(archive.stat().st_size // 10**6, 1)
        for member in opened:
            opened.members = []  # type: ignore[attr-defined]  # else all of them are kept
            if member.isdir():
                budget.take_file(member.name)
                continue
            _refuse_tar_member(member, into, allowed)
            path = _place(into, member.name, budget)
            if path is not None:
                raw.seek(member.offset_data)  # past `opened`, whose reader is for headers
                _write(raw, path, allowed, member.size)
            watcher.preparing(f"unpacking {archive.name} (MB)", min(raw.tell() // 10**6, size), size)


# ------------------------------------------------------------------ members


def _refuse_zip_member(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _hostile("it holds a link or a device", info.filename)
    if info.flag_bits & 1:
        raise _hostile("it holds an encrypted file", info.filename)


def _refuse_tar_member(member: tarfile.TarInfo, into: Path, allowed: _Allowance) -> None:
    if not member.isreg() or member.issparse():
        raise _hostile("it holds a link, a device or a file with holes", member.name)
    if member.size > allowed.left():  # before any of it is read, or passed over
        raise _hostile("it unpacks to far more than it weighs", member.name)
    if hasattr(tarfile, "data_filter"):  # a second opinion beside `_place`; Python 3.11 has it from 3.11.4 on
        try:
            tarfile.data_filter(member, str(into))
        except tarfile.FilterError as error:
            raise _hostile(str(error), member.name) from None


def _place(into: Path, name: str, budget: Budget) -> Path | None:
    """Where a member goes; None for files of the file system's own. The names are slash-separated in both formats."""
    budget.take_file(name)
    parts = PurePosixPath(name).parts
    leads_out = name.startswith("/") or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name)
    if leads_out or not parts or not name.isprintable() or len(parts) > _DEEPEST:
        raise _hostile("a name in it leads out of the folder, or is no name", name)
    if any(hidden(part) for part in parts):
        budget.left_out += 1
        return None
    return into.joinpath(*parts)


class _Allowance:
    """What one archive may unpack to, by what it weighs and by what the budget has left."""

    def __init__(self, archive: Path, budget: Budget) -> None:
        self._budget = budget
        self._left = archive.stat().st_size * budget.ratio + _SLACK

    def left(self) -> int:
        return min(self._left, self._budget.size)

    def take(self, size: int, name: str) -> None:
        self._budget.take_size(size, name)
        self._left -= size
        if self._left < 0:
            raise _hostile("it unpacks to far more than it weighs", name)


def _write(source: IO[bytes] | gzip.GzipFile, path: Path, allowed: _Allowance, size: int | None = None) -> None:
    """Copy `size` bytes, or all there are, into a new file. That some are missing is noticed by tarfile afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = sys.maxsize if size is None else size
    try:
        with path.open("xb") as file:
            while chunk := source.read(min(_CHUNK, left)):
                allowed.take(len(chunk), path.name)
                file.write(chunk)
                left -= len(chunk)
    except FileExistsError:
        raise _hostile("it holds two files of one name", path.name) from None


class _Bounded(io.BufferedIOBase):
    """A file that refuses to give much at once: zipfile reads a list of files, and tarfile a header, in one piece."""

    longest = _LONGEST_READ

    def __init__(self, raw: IO[bytes] | gzip.GzipFile) -> None:
        self._raw = raw

    def read(self, size: int | None = -1, /) -> bytes:
        whole = size is None or size < 0
        wanted = self.longest + 1 if size is None or size < 0 else size
        data = b"" if wanted > self.longest and not whole else self._raw.read(wanted)
        if wanted > self.longest and (not whole or len(data) == wanted):
            raise _hostile("its list of files, or one header, is absurdly long", "")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _TarHeaders(_Bounded):
    """What tarfile reads between the contents, which `unpack_tar` reads past it."""

    longest = _LONGEST_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if _SLOW_HEADER.search(data):
            raise _hostile("one header is absurd", "")
        return data


# ------------------------------------------------------------------ refusals


def _hostile(what: str, name: str) -> BadArchive:
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    return BadArchive(
        f"the archive is not unpacked: {what}",
        where=repr(shown) if shown else None,
        mend="this is not the set as published: do not open the file by other means; tell its publisher",
    )


@contextmanager
def _faults(archive: Path) -> Iterator[None]:
    """What the libraries raise on damaged archives, and the disk on writing, in the error form."""
    try:
        yield
    except _FAULTS as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        if error.errno is None:  # gzip's
            raise _damaged(archive, error) from None
        raise cannot_write(Path(error.filename or archive), error) from None


def _damaged(archive: Path, error: Exception) -> BadArchive:
    with archive.open("rb") as file:
        page = file.read(512).lstrip()[:5].lower() in (b"<!doc", b"<html")
    if page:
        return BadArchive(
            "a web page came in place of the archive",
            where=str(archive),
            mend="look on the page of the set whether the file has moved, or whether your network asks for a login",
        )
    return BadArchive(
        f"the archive is damaged or cut off: {error}", where=str(archive), mend="run the same command again"
    )
