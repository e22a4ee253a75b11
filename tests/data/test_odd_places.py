"""Links in circles, folders nobody may enter, pipes, and names in any script: through every verb that reads data."""

from __future__ import annotations

import errno
import json
import os
import sys
import unicodedata
from pathlib import Path

import pytest
from labelled import add_image, add_json
from test_sources_coco import DOCUMENT
from test_sources_folder import make, shape_mask
from typer.testing import CliRunner

from trocar import console
from trocar.cli import app
from trocar.config import SplitSettings
from trocar.data.checks import check
from trocar.data.convert import FORMATS, convert
from trocar.data.files import read_image, read_mask_file, write_png
from trocar.data.sources import open_source
from trocar.data.sources.listing import natural
from trocar.data.splits import make_split, read_split, write_split
from trocar.errors import UserError
from trocar.inference.inputs import gather

NAMES = {
    "arabic": "\u0645\u0631\u064a\u0636",
    "chinese": "\u60a3\u8005-\u624b\u672f",
    "emoji": "\U0001f52a\U0001f469\u200d\u2695\ufe0f",
    "combining": "e\u0301a\u0308",
    "digits": "1\u00b2 \u0663",
    "line break": "a\nb",
    "tab": "a\tb",
    "turned": "\u202eabc",
    "markup": "[red]a[/red] {0} %s <b>",
    "quotes": "a'b\"c`d",
    "blanks": "a  b",
    "long": "x" * 240,
    "long in three bytes a letter": "\u60a3" * 80,
}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_goes_through_every_verb(tmp_path: Path, name: str) -> None:
    data = make(tmp_path / "data", {f"{name}/{name}": shape_mask(), "p2/b": shape_mask(2), "p3/c": shape_mask(4)})
    source = open_source(data)
    names = [record.name for record in source.records]
    composed = unicodedata.normalize("NFC", name)
    assert f"{composed}/{composed}" in names
    assert check([source]).ok
    for command in (["check", data, "--no-cache", "--out", tmp_path / "page"], ["check", data, "--no-cache", "--json"]):
        code, said = run(*command)
        assert code == 0
    assert json.loads(said)["sources"][0]["records"] == 3
    split = make_split(source, SplitSettings())
    write_split(split, tmp_path / "split.yaml")
    assert read_split(tmp_path / "split.yaml") == split
    items, problems = gather([data / "images"])
    assert not problems
    assert len({item.stem for item in items}) == 3


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["arabic", "emoji", "combining", "markup", "long"])
def test_a_name_survives_every_format(tmp_path: Path, to, name: str) -> None:
    """Or the format cannot hold it, and that is said."""
    data = make(tmp_path / "data", {f"{NAMES[name]}/a": shape_mask(), "p2/b": shape_mask(2)})
    source = open_source(data)
    convert(source, to, tmp_path / "out")
    again = open_source(tmp_path / "out")
    assert {record.name for record in again.records} == {record.name for record in source.records}


def test_a_composed_name_is_the_partner_of_a_decomposed_one(tmp_path: Path) -> None:
    """macOS decomposes names, and other systems leave them so when they unpack."""
    make(tmp_path, {"caf\u00e9/\u00e4": shape_mask()})
    masks = tmp_path / "masks"
    (masks / "caf\u00e9/\u00e4.png").rename(masks / "caf\u00e9/a\u0308.png")
    (masks / "caf\u00e9").rename(masks / "cafe\u0301")
    source = open_source(tmp_path)
    assert ([record.name for record in source.records], source.findings) == (["caf\u00e9/\u00e4"], ())
    write_png(masks / "caf\u00e9/\u00e4.png", shape_mask())
    assert "2 files would all be record caf\u00e9/\u00e4" in open_source(tmp_path).findings[0].what


def test_labels_name_a_decomposed_image(tmp_path: Path) -> None:
    document = json.loads(json.dumps(DOCUMENT).replace("p1/a.png", "caf\u00e9.png"))
    add_image(tmp_path / "images/cafe\u0301.png")
    add_image(tmp_path / "images/p2/b.png")
    add_json(tmp_path / "annotations/a.json", document)
    source = open_source(tmp_path)
    assert source.findings == ()
    assert source.records[0].name == "caf\u00e9"


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    for folder in ("images", "masks"):
        (data / folder / "p1/a.png").rename(data / folder / "p1" / os.fsdecode(b"caf\xe9.png"))
    code, said = run("check", data, "--json", "--no-cache")
    assert code == 2
    assert "no UTF-8" in said
    assert "caf\\udce9.png" in said


