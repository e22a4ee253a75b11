from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from trocar.cli import app

BASE = np.random.default_rng(0).uniform(0.6, 0.95, 24)


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_people_get_the_verdict_the_table_and_the_place(write_report, tmp_path: Path) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE - 0.05)
    code, said, _ = run(a, b, "--published", "them=0.9013/0.8234", "--out", tmp_path / "out")
    assert code == 0
    words = " ".join(said.split())
    assert "a is better than b: mean Dice" in words
    assert "them 0.9013, published" in words
    assert "them: Dice 0.9013, Jaccard 0.8234 is possible" in words
    assert f"page: {tmp_path / 'out' / 'compare.html'}" in words.replace("\n", "")
    assert (tmp_path / "out" / "compare.json").is_file()


def test_several_pairs_have_their_table(write_report) -> None:
    _, said, _ = run(*(write_report(name, BASE - shift) for name, shift in (("a", 0), ("b", 0.05), ("c", 0.1))))
    assert "a - b" in said
    assert "24, 0, 0" in said


def test_json_is_one_document(write_report, tmp_path: Path) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE - 0.05)
    code, said, _ = run(a, b, "--json")
    assert code == 0
    tree = json.loads(said)
    assert tree["page"] is None
    assert tree["pairs"][0]["outcome"] == "higher"
    assert {"first": "a", "second": "b"}.items() <= tree["pairs"][0].items()


def test_what_a_person_can_mend_takes_the_error_form(write_report) -> None:
    a, b = write_report("a", BASE), write_report("b", BASE[:20])
    code, _, said = run(a, b)
    assert code == 2
    assert said.startswith("error: b lacks 4 of 24 frames")
    assert "--common" in said
    code, said, _ = run(a, b, "--common")
    assert code == 0
    assert "warning: only the 20 common frames are compared" in said


def test_comparing_imports_no_torch() -> None:
    code = "import sys, trocar.comparing, trocar.reporting.comparison as _; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
