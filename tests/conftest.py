"""What several tests share: the real frames, a browser, TensorFlow, where they are present."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported: errors only

# As a shell leaves the one for what runs in its background, and `nohup` the other.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

if "TROCAR_CACHE" not in os.environ:  # not the user's own; workers of one run inherit it
    os.environ["TROCAR_CACHE"] = tempfile.mkdtemp(prefix="trocar-tests-")
    atexit.register(shutil.rmtree, os.environ["TROCAR_CACHE"], ignore_errors=True)

# Tests that import these libraries by themselves report to nobody either; trocar's own imports see to it (test_export).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real frames and encoder weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("TROCAR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data" / "endovis15").is_dir():
        pytest.skip(f"no real frames at {folder}; set TROCAR_SHARED to the folder that holds data/ and weights/")
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set: four procedures of five frames, 64x80, one clip."""
    from trocar.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("drawn") / "data"
    return write_dataset(folder, procedures=4, frames_per_procedure=5, empty_share=0.2, clip_frames=4, size_hw=(64, 80))


@pytest.fixture(scope="session")
def tf() -> ModuleType:
    """TensorFlow, on one thread; the test is skipped where the extra `keras` is not installed."""
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'trocar[keras]'")
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium, driven by playwright; the test is skipped where one of them is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser on the path: one of {', '.join(names)}")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield opened
        opened.close()
