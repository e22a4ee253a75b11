from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

# As in the labels.json of the release: a colour a label.
COLOURS = {
    "background-tissue": [0, 0, 0],
    "instrument-shaft": [0, 255, 0],
    "instrument-clasper": [0, 255, 255],
    "instrument-wrist": [125, 255, 12],
    "kidney-parenchyma": [255, 55, 0],
    "covered-kidney": [24, 55, 125],
    "thread": [187, 155, 25],
    "clamps": [0, 255, 125],
    "suturing-needle": [255, 255, 125],
    "suction-instrument": [123, 15, 175],
    "small-intestine": [124, 155, 5],
    "ultrasound-probe": [12, 255, 141],
}


def stripes() -> np.ndarray:
    """A coloured mask with a column of each label, in the order above. Shapes: -> (8, 12, 3)."""
    return np.tile(np.array(list(COLOURS.values()), np.uint8), (8, 1, 1))


def labels(*, alpha: bool = False, names: tuple[str, ...] = tuple(COLOURS)) -> str:
    entries = [
        {"name": name, "color": [*COLOURS[name], 128] if alpha else COLOURS[name], "classid": number}
        for number, name in enumerate(names)
    ]
    return json.dumps({"classes": [entry | {"active": True} for entry in entries]} if alpha else entries)


def make_sequence(folder: Path, frames: int = 2) -> None:
    for number in range(frames):
        name = f"frame{number:03d}.png"
        write_png(folder / "left_frames" / name, np.full((8, 12, 3), 10 * number, np.uint8))
        write_png(folder / "right_frames" / name, np.full((8, 12, 3), 99, np.uint8))
        write_png(folder / "labels" / name, stripes())


def make(root: Path) -> None:
    """Two releases and the test data, packed as they come, with the twin tree that macOS adds."""
    make_sequence(root / "miccai_challenge_2018_release_1/seq_1")
    make_sequence(root / "miccai_challenge_release_2/seq_12")
    make_sequence(root / "test_data/test_data/seq_1", frames=1)
    first, *rest = COLOURS
    (root / "miccai_challenge_2018_release_1/labels.json").write_text(labels(names=(first, *rest[:6])))
    (root / "miccai_challenge_release_2/labels.json").write_text(labels(names=(first, *rest[4:])))
    (root / "test_data/test_data/labels.json").write_text(labels(alpha=True))
    twin = root / "miccai_challenge_2018_release_1/__MACOSX/seq_1/left_frames/._frame000.png"
    twin.parent.mkdir(parents=True)
    twin.write_bytes(b"\0")


def columns(**values: int) -> np.ndarray:
    """A mask of the stripes with these values, by label with underscores; 0 elsewhere."""
    row = [values.get(name.replace("-", "_"), 0) for name in COLOURS]
    return np.tile(np.array(row, np.uint8), (8, 1))


