"""Weights of the notebook's graph, built again in TensorFlow, give the same maps here, whatever file they came in."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from trocar.config import ModelSettings, PreprocessSettings, load_recipe
from trocar.errors import UserError
from trocar.interop import keras_files
from trocar.interop.keras import arrange, convert_keras
from trocar.interop.keras_files import StoredLayer, natural, read_layers
from trocar.models.build import build_model
from trocar.models.notebook import NotebookDeepLab, encoder_names

h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'trocar[keras]'")

pytestmark = [  # Keras's own
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="session")
def graph(tf: ModuleType) -> Any:
    """The notebook's graph at 256x256 with random weights and statistics, logits from -4 to 4; and its images."""
    import keras_notebook

    model = keras_notebook.build_notebook(256)
    keras_notebook.randomise(model)
    images = np.random.default_rng(1).random((2, 256, 256, 3), np.float32)
    keras_notebook.spread_logits(model, images)
    return model, images


@pytest.fixture(scope="session")
def files(graph: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The graph's weights in every kind of file that is read."""
    model, _ = graph
    folder = tmp_path_factory.mktemp("keras")
    paths = {name: folder / f"model.{name}" for name in ("weights.h5", "keras", "h5")}
    model.save_weights(paths["weights.h5"])
    model.save(paths["keras"])
    model.save(paths["h5"])
    paths["export"] = folder / "export"
    model.export(str(paths["export"]), verbose=False)
    paths["nameless"] = folder / "nameless.weights.h5"
    shutil.copy(paths["weights.h5"], paths["nameless"])
    with h5py.File(paths["nameless"], "r+") as file:  # as Keras wrote them before it noted names
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    return paths


def as_network(tensors: dict[str, np.ndarray]) -> NotebookDeepLab:
    network = NotebookDeepLab(1, "1x1")
    network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, strict=False)
    return network.eval()


