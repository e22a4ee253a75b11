from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trocar.config import DataSettings
from trocar.data.files import write_jpeg, write_png
from trocar.data.sources import open_source
from trocar.errors import UserError


def make(root: Path, train: list[str], test: list[str]) -> Path:
    for stem in train + test:
        mask = np.zeros((16, 20, 3), np.uint8)
        mask[4:9, 5:12] = 255
        write_jpeg(root / f"images/{stem}.jpg", np.full((16, 20, 3), 90, np.uint8))
        write_png(root / f"masks/{stem}.png", mask)
    (root / "train.txt").write_text("\n".join(train))
    (root / "test.txt").write_text("\n".join(test) + "\n\n")
    (root / "bboxes.json").write_text("{}")
    return root


def test_official_lists_and_masks(tmp_path: Path) -> None:
    source = open_source(make(tmp_path, ["c", "a", "d"], ["b"]))
    assert source.dataset == "kvasir-instrument"
    assert [record.name for record in source.records] == ["a", "b", "c", "d"]
    assert source.official == {"train": ("a", "c", "d"), "test": ("b",)}
    assert list(source.groups) == ["a", "b", "c", "d"]
    assert source.findings == ()
    image, mask = source.records[0].read()
    assert image.shape == (16, 20, 3)
    assert np.unique(mask).tolist() == [0, 1]
    assert mask.sum() == 5 * 7


def test_excluded_names_leave_the_lists_too(tmp_path: Path) -> None:
    source = open_source(make(tmp_path, ["a", "c"], ["b"]), DataSettings(exclude=("c",)))
    assert source.official == {"train": ("a",), "test": ("b",)}


def test_lists_and_folders_that_disagree(tmp_path: Path) -> None:
    make(tmp_path, ["a", "c", "e"], ["b"])
    (tmp_path / "test.txt").write_text("b\nc\nb.jpg\ngone\n")
    (tmp_path / "masks/e.png").unlink()
    write_jpeg(tmp_path / "images/x.jpg", np.zeros((4, 4, 3), np.uint8))
    write_png(tmp_path / "masks/x.png", np.zeros((4, 4), np.uint8))
    source = open_source(tmp_path)
    told = "\n".join(error.what for error in source.findings)
    assert "the official list names gone, which has no image" in told
    assert "c is on both official lists" in told
    assert "the official list names b 2 times" in told
    assert "the image has no mask" in told
    assert len(source.findings) == 4
    assert any("1 images are on neither official list, such as x" in note for note in source.notes)


def test_images_missing_says_where_they_are_to_be_had(tmp_path: Path) -> None:
    make(tmp_path, ["a"], ["b"])
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="without the images") as caught:
        open_source(tmp_path)
    assert "datasets.simula.no/kvasir-instrument" in str(caught.value.mend)


@pytest.mark.real
def test_the_real_masks(shared: Path, tmp_path: Path) -> None:
    """The real masks and lists, with black images of the same sizes."""
    home = shared / "data/kvasir_instrument"
    with pytest.raises(UserError, match="without the images"):
        open_source(home)
    for name in ("masks", "train.txt", "test.txt", "bboxes.json"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "images").mkdir()
    written: dict[tuple[int, int], Path] = {}
    for path in (home / "masks").glob("*.png"):
        with Image.open(path) as mask:
            size = mask.size
        image = tmp_path / "images" / f"{path.stem}.jpg"
        if size not in written:
            write_jpeg(image, np.zeros((size[1], size[0], 3), np.uint8))
            written[size] = image
        else:
            image.hardlink_to(written[size])
    source = open_source(tmp_path)
    assert source.official is not None
    assert {side: len(names) for side, names in source.official.items()} == {"train": 472, "test": 118}
    assert len(source) == 590
    assert source.findings == ()
    shares, sizes = [], Counter[tuple[int, int]]()
    for record in source.records:
        mask = record.mask()
        shares.append(np.count_nonzero(mask) / mask.size)
        sizes[mask.shape[1], mask.shape[0]] += 1
    assert [size for size, _ in sizes.most_common(3)] == [(768, 576), (720, 576), (1280, 1024)]
    assert [count for _, count in sizes.most_common(4)] == [254, 210, 84, 6]
    assert np.mean(shares) == pytest.approx(0.099, abs=5e-4)
    assert np.median(shares) == pytest.approx(0.083, abs=5e-4)
    assert (min(shares), max(shares)) == (pytest.approx(0.0048, abs=5e-5), pytest.approx(0.408, abs=5e-4))
