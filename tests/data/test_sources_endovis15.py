from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data import video_frames
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.data.video_frames import count_frames, read_frame
from trocar.errors import UserError

PARTS = np.array([0, 160, 70], np.uint8)  # value on disk of each class


def write_video(path: Path, frames: list[np.ndarray], codec: str = "ffv1", pixels: str = "yuv444p") -> None:
    """Grey or RGB frames as AVI; libx264 writes B-frames, as the challenge's files have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            kind = "gray" if frame.ndim == 2 else "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=kind)))
        container.mux(stream.encode(None))


def numbered_frames(count: int) -> list[np.ndarray]:
    """Frames that carry their number as brightness and as the place of a bar."""
    frames = []
    for index in range(count):
        frame = np.full((48, 64), 20 + index * 4, np.uint8)
        frame[:, index % 60 : index % 60 + 4] = 250
        frames.append(frame)
    return frames


def bar(top: int) -> np.ndarray:
    """A shaft with a manipulator at its end, as class indices."""
    mask = np.zeros((48, 64), np.uint8)
    mask[top : top + 10, 10:30] = 1
    mask[top : top + 10, 30:40] = 2
    return mask


def make_rigid(root: Path, procedures: int = 2, frames: int = 3) -> None:
    for number in range(1, procedures + 1):
        for index in range(1, frames + 1):
            folder = root / f"OP{number}"
            mask = bar(number * 5 + index)
            image = np.full((48, 64, 3), number * 10 + index, np.uint8)
            write_png(folder / f"Raw/img_{index:02d}_raw.png", image)
            write_png(folder / f"Masks/img_{index:02d}_class.png", PARTS[mask])
            write_png(folder / f"Masks/img_{index:02d}_instrument.png", (mask > 0).astype(np.uint8) * 40)


# ------------------------------------------------------------------ video frames


@pytest.fixture(scope="module")
def h264(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "Video.avi"
    write_video(path, numbered_frames(50), codec="libx264", pixels="yuv420p")
    return path


def test_frames_in_any_order_are_those_in_order(h264: Path) -> None:
    assert count_frames(h264) == 50
    in_order = [read_frame(h264, index, "gray") for index in range(50)]
    for index, frame in enumerate(in_order):
        assert abs(float(np.median(frame)) - (20 + index * 4)) <= 3
    for index in np.random.default_rng(0).permutation(50).tolist():
        np.testing.assert_array_equal(read_frame(h264, index, "gray"), in_order[index])


def test_threads_share_a_video(h264: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    order = np.random.default_rng(1).permutation(50).tolist()
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda index: read_frame(h264, index, "gray"), order))
    for index, frame in zip(order, frames, strict=True):
        assert abs(float(np.median(frame)) - (20 + index * 4)) <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_reads_too(tmp_path: Path) -> None:
    """As the loader's workers do. Freed in the child, what it inherits would make FFmpeg wait for ever."""
    video = tmp_path / "Video.avi"
    write_video(video, [np.full((288, 360), 20 + 4 * index, np.uint8) for index in range(30)])
    script = """if True:
        import os, sys
        from trocar.data.video_frames import read_frame
        assert abs(int(read_frame(sys.argv[1], 20).mean()) - 100) < 4
        child = os.fork()
        if child == 0:
            os._exit(0 if abs(int(read_frame(sys.argv[1], 10).mean()) - 60) < 4 else 3)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", script, str(video)], timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_a_frame_that_is_not_there(h264: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ends after 50 frames"):
        read_frame(h264, 50)
    assert read_frame(h264, 0).shape == (48, 64, 3)  # and the reader still works
    with pytest.raises(UserError, match="not exist"):
        count_frames(tmp_path / "gone.avi")
    (tmp_path / "text.avi").write_text("no video")
    for read in (count_frames, lambda path: read_frame(path, 0)):
        with pytest.raises(UserError, match="cannot read the video"):
            read(tmp_path / "text.avi")


# ------------------------------------------------------------------ the layout


def test_rigid(tmp_path: Path) -> None:
    make_rigid(tmp_path / "rigid")
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("endovis15", ("background", "shaft", "manipulator"))
    assert [record.name for record in source.records][:2] == ["rigid/OP1/img_01", "rigid/OP1/img_02"]
    assert list(source.groups) == ["rigid/OP1", "rigid/OP2"]
    record = pickle.loads(pickle.dumps(source.records[4]))
    image, mask = record.read()
    assert image[0, 0].tolist() == [22, 22, 22]
    np.testing.assert_array_equal(mask, bar(12))
    np.testing.assert_array_equal(record.instances(), (bar(12) > 0) * 2)
    assert record.frame is None
    assert open_source(tmp_path / "rigid").records[0].name == "OP1/img_01"


def test_rigid_faults_are_findings(tmp_path: Path) -> None:
    make_rigid(tmp_path, frames=4)
    (tmp_path / "OP1/Masks/img_01_class.png").unlink()
    (tmp_path / "OP1/Raw/img_02_raw.png").unlink()
    (tmp_path / "OP2/Masks/img_03_instrument.png").unlink()
    write_png(tmp_path / "OP2/Masks/img_04_class.png", bar(3) * 99)
    source = open_source(tmp_path)
    assert len(source.records) == 6
    assert ["the image has no mask" in error.what for error in source.findings] == [True, False]
    assert any("OP2: 1 frames have no instance mask" in note for note in source.notes)
    with pytest.raises(UserError, match=r"unexpected values \[99, 198\]"):
        source.records[-1].mask()
    assert open_source(tmp_path, DataSettings(exclude=("OP1/img_01", "OP1/img_02"))).findings == ()


def test_robotic_nearest_value_union_and_steps(tmp_path: Path) -> None:
    count = 12
    left = [bar(index) for index in range(count)]
    right = [np.roll(bar(30 - index), 20, axis=1) for index in range(count)]
    write_video(tmp_path / "Dataset1/Video.avi", numbered_frames(count))
    write_video(tmp_path / "Dataset1/Left_Instrument_Segmentation.avi", [PARTS[mask] for mask in left])
    write_video(tmp_path / "Dataset1/Right_Instrument_Segmentation.avi", [PARTS[mask] for mask in right])
    write_video(tmp_path / "Dataset2/Video.avi", numbered_frames(count))
    rng = np.random.default_rng(0)
    shaken = [np.clip(PARTS[mask] + rng.integers(-30, 31, mask.shape), 0, 255).astype(np.uint8) for mask in left]
    write_video(tmp_path / "Dataset2/Segmentation.avi", shaken[:-1])
    source = open_source(tmp_path, DataSettings(every=5))
    names = [record.name for record in source.records]
    assert names == [f"Dataset{n}/{i:05d}" for n in (1, 2) for i in (0, 5, 10)]
    assert [record.frame for record in source.records] == [0, 5, 10] * 2
    assert any("Dataset2: only the frames that all videos have" in note for note in source.notes)
    assert len(open_source(tmp_path)) == count + count - 1
    for record in source.records:
        assert record.frame is not None
        image, mask = pickle.loads(pickle.dumps(record)).read()
        both = np.maximum(left[record.frame], right[record.frame])
        np.testing.assert_array_equal(mask, both if record.group == "Dataset1" else left[record.frame])
        assert abs(float(np.median(image)) - (20 + record.frame * 4)) <= 3


def test_robotic_without_partners(tmp_path: Path) -> None:
    write_video(tmp_path / "Dataset1/Video.avi", numbered_frames(3))
    write_video(tmp_path / "Dataset1/Left_Instrument_Segmentation.avi", numbered_frames(3))
    write_video(tmp_path / "Dataset2/Segmentation.avi", numbered_frames(3))
    write_video(tmp_path / "Dataset3/Video.avi", numbered_frames(3))
    (tmp_path / "Dataset3/Segmentation.avi").write_text("")
    source = open_source(tmp_path)
    assert not source.records
    assert [error.what.split(":")[0] for error in source.findings] == [
        "the video has no mask video",
        "the mask video has no Video.avi",
        "cannot read the video",
    ]


# ------------------------------------------------------------------ the real frames


@pytest.mark.real
def test_the_real_set_is_listed_whole(shared: Path) -> None:
    source = open_source(shared / "data/endovis15")
    sizes = {group: len(records) for group, records in source.groups.items()}
    rigid = {f"rigid/OP{n}": 40 for n in (1, 2, 3)}
    assert sizes == rigid | {"robotic/Dataset1": 370, "robotic/Dataset2": 375, "robotic/Dataset3": 375}
    assert source.findings == ()
    assert len(open_source(shared / "data/endovis15", DataSettings(every=5))) == 120 + 74 + 75 + 75


@pytest.mark.real
def test_real_rigid_parts_and_instances_agree(shared: Path) -> None:
    records = open_source(shared / "data/endovis15/rigid").records
    for record in records[::6]:
        image, mask = record.read()
        assert image.shape == (480, 640, 3)
        assert record.instances is not None
        # The two kinds of masks were drawn apart: over all 120 frames they differ in 45 pixels, 39 of one frame.
        assert np.count_nonzero((record.instances() > 0) != (mask > 0)) < 40
        stored = cv2.imread(str(record.files[1]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(PARTS[mask], stored)


@pytest.mark.real
def test_real_video_frames_are_those_opencv_counts(shared: Path) -> None:
    """OpenCV decodes with a build of FFmpeg of its own; masks of both sides lie on either instrument."""
    folder = shared / "data/endovis15/robotic"
    records = {record.name: record for record in open_source(folder).records}
    video = cv2.VideoCapture(str(folder / "Dataset1/Video.avi"))
    sides = [cv2.VideoCapture(str(folder / f"Dataset1/{s}_Instrument_Segmentation.avi")) for s in ("Left", "Right")]
    wanted = (0, 1, 2, 3, 17, 40)
    for index in range(max(wanted) + 1):
        frame = video.read()[1]
        labels = [side.read()[1][..., 0].astype(int) for side in sides]
        if index not in wanted:
            continue
        image, mask = records[f"Dataset1/{index:05d}"].read()
        assert np.abs(image.astype(int) - frame[..., ::-1]).mean() < 1.0
        assert np.abs(image.astype(int) - frame).mean() > 5.0  # as the channels swapped would give
        nearest = [np.array([0, 2, 1])[np.abs(label[..., None] - [0, 70, 160]).argmin(-1)] for label in labels]
        assert (np.maximum(*nearest) != mask).mean() < 1e-4


# ------------------------------------------------------------------ headers of strangers


def test_an_absurd_size_in_a_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write_video(path, numbered_frames(2))
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12  # after the chunk's length and that of the structure: width, height
    assert struct.unpack("<ii", data[at : at + 8]) == (64, 48)
    data[at : at + 8] = struct.pack("<ii", 16_000, 16_000)
    path.write_bytes(data)
    with pytest.raises(UserError, match="16000x16000"):
        read_frame(path, 0)


def test_few_large_frames_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avi"
    write_video(path, numbered_frames(12))
    monkeypatch.setattr(video_frames, "_PIXELS_KEPT", 3 * 48 * 64)
    for index in (0, 5, 11, 10, 2):
        assert abs(float(np.median(read_frame(path, index, "gray"))) - (20 + 4 * index)) <= 3
        assert len(video_frames._readers[path]._kept) <= 3


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write_video(path, numbered_frames(2))
    path.write_bytes(path.read_bytes().replace(b"FFV1", b"????"))
    with pytest.raises(UserError, match="unknown codec"):
        read_frame(path, 0)