def maps_of(network: NotebookDeepLab, images: np.ndarray) -> list[np.ndarray]:
    """Both taps, the pyramid's output and the logits, NHWC as in TensorFlow."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        low_level, deep = network.encoder(x)
        maps = [low_level, deep, network.pyramid(deep), network(x)]
    return [value.permute(0, 2, 3, 1).numpy() for value in maps]


def relative(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(value - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize("side", [256, 512])
def test_taps_pyramid_and_logits_equal_tensorflow(graph: Any, files: dict[str, Path], side: int) -> None:
    import keras_notebook

    model, images = graph
    if side == 512:  # the notebook's own size: its fixed 32
        larger = keras_notebook.build_notebook(512)
        larger.set_weights(model.get_weights())
        model, images = larger, np.random.default_rng(2).random((1, 512, 512, 3), np.float32)
    truth = [np.asarray(value) for value in keras_notebook.with_taps(model)(images, training=False)]
    maps = maps_of(as_network(arrange(read_layers(files["weights.h5"]), where="test")), images)
    assert np.ptp(truth[-1]) > 7
    for value, expected in zip(maps, truth, strict=True):
        assert value.shape == expected.shape
        assert relative(value, expected) < 1e-4


def test_every_kind_of_file_gives_the_same_tensors(files: dict[str, Path]) -> None:
    tensors = {}
    for kind, path in files.items():
        notes: list[str] = []
        tensors[kind] = arrange(read_layers(path), where=kind, notes=notes)
        assert any("no layer names" in note for note in notes) == (kind == "nameless")
    reference = tensors["weights.h5"]
    for arrays in tensors.values():
        assert arrays.keys() == reference.keys()
        assert all(np.array_equal(arrays[name], reference[name]) for name in reference)


def test_a_compiled_model_with_its_optimiser_is_read_too(graph: Any, files: dict[str, Path], tmp_path: Path) -> None:
    model, _ = graph
    model.compile("adam", "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)
    for name in ("model.keras", "model.weights.h5", "model.h5"):
        model.save(tmp_path / name) if "weights" not in name else model.save_weights(tmp_path / name)
        assert len(arrange(read_layers(tmp_path / name), where=name)) == 288


def test_the_verb_makes_a_model_that_predicts_as_tensorflow_does(
    graph: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    import trocar

    model, _ = graph
    command = [sys.executable, "-m", "trocar", "convert-keras", files["weights.h5"], "--out", tmp_path / "model"]
    plain = ["preprocess.size_hw=[256,256]", "preprocess.image_steps=[]"]
    command += [word for setting in plain for word in ("--set", setting)] + ["--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["card"]["model"]["stride_in"] == "1x1"
    image = np.random.default_rng(3).integers(0, 256, (256, 256, 3), np.uint8)
    logits = np.asarray(model(image[None].astype(np.float32) / 255, training=False))[..., 0]
    prediction = trocar.load(tmp_path / "model", device="cpu")(image)
    assert relative(prediction.network_logits, logits) < 1e-4
    assert prediction.mask.shape == (256, 256)
    assert "not comparable with scores against masks as labelled" in (tmp_path / "model" / "README.md").read_text()


def test_keras_resnet_weights_start_the_encoder(tf: ModuleType, tmp_path: Path) -> None:
    import keras
    import keras_notebook

    resnet = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    keras_notebook.randomise(resnet)
    resnet.save(tmp_path / "resnet50.h5")
    settings = ModelSettings(architecture="notebook", stride_in="1x1", encoder_weights=str(tmp_path / "resnet50.h5"))
    network = build_model(settings, PreprocessSettings(size_hw=(64, 64)), 2).eval()
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    tap = keras.Model(resnet.input, resnet.get_layer("conv4_block6_2_relu").output)
    with torch.inference_mode():
        deep = network.body.encoder(torch.from_numpy(images).permute(0, 3, 1, 2))[1]
    assert relative(deep.permute(0, 2, 3, 1).numpy(), np.asarray(tap(images))) < 1e-4
    with h5py.File(tmp_path / "resnet50.h5", "r+") as file:
        del file["model_weights/conv3_block2_1_conv"]
    with pytest.raises(UserError, match=r"conv3_block2_1_conv is missing, not kernel \(1, 1, 512, 128\)"):
        build_model(settings, PreprocessSettings(size_hw=(64, 64)), 2)


# ------------------------------------------------------------------ files made by hand, without TensorFlow


def drawn_layers(paths: dict[str, str] | None = None, *, flat: bool = False) -> list[StoredLayer]:
    """Layers of the graph with values that tell them apart, under the paths an author may have chosen."""
    names = {
        "pyramid.pooled": "dspp/pool_block",
        "pyramid.pointwise": "dspp/block_1",
        "pyramid.dilated.0": "dspp/block_6",
        "pyramid.dilated.1": "dspp/block_12",
        "pyramid.dilated.2": "dspp/block_18",
        "pyramid.project": "dspp/last_block",
        "low_level": "conv2d",
        "decoder.0": "conv2d_1",
        "decoder.1": "conv2d_2",
        "classifier": "conv2d_3",
    } | (paths or {})
    keras_names = {f"encoder.{here}": there for here, there, _ in encoder_names()}
    groups: dict[str, dict[str, np.ndarray]] = {}
    translate = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    with torch.device("meta"):
        state = NotebookDeepLab(1, "1x1").state_dict()
    for number, (key, tensor) in enumerate(state.items()):
        module, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        shape = tuple(tensor.shape)
        shape = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape
        is_norm = f"{module}.running_mean" in state
        variable = (
            translate.get(leaf)
            or {"weight": "gamma" if is_norm else "kernel", "bias": "beta" if is_norm else "bias"}[leaf]
        )
        head, _, part = module.rpartition(".")
        path = keras_names.get(module) or names.get(module) or f"{names[head]}/{part}"
        groups.setdefault(path, {})[variable] = np.full(shape, number, np.float32)
    layers = [StoredLayer(path, path.rpartition("/")[2], tensors) for path, tensors in groups.items()]
    return sorted(layers, key=lambda layer: natural(layer.path))


def is_in_its_place(tensors: dict[str, np.ndarray]) -> bool:
    with torch.device("meta"):
        state = NotebookDeepLab(1, "1x1").state_dict()
    numbers = {key: number for number, key in enumerate(state) if not key.endswith("num_batches_tracked")}
    return numbers == {key: int(array.flat[0]) for key, array in tensors.items()}


@pytest.mark.parametrize(
    "paths",
    [
        {},
        {
            "pyramid.dilated.0": "dspp/block_c",
            "pyramid.dilated.1": "dspp/block_c_1",
            "pyramid.dilated.2": "dspp/block_c_2",
        },
        {"decoder.0": "decoder/conv", "decoder.1": "decoder/conv_1"},
    ],
)
def test_layers_find_their_places_under_other_names(paths: dict[str, str]) -> None:
    assert is_in_its_place(arrange(drawn_layers(paths), where="test"))


def test_names_that_hide_the_rates_are_refused_until_they_are_given() -> None:
    hidden = {f"pyramid.dilated.{i}": f"dspp/{name}" for i, name in enumerate(("near", "middle", "far"))}
    layers = drawn_layers(hidden)
    with pytest.raises(UserError, match="which dilated convolution has which rate") as caught:
        arrange(layers, where="test")
    assert "--pyramid" in str(caught.value)
    assert is_in_its_place(arrange(layers, where="test", pyramid=("near", "middle", "far")))
    with pytest.raises(UserError, match="does not name the three"):
        arrange(layers, where="test", pyramid=("near", "far", "far"))


def test_another_graph_is_refused_with_the_tensors_that_differ() -> None:
    layers = [layer for layer in drawn_layers() if layer.name not in ("conv3_block1_0_conv", "conv2d_1")]
    layers.append(StoredLayer("dense", "dense", {"kernel": np.zeros((8, 10), np.float32)}))
    wrong = next(layer for layer in layers if layer.name == "conv1_bn")
    layers[layers.index(wrong)] = StoredLayer(
        wrong.path, wrong.name, {key: np.zeros(32, np.float32) for key in wrong.tensors}
    )
    with pytest.raises(UserError, match="another graph") as caught:
        arrange(layers, where="test")
    for words in (
        "conv3_block1_0_conv is missing, not kernel (1, 1, 256, 512), bias (512,)",
        "conv1_bn (conv1_bn) is gamma (32,)",
        "dense kernel (8, 10) has no place",
        "decoder.0 is missing, not kernel (3, 3, 304, 256)",
    ):
        assert words in str(caught.value)


def write_h5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"layers/{name}/vars/0"] = array
    return path


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def hdf5_bytes() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros((1, 1, 2, 2), np.float32)
    return content.getvalue()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"../evil.txt": b"x"}, "../evil.txt leaves the archive"),
        ({"/etc/evil": b"x"}, "/etc/evil leaves the archive"),
        ({"..\\evil": b"x"}, "leaves the archive"),
        ({"model.pkl": b"\x80\x04."}, "model.pkl is a pickle"),
        ({"zeros.bin": bytes(4096)}, "unpacks to more than"),
        ({}, "holds no model.weights.h5"),
    ],
)
def test_a_hostile_archive_is_refused(
    entries: dict[str, bytes], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_files, "LARGEST_BYTES", 4000)
    weights = {"model.weights.h5": hdf5_bytes()[:100]} if entries else {}
    path = archive(tmp_path / "model.keras", **entries, **weights)
    with pytest.raises(UserError, match="archive") as caught:
        read_layers(path)
    assert words in str(caught.value)


def test_a_truncated_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("keras", "weights.h5", "h5"):
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(files[kind].read_bytes()[:-5000])
        with pytest.raises(UserError, match="cannot read"):
            read_layers(path)
    broken = shutil.copytree(files["export"], tmp_path / "export")
    data = next((broken / "variables").glob("variables.data*"))
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot read the SavedModel"):
        read_layers(broken)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x80\x04\x95pickle", "looks like a pickle"), (b"hello", "neither HDF5"), (b"", "neither HDF5")],
)
def test_other_files_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_layers(path)


def test_a_link_out_of_the_file_and_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    secret = write_h5(tmp_path / "secret.h5", secret=np.zeros((1, 1, 2, 2), np.float32))
    path = write_h5(tmp_path / "linked.h5", conv2d=np.zeros((1, 1, 2, 2), np.float32))
    with h5py.File(path, "r+") as file:
        file["layers/stolen"] = h5py.ExternalLink(str(secret), "/layers")
    with pytest.raises(UserError, match="points outside the file"):
        read_layers(path)
    with pytest.raises(UserError, match="not finite"):
        read_layers(write_h5(tmp_path / "nan.h5", conv2d=np.full((1, 1, 2, 2), np.nan, np.float32)))
    with pytest.raises(UserError, match="unless it is a SavedModel"):
        read_layers(tmp_path)
    with pytest.raises(UserError, match="cannot read the weights"):
        read_layers(tmp_path / "nowhere.h5")


@pytest.mark.parametrize(("module", "kind"), [("h5py", "weights.h5"), ("tensorflow", "export")])
def test_a_missing_library_names_the_extra(
    module: str, kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"need {module}") as caught:
        read_layers(files[kind])
    assert "pip install 'trocar[keras]'" in str(caught.value)


def test_converting_refuses_before_anything_is_written(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "other.h5", conv2d=np.zeros((1, 1, 2, 2), np.float32))
    with pytest.raises(UserError, match="another graph"):
        convert_keras(path, tmp_path / "model", recipe=load_recipe("notebook"))
    assert not (tmp_path / "model").exists()


def test_nobody_else_pays_for_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import trocar.cli, trocar.training.loop, trocar.models.build;"
        "from trocar.training.board import open_board; open_board(Path(sys.argv[1]), purge_step=1).close();"
        "found = {'tensorflow', 'keras', 'h5py'} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
