"""Text, JSON and YAML of others: what each kind of damage says, and that nothing hangs, swells or crashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trocar import documents
from trocar.documents import parse_yaml, read_json, read_text, read_yaml
from trocar.errors import UserError

BOMB = "\n".join(["a0: &a0 [x, x]", *[f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]])


def refusal(read, path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        read(path, "the list", "mend it")
    assert (caught.value.where, caught.value.mend) == (str(path), "mend it")
    return caught.value


def test_good_ones_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes('\ufeff{"a": [1, "\u60a3"]}'.encode())
    assert read_text(path, "the list", "mend it") == '{"a": [1, "\u60a3"]}'
    assert read_json(path, "the list", "mend it") == read_yaml(path, "the list", "mend it") == {"a": [1, "\u60a3"]}
    assert parse_yaml("a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(read_text, tmp_path / "gone").what == "cannot read the list: No such file or directory"
    assert "directory" in refusal(read_text, tmp_path).what
    (tmp_path / "bytes").write_bytes(b"a\xff")
    assert "utf-8" in refusal(read_text, tmp_path / "bytes").what
    monkeypatch.setattr(documents, "MAX_BYTES", 1)
    assert "MiB" in refusal(read_text, tmp_path / "bytes").what


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refusal(read_text, tmp_path / "pipe").what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("9" * 5000, "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[" * 101 + "]" * 101, "nested more than 100 deep"),
        ('"\\ud800"', "surrogates"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a").write_text(text)
    assert words in refusal(read_json, tmp_path / "a").what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "no YAML"),
        ("[" * 100_000, "nested more than 100 deep"),  # libyaml's loader crashes the process
        ("- " * 100_000, "nested more than 100 deep"),
        ("a: &a [*a]", "nested more than 100 deep"),
        (BOMB, "aliases unfold"),
        ("a: &a {b: 1}\nc: {<<: [*a, *a]}", "write the keys out"),
        ("a: 2001-99-99", "month"),
        ("a: " + "9" * 5000, "digits"),
        ("? [a]\n: b", "unhashable"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ('a: "\\ud800"', "no YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a").write_text(text)
    told = refusal(read_yaml, tmp_path / "a").what
    assert words in told
    assert "\n" not in told