def test_instruments_are_what_is_held(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert (source.dataset, source.classes) == ("endovis18", ("background", "instrument"))
    assert list(source.groups) == ["test/seq_1", "train/seq_1", "train/seq_12"]
    image, mask = pickle.loads(pickle.dumps(source.records[2])).read()
    assert source.records[2].name == "train/seq_1/frame001"
    assert image[0, 0].tolist() == [10, 10, 10]
    held = dict.fromkeys(("instrument_shaft", "instrument_wrist", "instrument_clasper"), 1)
    np.testing.assert_array_equal(mask, columns(**held, suction_instrument=1, ultrasound_probe=1))
    assert source.findings == ()
    assert [record.frame for record in source.records] == [0, 0, 1, 0, 1]


def test_parts_and_types(tmp_path: Path) -> None:
    make(tmp_path)
    parts = open_source(tmp_path, DataSettings(target="parts"))
    index = {name.replace("-", "_"): number for number, name in enumerate(parts.classes)}
    assert set(parts.classes[1:]) == set(COLOURS) - {
        "background-tissue",
        "kidney-parenchyma",
        "covered-kidney",
        "small-intestine",
    }
    np.testing.assert_array_equal(parts.records[0].mask(), columns(**index))
    types = open_source(tmp_path, DataSettings(target="types"))
    index = {name.replace("-", "_"): number for number, name in enumerate(types.classes)}
    robotic = dict.fromkeys(("instrument_shaft", "instrument_wrist", "instrument_clasper"), index["robotic_instrument"])
    np.testing.assert_array_equal(types.records[0].mask(), columns(**index | robotic))


def test_the_official_sides_and_equal_numbers(tmp_path: Path) -> None:
    make(tmp_path)
    source = open_source(tmp_path)
    assert source.official is not None
    assert source.official["test"] == ("test/seq_1/frame000",)
    assert len(source.official["train"]) == 4
    assert open_source(tmp_path / "miccai_challenge_release_2").official is None


def test_the_test_data_alone_has_the_second_form_of_labels(tmp_path: Path) -> None:
    make(tmp_path)
    alone = open_source(tmp_path / "test_data/test_data", DataSettings(target="parts"))
    together = open_source(tmp_path, DataSettings(target="parts"))
    np.testing.assert_array_equal(alone.records[0].mask(), together.records[0].mask())


def test_repaired_masks_replace_those_of_the_release(tmp_path: Path) -> None:
    make(tmp_path)
    repaired = np.zeros((8, 12, 3), np.uint8)
    repaired[:4] = COLOURS["instrument-shaft"]
    write_png(tmp_path / "repairs/repairs/seq_1_frame001.png", repaired)
    source = open_source(tmp_path)
    by_name = {record.name: record for record in source.records}
    assert by_name["train/seq_1/frame001"].mask()[:, 0].tolist() == [1] * 4 + [0] * 4
    np.testing.assert_array_equal(
        by_name["test/seq_1/frame000"].mask(), by_name["train/seq_1/frame000"].mask()
    )  # the test's sequence of that number keeps its own
    assert "1 masks are those of the folder repairs" in source.notes


def test_faults_are_findings(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "miccai_challenge_release_2/seq_12/labels/frame000.png").unlink()
    (tmp_path / "miccai_challenge_release_2/seq_12/left_frames/frame001.png").unlink()
    write_png(tmp_path / "seq_20/left_frames/frame000.png", np.zeros((8, 12, 3), np.uint8))
    source = open_source(tmp_path)
    assert ["no mask of its name" in error.what for error in source.findings] == [True, False]
    assert any("train/seq_20: frames without labels" in note for note in source.notes)
    assert (
        open_source(tmp_path, DataSettings(exclude=("train/seq_12/frame000", "train/seq_12/frame001"))).findings == ()
    )


def test_colours_that_nothing_names(tmp_path: Path) -> None:
    make(tmp_path)
    mask = stripes()
    mask[0, :6] = [1, 2, 3]
    write_png(tmp_path / "test_data/test_data/seq_1/labels/frame000.png", mask)
    record = open_source(tmp_path).records[0]
    with pytest.raises(UserError, match=r"does not name: #010203, 6\.25% of its pixels"):
        record.mask()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot read the labels"),
        ('{"classes": 3}', "not as in EndoVis 2018"),
        ('[{"name": "thread", "color": [1, 2]}]', "not as in EndoVis 2018"),
        ('[{"name": "thread", "color": [1, 2, 999]}]', "not as in EndoVis 2018"),
        ('[{"name": "spoon", "color": [1, 2, 3]}]', "names spoon, which EndoVis 2018 does not have"),
        ('[{"name": "thread", "color": [0, 255, 0]}]', "is instrument-shaft in one labels.json and thread in another"),
    ],
)
def test_wrong_labels(tmp_path: Path, text: str, words: str) -> None:
    make(tmp_path)
    (tmp_path / "test_data/test_data/labels.json").write_text(text)
    with pytest.raises(UserError, match=words):
        open_source(tmp_path)


def test_without_labels_json_and_with_a_second_copy(tmp_path: Path) -> None:
    make_sequence(tmp_path / "a/seq_1")
    with pytest.raises(UserError, match=r"no labels\.json"):
        open_source(tmp_path)
    (tmp_path / "labels.json").write_text(labels())
    assert len(open_source(tmp_path)) == 2
    make_sequence(tmp_path / "b/seq_1")
    with pytest.raises(UserError, match="more than once") as caught:
        open_source(tmp_path)
    assert "train/seq_1" in str(caught.value.where)
