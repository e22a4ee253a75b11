"""Video files, frame by frame: read with bounded memory, write masks without loss and overlays to look at.

Frames leave in the order they are shown, with the time stamps they came with. A file is closed, and thereby playable,
on every path: the end, an error, Ctrl-C. Other sources of frames are `feeds`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeAlias, cast

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.frames import ANY_RATE, Frame
from trocar.inference.sound import Sound

MOST_PIXELS = 100_000_000  # of one picture: three times 8K; a broken header may claim anything

# What `VIDEO_SUFFIXES` may hold, by FFmpeg's names; its other readers are more than two hundred, some of scripts.
_CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "asf"),
    *("ogg", "flv", "mxf", "dv", "ivf", "nut", "vc1", "obu", "yuv4mpegpipe"),
)


class VideoReader:
    """Iterates over the frames of a video file, in the order they are shown.

    A frame that cannot be decoded is left out and counted in `lost`; one that the decoder calls damaged is given as
    it is and counted in `damaged`. Raises `UserError` where the file is no video, or ends in a way that cannot be
    read; what came before has then been given.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lost = 0
        self.damaged = 0
        self._stopped = False
        self._reformatter = VideoReformatter()
        self._container, self._stream = _open_for_reading(self.path)
        self.rate, self.time_base = clock_of(self._stream)
        self.pixel_aspect: Fraction | None = None  # known with the first frame
        self._promised = self._promised_seconds()
        self.frames_expected = round(self._promised * self.rate)  # 0: unknown. Headers count wrongly (AVI)

    def _promised_seconds(self) -> Fraction:
        """How long the header says the pictures last; 0 where it does not, or may mean the sound."""
        if self._stream.duration:
            return self._stream.duration * self.time_base
        only_pictures = len(self._container.streams) == 1
        return Fraction(self._container.duration or 0, av.time_base) if only_pictures else Fraction(0)

    def __iter__(self) -> Iterator[Frame]:
        seconds, shape, count = -1 / self.rate, None, 0
        for count, frame in enumerate(self._decoded(), start=1):
            if self._stopped:
                return
            try:
                image = upright(frame, self._reformatter)
            except av.FFmpegError as error:  # BT.2020 of constant luminance, ICtCp, ...
                raise UserError(
                    f"the colours of frame {count} are stored in a way that cannot be made RGB: {words(error)}",
                    where=str(self.path),
                    mend="what came before is done; convert the video to BT.709 with a video tool",
                ) from None
            self.pixel_aspect = self.pixel_aspect or aspect_of(self._stream, frame)
            if image.shape != (shape := shape or image.shape):
                raise UserError(
                    f"the picture changes its size at frame {count}, from {shape[1]}x{shape[0]}",
                    where=str(self.path),
                    mend="what came before is done; cut the video there",
                )
            time = None if frame.pts is None else frame.pts * (frame.time_base or self.time_base)
            # AVI has no times, and what FFmpeg makes up for it is in the order of decoding, not of showing.
            seconds = time if time is not None and (count == 1 or time > seconds) else seconds + 1 / self.rate
            yield Frame(image, seconds, frame)
        if not count:
            raise UserError("no frame of the video can be decoded", where=str(self.path), mend="copy the file again")
        shown = seconds + 1 / self.rate
        if self._promised - shown > max(Fraction(1), self._promised / 20):
            raise self._cut_off(f"{float(shown):.1f} of {float(self._promised):.1f} s are there")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        try:
            whole = yield from decoded(self._container, self._stream, self)
        except (av.FFmpegError, EOFError) as error:
            raise self._cut_off(words(error)) from None
        if not whole:
            raise self._cut_off("it ends inside a frame")

    def _cut_off(self, reason: str) -> UserError:
        return UserError(
            f"the video cannot be read to its end: {reason}",
            where=str(self.path),
            mend="what came before is done; copy the file again, or repair it with a video tool",
        )

    def stop(self) -> None:
        """Let no more frames come; any thread may ask."""
        self._stopped = True

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Counts(Protocol):
    """Where `decoded` counts."""

    lost: int
    damaged: int


