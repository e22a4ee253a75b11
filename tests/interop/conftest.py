"""TensorFlow, quietly and on one thread, for tests that need it."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported


@pytest.fixture(scope="session")
def tf() -> ModuleType:
    """TensorFlow; the test is skipped where the extra `keras` is not installed."""
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'trocar[keras]'")
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow
