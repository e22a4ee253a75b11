from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trocar.config import DataSettings
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.data.sources.listing import natural
from trocar.errors import UserError, UserErrors


def shape_mask(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    """A bar of ones on zeros. Shapes: -> uint8 (H, W)."""
    mask = np.zeros((height, width), np.uint8)
    top = 2 + seed % 8
    mask[top : top + 6, 5:20] = 1
    return mask


def noise(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make(root: Path, masks: dict[str, np.ndarray], *, images: str = "images", folder: str = "masks") -> Path:
    for seed, (stem, mask) in enumerate(masks.items()):
        write_png(root / images / f"{stem}.png", noise(seed, *mask.shape[:2]))
        write_png(root / folder / f"{stem}.png", mask)
    return root


def expect(data: Path, words: str, settings: DataSettings | None = None) -> UserError:
    with pytest.raises(UserError, match=words) as caught:
        open_source(data, settings or DataSettings())
    return caught.value


# ------------------------------------------------------------------ pairing and order


def test_pairs_by_name_where_sort_order_would_pair_wrongly(tmp_path: Path) -> None:
    stems = ["a/frame2", "a/frame10", "b/x"]
    make(tmp_path, {stem: shape_mask(seed) for seed, stem in enumerate(stems)})
    for stem in stems:  # another ending sorts otherwise, and must not matter
        (tmp_path / "images" / f"{stem}.png").rename(tmp_path / "images" / f"{stem}.PNG")
    source = open_source(tmp_path)
    assert [record.name for record in source.records] == stems
    assert {group: len(records) for group, records in source.groups.items()} == {"a": 2, "b": 1}
    for seed, record in enumerate(source.records):
        image, mask = pickle.loads(pickle.dumps(record)).read()
        np.testing.assert_array_equal(image, noise(seed))
        np.testing.assert_array_equal(mask, shape_mask(seed))
    assert source.classes == ("background", "instrument")
    assert source.mask_encoding == "0/1 (255 is ignored)"
    assert source.findings == ()


def test_natural_order() -> None:
    assert sorted(["f10", "f9", "f1b", "f1a", "g", "1"], key=natural) == ["1", "f1a", "f1b", "f9", "f10", "g"]


def test_groups_are_first_folders_or_each_image(tmp_path: Path) -> None:
    make(tmp_path, {stem: shape_mask() for stem in ("p1/v1/a", "p1/v2/a", "p2/v1/a", "loose")})
    source = open_source(tmp_path)
    assert {group: len(records) for group, records in source.groups.items()} == {".": 1, "p1": 2, "p2": 1}
    assert any("first folders" in note for note in source.notes)
    assert any("named ." in note for note in source.notes)
    alone = open_source(tmp_path, DataSettings(group_by="none"))
    assert set(alone.groups) == {"p1/v1/a", "p1/v2/a", "p2/v1/a", "loose"}


def test_without_folders_each_image_is_a_group_and_it_is_said(tmp_path: Path) -> None:
    make(tmp_path, {"a": shape_mask(), "b": shape_mask()})
    source = open_source(tmp_path)
    assert list(source.groups) == ["a", "b"]
    assert "patients are not known" in source.notes[0]
    expect(tmp_path, "no sub-folders", DataSettings(group_by="folder"))


def test_other_folder_names(tmp_path: Path) -> None:
    make(tmp_path, {"a": shape_mask()}, images="frames", folder="labels")
    error = expect(tmp_path, "no known layout")
    assert "frames/, labels/" in str(error.where)
    assert len(open_source(tmp_path, DataSettings(images="frames", masks="labels", kind="folder"))) == 1
    assert len(open_source(tmp_path, DataSettings(images="frames", masks="labels"))) == 1
    error = expect(tmp_path, "no folder label ", DataSettings(images="frames", masks="label"))
    assert "frames, labels" in str(error.where)


def test_every_fault_of_listing_is_a_finding_and_the_rest_is_listed(tmp_path: Path) -> None:
    make(tmp_path, {"good": shape_mask(), "twice": shape_mask(), "m": shape_mask(), "i": shape_mask()})
    (tmp_path / "masks/i.png").unlink()
    (tmp_path / "images/m.png").unlink()
    Image.fromarray(noise()).save(tmp_path / "images/twice.jpg")
    (tmp_path / "images/notes.txt").write_text("")
    (tmp_path / "images/.DS_Store").write_text("")
    source = open_source(tmp_path)
    assert [record.name for record in source.records] == ["good"]
    told = "\n".join(map(str, source.findings))
    assert "the image has no mask" in told
    assert "the mask has no image" in told
    assert "2 files would all be record twice" in told
    assert len(source.findings) == 3
    assert any("images/notes.txt" in note for note in source.notes)
    clean = open_source(tmp_path, DataSettings(exclude=("i", "m", "twice")))
    assert clean.findings == ()


def test_exclude_takes_records_away_and_refuses_unknown_names(tmp_path: Path) -> None:
    make(tmp_path, {f"p/frame{i}": shape_mask() for i in range(3)})
    source = open_source(tmp_path, DataSettings(exclude=("p/frame1",)))
    assert [record.name for record in source.records] == ["p/frame0", "p/frame2"]
    with pytest.raises(UserErrors) as caught:
        open_source(tmp_path, DataSettings(exclude=("p/frame7", "q")))
    assert len(caught.value.errors) == 2
    assert "did you mean p/frame" in str(caught.value)


def test_two_namings_are_one_error(tmp_path: Path) -> None:
    make(tmp_path, {"a": shape_mask(), "b": shape_mask()})
    for path in list((tmp_path / "masks").iterdir()):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    expect(tmp_path, "images are like a, masks like a_mask")


def test_nothing_there(tmp_path: Path) -> None:
    expect(tmp_path, "is empty")
    expect(tmp_path / "gone", "no folder")
    (tmp_path / "a.png").write_text("")
    expect(tmp_path / "a.png", "is a file")
    expect(tmp_path, "no known layout")
    (tmp_path / "images").mkdir()
    expect(tmp_path, "no folder masks")
    (tmp_path / "masks").mkdir()
    expect(tmp_path, "no images in images and none in masks")
    expect(tmp_path, "no drawn scenes", DataSettings(kind="drawn"))
    expect(tmp_path, "no EndoVis 2015", DataSettings(kind="endovis15"))


def test_instances_are_read_where_present(tmp_path: Path) -> None:
    make(tmp_path, {"a": shape_mask(), "b": shape_mask()})
    write_png(tmp_path / "instances/a.png", shape_mask() * 3)
    source = open_source(tmp_path)
    first, second = source.records
    assert first.instances is not None
    np.testing.assert_array_equal(first.instances(), shape_mask() * 3)
    assert second.instances is None
    assert any("1 of 2 records have no mask in instances" in note for note in source.notes)


# ------------------------------------------------------------------ encodings


def rgb(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (shape_mask(), "0/1 (255 is ignored)"),
        (shape_mask() * 255, "0/255"),
        (rgb(shape_mask()), "0/1 (255 is ignored), stored in three equal channels"),
        (rgb(shape_mask() * 255), "0/255, stored in three equal channels"),
    ],
)
def test_binary_encodings(tmp_path: Path, stored: np.ndarray, words: str) -> None:
    source = open_source(make(tmp_path, {"a": stored, "empty": np.zeros_like(stored)}))
    assert source.mask_encoding == words
    np.testing.assert_array_equal(source.records[0].mask(), shape_mask())
    assert not source.records[1].mask().any()


def test_255_beside_1_is_ignored(tmp_path: Path) -> None:
    stored = shape_mask()
    stored[-1] = 255
    np.testing.assert_array_equal(open_source(make(tmp_path, {"a": stored})).records[0].mask(), stored)


def test_rgba_mask_with_an_opaque_alpha(tmp_path: Path) -> None:
    make(tmp_path, {"a": shape_mask()})
    opaque = np.concatenate([rgb(shape_mask() * 255), np.full((24, 32, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "masks/a.png")
    source = open_source(tmp_path)
    assert source.mask_encoding == "0/255, stored in three equal channels"
    np.testing.assert_array_equal(source.records[0].mask(), shape_mask())


def test_indexed_needs_a_class_table_which_may_name_any_value(tmp_path: Path) -> None:
    indices = shape_mask() + shape_mask(4)
    make(tmp_path, {"a": indices})
    error = expect(tmp_path, "values 0, 1, 2 were found")
    table = json.loads(str(error.mend).split("for example ")[1])
    (tmp_path / "classes.json").write_text(json.dumps(table))
    source = open_source(tmp_path)
    assert source.classes == ("background", "class1", "class2")
    np.testing.assert_array_equal(source.records[0].mask(), indices)

    meaning = np.array([0, 160, 70], np.uint8)
    write_png(tmp_path / "masks/a.png", meaning[indices])
    (tmp_path / "classes.json").write_text('{"background": 0, "shaft": 160, "tip": 70}')
    source = open_source(tmp_path)
    assert source.mask_encoding == "indexed: 0 background, 160 shaft, 70 tip (255 ignored)"
    np.testing.assert_array_equal(source.records[0].mask(), indices)


def test_plain_indices_stay_themselves_whatever_the_order_of_the_table(tmp_path: Path) -> None:
    (make(tmp_path, {"a": shape_mask()}) / "classes.json").write_text('{"tip": 2, "background": 0, "shaft": 1}')
    source = open_source(tmp_path)
    assert source.classes == ("background", "shaft", "tip")
    np.testing.assert_array_equal(source.records[0].mask(), shape_mask())


def test_colour_map_in_rgb_and_in_a_palette(tmp_path: Path) -> None:
    indices = shape_mask() + shape_mask(4)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    make(tmp_path, {"a": colours[indices], "b": colours[indices]})
    error = expect(tmp_path, "is coloured")
    assert "#ff0000" in error.what
    (tmp_path / "classes.json").write_text('{"background": [0,0,0], "shaft": [255,0,0], "tip": [0,0,255]}')
    palette = Image.frombytes("P", (32, 24), indices.tobytes())
    palette.putpalette(colours.ravel().tolist())
    palette.save(tmp_path / "masks/b.png")
    source = open_source(tmp_path)
    assert source.mask_encoding == "colours: #000000 background, #ff0000 shaft, #0000ff tip"
    for record in source.records:
        np.testing.assert_array_equal(record.mask(), indices)

    colours[2] = (0, 1, 255)
    write_png(tmp_path / "masks/a.png", colours[indices])
    with pytest.raises(UserError, match="#0001ff"):
        source.records[0].mask()
    (tmp_path / "classes.json").write_text('{"background": [0,0,0], "shaft": [255,0,0], "ignore": [0,1,255]}')
    expected = np.where(indices == 2, 255, indices)
    np.testing.assert_array_equal(open_source(tmp_path).records[0].mask(), expected)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{",
        '{"background": 0}',
        '{"a": 0, "b": 0}',
        '{"a": 0, "b": [1,2,3]}',
        '{"a": 0, "b": 256}',
        '{"a": true, "b": 0}',
    ],
)
def test_wrong_class_tables(tmp_path: Path, text: str) -> None:
    (make(tmp_path, {"a": shape_mask()}) / "classes.json").write_text(text)
    expect(tmp_path, "class table")


def test_anti_aliased_mask_is_refused_with_its_share(tmp_path: Path) -> None:
    grey = shape_mask() * 255
    grey[1, 5:20] = 128
    grey[8, 5:20] = 64
    grey[2:8, 4] = 17
    make(tmp_path, {"a": shape_mask() * 255, "b": grey})
    source = open_source(tmp_path)
    assert source.mask_encoding == "0/255"
    with pytest.raises(UserError, match="anti-aliasing") as caught:
        source.records[1].mask()
    share = np.isin(grey, [17, 64, 128]).mean()
    assert f"17, 64, 128 in {share:.2%} of its pixels" in caught.value.what
    (tmp_path / "masks/a.png").unlink()
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(UserError, match="anti-aliasing"):  # also where no mask is clean
        open_source(tmp_path).records[0].mask()


def test_one_mask_encoded_otherwise_is_refused(tmp_path: Path) -> None:
    make(tmp_path, {f"m{i}": shape_mask() * 255 for i in range(3)} | {"odd": shape_mask()})
    with pytest.raises(UserError, match="unexpected values 1 ") as caught:
        open_source(tmp_path).records[3].mask()
    assert "otherwise than most" in caught.value.what


def test_a_rare_instrument_is_found_beyond_the_sample(tmp_path: Path) -> None:
    empty = np.zeros((4, 4), np.uint8)
    masks = {f"{i:03d}": empty for i in range(80)}
    masks["042"] = np.eye(4, dtype=np.uint8)
    source = open_source(make(tmp_path, masks))
    assert source.mask_encoding.startswith("0/1")
    np.testing.assert_array_equal(source.records[42].mask(), np.eye(4, dtype=np.uint8))


def test_masks_without_any_instrument_are_still_listed(tmp_path: Path) -> None:
    source = open_source(make(tmp_path, {"a": np.zeros((4, 4), np.uint8)}))
    assert not source.records[0].mask().any()


# ------------------------------------------------------------------ drawn scenes


def test_drawn_layout(tmp_path: Path) -> None:
    make(tmp_path, {"p00/000": shape_mask(), "p00/001": shape_mask(4) * 2, "p01/000": np.zeros((24, 32), np.uint8)})
    write_png(tmp_path / "instances/p00/000.png", shape_mask() * 2)
    (tmp_path / "classes.json").write_text('{"background": 0, "shaft": 1, "tip": 2}')
    (tmp_path / "dataset.json").write_text('{"format": 1, "kind": "drawn"}')
    source = open_source(tmp_path)
    assert source.dataset == "drawn"
    assert source.classes == ("background", "shaft", "tip")
    assert {group: len(records) for group, records in source.groups.items()} == {"p00": 2, "p01": 1}
    assert source.records[0].dataset == "drawn"
    assert source.records[0].instances is not None


def test_drawn_scenes_as_written(tmp_path: Path) -> None:
    from trocar.synthetic import write_dataset

    write_dataset(tmp_path / "d", procedures=2, frames_per_procedure=2, clip_frames=2, size_hw=(64, 96), seed=3)
    source = open_source(tmp_path / "d")
    assert source.dataset == "drawn"
    assert source.findings == ()
    assert len(source.groups) == 2
    for record in source.records:
        image, mask = record.read()
        assert image.shape == (64, 96, 3)
        assert record.instances is not None
        np.testing.assert_array_equal(record.instances() > 0, mask > 0)