def decoded(container: InputContainer, stream: VideoStream, counts: Counts) -> Generator[av.VideoFrame, None, bool]:
    """The frames of an open container; what cannot be decoded is counted. Returns whether the last one was whole.

    Raises `av.FFmpegError` where the container cannot be read further.
    """
    half_a_packet, failure = False, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, EOFError) as error:
            packet, failure = None, error
        if packet is not None:
            half_a_packet = packet.is_corrupt or (half_a_packet and not packet.size)  # the last one is empty: a flush
        try:  # after an error the decoder may still hold frames
            frames = packet.decode() if packet is not None else stream.decode(None) if failure else []
        except (av.FFmpegError, EOFError):
            frames = []
            counts.lost += packet is not None
        for frame in frames:
            counts.damaged += frame.is_corrupt
            yield frame
        if failure is not None:
            raise failure
        if packet is None:
            return not half_a_packet


def pictures_of(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures, set up to be decoded; None: there is none."""
    for stream in container.streams.video:
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:  # not the cover of a song
            stream.thread_type = "SLICE"  # threads a frame would be faster, but swallow errors of the last frames
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            return stream
    return None


def aspect_of(stream: VideoStream, frame: av.VideoFrame) -> Fraction:
    """Width over height of a pixel of the upright picture; 1 where nothing is said."""
    stored = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    return 1 / stored if frame.rotation % 180 else Fraction(stored)


def clock_of(stream: VideoStream) -> tuple[Fraction, Fraction]:
    """Frames a second, or `ANY_RATE`; and the unit of time stamps in seconds."""
    rate = stream.average_rate or stream.guessed_rate or ANY_RATE
    return rate, stream.time_base or 1 / rate


def _open_for_reading(path: Path) -> tuple[InputContainer, VideoStream]:
    try:
        # Absolute, so that no colon in a name is taken for a protocol. From a file FFmpeg opens no network by itself.
        container = av.open(
            str(path.absolute()), options={"format_whitelist": ",".join(_CONTAINERS)}, metadata_errors="replace"
        )
    except FileNotFoundError:
        raise UserError("no such file", where=str(path), mend="name a file that is there") from None
    except (av.FFmpegError, OSError) as error:
        if path.is_file() and not path.stat().st_size:
            raise UserError("the file is empty (0 bytes)", where=str(path), mend="copy or export it again") from None
        why = "its content is none of the known kinds" if isinstance(error, av.ArgumentError) else words(error)
        raise UserError(
            f"not a video that can be read: {why}", where=str(path), mend="give a complete video file"
        ) from None
    if stream := pictures_of(container):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height <= MOST_PIXELS:
            return container, stream
        container.close()
        raise UserError(
            f"its pictures are {width}x{height}: more than {MOST_PIXELS // 10**6} million pixels",
            where=str(path),
            mend="a broken header? copy the file again, or make the video smaller",
        )
    container.close()
    raise UserError("the file holds no video (sound only?)", where=str(path), mend="give a file with moving pictures")


def upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> ImageArray:
    """The frame as it is to be looked at, RGB. `reformatter` keeps its tables from frame to frame of a stream."""
    by_planes = frame.format.name == "yuv444p"  # as EndoVis is stored: FFmpeg has a quicker way to the same values
    rgb = reformatter.reformat(frame, format="gbrp" if by_planes else "rgb24", threads=1)  # other cores are busy
    if by_planes:
        green, blue, red = planes_of(rgb)
        image = np.asarray(cv2.merge([red, green, blue]), np.uint8)
    else:
        image = np.asarray(rgb.to_ndarray(), np.uint8)
    return np.ascontiguousarray(np.rot90(image, frame.rotation // 90), np.uint8)


def planes_of(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """The planes of a frame of 8 bit where they are, without a copy."""
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]


def words(error: BaseException) -> str:
    """What an error of FFmpeg or of the system says, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# ------------------------------------------------------------------ writing

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
