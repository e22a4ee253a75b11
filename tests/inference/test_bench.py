"""What `bench` tells, not how fast: its parts are there, counted, and agree with each other. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from trocar import bench as measuring
from trocar.bench import STAGES, Bench, bench
from trocar.console.bench import show_bench
from trocar.errors import UserError
from trocar.inference.video_writer import VideoWriter


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of 40x60."""
    path = tmp_path_factory.mktemp("clips") / "five.mkv"
    rng = np.random.default_rng(0)
    with VideoWriter(path, "grey", rate=Fraction(25), time_base=Fraction(1, 1000)) as writer:
        for number in range(5):
            writer.write(rng.integers(0, 256, (40, 60), dtype=np.uint8), Fraction(number, 25))
    return path


def test_every_part_is_measured_and_a_short_input_begins_anew(tiny_model: Path, clip: Path) -> None:
    done: list[tuple[int, int]] = []
    result = bench(tiny_model, source=clip, frames=12, cold_starts=1, progress=lambda *count: done.append(count))
    assert tuple(result.stages) == STAGES
    assert result.frames == 12
    assert result.frame_hw == (40, 60)
    assert result.network_hw == (64, 96)
    for times in result.stages.values():
        assert 0 <= times.p50 <= times.p95 <= times.p99
    assert list(result.end_to_end) == ["both", "overlays", "masks"]
    for run in result.end_to_end.values():
        assert run.frames == 12
        assert run.frames_per_second == pytest.approx(run.frames / run.seconds, rel=0.1)
        frame_ms = 1000 / run.frames_per_second
        assert 1 + run.overhead == pytest.approx(frame_ms / result.stages["network"].p50, rel=0.02)
    assert len(result.cold_start_s) == 1
    assert done.count((12, 12)) == 4  # passes


def test_seconds_end_a_pass_and_a_clip_is_drawn(tiny_model: Path) -> None:
    result = bench(tiny_model, size_hw=(96, 128), frames=10**6, seconds=0.001, cold_starts=0)
    assert result.frame_hw == (96, 128)
    assert result.frames == 1
    assert result.end_to_end["masks"].frames == 1
    assert result.cold_start_s == ()


def test_memory_that_grows_is_seen() -> None:
    assert measuring._growth([100 + 0.5 * frame for frame in range(40)]) == pytest.approx(500)
    assert measuring._growth([float(frame) for frame in range(20)] + [20.0] * 20) == pytest.approx(0, abs=1e-6)
    assert measuring._growth([]) is None


def test_what_cannot_be_measured_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sets its own pace"):
        bench(tiny_model, source="camera:0")
    with pytest.raises(UserError, match="no such file"):
        bench(tiny_model, source=tmp_path / "absent.mp4")


def test_the_verb_prints_one_document_and_its_table_says_the_same(
    tiny_model: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        sys.executable,
        "-m",
        "trocar",
        "bench",
        str(tiny_model),
        "--input",
        str(clip),
        "--frames",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    told = json.loads(done.stdout)
    assert set(told["stages"]) == set(STAGES)
    assert told["machine"]["cores"] >= 1
    assert len(told["cold_start_s"]) == 3
    show_bench(Bench.model_validate_json(done.stdout, strict=False))
    table = capsys.readouterr().out
    for word in (*STAGES, "masks and overlays", "frames/s", "new process to the first mask", "machine:"):
        assert word in table
    assert f"{told['stages']['network']['p50']:.2f}" in table
