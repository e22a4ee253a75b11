"""One file over HTTPS, gone on with where it broke off.

The part that came is kept in a folder with a note of what it is a part of. Going on asks for the rest only if the file
is still the same one (`If-Range`); a server that cannot do that sends all of it, and the part is thrown away. The
standard library's client does all that is needed, so nothing is installed for one verb; it heeds the usual proxy
variables. What came is not looked at here: `lock` and `unpack` do that.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from trocar import __version__
from trocar.data.files import atomic_write_text
from trocar.errors import UserError
from trocar.progress import Watcher

MAX_BYTES = 2**30  # six times the largest set that is downloaded
SLOWEST = 1024  # bytes a second; less than that is a stall

_CHUNK = 2**18
_MB = 10**6
_LOCAL = ("127.0.0.1", "localhost", "::1")
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How patiently, and how strictly, to download. Tests hurry, and talk to a server of their own."""

    timeout_s: float = 30.0  # without anything, or with less than `SLOWEST`
    attempts: int = 5
    pause_s: float = 1.0  # before the second attempt; doubled before each further one
    max_bytes: int = MAX_BYTES
    allow_local_http: bool = False  # plain http, on this machine only


class _Broken(Exception):
    """The file did not come whole, and asking again may help. Its text completes: `after 3 MB ...`."""


