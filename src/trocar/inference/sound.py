"""The sound of a video, copied into another as it is: nothing is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer


class Sound:
    """The sound tracks of a file, packet by packet beside the pictures of an output, so that players need not seek.

    A track that the output's container cannot hold is left out, and named in `left_out`. A damaged packet that it
    refuses is left out alone, and counted in `refused`.
    """

    def __init__(self, path: Path) -> None:
        self.left_out: list[str] = []
        self.refused = 0
        self._path = path.absolute()
        self._container = self._open()
        self._tracks: dict[int, AudioStream] = {}  # by index in the file
        self._last: dict[int, int] = {}
        self._packets: Iterator[av.Packet[Any]] = iter(())
        self._held: av.Packet[Any] | None = None

    def add_to(self, output: OutputContainer) -> None:
        """Give the output a track for each of ours, before its header is written."""
        for stream in self._container.streams.audio:
            if self._fits(stream, output.format.name):
                self._tracks[stream.index] = output.add_stream_from_template(stream)
            else:
                self.left_out.append(stream.codec_context.name if stream.codec_context else "unknown")
        if self._tracks:
            self._packets = self._container.demux([self._container.streams[index] for index in self._tracks])

    def _fits(self, stream: AudioStream, kind: str) -> bool:
        """Whether a file of this kind can be finished with the track in it.

        Of a damaged track some say no when they are closed, and the pictures would be lost with it: a small file is
        made for trial.
        """
        try:
            with self._open() as source, av.open(io.BytesIO(), "w", format=kind) as trial:
                track = trial.add_stream_from_template(source.streams[stream.index])
                packet = next(packet for packet in source.demux(source.streams[stream.index]) if packet.size)
                packet.stream = track
                trial.mux(packet)
        except (av.FFmpegError, EOFError, ValueError, StopIteration):  # ValueError: no such codec in this kind of file
            return False
        return True

    def _open(self) -> InputContainer:
        return av.open(str(self._path), metadata_errors="replace")

    @property
    def copied(self) -> int:
        """Number of tracks that are copied."""
        return len(self._tracks)

    def mux_until(self, output: OutputContainer, seconds: Fraction | None) -> None:
        """Write all packets up to this time; None: all that are left."""
        while (packet := self._next()) is not None:
            if seconds is not None and (packet.pts or 0) * (packet.time_base or 0) > seconds:
                self._held = packet
                return
            packet.stream = self._tracks[packet.stream.index]
            try:
                output.mux(packet)
            except (av.ArgumentError, av.InvalidDataError):
                self.refused += 1

    def _next(self) -> av.Packet[Any] | None:
        """The next packet that a container takes: with a time that is not negative and rises in its track."""
        if self._held is not None:
            packet, self._held = self._held, None
            return packet
        try:
            for packet in self._packets:
                index = packet.stream.index
                if not packet.size or packet.pts is None or packet.pts < 0:
                    continue
                if packet.dts is not None and packet.dts > self._last.get(index, -1):
                    self._last[index] = packet.dts
                    return packet
        except (av.FFmpegError, EOFError):  # a broken file: whoever reads its pictures says so
            self._packets = iter(())
        return None

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def open_sound(path: Path) -> Sound | None:
    """The sound of a file, or None where it has none."""
    try:
        sound = Sound(path)
    except (av.FFmpegError, OSError):
        return None
    if sound._container.streams.audio:
        return sound
    sound.close()
    return None
