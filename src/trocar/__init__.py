"""trocar: medical-instrument segmentation in endoscopic and surgical images and video.

From Python the two entries are `trocar.load(model)(image) -> Prediction` and the library function behind
each command-line verb (`trocar.training.train`, `trocar.evaluation.evaluate`, ...).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trocar.inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(model: str | Path | None = None, *, device: str = "auto", engine: str = "auto") -> Predictor:
    """Open a model folder, the run that made it, or a model that ships with trocar (None: the default one).

    Opening runs no stored code: a model is tensors and JSON. `load(model)(image)` takes one uint8 RGB image of any size
    and returns a `Prediction` at that size. Raises `UserError` where the folder is incomplete or altered.
    """
    from trocar.inference.predictor import Predictor  # heavy: torch is imported only when a model is

    return Predictor.open(model, device=device, engine=engine)
