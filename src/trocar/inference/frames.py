"""What a frame is, and which names are videos and streams: what one needs to know before any is opened.

Opening them takes PyAV, whose import is a good part of the time to the mask of one image: whoever predicts images goes
without it, so only `video`, `sound` and `feeds_live` import it, and they are imported where a video or feed is opened.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from trocar.data.records import ImageArray

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv")
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt", "rtp")
ANY_RATE = Fraction(25)  # of a stream that names none; only time stamps that are missing depend on it


class Frame(NamedTuple):
    """One frame as shown (turned as the file says) and when: `seconds` from the clock of the file."""

    image: ImageArray
    seconds: Fraction
    decoded: av.VideoFrame | None = None  # as it was stored, and not turned: to be read only

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes."""
        stored = 0 if self.decoded is None else sum(plane.buffer_size for plane in self.decoded.planes)
        return self.image.nbytes + stored
