from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tiny import brightness, tiny_card
from trocar.inference.predictor import Predictor


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(brightness, tiny_card())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not left
