"""`trocar fetch` against a server of its own that is slow, broken, redirecting or lying. Nothing goes online."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import cv2
import numpy as np
import pytest
import typer.testing

from trocar.cli import app
from trocar.config import DataSettings
from trocar.data import fetching
from trocar.data.fetching import KNOWN, Manner, fetch, unpack
from trocar.data.sources import open_source
from trocar.errors import UserError
from trocar.progress import Watcher

DOCS = Path(__file__).resolve().parents[2] / "docs"
HASTY = Manner(timeout_s=5, attempts=3, pause_s=0, allow_local_http=True)
STEMS = {"train": ["a", "b", "c"], "test": ["d"]}

# ------------------------------------------------------------------ the archive


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@functools.cache
def members() -> dict[str, bytes]:
    """The files of a tiny set. Images of noise, so that the archive has some weight."""
    random_pixels = np.random.default_rng(0)
    files = {f"{side}.txt": "\n".join(stems).encode() for side, stems in STEMS.items()} | {"bboxes.json": b"{}"}
    for stem in [*STEMS["train"], *STEMS["test"]]:
        mask = np.zeros((64, 80, 3), np.uint8)
        mask[10:30, 20:40] = 255
        files[f"masks/{stem}.png"] = png(mask)
        noise = random_pixels.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        files[f"images/{stem}.jpg"] = cv2.imencode(".jpg", noise)[1].tobytes()
    return files


def tar_gz(files: dict[str, bytes], extra: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if extra:
            extra(archive)
    return packed.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def published(in_zip: str = "kvasir-instrument/", in_tar: str = "", **replaced: bytes) -> bytes:
    """The set as its home packs it: a zip with lists and two tars; `replaced` images_tar, masks_tar or others."""
    files = members()
    parts = {
        part: tar_gz({f"{in_tar}{name}": data for name, data in files.items() if name.startswith(part)})
        for part in ("images", "masks")
    }
    packed = {f"{in_zip}{part}.tar.gz": replaced.get(f"{part}_tar", data) for part, data in parts.items()}
    lists = {f"{in_zip}{name}": data for name, data in files.items() if "/" not in name}
    return zip_of(packed | lists)


def masks_with(extra: Callable[[tarfile.TarFile], None]) -> bytes:
    masks = {name: data for name, data in members().items() if name.startswith("masks")}
    return published(masks_tar=tar_gz(masks, extra))


# ------------------------------------------------------------------ the server


class Home:
    """What the server serves, and how badly."""

    def __init__(self) -> None:
        self.body = published()
        self.etag: str | None = '"first"'
        self.date: str | None = "Mon, 02 Mar 2020 10:00:00 GMT"
        self.ranges = True
        self.heeds_if_range = True
        self.cuts: list[int] = []  # of each answer in turn: how many bytes of its body are sent
        self.statuses: list[int] = []  # of each answer in turn, instead of the file
        self.says_length: int | None = None
        self.chunked = False
        self.redirect: str | None = None
        self.pieces = 1 << 16
        self.before_piece: Callable[[int], object] = lambda sent: None
        self.asked: list[dict[str, str]] = []
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    home: Home
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        home = self.home
        self.close_connection = True
        home.asked.append(dict(self.headers))
        if home.statuses and (status := home.statuses.pop(0)):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif home.redirect and "moved" not in self.path:
            self.send_response(302)
            self.send_header("Location", home.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(home)

    def send_file(self, home: Home) -> None:
        start = 0
        wanted = self.headers.get("Range")
        if wanted and home.ranges:
            same = self.headers.get("If-Range") in (home.etag, home.date, None)
            if same or not home.heeds_if_range:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(home.body) - 1}/{len(home.body)}")
        for name, value in (("ETag", home.etag), ("Last-Modified", home.date)):
            if value:
                self.send_header(name, value)
        body = home.body[start:]
        if home.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(home.says_length or len(body)))
        self.end_headers()
        body = body[: home.cuts.pop(0)] if home.cuts else body
        try:
            for at in range(0, len(body), home.pieces):
                home.before_piece(at)
                piece = body[at : at + home.pieces]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if home.chunked else piece)
            if home.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client had enough


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Home()
    handler = type("Mine", (Handler,), {"home": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_port}/kvasir-instrument.zip"
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kvasir"


def get(home: Home, out: Path, manner: Manner = HASTY, **more: object) -> fetching.Fetched:
    return fetch("kvasir-instrument", out, url=home.url, manner=manner, **more)  # type: ignore[arg-type]


def refused(home: Home, out: Path, manner: Manner = HASTY) -> str:
    """The refusal, with nothing but what can be gone on with left behind."""
    with pytest.raises(UserError) as caught:
        get(home, out, manner)
    assert not out.exists()
    assert {path.name for path in out.parent.glob("*")} <= {".kvasir.download", "kvasir.lock.json"}
    return str(caught.value)


def is_whole(out: Path) -> bool:
    got = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return got == members() and sorted(p.name for p in out.parent.iterdir()) == ["kvasir", "kvasir.lock.json"]


# ------------------------------------------------------------------ what is fetched


@pytest.mark.parametrize("in_zip", ["", "kvasir-instrument/"])
@pytest.mark.parametrize("in_tar", ["", "./", "kvasir-instrument/", "home/x/"])
def test_however_deep_it_is_packed_check_recognises_it(home: Home, out: Path, in_zip: str, in_tar: str) -> None:
    home.body = published(in_zip, in_tar)
    fetched = get(home, out)
    assert is_whole(out)
    assert fetched.records == 4
    source = open_source(out)
    assert source.dataset == "kvasir-instrument"
    assert source.official == {side: tuple(stems) for side, stems in STEMS.items()}
    assert source.findings == ()


def test_tars_without_a_folder_of_their_own_and_files_of_macos(home: Home, out: Path) -> None:
    flat = {
        part: tar_gz({Path(name).name: data for name, data in members().items() if name.startswith(part)})
        for part in ("images", "masks")
    }
    home.body = published(images_tar=flat["images"], masks_tar=flat["masks"])
    with zipfile.ZipFile(packed := io.BytesIO(home.body), "a") as archive:
        archive.writestr("__MACOSX/._train.txt", "x")
        archive.writestr("kvasir-instrument/docs/paper.txt", "x")
    home.body = packed.getvalue()
    fetched = get(home, out)
    assert is_whole(out)
    assert any(".DS_Store" in note and note.startswith("1 files") for note in fetched.notes)
    assert any("kvasir-instrument/docs/paper.txt" in note for note in fetched.notes)
    assert any("research and education only" in note for note in fetched.notes)


def test_the_first_is_trusted_and_the_next_compared(home: Home, out: Path) -> None:
    first = get(home, out)
    assert first.trust == "first"
    assert first.lock.sha256 == hashlib.sha256(home.body).hexdigest()
    assert first.lock.size == len(home.body)
    noted = (out.parent / "kvasir.lock.json").read_bytes()
    assert get(home, out).trust == "unchanged"
    assert len(home.asked) == 1
    shutil.rmtree(out)
    assert get(home, out).trust == "compared"
    assert is_whole(out)
    assert (out.parent / "kvasir.lock.json").read_bytes() == noted


def test_other_content_of_the_same_size_is_refused(home: Home, out: Path) -> None:
    get(home, out)
    shutil.rmtree(out)
    first = home.body
    home.body = first[:-1] + bytes([first[-1] ^ 1])
    told = refused(home, out)
    assert hashlib.sha256(home.body).hexdigest() in told
    assert hashlib.sha256(first).hexdigest() in told
    home.body = first  # the liar's file is not kept for the next call
    assert get(home, out).trust == "compared"


def test_another_size_is_refused_before_it_comes(home: Home, out: Path) -> None:
    get(home, out)
    shutil.rmtree(out)
    sent: list[int] = []
    home.before_piece = sent.append
    home.body = published(in_tar="other/")
    home.pieces = 100
    assert f"{len(home.body)} bytes, but the one recorded here had" in refused(home, out)
    assert not (out.parent / ".kvasir.download").exists()


def test_a_folder_that_was_altered_or_is_not_ours(home: Home, out: Path) -> None:
    get(home, out)
    (out / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match="not as it was fetched"):
        get(home, out)
    (out.parent / "kvasir.lock.json").write_text('{"sha256": 5}')
    with pytest.raises(UserError, match="lock file cannot be read"):
        get(home, out)
    (out.parent / "kvasir.lock.json").unlink()
    with pytest.raises(UserError, match="holds something, and no lock file"):
        get(home, out)
    assert (out / "train.txt").read_text() == "a\n"
    assert len(home.asked) == 1


def test_an_empty_folder_is_filled(home: Home, out: Path) -> None:
    out.mkdir(parents=True)
    get(home, out)
    assert is_whole(out)


# ------------------------------------------------------------------ broken connections


def test_a_broken_download_goes_on_where_it_broke(home: Home, out: Path) -> None:
    home.cuts = [5000, 3000]
    get(home, out)
    assert is_whole(out)
    assert [asked.get("Range") for asked in home.asked] == [None, "bytes=5000-", "bytes=8000-"]
    assert [asked.get("If-Range") for asked in home.asked] == [None, '"first"', '"first"']


def test_the_next_call_goes_on_too(home: Home, out: Path) -> None:
    home.cuts = [4000, 100, 100]
    told = refused(home, out)
    assert "run the same command again" in told
    assert "--archive" in told
    get(home, out)
    assert home.asked[-1]["Range"] == "bytes=4200-"
    assert is_whole(out)


def test_a_server_without_ranges_begins_anew(home: Home, out: Path) -> None:
    home.cuts, home.ranges = [5000], False
    get(home, out)
    assert is_whole(out)
    assert len(home.asked) == 2


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old(home: Home, out: Path) -> None:
    home.cuts = [5000] * 3
    refused(home, out)
    home.etag, home.body = '"second"', published(in_tar="other/")
    fetched = get(home, out)
    assert fetched.lock.sha256 == hashlib.sha256(home.body).hexdigest()
    assert is_whole(out)


@pytest.mark.parametrize("lie", ["etag", "size"])
def test_a_server_that_ignores_if_range_is_caught(home: Home, out: Path, lie: str) -> None:
    home.cuts, home.heeds_if_range = [5000] * 3, False
    refused(home, out)
    if lie == "etag":  # and of the same size: the days of all files are a year later
        home.etag, home.body = '"second"', home.body.replace(b"\0\0\x21\x50", b"\0\0\x21\x52")
    else:
        home.body = published(in_tar="other/")
    fetched = get(home, out)
    assert "Range" in home.asked[-2]
    assert "Range" not in home.asked[-1]
    assert fetched.lock.sha256 == hashlib.sha256(home.body).hexdigest()


@pytest.mark.parametrize(
    ("etag", "date", "condition"),
    [(None, "Mon, 02 Mar 2020 10:00:00 GMT", "date"), ('W/"x"', "Mon, 02 Mar 2020 10:00:00 GMT", "date"),
     ('W/"x"', None, None), (None, None, None)],
)  # fmt: skip
def test_only_what_is_surely_the_same_file_is_gone_on_with(
    home: Home, out: Path, etag: str | None, date: str | None, condition: str | None
) -> None:
    home.cuts, home.etag, home.date = [5000], etag, date
    get(home, out)
    assert home.asked[1].get("If-Range") == (date if condition else None)
    assert ("Range" in home.asked[1]) == bool(condition)
    assert is_whole(out)


def test_a_note_that_is_damaged_means_to_begin_anew(home: Home, out: Path) -> None:
    home.cuts = [5000] * 3
    refused(home, out)
    (out.parent / ".kvasir.download" / "archive.json").write_text('{"url": 3')
    get(home, out)
    assert "Range" not in home.asked[-1]
    assert is_whole(out)


def test_a_part_longer_than_the_file_is_not_believed(home: Home, out: Path) -> None:
    home.cuts = [5000] * 3
    refused(home, out)
    with (out.parent / ".kvasir.download" / "archive.part").open("ab") as part:
        part.write(bytes(len(home.body)))
    get(home, out)
    assert is_whole(out)


def test_what_has_come_whole_is_not_asked_for_again(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "unpack_zip", killed)
        with pytest.raises(KeyboardInterrupt):
            get(home, out)
    get(home, out)
    assert len(home.asked) == 1
    assert is_whole(out)


def test_ctrl_c_keeps_what_came(home: Home, out: Path) -> None:
    class Impatient(Watcher):
        def preparing(self, what: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

    home.cuts = [5000]
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        get(home, out, watcher=Impatient())
    get(home, out)
    assert home.asked[-1]["Range"] == "bytes=5000-"
    assert is_whole(out)


# ------------------------------------------------------------------ slow, redirecting and lying servers


def test_a_slow_server_is_waited_for_and_progress_told(home: Home, out: Path) -> None:
    told: list[tuple[str, int, int]] = []

    class Note(Watcher):
        def preparing(self, what: str, done: int, total: int) -> None:
            told.append((what, done, total))

    home.pieces = 2000
    home.before_piece = lambda sent: threading.Event().wait(0.005)
    get(home, out, watcher=Note())
    assert is_whole(out)
    assert len([what for what, _, _ in told if what.startswith("downloading")]) > 3
    assert ("unpacking", 5, 5) in told


def test_silence_ends_in_an_error(home: Home, out: Path) -> None:
    done = threading.Event()
    home.pieces, home.before_piece = 1000, lambda sent: done.wait(5) if sent >= 2000 else None
    told = refused(home, out, Manner(timeout_s=0.2, attempts=2, pause_s=0, allow_local_http=True))
    done.set()
    assert "nothing came for 0.2 s" in told
    assert "run the same command again" in told


def test_a_trickle_ends_in_an_error(home: Home, out: Path) -> None:
    stop = threading.Event()
    home.pieces, home.before_piece = 1, lambda sent: stop.wait(0.01)
    told = refused(home, out, Manner(timeout_s=0.3, attempts=1, allow_local_http=True))
    stop.set()
    assert "bytes came in 0.3 s" in told


def test_redirects_are_followed_to_https_only(home: Home, out: Path) -> None:
    home.redirect = home.url + "?moved"
    get(home, out)
    assert is_whole(out)
    shutil.rmtree(out.parent)
    for target in ("http://example.org/x.zip", "ftp://example.org/x.zip", "file:///etc/passwd"):
        home.redirect = target
        told = refused(home, out)
        assert "redirects" in told
    home.redirect = home.url  # round and round
    assert "redirects without end" in refused(home, out)


def test_plain_http_is_refused(home: Home, out: Path) -> None:
    assert "not https" in refused(home, out, Manner())
    assert home.asked == []
    with pytest.raises(UserError, match="not https"):
        fetch("kvasir-instrument", out, url="http://example.org/x.zip", manner=HASTY)
    assert all(one.url is None or one.url.startswith("https://") for one in KNOWN)


def test_a_server_that_claims_more_than_it_sends(home: Home, out: Path) -> None:
    home.says_length = len(home.body) + 1000
    assert "did not come whole" in refused(home, out)
    assert len(home.asked) == 3


def test_a_server_that_claims_less_than_there_is(home: Home, out: Path) -> None:
    home.says_length = len(home.body) - 1000
    assert "damaged or cut off" in refused(home, out)
    assert not (out.parent / ".kvasir.download").exists()


def test_more_than_any_set_is_refused_stated_or_not(home: Home, out: Path) -> None:
    manner = Manner(attempts=1, allow_local_http=True, max_bytes=len(home.body) - 1)
    home.pieces = 1000
    assert "the server sends more than" in refused(home, out, manner)
    home.chunked = True
    assert "the server sends more than" in refused(home, out, manner)


def test_a_length_that_is_not_stated_is_no_fault(home: Home, out: Path) -> None:
    home.chunked, home.pieces = True, 1000
    get(home, out)
    assert is_whole(out)


def test_answers_that_pass_are_asked_again_and_others_not(home: Home, out: Path) -> None:
    home.statuses = [503, 429]
    get(home, out)
    assert len(home.asked) == 3
    shutil.rmtree(out.parent)
    home.statuses = [404]
    told = refused(home, out)
    assert "404" in told
    assert len(home.asked) == 4
    assert not (out.parent / ".kvasir.download").exists()


def test_a_web_page_in_place_of_the_archive(home: Home, out: Path) -> None:
    home.body = b"\n<!DOCTYPE html><p>please log in"
    assert "a web page came" in refused(home, out)


def test_nobody_there(home: Home, out: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        home.url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.zip"
        assert "no connection was made" in refused(home, out)


def test_no_network(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_names(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    assert "cannot be looked up" in refused(home, out)


# ------------------------------------------------------------------ full disks


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: io.BufferedRandom, room: int) -> None:
        self._file, self._room = file, room

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)


def fill_up(patched: pytest.MonkeyPatch, suffix: str, room: int) -> None:
    plain = Path.open

    def limited(path: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        file = plain(path, mode, *args, **kwargs)  # type: ignore[call-overload]
        return Full(file, room) if path.suffix == suffix and mode != "rb" else file

    patched.setattr(Path, "open", limited)


def test_a_disk_that_fills_while_downloading(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.pieces = 1000
    home.before_piece = lambda sent: threading.Event().wait(0.002)
    with monkeypatch.context() as patched:
        fill_up(patched, ".part", 6000)
        told = refused(home, out)
    assert "the disk is full" in told
    assert "goes on where it stopped" in told
    get(home, out)
    begun = int(home.asked[-1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begun <= 6000
    assert is_whole(out)


def test_a_disk_that_fills_while_unpacking(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        fill_up(patched, ".jpg", 100)
        assert "the disk is full" in refused(home, out)
    get(home, out)
    assert len(home.asked) == 1  # the download was kept
    assert is_whole(out)


def test_a_disk_without_room_is_told_before(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    assert "are to come" in refused(home, out)


def test_a_place_that_cannot_be_written_to(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        get(home, tmp_path / "file" / "kvasir")
    assert home.asked == []


# ------------------------------------------------------------------ hostile archives


def link(name: str, kind: bytes, target: str) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)

    return add


def file(name: str, data: bytes = b"x", **facts: object) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for fact, value in facts.items():
            setattr(member, fact, value)
        archive.addfile(member, io.BytesIO(data))

    return add


BAD_NAMES = [
    "../escaped",
    "ABSOLUTE/escaped",
    "masks/../../escaped",
    "masks\\..\\escaped",
    "C:escaped",
    "a\nb",
    "d/" * 40,
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "../../../../../escaped"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(home: Home, out: Path, tmp_path: Path, name: str, kind: str) -> None:
    name = name.replace("ABSOLUTE", str(tmp_path))
    if kind == "zip":
        with zipfile.ZipFile(packed := io.BytesIO(home.body), "a") as archive:
            archive.writestr(name + ("x" if name.endswith("/") else ""), "x")
        home.body = packed.getvalue()
    else:
        home.body = masks_with(file(name + ("x" if name.endswith("/") else "")))
    assert "the archive is not unpacked" in refused(home, out)
    assert not any("escaped" in path.name for path in tmp_path.rglob("*"))
    assert not Path("ABSOLUTE/escaped").exists()
    assert list(out.parent.iterdir()) == []  # what is hostile is not kept


@pytest.mark.parametrize(
    "add",
    [
        link("masks/link", tarfile.SYMTYPE, "/etc/passwd"),
        link("masks/link", tarfile.SYMTYPE, "a.png"),
        link("masks/link", tarfile.LNKTYPE, "masks/a.png"),
        link("masks/device", tarfile.CHRTYPE, ""),
        link("masks/pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(home: Home, out: Path, add: Callable[[tarfile.TarFile], None]) -> None:
    home.body = masks_with(add)
    assert "a link, a device" in refused(home, out)


def test_a_link_in_a_zip_is_refused(home: Home, out: Path) -> None:
    with zipfile.ZipFile(packed := io.BytesIO(home.body), "a") as archive:
        info = zipfile.ZipInfo("kvasir-instrument/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    home.body = packed.getvalue()
    assert "a link or a device" in refused(home, out)


def test_an_encrypted_zip_is_refused(home: Home, out: Path) -> None:
    at = home.body.index(b"PK\x01\x02")
    home.body = home.body[: at + 8] + bytes([home.body[at + 8] | 1]) + home.body[at + 9 :]
    assert "encrypted" in refused(home, out)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_files_of_one_name_are_refused(home: Home, out: Path, kind: str) -> None:
    if kind == "zip":
        with (
            zipfile.ZipFile(packed := io.BytesIO(home.body), "a") as archive,
            pytest.warns(UserWarning, match="Duplicate name"),
        ):
            archive.writestr("kvasir-instrument/train.txt", "d")
        home.body = packed.getvalue()
    else:
        home.body = masks_with(file("masks/a.png", png(np.zeros((4, 4), np.uint8))))
    assert "two files of one name" in refused(home, out)


ZEROS = bytes(12_000_000)


def bomb_in_zip() -> bytes:
    return zip_of({"kvasir-instrument/train.txt": ZEROS})


def bomb_in_tar() -> bytes:
    return masks_with(file("masks/z.png", ZEROS))


def bomb_in_a_header() -> bytes:
    return masks_with(file("masks/z.png", b"x", pax_headers={"comment": "0" * 12_000_000}))


def slow_header() -> bytes:
    """30,000 digits, over which an older tarfile broods for half a minute (CVE-2024-6232)."""
    return masks_with(file("masks/z.png", b"x", pax_headers={"comment": "0" * 30_000}))


def sparse(archive: tarfile.TarFile) -> None:
    """A GNU sparse member: claims 8 GB, of which nothing is stored."""
    member = tarfile.TarInfo("masks/z.png")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    archive.fileobj.write(header)  # type: ignore[union-attr]
    archive.offset += len(header)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bomb_in_zip, "far more than it weighs"),
        (bomb_in_tar, "far more than it weighs"),
        (bomb_in_a_header, "absurdly long"),
        (slow_header, "header is absurd"),
        (lambda: masks_with(sparse), "with holes"),
    ],
)
def test_bombs_are_refused(home: Home, out: Path, make: Callable[[], bytes], words: str) -> None:
    home.body = make()
    assert words in refused(home, out)


def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_it_says(tmp_path: Path) -> None:
    body = bytearray(bomb_in_zip())
    at = body.index(b"PK\x01\x02")
    body[at + 24 : at + 28] = (10).to_bytes(4, "little")  # of 12 MB, it says
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(UserError):
        unpack.unpack_zip(tmp_path / "x.zip", tmp_path / "x", unpack.Budget(), Watcher())
    assert sum(path.stat().st_size for path in (tmp_path / "x").rglob("*") if path.is_file()) <= 10


@pytest.mark.parametrize(
    ("budget", "words"),
    [(unpack.Budget(files=8), "more files than"), (unpack.Budget(size=20_000), "unpacks to"),
     (unpack.Budget(size=100), "unpacks to more than any known set")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_share_one_budget(tmp_path: Path, budget: unpack.Budget, words: str, kind: str) -> None:
    files = {f"{number}.jpg": random.Random(number).randbytes(3000) for number in range(10)}
    packed = zip_of(files) if kind == "zip" else tar_gz(files)
    unpacking = unpack.unpack_zip if kind == "zip" else unpack.unpack_tar
    (tmp_path / "packed").write_bytes(packed)
    left = unpack.Budget(files=budget.files, size=budget.size)
    with pytest.raises(UserError, match="unpacks to" if kind == "tar" and words.startswith("unpacks") else words):
        unpacking(tmp_path / "packed", tmp_path / "one", left, Watcher())


def test_folders_in_a_tar_count_as_well(tmp_path: Path) -> None:
    def folders(archive: tarfile.TarFile) -> None:
        for number in range(30):
            link(f"d{number}", tarfile.DIRTYPE, "")(archive)

    (tmp_path / "x.tar.gz").write_bytes(tar_gz({}, folders))
    with pytest.raises(UserError, match="more files than"):
        unpack.unpack_tar(tmp_path / "x.tar.gz", tmp_path / "x", unpack.Budget(files=20), Watcher())


def test_a_bomb_that_would_only_be_passed_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar_gz({"masks/._a.png": ZEROS}))
    with pytest.raises(UserError, match="far more than it weighs"):
        unpack.unpack_tar(tmp_path / "x.tar.gz", tmp_path / "x", unpack.Budget(), Watcher())


@pytest.mark.parametrize("damage", ["not gzip", "gzip cut off", "tar cut off", "empty"])
def test_damaged_tars_are_called_damaged(tmp_path: Path, damage: str) -> None:
    whole = tar_gz({"masks/a.png": random.Random(0).randbytes(5000)})
    body = {
        "not gzip": b"images" * 1000,
        "gzip cut off": whole[:-2000],
        "tar cut off": gzip.compress(gzip.decompress(whole)[:3000]),
        "empty": b"",
    }
    (tmp_path / "x.tar.gz").write_bytes(body[damage])
    with pytest.raises(UserError, match="damaged or cut off"):
        unpack.unpack_tar(tmp_path / "x.tar.gz", tmp_path / "x", unpack.Budget(), Watcher())


def test_a_zip_whose_list_of_files_is_absurd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack._Bounded, "longest", 70_000)
    (tmp_path / "x.zip").write_bytes(zip_of({f"{number:060}": b"" for number in range(1000)}))
    with pytest.raises(UserError, match="absurdly long"):
        unpack.unpack_zip(tmp_path / "x.zip", tmp_path / "x", unpack.Budget(), Watcher())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (zip_of({"images/a.jpg": b"x", "train.txt": b"a"}), "no masks"),
        (zip_of({"images/a.jpg": b"x", "masks/a.png": b"x"}), "no train.txt"),
        (zip_of({"p/images/a.jpg": b"x", "q/images/a.jpg": b"x", "masks/a.png": b"x", "train.txt": b"a"}), "2 images"),
        (zip_of({"images/a.jpg": b"x", "masks/a.png": b"x", "train.txt": b"a"}), "reads as folder"),
        (zip_of({}), "no images"),
    ],
)
def test_an_archive_of_something_else(home: Home, out: Path, body: bytes, words: str) -> None:
    home.body = body
    assert words in refused(home, out)


def test_mutated_archives_end_in_the_error_form(tmp_path: Path) -> None:
    seed = random.Random(0)
    whole = published()
    tars = [tar_gz({"masks/a.png": members()["masks/a.png"]}), zip_of({"masks/a.png": members()["masks/a.png"]})]
    ended = 0
    for number in range(150):
        body = bytearray([whole, *tars][number % 3])
        for _ in range(seed.randint(1, 8)):
            body[seed.randrange(len(body))] = seed.randrange(256)
        body = body[: seed.randint(1, len(body))] if seed.random() < 0.2 else body
        (packed := tmp_path / "packed").write_bytes(body)
        unpacking = unpack.unpack_tar if number % 3 == 1 else unpack.unpack_zip
        try:
            unpacking(packed, tmp_path / "in" / str(number), unpack.Budget(), Watcher())
        except UserError:
            ended += 1
        assert {path.name for path in tmp_path.iterdir()} <= {"packed", "in"}
    assert ended > 50


# ------------------------------------------------------------------ by hand


@pytest.mark.parametrize("one", [one for one in KNOWN if one.url is None], ids=lambda one: one.name)
def test_sets_to_be_asked_for_print_page_and_layout(one: fetching.KnownSet, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch(one.title, tmp_path / "x")
    assert one.page in str(caught.value)
    assert all(line in str(caught.value) for line in one.layout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_layouts_are_those_of_the_docs_and_of_the_readers() -> None:
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    for one in KNOWN:
        assert f"### {one.title}\n\n```\n{one.layout}\n```" in page
        assert one.name in get_args(DataSettings.model_fields["kind"].annotation)


def test_an_unknown_set_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean kvasir-instrument"):
        fetch("kvasir-instruments")
    with pytest.raises(UserError, match="known are kvasir-instrument, endovis15"):
        fetch("zzz")


# ------------------------------------------------------------------ the verb


def trocar(*arguments: object) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, ["fetch", *map(str, arguments)])


def test_the_verb_lists_what_is_known() -> None:
    done = trocar()
    assert done.exit_code == 0
    assert all(f"{one.name} " in done.stdout and one.page in done.stdout for one in KNOWN)
    listed = json.loads(trocar("--json").stdout)["sets"]
    assert [one["name"] for one in listed if one["downloads"]] == ["kvasir-instrument"]


def test_the_verb_fetches(home: Home, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "fetch", functools.partial(fetch, url=home.url, manner=HASTY))
    document = json.loads(trocar("kvasir-instrument", "--out", out, "--json").stdout)
    assert document["lock"]["sha256"] == hashlib.sha256(home.body).hexdigest()
    assert document["trust"] == "first"
    assert document["official"] == {"train": 3, "test": 1}
    again = trocar("kvasir-instrument", "--out", out)
    assert "nothing was downloaded" in again.stdout
    shutil.rmtree(out)
    assert "the same archive as on" in trocar("kvasir-instrument", "--out", out).stdout
    shutil.rmtree(out.parent)
    first = trocar("kvasir-instrument", "--out", out)
    assert "nothing to compare it with" in first.stdout
    assert first.exit_code == 0


def test_the_verb_prints_page_and_layout_and_exits_2() -> None:
    done = trocar("endovis17", "--json")
    assert done.exit_code == 2
    error = json.loads(done.stdout)["error"]
    assert error["where"] == "https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org/"
    assert "instrument_dataset_1/" in error["mend"]


def test_an_archive_downloaded_by_other_means(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", no_network)
    archive = tmp_path / "browser.zip"
    archive.write_bytes(published())
    done = trocar("kvasir-instrument", "--out", out, "--archive", archive)
    assert done.exit_code == 0, done.output
    assert is_whole(out)
    shutil.rmtree(out)
    archive.write_bytes(published(in_tar="other/"))
    assert trocar("kvasir-instrument", "--out", out, "--archive", archive).exit_code == 2
    assert archive.is_file()
    assert trocar("kvasir-instrument", "--out", out, "--archive", tmp_path / "none.zip").exit_code == 2
