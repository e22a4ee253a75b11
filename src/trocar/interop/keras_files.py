"""What Keras and TensorFlow write, read as plain arrays: no stored code, configuration or pickle is ever run.

Covered: `.weights.h5` and the weights inside a `.keras` archive (Keras 3), legacy `.h5` (Keras 2, whole models and
weights alone), and the variables of a SavedModel. Optimiser state and metrics in them are left out. Needs h5py, a
SavedModel TensorFlow too: both come with the extra `keras`.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.model_folder import PICKLE_SUFFIXES

LARGEST_BYTES: Final = 2**30  # of what is read; the notebook's model with its optimiser has 140 MB
MOST_ITEMS, DEEPEST = 20_000, 24
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
INSTALL = "install it with: pip install 'trocar[keras]'"
SAVE_AGAIN = "save it again with model.save_weights('model.weights.h5') and give that file"

# Variables of a layer, in the order in which Keras 3 numbers them.
CONV = ("kernel", "bias")
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_NOT_LAYERS = {"optimizer", "optimizer_weights", "metrics", "compile_metrics", "loss_tracker", "seed_generator"}


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a file: where it stands, what Keras called it, and its arrays by variable name."""

    path: str
    name: str
    tensors: Mapping[str, NDArray[np.float32]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each variable, as Keras has it: kernels (height, width, in, out)."""
        return {key: tensor.shape for key, tensor in self.tensors.items()}


def read_layers(path: Path) -> list[StoredLayer]:
    """Every layer of a file or SavedModel folder, in natural order of their paths.

    Raises `UserError` for anything that is not what it should be: truncated, hostile, too large, of another kind.
    """
    if path.is_dir():
        tensors, names = _read_saved_model(path)
    else:
        tensors, names = _read_file(path)
    layers = _group(tensors, names)
    if not layers:
        raise UserError("there are no layers in it", where=str(path), mend=SAVE_AGAIN)
    return sorted(layers, key=lambda layer: natural(layer.path))


def natural(path: str) -> list[list[tuple[int, int, str]]]:
    """A sort key that reads numbers as numbers: conv2d, conv2d_2, conv2d_10. Paths sort part by part."""
    return [
        [
            (1, int(part), "") if part.isdigit() else (0, 0, part.strip("_"))
            for part in re.split(r"(\d+)", name)
            if part.strip("_")
        ]
        for name in path.split("/")
    ]


def _group(tensors: Mapping[str, NDArray[np.float32]], names: Mapping[str, str]) -> list[StoredLayer]:
    """Tensors of one parent become a layer. Keras 3 numbers them (`vars/0`), all others have names (`kernel:0`)."""
    groups: dict[str, dict[str, NDArray[np.float32]]] = {}
    for path, tensor in tensors.items():
        parent, _, leaf = path.rpartition("/")
        groups.setdefault(parent, {})[leaf.removesuffix(":0").removeprefix("_")] = tensor
    layers = []
    for parent, found in groups.items():
        if all(key.isdigit() for key in found):
            found = dict(zip(_names_of_numbered(found), (found[key] for key in sorted(found, key=int)), strict=True))
        path = parent.removesuffix("/vars")
        layers.append(StoredLayer(path, names.get(parent, path.rpartition("/")[2]), found))
    return layers


def _names_of_numbered(found: Mapping[str, NDArray[np.float32]]) -> list[str]:
    order = sorted(found, key=int)
    dimensions = [found[key].ndim for key in order]
    if dimensions in ([4], [4, 1]):
        return list(CONV[: len(order)])
    if dimensions == [1, 1, 1, 1]:
        return list(NORM)
    return order


# ------------------------------------------------------------------ files


def _read_file(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        mend = "give a .weights.h5, .keras or .h5 file, or the folder of a SavedModel"
        raise UserError(f"cannot read the weights: {error.strerror}", where=str(path), mend=mend) from None
    if magic.startswith(b"PK"):
        return _read_archive(path)
    if magic == b"\x89HDF\r\n\x1a\n":
        return _read_hdf5(path, str(path))
    if magic.startswith(b"\x80"):
        raise UserError("this looks like a pickle: opening one could run code", where=str(path), mend=SAVE_AGAIN)
    raise UserError("this is neither HDF5 nor a .keras archive", where=str(path), mend=SAVE_AGAIN)


def _read_archive(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The weights inside a `.keras` archive, unpacked in memory; its configuration is not looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_hostile(archive, path)
            if WEIGHTS_IN_ARCHIVE not in archive.namelist():
                raise UserError(f"the archive holds no {WEIGHTS_IN_ARCHIVE}", where=str(path), mend=SAVE_AGAIN)
            content = io.BytesIO(archive.read(WEIGHTS_IN_ARCHIVE))
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:  # also: encrypted
        raise UserError(f"cannot read the archive: {error}", where=str(path), mend="copy it again") from None
    return _read_hdf5(content, f"{path}, {WEIGHTS_IN_ARCHIVE}")


def _refuse_hostile(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse names that leave the archive, links, pickles, twins, and more than could be meant."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    problems = [f"{name} leaves the archive" for name in names if _escapes(name)]
    problems += [f"{name} is a pickle: opening one could run code" for name in names if _is_pickle(name)]
    problems += [f"{entry.filename} is a link" for entry in entries if stat.S_ISLNK(entry.external_attr >> 16)]
    problems += ["two entries have one name"] if len(set(names)) < len(names) else []
    if sum(entry.file_size for entry in entries) > LARGEST_BYTES:
        problems.append(f"it unpacks to more than {LARGEST_BYTES >> 20} MB")
    if problems:
        mend = "do not trust this file; get the weights from whoever trained them, as a .weights.h5"
        raise UserError(f"the archive is refused: {'; '.join(problems[:5])}", where=str(path), mend=mend)


def _escapes(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in name


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES


# ------------------------------------------------------------------ HDF5


def _read_hdf5(content: Path | io.BytesIO, where: str) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    h5py = import_extra("h5py", "HDF5 files")
    tensors: dict[str, NDArray[np.float32]] = {}
    names: dict[str, str] = {}
    try:
        with h5py.File(content, "r") as file:
            top = file.get("model_weights", file)  # a whole legacy model, or weights
            budget = LARGEST_BYTES
            for count, (path, item) in enumerate(_walk(h5py, top, "", where)):
                if count == MOST_ITEMS:
                    raise UserError("the file holds more than a model could", where=where, mend=SAVE_AGAIN)
                if isinstance(item, h5py.Group):
                    if isinstance(name := item.attrs.get("name"), str):
                        names[path] = name
                    continue
                budget -= item.size * 4
                if budget < 0:
                    raise UserError("the file holds more than a model could", where=where, mend=SAVE_AGAIN)
                tensors[path] = _as_float32(np.asarray(item[()]), path, where)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"cannot read the HDF5: {error}", where=where, mend="copy it again; or " + SAVE_AGAIN) from None
    return tensors, names


def _walk(h5py: Any, group: Any, inside: str, where: str) -> Iterator[tuple[str, Any]]:
    """Groups and datasets below a group, each with its path. Only what lies in the file itself is followed."""
    if inside.count("/") > DEEPEST:
        raise UserError("the file is nested too deeply", where=where, mend=SAVE_AGAIN)
    for key in group:
        if not inside and key in _NOT_LAYERS:
            continue
        path = f"{inside}/{key}" if inside else key
        link = group.get(key, getlink=True)
        item = group.get(key) if isinstance(link, h5py.HardLink) else None
        outside = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if item is None or outside:
            raise UserError(f"{path} points outside the file", where=where, mend="do not trust this file")
        if isinstance(item, h5py.Group) or item.dtype.kind == "f":  # counters and texts are no weights
            yield path, item
        if isinstance(item, h5py.Group):
            yield from _walk(h5py, item, path, where)


def _as_float32(array: NDArray[Any], path: str, where: str) -> NDArray[np.float32]:
    tensor = array.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise UserError(f"{path} holds values that are not finite", where=where, mend="take an earlier epoch's weights")
    return tensor


# ------------------------------------------------------------------ SavedModel


def _read_saved_model(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Variables of a SavedModel by their full names, read as a checkpoint: its functions are not loaded."""
    prefix = path / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        raise UserError(
            "a folder is no Keras model unless it is a SavedModel: there is no variables/variables.index",
            where=str(path),
            mend=SAVE_AGAIN,
        )
    tensorflow = import_extra("tensorflow", "SavedModels")
    graphs = import_module("tensorflow.core.protobuf.trackable_object_graph_pb2")
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        graph = graphs.TrackableObjectGraph()
        graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        shapes = reader.get_variable_to_shape_map()
        wanted = _variables(graph, set(shapes))
        if sum(int(np.prod(shapes[key])) * 4 for key in wanted.values()) > LARGEST_BYTES:
            raise UserError("the SavedModel holds more than a model could", where=str(path), mend=SAVE_AGAIN)
        found = {name: np.asarray(reader.get_tensor(key)) for name, key in wanted.items()}
    except (tensorflow.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the SavedModel: {first}", where=str(path), mend="copy it again") from None
    return {name: _as_float32(array, name, str(path)) for name, array in found.items() if array.dtype.kind == "f"}, {}


def _variables(graph: Any, keys: set[str]) -> dict[str, str]:
    """Full name of each variable and the key it is stored under. One variable may hang in the graph twice."""
    wanted: dict[str, str] = {}
    for node in graph.nodes:
        for attribute in node.attributes:
            key, name = attribute.checkpoint_key, attribute.full_name or attribute.checkpoint_key
            parts = set(key.split("/"))
            if key in keys and "/" in name and not parts & (_NOT_LAYERS | {".OPTIMIZER_SLOT", "keras_api"}):
                wanted.setdefault(name, key)
    return wanted


def import_extra(module: str, what: str) -> Any:
    """A module of the extra `keras`, imported when it is needed; `UserError` where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{what} need {module}, which is not installed", where=str(error), mend=INSTALL) from None
