"""The settings of a training: one tree, the recipe, each setting described and checked.

A recipe is a YAML file; `recipes/` holds the ones that ship with trocar. Unknown keys are refused with the
nearest known ones; derived values (feature sizes, class counts) are computed, never set. The whole tree is saved
beside every checkpoint, and the parts that prediction needs travel in `model.json`.
"""

from trocar.config.base import Fraction, Settings
from trocar.config.data import BACKGROUND, IGNORED, INSTRUMENT, DataSettings, SplitSettings, Target
from trocar.config.keys import default_of, known_keys, nearest
from trocar.config.preprocess import (
    AugmentSettings,
    Binarise,
    BoxBlur,
    Clahe,
    Dilate,
    Equalise,
    GaussianBlur,
    Grey,
    ImageStep,
    Jpeg,
    MaskStep,
    PreprocessSettings,
    mask_steps_in_words,
)
from trocar.config.recipe import Recipe, load_recipe, shipped_recipes, validate
from trocar.config.training import LossSettings, ModelSettings, TrainSettings

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "INSTRUMENT",
    "AugmentSettings",
    "Binarise",
    "BoxBlur",
    "Clahe",
    "DataSettings",
    "Dilate",
    "Equalise",
    "Fraction",
    "GaussianBlur",
    "Grey",
    "ImageStep",
    "Jpeg",
    "LossSettings",
    "MaskStep",
    "ModelSettings",
    "PreprocessSettings",
    "Recipe",
    "Settings",
    "SplitSettings",
    "Target",
    "TrainSettings",
    "default_of",
    "known_keys",
    "load_recipe",
    "mask_steps_in_words",
    "nearest",
    "shipped_recipes",
    "validate",
]
