"""What leaks in a split, of whatever origin, and `trocar split` on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from test_splits_drawn import scene, square, write, write_groups
from typer.testing import CliRunner

from trocar.cli import app
from trocar.config import SplitSettings
from trocar.data.files import write_jpeg, write_png
from trocar.data.leakage import audit, read_lists
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.data.splits import make_split, write_split
from trocar.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Five groups of four; p4/copy is p0/0 as a JPEG."""
    root = write_groups(tmp_path_factory.mktemp("audited"), groups=5)
    write_jpeg(root / "images/p4/copy.jpg", scene(0), quality=85)
    write_png(root / "masks/p4/copy.png", square(0.25))
    return open_source(root)


def names(source: Source, *groups: str) -> list[str]:
    return [record.name for record in source.records if record.group in groups]


def lists(path: Path, **sides: list[str]) -> Path:
    path.write_text(json.dumps(sides))
    return path


def test_a_sound_split_is_found_sound(source: Source, tmp_path: Path) -> None:
    write_split(make_split(source, SplitSettings(join_near_duplicates=True)), tmp_path / "split.yaml")
    found = audit(tmp_path / "split.yaml", source)
    assert found.leaks == ()
    assert found.notes == ()
    assert found.verdict.startswith("No leak was found")
    assert [(crossing.seen, crossing.judged) for crossing in found.crossings] == [
        ("train", "test"),
        ("train", "val"),
        ("val", "test"),
    ]


def test_every_kind_of_leak_is_counted(source: Source, tmp_path: Path) -> None:
    split = lists(
        tmp_path / "split.json",
        train=[*names(source, "p0", "p1"), "p2/0"],
        val=[*names(source, "p3"), "p1/1", "p1/2"],
        test=[*names(source, "p4"), "p2/1", "p2/2", "p2/3"],
    )
    test, val, between = audit(split, source).crossings
    assert (test.seen, test.judged, test.frames, test.shared) == ("train", "test", 8, ())
    assert [(twin.judged, twin.seen) for twin in test.twins] == [("p4/copy", "p0/0")]
    assert test.twins[0].alike > 0.99
    assert (test.groups, test.of_groups) == (("p2",), 3)
    assert (val.shared, val.groups, val.of_groups, val.twins) == (("p1/1", "p1/2"), ("p1",), 2, ())
    assert not between.leaks
    found = audit(split, source)
    assert found.findings == (
        "1 of 8 test images (12.5%) have a near-duplicate in training",
        "3 of 8 test images are of 1 group that training has too",
        "2 of 6 validation images are trained on",
        "2 of 6 validation images are of 1 group that training has too",
    )
    tree = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert tree["ok"] is False
    assert tree["crossings"][0]["shares"] == {"shared": 0, "near_duplicate": 1 / 8, "group": 3 / 8}


def test_the_notebooks_split_trains_on_all_its_validation_images(tmp_path: Path) -> None:
    for index in range(20):
        write(tmp_path, f"{index:02d}", index)
    source = open_source(tmp_path)
    drawn = SplitSettings(strategy="random-records", seed=3, test_share=0.1, val_from="leaked-records", val_share=0.15)
    write_split(make_split(source, drawn), tmp_path / "split.yaml")
    found = audit(tmp_path / "split.yaml", source)
    assert found.findings == ("3 of 3 validation images are trained on",)
    assert [note for note in found.notes if "itself declares: the 3 validation records are training" in note]
    assert [note for note in found.notes if note.startswith("patients are not known")]


