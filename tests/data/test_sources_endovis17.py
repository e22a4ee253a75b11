from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

# Where things are in the frame of 1920x1080: (rows, columns). The camera's picture starts at row 28, column 320.
LEFT_SHAFT = (slice(128, 228), slice(420, 520))
LEFT_WRIST = (slice(128, 228), slice(520, 560))
LEFT_CLASPERS = (slice(128, 228), slice(560, 580))
RIGHT_SHAFT = (slice(628, 728), slice(1420, 1520))  # its last 20 columns lie beneath the other instrument
PROBE = (slice(828, 928), slice(620, 720))
BORDER = (slice(0, 28), slice(0, 320))  # outside the picture
PART_VALUES = {"shaft": 10, "wrist": 20, "claspers": 30}
TEST_PART_VALUES = {"shaft": 30, "wrist": 100, "claspers": 255}


def canvas() -> np.ndarray:
    return np.zeros((1080, 1920), np.uint8)


def frame(number: int) -> np.ndarray:
    """An interlaced-looking frame whose picture has its number in the top left pixel and 200 elsewhere."""
    image = np.full((1080, 1920, 3), 7, np.uint8)
    image[28:1052, 320:1600] = 200
    image[28, 320] = number
    return image


def instrument(values: dict[str, int]) -> np.ndarray:
    mask = canvas()
    for part, place in (("shaft", LEFT_SHAFT), ("wrist", LEFT_WRIST), ("claspers", LEFT_CLASPERS)):
        mask[place] = values[part]
    return mask


def other_instrument() -> np.ndarray:
    mask = canvas()
    mask[RIGHT_SHAFT] = PART_VALUES["shaft"]
    mask[BORDER] = PART_VALUES["shaft"]
    return mask


def probe() -> np.ndarray:
    mask = canvas()
    mask[PROBE] = 40
    return mask


def make_training(root: Path, sequence: int = 1, frames: tuple[int, ...] = (0, 1)) -> None:
    folder = root / f"instrument_dataset_{sequence}"
    for number in frames:
        name = f"frame{number:03d}.png"
        write_png(folder / "left_frames" / name, frame(number))
        write_png(folder / "right_frames" / name, frame(99))
        write_png(folder / "ground_truth/Maryland_Bipolar_Forceps_labels" / name, instrument(PART_VALUES))
        coloured = np.repeat(other_instrument()[..., None], 3, axis=2)  # as some folders are stored
        write_png(folder / "ground_truth/Right_Prograsp_Forceps_labels" / name, coloured)
        write_png(folder / "ground_truth/Other_labels" / name, probe())


def make_test(root: Path, sequence: int = 1, frames: tuple[int, ...] = (225,), below: str = "") -> None:
    folder = root / f"instrument_dataset_{sequence}"
    for number in frames:
        name = f"frame{number:03d}.png"
        write_png(folder / "left_frames" / name, frame(number))
        parts = instrument(TEST_PART_VALUES)
        parts[PROBE] = 200
        types = np.where(instrument(PART_VALUES) > 0, 1, 0) + np.where(probe() > 0, 7, 0)
        write_png(folder / below / "BinarySegmentation" / name, (instrument(PART_VALUES) > 0).astype(np.uint8) * 255)
        write_png(folder / below / "PartsSegmentation" / name, parts)
        write_png(folder / below / "TypeSegmentation" / name, types.astype(np.uint8))


def cut(mask: np.ndarray) -> np.ndarray:
    """The camera's picture by its corners, as the challenge's page gives them."""
    return mask[28 : 28 + 1024, 320 : 320 + 1280]


def drawn(**values: int) -> np.ndarray:
    """The picture with a value at each place named."""
    places = {
        "shaft": LEFT_SHAFT,
        "wrist": LEFT_WRIST,
        "claspers": LEFT_CLASPERS,
        "right": RIGHT_SHAFT,
        "probe": PROBE,
    }
    mask = canvas()
    for name, value in values.items():
        mask[places[name]] = value
    return cut(mask)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("endovis17")
    make_training(root / "train")
    make_test(root / "test")
    return root


def test_the_union_of_the_folders_without_other(both: Path) -> None:
    source = open_source(both)
    assert (source.dataset, source.classes) == ("endovis17", ("background", "instrument"))
    assert [record.name for record in source.records] == [
        "train/instrument_dataset_1/frame000",
        "train/instrument_dataset_1/frame001",
        "test/instrument_dataset_1/frame225",
    ]
    image, mask = pickle.loads(pickle.dumps(source.records[1])).read()
    assert image.shape == (1024, 1280, 3)
    assert image[0, 0].tolist() == [1, 1, 1]  # the picture's corner, not the frame's
    assert (image[1:] == 200).all()
    np.testing.assert_array_equal(mask, drawn(shaft=1, wrist=1, claspers=1, right=1))


def test_parts_and_types(both: Path) -> None:
    parts = open_source(both, DataSettings(target="parts"))
    assert parts.classes == ("background", "shaft", "wrist", "claspers")
    np.testing.assert_array_equal(parts.records[0].mask(), drawn(shaft=1, wrist=2, claspers=3, right=1))
    types = open_source(both, DataSettings(target="types"))
    assert (types.classes[1], types.classes[2], types.classes[7]) == ("bipolar forceps", "prograsp forceps", "other")
    expected = drawn(shaft=1, wrist=1, claspers=1, right=2, probe=7)
    np.testing.assert_array_equal(types.records[0].mask(), expected)
    assert any("`other` is no robotic instrument" in note for note in types.notes)


def test_instances_are_the_folders(both: Path) -> None:
    first = open_source(both).records[0]
    assert first.instances is not None
    np.testing.assert_array_equal(first.instances(), drawn(shaft=1, wrist=1, claspers=1, right=2))


