"""What a reader must know to judge the figures: how they came about, and what makes them mean less than they seem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from trocar import __version__
from trocar.data.recognising import records_in_split, records_of_groups
from trocar.data.records import Side, Source
from trocar.data.splits import Split, read_split
from trocar.evaluation.parts import Choices, Part, Truth
from trocar.evaluation.scoring import Scores
from trocar.inference.postprocess import Cleanup
from trocar.metrics.frames import CONVENTION, EMPTY_RULE, FrameScores, Ruler
from trocar.model_folder import Ancestor, ModelCard, Provenance
from trocar.sizes import shown_size


def protocol_in_words(
    source: Source,
    parts: Sequence[Part],
    scores: Scores,
    split: Split | None,
    side: Side,
    predictions: Path | None,
    truth: Truth,
    choices: Choices,
    ruler: Ruler,
) -> dict[str, str]:
    """How the figures came about, in words, in the order to be shown."""
    cards = [part.card for part in parts if part.card is not None]
    sizes = Counter(f"{row.width}x{row.height}" for row in scores.rows)
    most = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    facts = {
        "data": f"{source.dataset}, {len(source)} records in {len(source.groups)} groups",
        "data fingerprint": source.fingerprint(),
        "masks": source.mask_encoding,
        "scored": f"{len(scores.rows)} frames, {f'side {side}' if split else 'every record: no split was given'}",
        **(_split_in_words(split, parts) if split else {}),
        "resolution": f"native size of each frame: {most}{' and others' if len(sizes) > 3 else ''}",
        "classes": "all but the background joined into one" if truth.join else ", ".join(source.classes),
        "convention": CONVENTION,
        "frames without instrument": EMPTY_RULE,
        "outlines": ruler.in_words(),
    }
    if predictions is not None:
        facts |= {"predictions": f"masks of {predictions}", "missing predictions": "count as empty masks"}
        facts |= {"threshold": "none: the masks were given"}
    for part in parts:
        if part.card is not None:
            facts |= _model_in_words(part.card, part.fold if len(cards) > 1 else None, choices.threshold)
    if scores.engines:
        exported = "torch" not in scores.versions
        facts["engine"] = "; ".join(scores.engines)
        facts["engine"] += ": an exported form of the network, not the weights in PyTorch" if exported else ""
    if choices.flips:
        facts["flips"] = "probabilities are the mean of those of the frame and of its mirror image"
    if choices.tiles is not None:
        facts["tiles"] = (
            f"frames larger than the network's at scale {choices.tiles:g} were cut into overlapping tiles; what is "
            "counted at network size is of their blended probabilities, brought to it"
        )
    if cleanup := Cleanup.parse(cards[0].classes, choices.min_area, choices.fill_holes) if cards else None:
        facts["clean-up"] = f"{cleanup.in_words(cards[0].classes)}; curves over thresholds are without it"
    if cards:
        facts["loss"] = f"{cards[0].loss.name} as in training: at network size, over batches"
    facts["versions"] = _versions(scores.versions)
    return {key: value for key, value in facts.items() if value}


def _split_in_words(split: Split, parts: Sequence[Part]) -> dict[str, str]:
    folds = [part.fold for part in parts if part.fold is not None]
    return {
        "split": split.strategy
        + (f", seed {split.seed}" if split.seed is not None else "")
        + (f", folds {', '.join(folds)}" if folds else ""),
        "split fingerprint": split.own_fingerprint(),
        "cut groups": split.cut_groups or "none: no group stands on two sides",
        "records on two sides": split.shared_records or "none",
    }


def _model_in_words(card: ModelCard, fold: str | None, threshold: float | None) -> dict[str, str]:
    of_fold = f" (fold {fold})" if fold else ""
    made = card.provenance
    chosen = f"{threshold}, given by hand" if threshold is not None else f"{card.threshold}, {card.threshold_from}"
    if card.threshold is None:
        chosen = card.threshold_from
    return {
        f"model{of_fold}": f"{card.name}: {card.model.architecture} on {card.model.encoder}, network size "
        f"{shown_size(card.preprocess.size_hw)} ({card.preprocess.fit}); {made.dataset}, epoch {made.best_epoch} "
        f"of {made.epochs}, seed {made.seed}",
        f"threshold{of_fold}": chosen,
    }


def _versions(ran: Mapping[str, str]) -> str:
    found = {"trocar": __version__, "numpy": np.__version__, "OpenCV": cv2.__version__, **ran}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def find_warnings(
    source: Source, parts: Sequence[Part], rows: Sequence[FrameScores], split: Split | None, side: Side
) -> Iterator[str]:
    """What makes the figures mean less than they seem, a sentence each."""
    if split is not None and side != "test" and not any(part.card for part in parts):
        yield f"these are {side} records: whatever made the masks may have been fitted to them"
    for part in parts:
        if part.card is not None:
            yield from known_to_the_model(source, part, part.card)
    missing = sum(row.missing for row in rows)
    if missing:
        yield f"{missing} of {len(rows)} frames have no prediction and count as empty masks"
    twice = len(rows) - len({row.record for row in rows})
    if twice:
        yield f"{twice} frames are scored in more than one fold: rows are not independent"
    if split is not None and split.shared_records:
        yield f"the split puts records on two sides: {split.shared_records}"


def known_to_the_model(source: Source, part: Part, card: ModelCard) -> Iterator[str]:
    """Warnings about records that the model learnt from or was chosen by."""
    of_fold = f"fold {part.fold}: " if part.fold else ""
    made, scored = card.provenance, {record.name for record in part.records}
    fingerprint = source.fingerprint()  # looks at every file: once for the model and all before it
    listed: dict[str, tuple[str, ...]] = {}
    if part.run is not None and (part.run / "split.yaml").is_file():
        split = read_split(part.run / "split.yaml")
        fold, listed = split.fold(made.fold), records_in_split(split, source, fingerprint)
        for what, side in (("was trained on", set(fold.train)), ("was chosen with", set(fold.val))):
            if known := sum(not side.isdisjoint(listed.get(name, ())) for name in scored):
                yield f"{of_fold}the model {what} {known} of the {len(scored)} frames scored: no held-out figure"
    yield from _of_known_groups(source, fingerprint, scored, scored - listed.keys(), made, f"{of_fold}the model")
    for before in made.began_from:
        who = f"{of_fold}{before.name}, which the model began from,"
        yield from _of_known_groups(source, fingerprint, scored, scored, before, who)


def _of_known_groups(
    source: Source, fingerprint: str, scored: set[str], doubtful: set[str], made: Provenance | Ancestor, who: str
) -> Iterator[str]:
    """A warning where doubtful ones of the records scored are of groups that a model was trained on, as names tell."""
    known = doubtful & {record.name for record in records_of_groups(source, made.dataset, made.groups)}
    if known:
        data = "this very data" if made.data_fingerprint == fingerprint else f"data of the same kind ({made.dataset})"
        yield (
            f"{who} was trained on {data}; {len(known)} of the {len(scored)} frames scored are of groups "
            "of the same name as it was trained on: no held-out figure unless they are other frames"
        )
