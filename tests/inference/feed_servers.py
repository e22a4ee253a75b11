"""Servers on the loopback that a feed is read from: whole, dropped in the middle, stalling, silent."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def numbered_frames(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Brighter from one to the next."""
    return [np.full((height, width, 3), 20 + 4 * number, np.uint8) for number in range(count)]


def mpegts(frames: Sequence[NDArray[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 1
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class Script:
    """What the server does with each request, in turn: bytes to send, seconds to wait. `length` is promised.

    Without a length FFmpeg takes the end for a lost connection.
    """

    def __init__(self, *requests: Sequence[bytes | float], kind: str = "video/mp2t", length: int | None = None) -> None:
        self.requests = list(requests)
        self.length = length
        self.kind = kind
        self.asked: list[str] = []
        self.over = threading.Event()


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = len(script.asked)
            script.asked.append(self.path)
            if number >= len(script.requests):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", script.kind)
            if script.length is not None:
                self.send_header("Content-Length", str(script.length))
            self.end_headers()
            with contextlib.suppress(OSError):
                for step in script.requests[number]:
                    if isinstance(step, bytes):
                        self.wfile.write(step)
                    else:
                        script.over.wait(step)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/feed"
        finally:
            script.over.set()
            server.shutdown()
            thread.join(10)


def jpegs(frames: Sequence[NDArray[np.uint8]], pause_s: float) -> list[bytes | float]:
    """One part of multipart/x-mixed-replace for each frame, with pauses between."""
    steps: list[bytes | float] = []
    for frame in frames:
        data = cv2.imencode(".jpg", frame)[1].tobytes()
        head = f"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        steps += [head + data + b"\r\n", pause_s]
    return steps


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never says a word; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        time.sleep(0.01)
        for connection in held:
            connection.close()
