"""Look at single frames of a report again: its source is opened once more and its model or masks predict them anew.

A report says in `inputs` of report.json what it was made from. Where that is gone or does not fit any more, there is
nothing to look at, and `UserError` says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trocar.comparing.results import Report
from trocar.config import DataSettings, validate
from trocar.data.joining import open_data
from trocar.data.records import SIDES, Side
from trocar.data.sources import open_source
from trocar.data.splits import read_split
from trocar.errors import UserError
from trocar.evaluation import View
from trocar.evaluation.parts import Choices, Part, Truth, parts_of_masks, parts_of_models, truth_for
from trocar.metrics.frames import score_frame
from trocar.model_folder import fold_folders


def look_again(report: Report, records: Collection[str], *, device: str = "auto") -> Iterator[View]:
    """Predict these records once more; one is held at a time, and its row is scored anew.

    The order is that of the source. Raises `UserError` where the source, the model or the masks are not there any more.
    """
    inputs = report.told.get("inputs")
    if not isinstance(inputs, Mapping) or inputs.get("data", {}) is None:  # None: a source built in Python
        raise UserError(
            "the report does not say what it was made from", where=str(report.path), mend="evaluate again to see frames"
        )
    where = str(report.path / "report.json")
    try:
        parts, truth = _parts(inputs, device, where)
    except (KeyError, TypeError) as error:
        raise UserError(f"its inputs cannot be read: {error}", where=where, mend="evaluate again") from None
    wanted = set(records)
    for part in parts:
        chosen = [record for record in part.records if record.name in wanted]
        if not chosen:
            continue
        guess = part.open()
        for record in chosen:
            wanted.remove(record.name)  # of a record in several folds the first is shown
            image, mask = truth.read(record)
            guessed = guess(record, image)
            row = score_frame(guessed.mask, mask, record=record.name, group=record.group, fold=part.fold)
            yield View(row, image, mask, guessed)


def _parts(inputs: Mapping[str, Any], device: str, where: str) -> tuple[tuple[Part, ...], Truth]:
    """Who predicts what, as `evaluate` had it."""
    settings = validate(DataSettings, inputs["data"], where=where)
    source = open_data(settings) if settings.sources else open_source(Path(inputs["source"]), settings)
    split = read_split(Path(inputs["split"])) if inputs["split"] is not None else None
    side: Side = next((side for side in SIDES if side == inputs["side"]), "test")  # without a split it is of no use
    if inputs["model"] is None:
        return parts_of_masks(source, Path(inputs["predictions"]), split, side)
    model = Path(inputs["model"])
    folders = fold_folders(model)
    if folders and split is None:
        split = read_split(model / "split.yaml")
    parts = parts_of_models(source, folders or {None: model}, split, side, device, Choices.of(inputs))
    return parts, truth_for(parts, source, as_labelled=bool(inputs.get("as_labelled", False)))
