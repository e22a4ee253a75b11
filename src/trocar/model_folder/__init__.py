"""The model folder: what training leaves behind and everything else opens.

`weights.safetensors` (float32, or float16), `model.json` (the card: architecture, classes, preprocessing, threshold,
provenance, scores, and the SHA-256 of every other file), `README.md` (the card for people) and `LICENSE` (of the
weights). No pickle and no code: opening a model runs nothing. Building the network from it is `models.build`,
predicting with it `inference.predictor`.
"""

from trocar.model_folder.card import (
    CARD,
    LICENCE,
    WEIGHTS,
    Agreement,
    Ancestor,
    Export,
    FrameAgreement,
    HeldOut,
    ModelCard,
    Provenance,
    QualityLimit,
    Scores,
    TemperatureScaling,
    ValidationCurve,
)
from trocar.model_folder.finding import fold_folders, resolve_model
from trocar.model_folder.reading import PICKLE_SUFFIXES, read_card, read_tensors
from trocar.model_folder.words import LICENCE_HEADING, derived_licence, readme
from trocar.model_folder.writing import add_export, add_held_out, write_model

__all__ = [
    "CARD",
    "LICENCE",
    "LICENCE_HEADING",
    "PICKLE_SUFFIXES",
    "WEIGHTS",
    "Agreement",
    "Ancestor",
    "Export",
    "FrameAgreement",
    "HeldOut",
    "ModelCard",
    "Provenance",
    "QualityLimit",
    "Scores",
    "TemperatureScaling",
    "ValidationCurve",
    "add_export",
    "add_held_out",
    "derived_licence",
    "fold_folders",
    "read_card",
    "read_tensors",
    "readme",
    "resolve_model",
    "write_model",
]
