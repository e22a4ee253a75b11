from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trocar.cores import usable_cores
from trocar.data.loading import default_workers
from trocar.data.sources import open_source
from trocar.data.threads import threads_for


@pytest.mark.skipif(sys.platform != "linux", reason="a process is kept to some cores there only")
def test_a_process_that_is_kept_to_some_cores_counts_those(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
        assert threads_for(open_source(drawn).records) == 1
        assert default_workers("cpu") == default_workers("cuda") == 0
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() == len(allowed)
