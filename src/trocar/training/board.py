"""TensorBoard's event files, written without TensorFlow, which tensorboard would import where it finds it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_board(folder: Path, *, purge_step: int) -> SummaryWriter:
    """A writer of scalars below `folder`; what an interrupted sitting wrote from `purge_step` on is dropped."""
    # tensorboard's own switch, looked at when it is imported: its built-in stub does all that is needed
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)
