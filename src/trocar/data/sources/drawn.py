"""Drawn scenes as `trocar.synthetic` writes them: the folder layout, with `dataset.json` to tell them by."""

from __future__ import annotations

from pathlib import Path

from trocar.config import DataSettings
from trocar.data.sources import folder
from trocar.data.sources.listing import Listing
from trocar.documents import read_json
from trocar.errors import UserError

_CARD = "dataset.json"


def recognises(root: Path) -> bool:
    """Whether `dataset.json` says that the scenes are drawn."""
    try:
        card = read_json(root / _CARD, "the card", mend="")
    except UserError:
        return False
    return isinstance(card, dict) and card.get("kind") == "drawn"


def read(root: Path, settings: DataSettings) -> Listing:
    """List the still frames; a group is a drawn procedure. The clip beside them is for prediction and not listed."""
    if not recognises(root):
        raise UserError(
            f"no drawn scenes in {root}", where=f"no {_CARD} of kind drawn", mend="make some with `trocar demo`"
        )
    plain = settings.model_copy(update={"images": "images", "masks": "masks", "group_by": "folder"})
    return folder.read(root, plain, dataset="drawn")
