"""The page over HTTP, as a browser and as others who should get nothing."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scripted import PATIENCE_S, wait_until

from trocar.errors import UserError
from trocar.live import page as pages
from trocar.live.page import Page, encode


@pytest.fixture
def page() -> Iterator[Page]:
    with Page(lambda: {"state": "running", "nothing": float("nan"), "name": "ü"}, port=0) as opened:
        yield opened


def port_of(page: Page) -> int:
    return int(page.url.rsplit(":", 1)[1].strip("/"))


def ask(page: Page, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def connect(page: Page, path: str) -> socket.socket:
    """A viewer by hand; the answer is not read."""
    viewer = socket.create_connection(("127.0.0.1", port_of(page)), timeout=PATIENCE_S)
    viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port_of(page)}\r\n\r\n".encode())
    return viewer


def read_until(viewer: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        chunk = viewer.recv(1 if len(end) > 1 else 65536)
        assert chunk, f"the answer ends early: {data[-200:]!r}"
        data += chunk
    return data


def next_picture(viewer: socket.socket) -> NDArray[np.uint8]:
    head = read_until(viewer, b"\r\n\r\n").decode()
    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    data = b""
    while len(data) < length:
        data += viewer.recv(length - len(data))
    assert read_until(viewer, b"--frame\r\n") == b"\r\n--frame\r\n"  # at once, so that the picture is shown
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def grey(level: int, size_hw: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    return np.full((*size_hw, 3), level, np.uint8)


# ------------------------------------------------------------------ what a browser gets


def test_the_page_and_what_it_is_made_of(page: Page) -> None:
    for path, kind, words in (
        ("/", "text/html", b"Not a medical device"),
        ("/page.css", "text/css", b"prefers-color-scheme"),
        ("/page.js", "text/javascript", b"EventSource"),
    ):
        status, headers, body = ask(page, path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert words in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
    assert ask(page, "/figures?x=1")[0] == 200
    assert json.loads(ask(page, "/figures")[2]) == {"state": "running", "nothing": None, "name": "ü"}
    assert ask(page, "/nonesuch")[0] == 404
    assert ask(page, "/../../etc/passwd")[0] == 404


def test_pictures_come_one_after_the_other_and_the_newest_first(page: Page) -> None:
    for level in (10, 20, 30):
        page.show(grey(level))  # nobody looks: nothing is encoded
    with connect(page, "/video") as viewer:
        head = read_until(viewer, b"\r\n\r\n").decode()
        assert "200 OK" in head.splitlines()[0]
        assert "multipart/x-mixed-replace; boundary=frame" in head
        assert read_until(viewer, b"--frame\r\n") == b"--frame\r\n"
        assert abs(int(next_picture(viewer)[0, 0, 0]) - 30) <= 1
        for level in (100, 200):
            page.show(grey(level))
            assert abs(int(next_picture(viewer)[20, 30, 1]) - level) <= 1
        assert page.watching == 1
    page.show(grey(1))
    page.show(grey(2))
    wait_until(lambda: page.show(grey(3)) or page.watching == 0)


def test_a_feed_that_stalls_shows_its_last_picture_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how one learns that a viewer has left."""
    monkeypatch.setattr(pages, "_AGAIN_S", 0.0)
    page.show(grey(50))
    with connect(page, "/video") as viewer:
        read_until(viewer, b"--frame\r\n")
        for _ in range(3):
            assert abs(int(next_picture(viewer)[0, 0, 0]) - 50) <= 1
    wait_until(lambda: page.watching == 0)


def test_figures_come_as_events_and_the_last_says_that_it_ends(page: Page) -> None:
    with connect(page, "/events") as viewer:
        head = read_until(viewer, b"\r\n\r\n").decode()
        assert "text/event-stream" in head
        first = read_until(viewer, b"\n\n").decode()
        assert json.loads(first.removeprefix("data: "))["state"] == "running"
        closing = threading.Thread(target=page.close)
        closing.start()
        rest = b""
        while chunk := viewer.recv(4096):
            rest += chunk
        closing.join()
    assert rest.decode().split("\n\n")[-2].startswith("event: end\ndata: {")


