"""Each layout is recognised by its own reader and no other; what labels do not tell is refused; odd folders too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import test_sources_cadis
import test_sources_cholec_instances
import test_sources_cholecseg8k
import test_sources_endovis15
import test_sources_endovis17
import test_sources_endovis18
import test_sources_folder
import test_sources_robust_mis
import test_sources_sar_rarp50
import test_sources_videos
from PIL import Image

from trocar.config import DataSettings
from trocar.data import sources
from trocar.data.files import write_png
from trocar.data.sources import open_source
from trocar.errors import UserError

Make = Callable[[Path], object]


def make_plain(root: Path) -> None:
    test_sources_folder.make(root, {"p1/a": test_sources_folder.shape_mask(), "p2/b": test_sources_folder.shape_mask()})


def make_kvasir(root: Path) -> None:
    test_sources_folder.make(
        root, {"a": test_sources_folder.shape_mask() * 255, "b": test_sources_folder.shape_mask() * 255}
    )
    (root / "train.txt").write_text("a\n")
    (root / "test.txt").write_text("b\n")


def make_drawn(root: Path) -> None:
    make_plain(root)
    (root / "dataset.json").write_text('{"format": 1, "kind": "drawn"}')


def make_endovis17(root: Path) -> None:
    test_sources_endovis17.make_training(root, frames=(0,))


LAYOUTS: dict[str, Make] = {
    "folder": make_plain,
    "drawn": make_drawn,
    "kvasir-instrument": make_kvasir,
    "endovis15": test_sources_endovis15.make_rigid,
    "endovis17": make_endovis17,
    "endovis18": test_sources_endovis18.make,
    "robust-mis": test_sources_robust_mis.make,
    "cholecseg8k": test_sources_cholecseg8k.make,
    "cholec-instances": test_sources_cholec_instances.make,
    "sar-rarp50": test_sources_sar_rarp50.make,
    "cadis": test_sources_cadis.make,
    "videos": test_sources_videos.make,
}
PLAINER = {  # special cases of a plainer layout, tried before it
    ("drawn", "folder"),
    ("kvasir-instrument", "folder"),
    ("cholec-instances", "labelme"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in LAYOUTS}
    for kind, folder in folders.items():
        LAYOUTS[kind](folder)
    return folders


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_is_recognised_by_its_own_reader_alone(made: dict[str, Path], kind: str) -> None:
    accepted = {name for name, layout in sources._LAYOUTS.items() if layout.recognises(made[kind])}
    assert accepted - {name for special, name in PLAINER if special == kind} == {kind}
    source = open_source(made[kind])
    assert source.dataset == kind
    assert source.findings == ()
    assert len({record.name for record in source.records}) == len(source) > 0
    assert all(path.is_file() for record in source.records for path in record.files)
    for record in source.records[:3]:
        assert record.read()[1].max() < len(source.classes) or 255 in record.mask()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_other_readers_refuse_it_politely(made: dict[str, Path], kind: str) -> None:
    for other in LAYOUTS.keys() - {kind} - {name for special, name in PLAINER if special == kind}:
        with pytest.raises(UserError) as caught:
            open_source(made[kind], DataSettings(kind=other))
        assert caught.value.mend


def test_every_kind_of_the_settings_has_a_reader() -> None:
    annotation = DataSettings.model_fields["kind"].annotation
    assert set(get_args(annotation)) == {"auto", *sources._LAYOUTS}
    assert LAYOUTS.keys() <= sources._LAYOUTS.keys()


def test_every_layout_is_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
    assert [kind for kind in sources._LAYOUTS if f"`{kind}`" not in text] == []


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("robust-mis", "parts", "does not label parts"),
        ("robust-mis", "types", "does not label types"),
        ("cholecseg8k", "parts", "instrument or types"),
        ("cadis", "parts", "instrument or types"),
        ("cholec-instances", "parts", "instrument or types"),
        ("endovis15", "types", "instrument or parts"),
        ("kvasir-instrument", "parts", "does not label parts"),
        ("drawn", "types", "instrument or parts"),
    ],
)
def test_what_the_labels_do_not_tell_is_refused(made: dict[str, Path], kind: str, target: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(made[kind], DataSettings(target=target))
    assert words in str(caught.value)


def test_a_foreign_tree_is_refused_and_a_loop_of_links_ends(tmp_path: Path) -> None:
    for path in ("a/b/c/d", "Video01/Images", "seq_1/labels", "video_01/rgb", "instrument_dataset_1/right_frames"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a/b/round").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="no known layout") as caught:
        open_source(tmp_path)
    assert "SAR-RARP50" not in str(caught.value)
    assert "sar-rarp50: train1, train2, test" in str(caught.value.mend)


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_sources_cadis.make(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir()
    look = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # as of a folder without permission, which root would read all the same
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(UserError, match="cannot look into the folder: Permission denied") as caught:
        open_source(tmp_path)
    assert caught.value.where == str(closed)


# ------------------------------------------------------------------ two folders with the same names


def test_two_folders_of_the_same_names_as_kvasir_seg_has(tmp_path: Path) -> None:
    """JPEG images beside PNG masks; a bounding-box file beside them does no harm."""
    for number in range(3):
        name = f"cju{number}"
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(test_sources_folder.noise(number)).save(tmp_path / f"images/{name}.jpg", quality=95)
        mask = test_sources_folder.shape_mask(number) * 255
        write_png(tmp_path / f"masks/{name}.png", np.repeat(mask[..., None], 3, axis=2))
    (tmp_path / "kavsir_bboxes.json").write_text("{}")
    source = open_source(tmp_path)
    assert source.dataset == "folder"
    assert [record.name for record in source.records] == ["cju0", "cju1", "cju2"]
    np.testing.assert_array_equal(source.records[2].mask(), test_sources_folder.shape_mask(2))


def test_their_masks_as_jpeg_are_told_with_the_cure(tmp_path: Path) -> None:
    for folder, pixels in (("images", test_sources_folder.noise()), ("masks", test_sources_folder.shape_mask() * 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.jpg")
    with pytest.raises(UserError, match="the mask is a JPEG") as caught:
        open_source(tmp_path).records[0].mask()
    assert "threshold it at half" in str(caught.value.mend)
