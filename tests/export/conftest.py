"""A run as training leaves it, with a small network whose weights are random but whose norms have seen the data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import tiny_card
from trocar import export
from trocar.config import ModelSettings, PreprocessSettings, load_recipe
from trocar.data.preprocess import prepare_image
from trocar.data.sources import open_source
from trocar.data.splits import make_split, write_split
from trocar.model_folder import ModelCard, write_model
from trocar.models.build import build_model

SIZE_HW = (64, 80)
MODEL = {
    "encoder": "test_resnet",
    "encoder_weights": "none",
    "separable": False,
    "rates": [2],
    "pyramid_width": 16,
    "decoder_width": 16,
    "low_level_width": 8,
}


def write_run(run: Path, drawn: Path, *, parts: bool = False, **model: Any) -> Path:
    """`model` are settings of the network other than `MODEL`."""
    network_settings = MODEL | model
    target = "parts" if parts else "instrument"
    overrides = [
        f"data.source={drawn}",
        f"data.target={target}",
        *(f"model.{key}={value}" for key, value in network_settings.items()),
    ]
    recipe = load_recipe(None, [*overrides, f"preprocess.size_hw=[{SIZE_HW[0]},{SIZE_HW[1]}]"])
    source = open_source(drawn, recipe.data)
    split = make_split(source, recipe.split)
    settings, preprocess = ModelSettings(**network_settings), PreprocessSettings(size_hw=SIZE_HW)
    classes = source.classes if parts else ("background", "instrument")
    torch.manual_seed(1)
    network = build_model(settings, preprocess, len(classes), load_encoder_weights=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)  # some begin at 0: whole branches would be silent
    images = [record.image() for record in source.records[:8]]
    frames = torch.from_numpy(np.stack([prepare_image(image, preprocess)[0] for image in images]))
    with torch.no_grad():
        for _ in range(30):
            network(frames)
        probabilities = network.eval()(frames).sigmoid()
    card = tiny_card(
        name="small",
        classes=classes,
        target=target,
        model=settings,
        preprocess=preprocess,
        loss=recipe.loss,
        threshold=None if parts else float(probabilities.quantile(0.8)),
        dataset=source.dataset,
        data_fingerprint=source.fingerprint(),
        split_fingerprint=split.own_fingerprint(),
    )
    write_model(run / "model", card, network.state_dict(), "none")
    (run / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    write_split(split, run / "split.yaml")
    return run


@pytest.fixture(autouse=True, scope="session")
def converted_once() -> Iterator[None]:
    """Networks of equal weights are converted once for all tests: it takes seconds, and graphs are not changed."""
    convert, kept = export._convert, {}

    def once(folder: Path, card: ModelCard, to: str, *, dynamic: bool) -> Any:
        key = (card.files["weights.safetensors"], card.preprocess.size_hw, to, dynamic)
        if key not in kept:
            kept[key] = convert(folder, card, to, dynamic=dynamic)
        return kept[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "_convert", once)
        yield


@pytest.fixture(scope="session")
def pristine_run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("binary") / "run", drawn)


@pytest.fixture(scope="session")
def pristine_parts_run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("parts") / "run", drawn, parts=True)


@pytest.fixture(scope="session")
def pristine_resnet_run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an encoder that takes any size."""
    return write_run(tmp_path_factory.mktemp("resnet") / "run", drawn, encoder="resnet18")


@pytest.fixture
def run(pristine_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pristine_run, tmp_path / "run"))
