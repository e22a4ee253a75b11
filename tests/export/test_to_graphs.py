"""Graphs of several architectures give the logits of their network. That a model's forms agree is test_export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trocar.config import ModelSettings, PreprocessSettings
from trocar.errors import UserError
from trocar.export.convert import check_other_size, to_onnx, to_openvino, trace
from trocar.export.graphs import ONNXGraph, OpenVINOGraph
from trocar.models.build import Network, build_model

SIZE_HW = (64, 96)


def network(architecture: str, encoder: str, classes: int) -> Network:
    settings = ModelSettings(architecture=architecture, encoder=encoder, encoder_weights="none")
    torch.manual_seed(0)
    made = build_model(settings, PreprocessSettings(size_hw=SIZE_HW), classes, load_encoder_weights=False)
    made(torch.randint(0, 256, (4, *SIZE_HW, 3), dtype=torch.uint8))
    return made.eval()


@pytest.mark.parametrize(
    ("architecture", "encoder", "classes"),
    [("notebook", "resnet50", 2), ("deeplabv3plus", "mobilenetv2_100", 3), ("smp/Unet", "resnet18", 4)],
)
def test_graphs_give_the_logits_of_the_network(architecture: str, encoder: str, classes: int) -> None:
    made = network(architecture, encoder, classes)
    frames = np.random.default_rng(0).integers(0, 256, (3, *SIZE_HW, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = made(torch.from_numpy(frames)).numpy()
    program = trace(made, SIZE_HW)
    weights = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    for graph in (OpenVINOGraph.of(to_openvino(program, SIZE_HW), weights), ONNXGraph.of(to_onnx(program))):
        found = graph.engine("f32")(frames)
        assert found.shape == wanted.shape == (3, 1 if classes == 2 else classes, *SIZE_HW)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_graph_that_counts_on_its_size_is_found() -> None:
    made = network("smp/Unet", "resnet18", 2)

    def right(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(made(torch.from_numpy(frames)).numpy())

    def wrong(frames: np.ndarray) -> np.ndarray:
        return right(frames) + np.linspace(0, 1, frames.shape[1], dtype=np.float32)[:, None]

    def refusing(frames: np.ndarray) -> np.ndarray:
        raise RuntimeError(f"Gather: index out of {frames.shape}")

    check_other_size(made, right, SIZE_HW)  # type: ignore[arg-type]
    for engine in (wrong, refusing):
        with pytest.raises(UserError, match="of another size than 96x64"):
            check_other_size(made, engine, SIZE_HW)  # type: ignore[arg-type]
