from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from trocar.inference.inputs import gather


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def stems(*inputs: str | Path) -> dict[str, str]:
    items, problems = gather(inputs)
    assert problems == []
    assert len({item.stem.casefold() for item in items}) == len(items)
    return {item.path.as_posix(): item.stem for item in items}


def problems(inputs: Sequence[str | Path]) -> list[str]:
    return [error.what for error in gather(inputs)[1]]


def test_a_folder_gives_all_below_it_by_relative_name(tree: Path) -> None:
    touch("d/b/2.png", "d/b/1.JPG", "d/a.mp4", "d/notes.txt", "d/.hidden.png", "d/.git/x.png")
    assert stems("d") == {"d/a.mp4": "a", "d/b/1.JPG": "b/1", "d/b/2.png": "b/2"}
    items, _ = gather(["d"])
    assert [item.is_video for item in items] == [True, False, False]


def test_a_pattern_is_named_from_its_fixed_part(tree: Path) -> None:
    touch("d/p1/x.png", "d/p2/x.png", "d/p2/y.jpg", "d/p2/z.txt")
    assert stems("d/*/x.png") == {"d/p1/x.png": "p1/x", "d/p2/x.png": "p2/x"}
    assert stems("d/p2/*") == {"d/p2/x.png": "x", "d/p2/y.jpg": "y"}
    assert stems("**/*.jpg") == {"d/p2/y.jpg": "d/p2/y"}
    assert stems(tree / "d" / "p?" / "y.*") == {(tree / "d/p2/y.jpg").as_posix(): "p2/y"}


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree: Path) -> None:
    touch("x[1].png")
    assert stems("x[1].png") == {"x[1].png": "x[1]"}


def test_a_file_named_twice_is_predicted_once(tree: Path) -> None:
    touch("d/x.png")
    Path("link.png").symlink_to("d/x.png")
    assert stems("d/x.png", "d", "d/*.png", "link.png") == {"d/x.png": "x"}


def test_equal_stems_are_told_apart_by_folder(tree: Path) -> None:
    touch("a/x.png", "b/x.png", "c/x.png")
    assert stems("a/x.png", "b/x.png") == {"a/x.png": "a/x", "b/x.png": "b/x"}
    assert stems("a", "b", "c") == {"a/x.png": "a/x", "b/x.png": "b/x", "c/x.png": "c/x"}


def test_equal_stems_in_one_folder_are_told_apart_by_ending(tree: Path) -> None:
    touch("d/s/x.png", "d/s/x.jpg", "d/s/x.mp4", "d/s/y.png")
    expected = {"d/s/x.jpg": "s/x_jpg", "d/s/x.mp4": "s/x_mp4", "d/s/x.png": "s/x_png", "d/s/y.png": "s/y"}
    assert stems("d") == expected


def test_names_made_up_to_differ_do_not_meet_others(tree: Path) -> None:
    touch("d/x.png", "d/x.jpg", "d/x_png.png", "d/X.bmp")
    found = stems("d")
    assert found["d/x_png.png"] == "x_png"
    assert set(found.values()) == {"x_png", "x_png-2", "x_jpg", "X_bmp"}


def test_folders_and_endings_together(tree: Path) -> None:
    touch("a/x.png", "a/x.jpg", "b/x.png")
    assert set(stems("a/x.png", "a/x.jpg", "b/x.png").values()) == {"a/x_png", "a/x_jpg", "b/x_png"}


def test_names_do_not_depend_on_the_order_of_listing(tree: Path) -> None:
    touch("a/x.png", "b/x.png")
    assert stems("a", "b") == stems("b", "a")


def test_outputs_of_earlier_predictions_are_passed_over(tree: Path) -> None:
    touch("d/x.png", "d/out/masks/x.png", "d/out/overlays/x.jpg", "d/out/predictions.json", "d/masks/label.png")
    assert set(stems("d")) == {"d/x.png", "d/masks/label.png"}
    assert set(stems("d/**/*.*")) == {"d/x.png", "d/masks/label.png"}
    assert set(stems("d/out/overlays/x.jpg")) == {"d/out/overlays/x.jpg"}, "named outright, it is meant"


def test_everything_named_in_vain_is_listed(tree: Path) -> None:
    touch("empty/notes.txt", "x.png", "y.txt")
    items, _ = gather(["empty", "missing.png", "*.gif", "y.txt", "x.png"])
    assert [item.stem for item in items] == ["x"]
    assert problems(["empty", "missing.png", "*.gif", "y.txt", "x.png"]) == [
        "no image or video in empty",
        "no such file or folder: missing.png",
        "no image or video matches *.gif",
        "y.txt has no ending of an image or video",
    ]