class _File(BaseModel):
    """What the part is a part of, as the server described it."""

    model_config = ConfigDict(frozen=True)

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    complete: bool = False

    @property
    def validator(self) -> str | None:
        """What `If-Range` may hold: a strong ETag, else the date, else nothing."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.last_modified


def download(
    url: str, folder: Path, *, manner: Manner, watcher: Watcher, size: int | None = None, about_mb: int = 0
) -> Path:
    """The whole file, in `folder`; of an earlier call that broke off, only the rest is asked for.

    `size` is what the file must have, if that is known. Raises `UserError` when it does not come; the folder then holds
    what did, except where it is known to be of no use.
    """
    _refuse_address(url, manner)
    part = folder / "archive.part"
    for attempt in range(manner.attempts):
        if attempt:
            time.sleep(manner.pause_s * 2 ** (attempt - 1))
        try:
            _go_on(url, folder, part, manner, watcher, size, about_mb)
            return part
        except _Broken as broken:
            reason = str(broken)
            watcher.message(f"attempt {attempt + 1} of {manner.attempts}: after {_here(part)} {reason}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped after {_here(part)}; the same command goes on from there") from None
    raise UserError(
        f"the download did not come whole: after {_here(part)} {reason}",
        where=url,
        mend="run the same command again, later perhaps: it goes on from there if the server can; or download the file "
        "with a browser and give it with --archive",
    )


def _go_on(
    url: str, folder: Path, part: Path, manner: Manner, watcher: Watcher, size: int | None, about_mb: int
) -> None:
    file = _remembered(folder, url)
    have = part.stat().st_size if part.is_file() else 0
    if file.complete and have == file.total:
        return
    if file.validator is None or (file.total is not None and have > file.total):
        have = 0
    with _ask(url, have, file.validator, manner) as response:
        start = _first_byte(response, have, file, part)
        if start == 0:
            file = _described(url, response)
        elif file.total is None:
            file = file.model_copy(update={"total": _whole_size(response)})
        _refuse_size(file.total, size, start, folder, manner, url)
        _remember(folder, file)
        if start:
            watcher.message(f"going on after {start / _MB:.0f} MB")
        _receive(response, part, start, file.total or about_mb * _MB, manner, watcher)
    have = part.stat().st_size
    if file.total is not None and have != file.total:
        raise _Broken(f"the connection ended, {(file.total - have) / _MB:.1f} MB short")
    _remember(folder, file.model_copy(update={"total": have, "complete": True}))


# ------------------------------------------------------------------ asking


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, manner: Manner) -> None:
        self._manner = manner

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        try:
            _refuse_address(newurl, self._manner, "the server redirects to")
        except UserError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_address(url: str, manner: Manner, what: str = "the address is") -> None:
    parts = urllib.parse.urlsplit(url)
    local = manner.allow_local_http and parts.scheme == "http" and parts.hostname in _LOCAL
    if parts.scheme != "https" and not local:
        raise UserError(
            f"{what} not https, so nobody could tell whose file it is", where=url, mend="find out its https address"
        )


def _ask(url: str, have: int, validator: str | None, manner: Manner) -> http.client.HTTPResponse:
    """The answer, its body not yet read. Asks for the rest if some is there, and only of the same file."""
    headers = {"User-Agent": f"trocar/{__version__}", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    opener = urllib.request.build_opener(_Redirects(manner))
    try:
        response: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=headers), timeout=manner.timeout_s
        )
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from None
    except urllib.error.URLError as error:
        raise _no_connection(url, error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_in_words(error, manner)) from None
    return response


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    if error.code == 416:  # what is here is not the beginning of what is there
        return _Broken("the server has no more of that file; it has changed")
    if error.code in _MAY_PASS:
        return _Broken(f"the server answered {error.code} {error.reason}")
    if error.code < 400:
        return UserError(f"the server redirects without end, or nowhere: {error.reason}", where=url)
    return UserError(
        f"the server answered {error.code} {error.reason}",
        where=url,
        mend="look on the page of the set whether the file has moved; a file downloaded there is given with --archive",
    )


def _no_connection(url: str, reason: object) -> Exception:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UserError(
            f"the server cannot prove who it is: {reason.verify_message}",
            where=url,
            mend="if a proxy of your institution stands between, name its certificates in SSL_CERT_FILE; else do not "
            "trust this connection",
        )
    if isinstance(reason, socket.gaierror):
        return UserError(
            "the server's name cannot be looked up: there is no network, or a proxy is needed",
            where=url,
            mend="go online, or set https_proxy; or download the file elsewhere and give it with --archive",
        )
    return _Broken(f"no connection was made: {reason}")


def _in_words(error: Exception, manner: Manner) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {manner.timeout_s:g} s"
    return f"the connection broke: {error}"


# ------------------------------------------------------------------ understanding the answer


def _first_byte(response: http.client.HTTPResponse, have: int, file: _File, part: Path) -> int:
    """Where in the file the body begins. A part that does not fit it is thrown away, to begin anew."""
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise UserError(f"the server sends the file encoded as {coding}, unasked", where=file.url)
    if response.status != 206:
        return 0  # no support for ranges, or another file by now
    same = response.headers.get("ETag") in (file.etag, None)
    whole = _whole_size(response)
    begins = re.match(rf"bytes {have}-", response.headers.get("Content-Range", ""))
    if not have or not begins or not same or (file.total is not None and whole not in (file.total, None)):
        part.unlink(missing_ok=True)
        raise _Broken("the server sent a piece that does not fit; begun anew")
    return have


def _described(url: str, response: http.client.HTTPResponse) -> _File:
    headers: Message = response.headers
    length = headers.get("Content-Length", "")
    total = int(length) if length.isascii() and length.isdigit() else None
    return _File(url=url, etag=headers.get("ETag"), last_modified=headers.get("Last-Modified"), total=total)


def _whole_size(response: http.client.HTTPResponse) -> int | None:
    found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""), re.ASCII)
    return int(found[1]) if found else None


def _refuse_size(total: int | None, expected: int | None, start: int, folder: Path, manner: Manner, url: str) -> None:
    if total is None:
        return
    if expected is not None and total != expected:
        raise UserError(
            f"the server's file has {total} bytes, but the one recorded here had {expected}",
            where=url,
            mend="ask its publisher; if there is a new version that you trust, remove the lock file and fetch again",
        )
    if total > manner.max_bytes:
        raise _too_large(manner, url)
    free = shutil.disk_usage(folder).free
    if total - start > free:
        raise UserError(
            f"the disk has {free / _MB:.0f} MB free, and {(total - start) / _MB:.0f} MB are to come",
            where=str(folder.parent),
            mend="make room (unpacking needs as much again), or write elsewhere",
        )


def _too_large(manner: Manner, url: str) -> UserError:
    return UserError(f"the server sends more than {manner.max_bytes / _MB:.0f} MB, which this set cannot be", where=url)


# ------------------------------------------------------------------ receiving


def _receive(
    response: http.client.HTTPResponse, part: Path, start: int, total: int, manner: Manner, watcher: Watcher
) -> None:
    """Append the body to the first `start` bytes of the part, as it comes."""
    have, asked_at, had_then = start, time.monotonic(), start
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := _chunk(response, manner):
                file.write(chunk)
                have += len(chunk)
                if have > manner.max_bytes:
                    raise _too_large(manner, response.url)
                watcher.preparing("downloading (MB)", have // _MB, max(total, have) // _MB)
                if time.monotonic() - asked_at > manner.timeout_s:
                    if have - had_then < SLOWEST * manner.timeout_s:
                        raise _Broken(f"only {have - had_then} bytes came in {manner.timeout_s:g} s")
                    asked_at, had_then = time.monotonic(), have
    except OSError as error:
        raise cannot_write(part, error) from None


def _chunk(response: http.client.HTTPResponse, manner: Manner) -> bytes:
    try:
        return response.read1(_CHUNK)  # what has come; `read` would wait for all of it, however slowly it trickles
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Broken(_in_words(error, manner)) from None


def cannot_write(path: Path, error: OSError) -> UserError:
    """The refusal by the disk; what has come stays."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return UserError(
        "the disk is full" if full else f"cannot write: {error.strerror or error}",
        where=str(path),
        mend="make room and run the same command again: it goes on where it stopped" if full else "write elsewhere",
    )


def _here(part: Path) -> str:
    return f"{part.stat().st_size / _MB:.1f} MB" if part.is_file() else "0 MB"


# ------------------------------------------------------------------ what the part is a part of


def _remembered(folder: Path, url: str) -> _File:
    """The note beside the part; one that is of another address, damaged or absent says nothing."""
    try:
        file = _File.model_validate_json((folder / "archive.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _File(url=url)
    return file if file.url == url else _File(url=url)


def _remember(folder: Path, file: _File) -> None:
    atomic_write_text(folder / "archive.json", file.model_dump_json(indent=1), sync=False)
