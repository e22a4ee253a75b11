"""A window of this desktop for pictures as they come, with Tk, which comes with most Pythons. Used by one thread.

Not OpenCV's: the OpenCV that trocar installs (headless) has none.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from trocar.data.preprocess import resize_image
from trocar.data.records import ImageArray
from trocar.errors import UserError

SIDE_PX = 1280  # longer sides are shrunk, so that the window fits
NOTICE = "For research only. Not a medical device."


class Window:
    """Shows pictures, each in place of the last, with a line below; a context manager. Esc and q close it too."""

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError:
            raise _no_window("this Python comes without Tk") from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise _no_window(str(error)) from None
        self._closed = False
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self._close())
        self._image = tkinter.PhotoImage(master=self._root)
        tkinter.Label(self._root, image=self._image, borderwidth=0).pack()
        self._text = tkinter.Label(self._root, text=NOTICE, anchor="w")
        self._text.pack(fill="x")
        self._root.update()

    def _close(self) -> None:
        self._closed = True

    def closed(self) -> bool:
        """Whether its user closed it; lets the window react meanwhile."""
        self._root.update()
        return self._closed

    def show(self, picture: ImageArray, text: str = "") -> None:
        """Show a picture, and the text after the notice. Shapes: (H, W, 3) uint8 RGB."""
        scale = SIDE_PX / max(picture.shape[:2])
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
            picture = resize_image(picture, (height, width))
        head = f"P6 {picture.shape[1]} {picture.shape[0]} 255\n".encode()
        self._image.configure(data=head + np.ascontiguousarray(picture).tobytes(), format="ppm")
        self._text.configure(text=f"{NOTICE}  {text}")
        self._root.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._root.destroy()


def _no_window(why: str) -> UserError:
    return UserError(f"no window can be opened: {why}", mend="leave --window out")
