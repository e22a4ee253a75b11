"""What stands around a training loop: determinism, and errors of memory in plain words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trocar.errors import UserError


class Interrupted(KeyboardInterrupt):
    """A training was stopped from outside; what it had done is saved. `str()` says how to go on."""


@contextmanager
def deterministic(*, enabled: bool) -> Iterator[None]:
    """Refuse operations whose result could differ from run to run, while inside."""
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def explained_memory() -> Iterator[None]:
    """Out of memory, on any device, becomes the error that names the settings to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(error) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory(error) from error
        raise


def _out_of_memory(error: BaseException) -> UserError:
    return UserError(
        "out of memory",
        where=str(error).splitlines()[0] if str(error) else "while preparing frames or training",
        mend="lower train.batch_size (train.accumulate makes up for it) or preprocess.size_hw; if it is the prepared "
        "frames, lower train.memory_mb",
    )
