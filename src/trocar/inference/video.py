"""Video files, read frame by frame with bounded memory, in the order they are shown and with the time stamps they hold.

Other sources of frames are `feeds`; videos are written by `video_writer`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from trocar.data.records import ImageArray
from trocar.errors import UserError
from trocar.inference.frames import ANY_RATE, Frame

_SLOWEST, _FASTEST = Fraction(1, 3600), 100_000  # frames a second; encoders fail far outside of it
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
    """Frames a second, or `ANY_RATE` where a header says none or nonsense; and the unit of time stamps in seconds."""
    rate = stream.average_rate or stream.guessed_rate or ANY_RATE
    if not _SLOWEST <= rate <= _FASTEST:
        rate = ANY_RATE
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
