"""500 cases of the fuzz run (`make fuzz` runs 20,000), and that the run sees what it is there to see."""

from __future__ import annotations

import sys
from pathlib import Path

import fuzz_run
import pytest
from fuzz_seeds import LAYOUTS

from trocar.config import DataSettings
from trocar.data import sources
from trocar.data.sources import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")


@pytest.mark.timeout(1200)  # 20 s where nothing else runs
def test_five_hundred_spoilt_inputs_end_well() -> None:
    tally = fuzz_run.fuzz(range(500), seed=2024, workers=2)
    assert [f"{defect['what']}: {defect['why']}" for defect in tally.defects] == []
    assert tally.run == 500
    assert min(tally.ends[end] for end in ("refused", "findings", "fine")) > 20  # neither too mild nor too rough


def test_every_layout_is_there_and_valid_before_it_is_spoilt(tmp_path: Path) -> None:
    assert {name.split("/")[0] for name in LAYOUTS} == set(sources._LAYOUTS)
    for name, make in LAYOUTS.items():
        root = tmp_path / name
        make(root)
        source = open_source(root, DataSettings(kind=name.split("/")[0]))
        assert source.records, name
        assert source.findings == (), name
        assert open_source(root).dataset == source.dataset, name


DEFECTS = {
    "raises": "raise RuntimeError('on purpose')",
    "warns": "import warnings; warnings.warn('on purpose')",
    "dies": "import os; os.kill(os.getpid(), 11)",
    "swells": "kept = bytearray(1100 << 20)",
    "hangs": "import time; time.sleep(60)",
    "burns": "import time; end = time.process_time() + 1.5\n        while time.process_time() < end: pass",
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "RuntimeError: on purpose"),
        ("warns", "UserWarning: on purpose"),
        ("dies", "died (exit code -11)"),
        ("swells", "MiB of memory"),
        ("hangs", "hung for 5 s"),
        ("burns", "s of processor time"),
    ],
)
def test_defects_are_seen_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    made_up = f"""
def run(number, *_):
    if number == 1:
        {DEFECTS[name]}
    return "made up: x", "fine"

def spoil(*_):
    return "made up", "x"
"""
    (tmp_path / "made_up_cases.py").write_text(made_up)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    if name == "hangs":
        monkeypatch.setattr(fuzz_run, "DEAD_SECONDS", 5.0)
    monkeypatch.setattr(fuzz_run, "MOST_SECONDS", 1.0)
    monkeypatch.setattr(fuzz_run.fuzz_seeds, "build", Path.mkdir)
    monkeypatch.syspath_prepend(tmp_path)
    tally = fuzz_run.fuzz(range(3), 0, 1, tmp_path / "kept", cases="made_up_cases")
    assert tally.run == 3
    assert tally.ends["fine"] == 2
    (defect,) = tally.defects
    assert defect["what"] == "made up: x"
    assert words in defect["why"]
    assert words in (tmp_path / "kept/1/why.txt").read_text()