def test_the_test_part_has_masks_of_its_own(both: Path) -> None:
    for target, expected in (
        ("instrument", drawn(shaft=1, wrist=1, claspers=1)),
        ("parts", drawn(shaft=1, wrist=2, claspers=3)),
        ("types", drawn(shaft=1, wrist=1, claspers=1, probe=7)),
    ):
        record = open_source(both, DataSettings(target=target)).records[-1]
        np.testing.assert_array_equal(record.mask(), expected)
        assert record.instances is None


def test_both_parts_of_a_sequence_are_one_group_which_the_official_split_cuts(both: Path) -> None:
    source = open_source(both)
    assert list(source.groups) == ["instrument_dataset_1"]
    assert [record.frame for record in source.records] == [0, 1, 225]
    assert source.official == {
        "train": ("train/instrument_dataset_1/frame000", "train/instrument_dataset_1/frame001"),
        "test": ("test/instrument_dataset_1/frame225",),
    }
    assert any("cuts these groups" in note for note in source.notes)
    assert open_source(both / "train").official is None
    assert len(open_source(both, DataSettings(every=225))) == 2


def test_frames_and_labels_of_the_test_in_two_trees(tmp_path: Path) -> None:
    make_test(tmp_path / "labels/instrument_2017_test", below="gt")
    for path in (tmp_path / "labels/instrument_2017_test/instrument_dataset_1/left_frames").iterdir():
        target = tmp_path / "instrument_1_4_testing/instrument_dataset_1/left_frames" / path.name
        target.parent.mkdir(parents=True)
        path.rename(target)
    source = open_source(tmp_path)
    assert [record.name for record in source.records] == ["test/instrument_dataset_1/frame225"]
    source.records[0].read()


def test_unlabelled_sequences_are_left_out_and_a_second_copy_is_told(tmp_path: Path) -> None:
    make_training(tmp_path / "train", frames=(0,))
    write_png(tmp_path / "test/instrument_dataset_9/left_frames/frame000.png", frame(0))
    make_training(tmp_path / "train_copy", frames=(0,))
    source = open_source(tmp_path)
    assert len(source) == 1
    assert any("test/instrument_dataset_9: 1 frames without labels" in note for note in source.notes)
    assert any("train_copy/instrument_dataset_1 holds train/instrument_dataset_1 once more" in n for n in source.notes)


def test_faults_are_findings(tmp_path: Path) -> None:
    make_training(tmp_path, frames=(0, 1, 2, 3))
    folder = tmp_path / "instrument_dataset_1"
    (folder / "left_frames/frame000.png").unlink()
    (folder / "ground_truth/Right_Prograsp_Forceps_labels/frame001.png").unlink()
    (folder / "ground_truth/Other_labels/frame002.png").unlink()  # not needed but for types
    (folder / "left_frames/frame003.jpg").write_bytes(b"")
    source = open_source(tmp_path)
    assert [record.frame for record in source.records] == [2]
    told = " ".join(map(str, source.findings))
    assert "the masks have no image" in told
    assert "no mask in Right_Prograsp_Forceps_labels" in told
    assert "2 files would all be" in told
    types = open_source(tmp_path, DataSettings(target="types"))
    assert len(types.findings) == 4


def test_values_that_are_no_part_are_ignored_or_refused(tmp_path: Path) -> None:
    make_training(tmp_path, frames=(0,))
    path = tmp_path / "instrument_dataset_1/ground_truth/Maryland_Bipolar_Forceps_labels/frame000.png"
    mask = np.repeat(instrument(PART_VALUES)[..., None], 3, axis=2)
    mask[128:132, 420:425] = 31
    mask[132:136, 420:425, 1] = 11
    write_png(path, mask)
    expected = drawn(shaft=1, wrist=2, claspers=3, right=1)
    expected[100:108, 100:105] = 255
    record = open_source(tmp_path, DataSettings(target="parts")).records[0]
    np.testing.assert_array_equal(record.mask(), expected)
    np.testing.assert_array_equal(open_source(tmp_path).records[0].mask(), (expected > 0).astype(np.uint8))
    write_png(path, (instrument(PART_VALUES) > 0).astype(np.uint8) * 255)
    with pytest.raises(UserError, match="name no part"):
        record.mask()


def test_frames_that_are_cut_already_and_frames_of_another_size(tmp_path: Path) -> None:
    folder = tmp_path / "instrument_dataset_2"
    for name, mask in (("frame000.png", cut(instrument(PART_VALUES))), ("frame001.png", canvas()[:720, :1280])):
        write_png(folder / "left_frames" / name, np.repeat(mask[..., None], 3, axis=2))
        write_png(folder / "ground_truth/Left_Vessel_Sealer" / name, mask)
    first, second = open_source(tmp_path).records
    image, mask = first.read()
    assert image.shape == (1024, 1280, 3)
    np.testing.assert_array_equal(mask, drawn(shaft=1, wrist=1, claspers=1))
    with pytest.raises(UserError, match="the frame is 1280x720"):
        second.image()
    with pytest.raises(UserError, match="the frame is 1280x720"):
        second.mask()


def test_a_folder_that_names_no_type(tmp_path: Path) -> None:
    make_training(tmp_path, frames=(0,))
    truth = tmp_path / "instrument_dataset_1/ground_truth"
    (truth / "Right_Prograsp_Forceps_labels").rename(truth / "Chopsticks_labels")
    assert len(open_source(tmp_path)) == 1
    with pytest.raises(UserError, match="Chopsticks_labels names no instrument type"):
        open_source(tmp_path, DataSettings(target="types"))
