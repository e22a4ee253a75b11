"""The models that ship with trocar: each folder beside this file is an ordinary model folder.

Their weights have licences of their own, outside trocar's: see NOTICE and the LICENSE in each folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from trocar.errors import UserError

DEFAULT: Final = "instrument-mobilenetv2"  # what predicts where no model is named
_CARD: Final = "model.json"


def shipped_models() -> dict[str, Path]:
    """Name and folder of the models that come with trocar, the default first."""
    folders = [path.parent for path in sorted(Path(__file__).parent.glob(f"*/{_CARD}"))]
    return {folder.name: folder for folder in sorted(folders, key=lambda folder: folder.name != DEFAULT)}


def model_named(name: str | Path | None) -> Path:
    """Where a model is looked for: None is the default that ships; what exists goes before a shipped name.

    Raises `UserError` for None in an installation without models.
    """
    shipped = shipped_models()
    if name is not None:
        return Path(name) if Path(name).exists() else shipped.get(str(name), Path(name))
    if DEFAULT not in shipped:
        raise UserError(
            "no model is named, and this installation brings none",
            mend="name one with --model, or install trocar whole",
        )
    return shipped[DEFAULT]
