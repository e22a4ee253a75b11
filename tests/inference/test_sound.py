"""Sound is copied, packet for packet, beside pictures written anew."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from trocar.inference.sound import Sound, open_sound
from trocar.inference.video import VideoReader
from trocar.inference.video_writer import VideoWriter


def clip_with_sound(
    path: Path, *, codec: str = "aac", seconds: float = 2.0, tracks: int = 1, rate: int = 32000
) -> None:
    """25 frames a second and a tone beside them."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for number in range(int(25 * seconds)):
            picture = np.full((48, 64, 3), 4 * number % 256, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        tone = (8000 * np.sin(np.arange(int(rate * seconds)) / 10)).astype(np.int16)
        for sound in sounds:
            kind = sound.codec_context.format.name
            data = {"f": (tone / 32768).astype(np.float32), "s": tone, "u": (tone // 256 + 128).astype(np.uint8)}[
                kind[0]
            ]
            frame = av.AudioFrame.from_ndarray(data[None], format=kind, layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))


def packets(path: Path, track: int = 0) -> list[tuple[bytes, Fraction]]:
    """Content and time of what is shown at or after 0."""
    with av.open(str(path)) as container:
        found = [(bytes(p), p.pts * p.time_base) for p in container.demux(audio=track) if p.size and p.pts is not None]
    return [(data, time) for data, time in found if time >= 0]


def copy(source: Path, target: Path, *, frames: int | None = None, error: bool = False) -> Sound:
    """The pictures written anew, the sound beside them."""
    sound = open_sound(source)
    assert sound is not None
    reader = VideoReader(source)
    writer = VideoWriter(target, "colour", rate=reader.rate, time_base=reader.time_base, sound=sound)
    with reader, writer:
        for number, frame in enumerate(reader):
            if number == frames:
                if error:
                    raise KeyboardInterrupt
                break
            writer.write(frame.image, frame.seconds)
    return sound


@pytest.mark.parametrize("codec", ["aac", "ac3"])
@pytest.mark.parametrize("tracks", [1, 2])
def test_packets_are_those_of_the_source_at_their_times(tmp_path: Path, codec: str, tracks: int) -> None:
    clip_with_sound(tmp_path / "a.mkv", codec=codec, tracks=tracks)
    sound = copy(tmp_path / "a.mkv", tmp_path / "b.mp4")
    assert (sound.copied, sound.left_out) == (tracks, [])
    for track in range(tracks):
        expected, found = packets(tmp_path / "a.mkv", track), packets(tmp_path / "b.mp4", track)
        assert [data for data, _ in found] == [data for data, _ in expected]
        assert len(found) > 10
        for (_, time), (_, wanted) in zip(found, expected, strict=True):
            assert abs(time - wanted) <= Fraction(1, 500)
    assert len(list(VideoReader(tmp_path / "b.mp4"))) == 50


def test_pictures_and_sound_lie_beside_each_other(tmp_path: Path) -> None:
    """A player must not jump through the file: no second of pictures without its sound."""
    clip_with_sound(tmp_path / "a.mkv", seconds=6)
    copy(tmp_path / "a.mkv", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        order = [(p.pos, p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.size]
    latest = {"video": 0.0, "audio": 0.0}
    for _, kind, time in sorted(order):
        latest[kind] = max(latest[kind], time)
        assert abs(latest["video"] - latest["audio"]) < 1.5


def test_sound_that_the_container_cannot_hold_is_named(tmp_path: Path) -> None:
    clip_with_sound(tmp_path / "a.mkv", codec="pcm_u8")
    sound = copy(tmp_path / "a.mkv", tmp_path / "b.mp4")
    assert (sound.copied, sound.left_out) == (0, ["pcm_u8"])
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert not container.streams.audio
        assert sum(1 for _ in container.decode(video=0)) == 50


def test_a_damaged_track_does_not_cost_the_pictures(tmp_path: Path) -> None:
    """MP4 takes the head of an Opus track as it is, and refuses it when it is closed."""
    clip_with_sound(tmp_path / "a.mkv", codec="libopus", rate=48000)
    whole = (tmp_path / "a.mkv").read_bytes()
    assert whole.count(b"OpusHead\x01") == 1
    (tmp_path / "b.mkv").write_bytes(whole.replace(b"OpusHead\x01", b"OpusHead\xff"))
    assert copy(tmp_path / "a.mkv", tmp_path / "a.mp4").copied == 1
    assert copy(tmp_path / "b.mkv", tmp_path / "b.mp4").left_out == ["opus"]
    assert len(list(VideoReader(tmp_path / "b.mp4"))) == 50


class Picky:
    """An output that refuses every third packet, as muxers do with damaged ones."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.asked = 0

    def mux(self, packet: av.Packet) -> None:
        self.asked += 1
        if self.asked % 3 == 0:
            raise av.ArgumentError(22, "refused")
        self.taken.append(bytes(packet))


def test_a_packet_that_is_refused_costs_no_other(tmp_path: Path) -> None:
    clip_with_sound(tmp_path / "a.mkv")
    expected = [data for data, _ in packets(tmp_path / "a.mkv")]
    sound, output = open_sound(tmp_path / "a.mkv"), Picky()
    assert sound is not None
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        sound.add_to(container)
        sound.mux_until(output, None)  # type: ignore[arg-type]
    assert output.taken == [data for number, data in enumerate(expected, start=1) if number % 3]
    assert sound.refused == len(expected) // 3


def test_stopped_pictures_end_the_sound(tmp_path: Path) -> None:
    clip_with_sound(tmp_path / "a.mkv", seconds=4)
    with pytest.raises(KeyboardInterrupt):
        copy(tmp_path / "a.mkv", tmp_path / "b.mp4", frames=25, error=True)
    assert float(packets(tmp_path / "b.mp4")[-1][1]) == pytest.approx(1, abs=0.1)
    assert len(list(VideoReader(tmp_path / "b.mp4"))) == 25


def test_what_has_no_sound_or_is_no_file_has_none(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", "colour", rate=Fraction(25), time_base=Fraction(1, 25)) as writer:
        writer.write(np.zeros((4, 4, 3), np.uint8), Fraction(0))
    assert open_sound(tmp_path / "a.mp4") is None
    assert open_sound(tmp_path / "missing.mp4") is None


def test_sound_that_is_cut_off_stops_nothing(tmp_path: Path) -> None:
    clip_with_sound(tmp_path / "a.mkv", seconds=4)
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    copy(tmp_path / "cut.mkv", tmp_path / "b.mp4", frames=20)
    assert len(list(VideoReader(tmp_path / "b.mp4"))) == 20