@pytest.mark.parametrize("name", [b"caf\xe9", "caf\u00e9".encode()])
@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_folder_above_may_have_any_name(tmp_path: Path, name: bytes) -> None:
    data = make(tmp_path / os.fsdecode(name), {"p1/a": shape_mask(), "p2/b": shape_mask()})
    code, said = run("check", data, "--json", "--no-cache", "--out", tmp_path / "page")
    assert code == 0
    assert json.loads(said)["sources"][0]["records"] == 2
    assert (tmp_path / "page/check.html").is_file()


def test_output_that_cannot_say_a_name(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with open(os.dup(1), "w", encoding="ascii") as stdout:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdout", stdout)
        console.print_json({"name": "\u60a3 \udce9"})
        console.escape_what_cannot_be_printed()
        sys.stdout.write("\u60a3\n")
    lines = capfd.readouterr().out.splitlines()
    assert json.loads("".join(lines[:-1])) == {"name": "\u60a3 \udce9"}
    assert lines[-1] == "\\u60a3"


# ------------------------------------------------------------------ links and folders


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_in_a_circle_is_refused(tmp_path: Path, target: str) -> None:
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    (data / "images/p1/again").symlink_to(target, target_is_directory=True)
    with pytest.raises(UserError, match="leads back") as caught:
        open_source(
            data,
        )
    assert "images/p1/again" in str(caught.value.where)
    items, problems = gather([data / "images"])
    assert (len(items), problems) == (2, [])  # links to folders are not followed there


def test_two_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    data = make(tmp_path / "data", {"p1/a": shape_mask()})
    (data / "images/p1/there").symlink_to(tmp_path / "other", target_is_directory=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/back").symlink_to(data / "images/p1", target_is_directory=True)
    with pytest.raises(UserError, match="leads back"):
        open_source(data)


def test_links_that_lead_elsewhere_are_followed(tmp_path: Path) -> None:
    away = make(tmp_path / "away", {"a": shape_mask(), "b": shape_mask()})
    for folder in ("images", "masks"):
        for patient in ("p1", "p2"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / folder / patient).symlink_to(away / folder, target_is_directory=True)
    assert len(open_source(tmp_path / "data")) == 4


def test_a_file_that_is_a_link_to_itself(tmp_path: Path) -> None:
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    path = data / "images/p1/a.png"
    path.unlink()
    path.symlink_to(path.name)
    report = check([open_source(data)])
    assert [finding.kind for finding in report.errors] == ["unreadable"]
    items, problems = gather([data / "images"])
    assert (len(items), problems) == (2, [])
    with pytest.raises(UserError, match="symbolic links"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    for folder in ("images", "masks"):
        (data / folder / "p1/a.png").unlink()
        os.mkfifo(data / folder / "p1/a.png")
        with pytest.raises(UserError, match="pipe"):
            read_mask_file(data / folder / "p1/a.png")
    report = check([open_source(data)])
    assert [finding.kind for finding in report.errors] == ["unreadable", "unreadable"]


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as a user whom no permission binds."""
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("masks/p2"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot list the folder: Permission denied") as caught:
        open_source(data)
    assert caught.value.where == str(data / "masks/p2")


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(tmp_path, {"p1/a": shape_mask(), "p2/b": shape_mask()})
    stat = Path.stat

    def refuse(path: Path, **how: bool):
        if "masks" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError, match="cannot look into the data: Permission denied"):
        open_source(data)
    code, said = run("check", data / "masks")
    assert code == 2
    assert "Permission denied" in said


def test_a_path_longer_than_the_system_takes(tmp_path: Path) -> None:
    code, said = run("check", tmp_path / ("x" * 300))
    assert code == 2
    assert "error: " in said
    items, problems = gather([tmp_path / ("x" * 300)])
    assert not items
    assert len(problems) == 1


def test_a_path_of_many_folders(tmp_path: Path) -> None:
    """Windows ends at 260 characters, Linux at 4096."""
    stem = "/".join(["d" * 100] * 12) + "/a"
    data = make(tmp_path, {stem: shape_mask(), "p2/b": shape_mask()})
    source = open_source(data)
    assert check([source]).ok
    for to in FORMATS:
        convert(source, to, tmp_path / to)
        assert len(open_source(tmp_path / to)) == 2


def test_numbers_in_names_of_any_script() -> None:
    assert sorted(["\u0663", "2", "1\u00b2", "1"], key=natural) == ["1", "1\u00b2", "2", "\u0663"]
    assert len(natural("9" * 5000)) == 1


def test_messages_can_be_printed_and_end() -> None:
    error = UserError("a\x1b[2Jb\nc", where="caf\udce9", mend="x" * 5000)
    assert error.what == "a\\x1b[2Jb\nc"
    assert error.where == "caf\\udce9"
    assert error.mend == "x" * 2000 + "... (of 5000 characters)"