def test_large_pictures_are_shrunk_for_the_page() -> None:
    seen = cv2.imdecode(np.frombuffer(encode(grey(9, (2160, 3840))), np.uint8), cv2.IMREAD_COLOR)
    assert seen.shape == (720, 1280, 3)
    assert cv2.imdecode(np.frombuffer(encode(grey(9, (1, 5000))), np.uint8), cv2.IMREAD_COLOR).shape == (1, 1280, 3)


# ------------------------------------------------------------------ who gets nothing


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "", "0.0.0.0"]
)
@pytest.mark.parametrize("path", ["/", "/figures", "/video", "/events", "/nonesuch"])
def test_a_name_that_was_bent_to_this_address_gets_nothing(page: Page, host: str, path: str) -> None:
    """DNS rebinding: the page of another site, whose name now leads here."""
    status, _, body = ask(page, path, Host=host)
    assert status == 421
    assert b"running" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]:8765"])
def test_its_own_names_are_known_also_behind_a_forwarded_port(page: Page, host: str) -> None:
    assert ask(page, "/figures", Host=host)[0] == 200


def test_other_sites_may_not_embed_it(page: Page) -> None:
    assert ask(page, "/video", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(page, "/figures", Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(page, "/", Sec_Fetch_Site="none")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_only_get(page: Page, method: str) -> None:
    status, headers, _ = ask(page, "/", method)
    assert status == 405
    assert headers["Allow"] == "GET"


def test_it_listens_on_this_machine_only(page: Page) -> None:
    assert page._server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(page: Page) -> None:
    with pytest.raises(UserError, match="cannot be served"):
        Page(dict, port_of(page))
    with pytest.raises(UserError, match="cannot be served"):
        Page(dict, 70_000)


# ------------------------------------------------------------------ bounds


def test_there_are_only_so_many_viewers(page: Page) -> None:
    page.show(grey(50))
    for path in ("/video", "/events"):
        viewers = [connect(page, path) for _ in range(pages.VIEWERS)]
        for viewer in viewers:
            assert b"200 OK" in read_until(viewer, b"\r\n\r\n")
        status, headers, _ = ask(page, path)
        assert status == 503
        assert headers["Retry-After"]
        viewers[0].close()

        def one_more(path: str = path) -> bool:
            page.show(grey(50))
            with connect(page, path) as viewer:
                return b"200 OK" in read_until(viewer, b"\r\n\r\n")

        wait_until(one_more)  # the place of who left
        for viewer in viewers:
            viewer.close()


def test_there_are_only_so_many_connections(page: Page) -> None:
    idle = [socket.create_connection(("127.0.0.1", port_of(page))) for _ in range(pages.CONNECTIONS)]
    wait_until(lambda: page._server._count() == pages.CONNECTIONS)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(page, "/")
    for one in idle:
        one.close()
    wait_until(lambda: page._server._count() == 0)
    assert ask(page, "/")[0] == 200


def test_a_viewer_who_takes_nothing_is_let_go_and_holds_nobody_up(
    page: Page, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(pages._Handler, "timeout", 0.3)
    picture = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)  # noise: 300 kB as JPEG
    with connect(page, "/video"):
        wait_until(lambda: page.watching == 1)
        begun = time.monotonic()
        shown = 0
        while page.watching and time.monotonic() - begun < PATIENCE_S:
            page.show(picture)
            shown += 1
        assert page.watching == 0
        assert shown > 10


def test_a_request_that_never_ends_is_let_go(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pages._Handler.timeout == pages.PATIENCE_S
    monkeypatch.setattr(pages._Handler, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", port_of(page))) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Never: ")
        slow.settimeout(PATIENCE_S)
        assert slow.recv(100) == b""


def test_closing_ends_viewers_and_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not wait until those who say nothing run out of time. The fixture sees that no thread is left."""
    monkeypatch.setattr(pages._Handler, "timeout", None)
    with Page(dict, port=0) as page:
        page.show(grey(3))
        held: list[Any] = [connect(page, path) for path in ("/video", "/video", "/events", "/events")]
        held += [socket.create_connection(("127.0.0.1", port_of(page))) for _ in range(3)]
        wait_until(lambda: page.watching == 2 and page._server._count() == 7)
    for one in held:
        one.close()


def test_a_page_that_was_never_opened_closes() -> None:
    page = Page(dict, port=0)
    page.close()
