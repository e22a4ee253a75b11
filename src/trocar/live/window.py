"""A window of this desktop that shows a live feed, with Tk, which comes with most Pythons. Used by one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trocar.data.preprocess import resize_image
from trocar.data.records import ImageArray
from trocar.errors import UserError

SIDE_PX = 1280  # longer sides are shrunk, so that the window fits
NOTICE = "For research only. Not a medical device."


class Window:
    """Shows pictures with figures below them; a context manager."""

    def __init__(self, name: str, figures: Callable[[], dict[str, Any]]) -> None:
        try:
            import tkinter
        except ImportError:
            raise _no_window("this Python comes without Tk") from None
        self._figures = figures
        self._closed = False
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise _no_window(str(error)) from None
        self._root.title(f"trocar live {name}")
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._image = tkinter.PhotoImage(master=self._root)
        tkinter.Label(self._root, image=self._image, borderwidth=0).pack()
        self._text = tkinter.Label(self._root, text=NOTICE, anchor="w", justify="left")
        self._text.pack(fill="x")
        self._root.update()

    def _close(self) -> None:
        self._closed = True

    def closed(self) -> bool:
        """Whether its user closed it; lets the window react meanwhile."""
        self._root.update()
        return self._closed

    def show(self, picture: ImageArray) -> None:
        """Show a picture and the figures of now. Shapes: (H, W, 3) uint8 RGB."""
        scale = SIDE_PX / max(picture.shape[:2])
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
            picture = resize_image(picture, (height, width))
        head = f"P6 {picture.shape[1]} {picture.shape[0]} 255\n".encode()
        self._image.configure(data=head + np.ascontiguousarray(picture).tobytes(), format="ppm")
        self._text.configure(text=f"{NOTICE}  {caption(self._figures())}")
        self._root.update()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._root.destroy()


def caption(now: dict[str, Any]) -> str:
    """The figures in a line."""
    rate, latency = now["frames_per_second"], now["recent_latency_ms"]
    if rate is None:
        return ""
    return (
        f"latency {latency['p50']:.0f} ms, 99 % under {latency['p99']:.0f} ms; {rate:.1f} frames a second; "
        f"{now['dropped']} dropped, {now['late']} late"
    )


def _no_window(why: str) -> UserError:
    return UserError(
        f"no window can be opened: {why}", mend="leave --window out and look at the page, or use --headless"
    )
