"""Video files, written frame by frame: masks without loss, overlays to look at.

A file is closed, and thereby playable, on every path: the end, an error, Ctrl-C.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from trocar.inference.sound import Sound

Pixels: TypeAlias = Literal["grey", "grey16", "colour"]


class VideoWriter:
    """Writes frames of one size to a video file; a context manager.

    `grey` and `grey16` are lossless (FFV1), of 8 or 16 bit. `colour` is for looking at: H.264, or MPEG-4 part 2 where
    PyAV came without an H.264 encoder (`codec` says which). Both store colour at half the resolution and need even
    sides, so an odd side is made even by repeating its last row or column.

    The file gets its name when it is closed, which happens after an error or Ctrl-C too: what was written is then
    playable (where the disk was full, all but the last moments). Nothing is left where no frame was written. Time
    stamps are kept as far as the container can (Matroska: to the millisecond) and must rise; one that does not is moved
    up.

    `pixel_aspect` is the width of a pixel as shown over its height (MP4 keeps it; PyAV has no way to tell Matroska).
    `sound` is copied beside the pictures, up to where they end if that is an error.
    """

    def __init__(
        self,
        path: Path,
        pixels: Pixels,
        *,
        rate: Fraction,
        time_base: Fraction,
        pixel_aspect: Fraction | None = None,
        sound: Sound | None = None,
    ) -> None:
        self.path = path
        self._aspect = pixel_aspect
        self._sound = sound
        self.frames = 0
        self.codec = colour_codec() if pixels == "colour" else "ffv1"
        self._pixels = pixels
        self._matrix = _ANY_MATRIX.get(self.codec, Colorspace.ITU601)
        # MPEG-4 part 2 counts time in at most 65535 steps a second.
        self._time_base = Fraction(1, 1000) if self.codec == "mpeg4" else time_base
        self._last_pts = -1
        self._reformatter = VideoReformatter()
        self._scratch = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        options = _MP4 if path.suffix == ".mp4" else {}
        self._container = av.open(str(self._scratch.absolute()), "w", container_options=options)
        stream = self._container.add_stream(self.codec, rate=rate, options=_OPTIONS[self.codec])
        self._stream = cast(VideoStream, stream)
        if sound is not None:
            sound.add_to(self._container)

    def write(self, picture: NDArray[np.uint8] | NDArray[np.uint16] | av.VideoFrame, seconds: Fraction) -> None:
        """Append a frame; for colour it may be a `look`, whose matrix the video keeps if it is the first.

        Shapes: (H, W) uint8 for grey, (H, W) uint16 for grey16, (H, W, 3) uint8 RGB for colour.
        """
        if self._pixels == "colour":
            frame = self._colour_frame(picture)
        else:
            assert not isinstance(picture, av.VideoFrame), "a look has colours"
            frame = _grey_frame(picture)
        if not self.frames:
            self._set_up_encoder(frame)
        assert (frame.width, frame.height) == (self._stream.width, self._stream.height), "PyAV would rescale in silence"
        frame.pts = self._last_pts = max(round(seconds / self._time_base), self._last_pts + 1)
        frame.time_base = self._time_base
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
        if self._sound is not None:
            self._sound.mux_until(self._container, seconds)

    def _colour_frame(self, picture: NDArray[np.uint8] | NDArray[np.uint16] | av.VideoFrame) -> av.VideoFrame:
        if isinstance(picture, av.VideoFrame):
            frame = picture
            if not self.frames and self.codec in _ANY_MATRIX:
                self._matrix = Colorspace(frame.colorspace)
        else:
            frame = _frame(_with_even_sides(picture), "rgb24")
        return self._reformatter.reformat(  # of a look nothing, unless its matrix is another
            frame,
            format="yuv420p",
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.POINT,  # of colour only, at half the resolution: mean of two pixels, not four
            threads=1,  # others decode, predict and encode meanwhile
        )

    def _set_up_encoder(self, frame: av.VideoFrame) -> None:
        encoder = self._stream.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
        encoder.time_base = self._time_base
        if self._aspect is not None:
            encoder.sample_aspect_ratio = self._aspect
        if self._pixels == "colour":
            encoder.colorspace = self._matrix
            encoder.color_range = ColorRange.MPEG

    def close(self, *, whole: bool = True) -> None:
        """Write what the encoder still holds, and the rest of the sound of a `whole` video; give the file its name."""
        finished = False
        try:
            try:
                if self.frames:
                    self._container.mux(self._stream.encode(None))
                if self.frames and whole and self._sound is not None:
                    self._sound.mux_until(self._container, None)
            finally:
                self._container.close()
            finished = True
        finally:
            if self.frames and (finished or _is_playable(self._scratch)):
                self._scratch.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close(whole=kind is None)
        finally:
            self._scratch.unlink(missing_ok=True)


def _is_playable(path: Path) -> bool:
    try:
        with av.open(str(path.absolute())) as container:
            return next(container.decode(video=0), None) is not None
    except (av.FFmpegError, OSError):
        return False


# Playable up to its last second while it is written, an ordinary MP4 with one index once it is finished.
_MP4 = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}

_OPTIONS = {
    "ffv1": {"level": "3", "g": "1", "slicecrc": "1"},  # every frame stands for itself and shows damage
    # Half of superfast's work. Without the search for coefficients that may be dropped (dct-decimate) it is an eighth
    # less, at the size and PSNR that CRF 21 has with it.
    "libx264": {"preset": "ultrafast", "tune": "fastdecode", "crf": "21.4", "x264-params": "no-dct-decimate=1"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},  # quality 3 of 31, in units of FF_QP2LAMBDA
}

# MPEG-4 part 2 has no field for the matrix; players take BT.601 then. Of others this is the one for RGB.
_ANY_MATRIX = {"libx264": Colorspace.ITU709}


def colour_codec() -> str:
    """Name of the encoder of `colour` videos."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _grey_frame(picture: NDArray[np.uint8] | NDArray[np.uint16]) -> av.VideoFrame:
    return _frame(picture, "gray" if picture.dtype == np.uint8 else "gray16le")


def _with_even_sides(picture: NDArray[Any]) -> NDArray[Any]:
    height, width = picture.shape[:2]
    if not height % 2 and not width % 2:
        return picture
    repeated = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(repeated, np.uint8)


def _frame(picture: NDArray[np.uint8] | NDArray[np.uint16], pixel_format: str) -> av.VideoFrame:
    """Around the pixels, without a copy: FFmpeg makes one where an encoder keeps them."""
    rows: NDArray[np.uint8] = np.require(picture, requirements="C")
    return av.VideoFrame.from_numpy_buffer(rows, format=pixel_format)