def test_splits_of_any_origin_are_read(source: Source, tmp_path: Path) -> None:
    train, test = names(source, "p0", "p1"), names(source, "p2")
    expected = audit(lists(tmp_path / "a.json", training=train, TEST=test), source).to_dict()
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(f"{name}.png" for name in train) + "\n\n")
    (folder / "test.txt").write_text("\r\n".join(f".\\{name}".replace("/", "\\") for name in test))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Image", "Split"])
        rows.writerows([(f"data/images/{name}.png", "train") for name in train])
        rows.writerows([(name, "test") for name in test])
    ours = {"format": 1, "folds": {"the only": {"train": train, "val": [], "test": test}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(ours))
    for path in (folder, tmp_path / "a.yaml"):
        assert {**audit(path, source).to_dict(), "split": ""} == {**expected, "split": ""}
    by_last_part = audit(tmp_path / "a.csv", source)
    assert by_last_part.sides["the only"]["test"] == 4
    assert by_last_part.notes[0] == "8 names of the split are not in the data, the first data/images/p0/0.png"


def test_names_that_do_not_fit_are_counted(source: Source, tmp_path: Path) -> None:
    split = lists(tmp_path / "s.json", train=[*names(source, "p0"), "p0/0", "x"], test=["p1/0", "else/copy.jpg"])
    found = audit(split, source)
    assert found.sides["the only"] == {"train": 4, "val": 0, "test": 2}  # the only record named copy is meant
    assert found.notes == (
        "1 names of the split are not in the data, the first x",
        "1 records stand twice on one side, the first p0/0",
        "15 records of the data are on no side, the first p1/1",
    )
    assert [twin.judged for twin in found.crossings[0].twins] == ["p4/copy"]


def test_changed_data_and_unreadable_images_are_told(tmp_path: Path) -> None:
    root = write_groups(tmp_path / "data", groups=4)
    write_split(make_split(open_source(root), SplitSettings()), tmp_path / "split.yaml")
    (root / "images/p1/1.png").write_bytes(b"\x89PNG")
    found = audit(tmp_path / "split.yaml", open_source(root))
    assert found.leaks == ()
    assert found.notes[0].startswith("1 images could not be read")
    assert found.notes[1] == "the data is not what the split was made from"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.yaml", "just words", "is no split"),
        ("s.yaml", "a: [", "cannot read"),
        ("s.json", '{"train": ["a"]}', "fewer than two sides"),
        ("s.yaml", "folds: {a: {train: [p0/0]}}", "fewer than two sides"),
        ("s.csv", "a,b\n1,2\n", "no columns of records and sides, but a, b"),
        ("s.json", '{"train": ["q1"], "test": ["q2"]}', "none of the data's 21 records; its first is q1"),
    ],
)
def test_what_is_no_split_is_refused(source: Source, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        audit(tmp_path / name, source)
    assert message in caught.value.what
    assert caught.value.mend


def test_nested_aliases_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *[f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]]
    (tmp_path / "s.yaml").write_text("\n".join([*lines, "train: [*a11, p]", "test: [q]"]))
    with pytest.raises(UserError, match="aliases unfold"):
        read_lists(tmp_path / "s.yaml")


# ------------------------------------------------------------------ the verb


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["split", *map(str, arguments), "--no-cache"])
    return result.exit_code, result.stdout


def test_the_verb_makes_a_split_that_its_audit_finds_sound(source: Source, tmp_path: Path) -> None:
    code, text = run(source.root, "--strategy", "k-fold", "--folds", 3, "--out", tmp_path / "split.yaml", "--json")
    assert code == 0
    tree = json.loads(text)
    assert list(tree["folds"]) == ["1of3", "2of3", "3of3"]
    assert "p0+p4" in tree["groups"]
    code, text = run(source.root, "--audit", tmp_path / "split.yaml")
    assert code == 0
    assert "No leak was found" in text
    code, text = run(source.root, "--out", tmp_path / "split.yaml", "--val-share", "0.3")
    assert code == 0
    assert "count as one: p0, p4" in text


def test_the_verb_divides_as_a_recipe_does(source: Source, tmp_path: Path) -> None:
    code, text = run(source.root, "--recipe", "notebook", "--out", tmp_path / "split.yaml")
    assert code == 0
    assert "warning: leaks: the 3 validation records are training records too" in " ".join(text.split())
    code, text = run(source.root, "--audit", tmp_path / "split.yaml", "--json", "--out", tmp_path / "page")
    assert code == 1
    tree = json.loads(text)
    assert "3 of 3 validation images are trained on" in tree["findings"]
    assert Path(tree["page"]).is_file()


def test_the_verb_says_what_is_missing_or_contradicts(source: Source, tmp_path: Path) -> None:
    split = lists(tmp_path / "s.json", train=["p0/0"], test=["p1/0"])
    for arguments in ((), ("--audit", split, "--seed", 1), ("--out", tmp_path / "x.yaml", "--strategy", "official")):
        code, text = run(source.root, *arguments, "--json")
        assert code == 2
        assert json.loads(text)["error"]["what"]
    assert not (tmp_path / "x.yaml").exists()


def test_a_table_with_an_endless_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(f"record,side\n{'x' * 140_000},train\n")
    with pytest.raises(UserError, match="field larger"):
        read_lists(tmp_path / "s.csv")
