"""The page that shows a live feed: on this machine only, for a few viewers, none of whom can hold a frame up.

`/` is the page, `/video` the pictures (MJPEG: one JPEG after the other in one answer), `/events` the figures twice a
second (server-sent events), `/figures` the same once. Standard library only. It binds to 127.0.0.1 and answers only who
calls it by that name: a page of the web, whose name was bent to this address (DNS rebinding), or that embeds it, gets
nothing. To look on from another machine, forward the port (`ssh -L 8765:127.0.0.1:8765`).
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from trocar.data.preprocess import resize_image
from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.plain import without_nan

PORT = 8765
VIEWERS = 4  # pages that may be open
CONNECTIONS = 24  # a browser opens a few for one page
SIDE_PX = 1280  # longer sides are shrunk for the page: no phone or laptop shows more, and JPEG takes its time
JPEG_QUALITY = 85
PATIENCE_S = 3.0  # a viewer who takes no data for so long is let go
EVERY_S = 0.5  # figures

_AGAIN_S = 2.0
_SEND_BUFFER = 256 * 1024  # bytes that may wait for a viewer: a few pictures, else a slow one sees the past

_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_BOUNDARY = "frame"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class Page:
    """Serves the page while it is open; a context manager.

    `figures` gives what the page tells besides the picture; it is called from the threads of the viewers.
    """

    def __init__(self, figures: Callable[[], dict[str, Any]], port: int = PORT) -> None:
        self.figures = figures
        self.closing = threading.Event()
        self.videos, self.events = threading.BoundedSemaphore(VIEWERS), threading.BoundedSemaphore(VIEWERS)
        self._changed = threading.Condition()  # what follows is touched under it
        self._picture: ImageArray | None = None
        self._jpeg: bytes | None = None
        self._number = 0
        self._watching = 0
        try:
            self._server = _Server(self, port)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"the page cannot be served: {getattr(error, 'strerror', None) or error}",
                where=f"port {port} of 127.0.0.1",
                mend="give another --port, 0 for any free one, or --headless",
            ) from None
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="trocar-live-page"
        )

    def show(self, picture: ImageArray) -> None:
        """Hand the newest picture to the viewers; encodes it if there is one, and waits for nobody."""
        with self._changed:
            watched = self._watching > 0
        jpeg = encode(picture) if watched else None
        with self._changed:
            self._picture, self._jpeg, self._number = picture, jpeg, self._number + 1
            self._changed.notify_all()

    @property
    def watching(self) -> int:
        """How many look at the pictures now."""
        with self._changed:
            return self._watching

    def watch(self, by: int) -> None:
        """Count a viewer in or out."""
        with self._changed:
            self._watching += by

    def newest(self, after: int, timeout_s: float) -> tuple[int, bytes | None]:
        """Number and JPEG of the newest picture, as soon as its number is over `after`; None where there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self.closing.is_set(), timeout_s)
            number, picture, jpeg = self._number, self._picture, self._jpeg
        if number == after or picture is None:
            return after, None
        return number, encode(picture) if jpeg is None else jpeg  # not yet watched when it came

    def close(self) -> None:
        """Tell the viewers that it ends, and end all threads."""
        with self._changed:
            self.closing.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Page:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join()


def encode(picture: ImageArray) -> bytes:
    """As JPEG, no larger than a page needs. Shapes: (H, W, 3) uint8 RGB."""
    scale = SIDE_PX / max(picture.shape[:2])
    if scale < 1:
        picture = resize_image(
            picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
        )
    fine, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert fine, f"OpenCV cannot encode {picture.shape}"
    return np.asarray(data, np.uint8).tobytes()


# ------------------------------------------------------------------ HTTP


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there are only so many. All have ended when it is closed."""

    daemon_threads = False  # so that closing waits for them
    request_queue_size = CONNECTIONS

    def __init__(self, page: Page, port: int) -> None:
        self.page = page
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for the name of this machine.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        deadline = time.monotonic() + 1  # for the last words to the viewers
        while self._count() and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def _count(self) -> int:
        with self._lock:
            return len(self._open)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer who left is no error; anything else is a defect, and said."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_S  # of the socket, for reading and for writing
    server: _Server
    server_version = "trocar"
    sys_version = ""

    def do_GET(self) -> None:
        if not _LOCAL.fullmatch(self.headers.get("Host", "")):
            self._answer(421, "text/plain; charset=utf-8", b"ask for 127.0.0.1 or localhost\n")
        elif self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._answer(403, "text/plain; charset=utf-8", b"not for other sites\n")
        else:
            self._route(urlsplit(self.path).path)

    def _route(self, path: str) -> None:
        page = self.server.page
        if path in _FILES:
            name, kind = _FILES[path]
            self._answer(200, kind, files("trocar.live").joinpath(name).read_bytes())
        elif path == "/figures":
            self._answer(200, "application/json", _json(page.figures()))
        elif path == "/video":
            self._stream(page.videos, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", self._pictures)
        elif path == "/events":
            self._stream(page.events, "text/event-stream", self._events)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"nothing here\n")

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(405, "text/plain; charset=utf-8", b"only GET\n", {"Allow": "GET"})

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = do_TRACE = _refuse  # noqa: N815

    def _answer(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | _HEADERS | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, places: threading.BoundedSemaphore, kind: str, send: Callable[[], None]) -> None:
        if not places.acquire(blocking=False):
            body = f"{VIEWERS} viewers look on already\n".encode()
            self._answer(503, "text/plain; charset=utf-8", body, {"Retry-After": "5"})
            return
        try:
            self.send_response(200)
            for name, value in ({"Content-Type": kind} | _HEADERS).items():
                self.send_header(name, value)
            self.end_headers()
            send()
        finally:
            places.release()

    def _pictures(self) -> None:
        page, number, last, sent_at = self.server.page, 0, b"", 0.0
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        page.watch(+1)
        try:
            self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
            while not page.closing.is_set():
                number, jpeg = page.newest(number, EVERY_S)
                # Now and then the last one again: that is how one learns that a viewer has left a feed that stalls.
                if jpeg is not None or (last and time.monotonic() - sent_at > _AGAIN_S):
                    last, sent_at = jpeg or last, time.monotonic()
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(last)}\r\n\r\n"
                    # Browsers show a picture when the next part begins, so its boundary is sent at once.
                    self.wfile.write(head.encode() + last + f"\r\n--{_BOUNDARY}\r\n".encode())
        finally:
            page.watch(-1)

    def _events(self) -> None:
        page = self.server.page
        while not page.closing.wait(0):
            self.wfile.write(b"data: " + _json(page.figures()) + b"\n\n")
            page.closing.wait(EVERY_S)
        self.wfile.write(b"event: end\ndata: " + _json(page.figures()) + b"\n\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the library has
        """Nothing: who looks on is no news."""


def _json(document: Any) -> bytes:
    return json.dumps(without_nan(document), ensure_ascii=False, allow_nan=False).encode()
