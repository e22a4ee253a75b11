"""Exported graphs as `export` handles them: OpenVINO's and ONNX's behind the same few calls.

Each can be run, quantised to int8, have some of its int8 layers put back to float, and be saved. Layers carry the names
of their weights in the network (`body.encoder.conv_stem`), so that a message about one can be understood.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trocar.errors import UserError
from trocar.inference.engines import onnx as onnx_engine
from trocar.inference.engines import openvino as openvino_engine
from trocar.inference.engines.onnx import ONNXEngine, open_session, silence_onnxruntime
from trocar.inference.engines.openvino import OpenVINOEngine, import_openvino

if TYPE_CHECKING:
    from trocar.inference.predictor import Engine

Arithmetic: TypeAlias = Literal["f32", "bf16", "int8"]
Weights: TypeAlias = Mapping[str, NDArray[np.float32]]
WEIGHTED = ("Convolution", "GroupConvolution", "MatMul", "Conv", "Gemm")  # of OpenVINO and of ONNX


class Graph(Protocol):
    """One graph in float or int8."""

    def layers(self) -> list[str]:
        """Names of the layers that are int8, in order; of a float graph, of those that could be."""
        ...

    def quantised(self, frames: Sequence[NDArray[np.uint8]]) -> Self:
        """The same in int8, its ranges taken from these frames (1, h, w, 3)."""
        ...

    def without(self, layers: Sequence[str], original: Self) -> Self:
        """The same with these int8 layers as they are in `original`, the float graph."""
        ...

    def engine(self, precision: Arithmetic) -> Engine:
        """Ready to run on the CPU."""
        ...

    def save(self, folder: Path, precision: Arithmetic) -> None:
        """Write it as its engine opens it."""
        ...


class OpenVINOGraph:
    """A graph of OpenVINO, batch open."""

    def __init__(self, model: Any, names: Mapping[str, str]) -> None:
        """`names` has the network's name of each layer, by the friendly name of its node."""
        self.model = model
        self._names = names

    @classmethod
    def of(cls, model: Any, weights: Weights) -> OpenVINOGraph:
        """Name the layers of a converted network by its state dict."""
        return cls(model, _names_by_weights(model, weights))

    def layers(self) -> list[str]:
        """Names of the int8 layers, or of those that could be."""
        quantised = {node.get_friendly_name() for node in self._nodes() if _is_quantised(node)}
        nodes = [node.get_friendly_name() for node in self._nodes()]
        return [self._names[name] for name in nodes if name in self._names and (name in quantised or not quantised)]

    def quantised(self, frames: Sequence[NDArray[np.uint8]]) -> OpenVINOGraph:
        """In int8, by NNCF."""
        shape = self.model.input(0).partial_shape
        fixed = self.model.clone()
        fixed.reshape([1, *frames[0].shape[1:]])
        with quiet_nncf() as nncf:
            made = nncf.quantize(fixed, nncf.Dataset(list(frames)), subset_size=len(frames), **_how(nncf))
        made.reshape(shape)
        return OpenVINOGraph(made, self._names)

    def without(self, layers: Sequence[str], original: OpenVINOGraph) -> OpenVINOGraph:
        """With these layers in float: they read what the quantisers read, and have their own weights and bias."""
        ov = import_openvino()
        model = self.model.clone()
        sources = {node.get_friendly_name(): node for node in original.model.get_ordered_ops()}
        for node in [node for node in model.get_ordered_ops() if node.get_type_name() in WEIGHTED]:
            name = node.get_friendly_name()
            if self._names.get(name) not in layers or not _is_quantised(node):
                continue
            reads = node.input_value(0).get_node()
            if reads.get_type_name() == "FakeQuantize":
                node.input(0).replace_source_output(reads.input_value(0))
            constant = ov.opset13.constant(_constant(sources[name].input_value(1)))
            node.input(1).replace_source_output(constant.output(0))
            _put_bias_back(ov, node, sources[name])
        model.validate_nodes_and_infer_types()
        return OpenVINOGraph(model, self._names)

    def engine(self, precision: Arithmetic) -> OpenVINOEngine:
        """Ready to run."""
        return OpenVINOEngine(self.model, precision=precision)

    def save(self, folder: Path, precision: Arithmetic) -> None:
        """Write `model.xml` and `model.bin`; for bf16 with weights of half the size."""
        file = folder / openvino_engine.GRAPH
        import_openvino().save_model(self.model, file, compress_to_fp16=precision == "bf16")

    def _nodes(self) -> Iterator[Any]:
        return (node for node in self.model.get_ordered_ops() if node.get_type_name() in WEIGHTED)


class ONNXGraph:
    """A graph of ONNX, batch open."""

    def __init__(self, model: Any) -> None:
        """`model` is an `onnx.ModelProto`."""
        self.model = model

    @classmethod
    def of(cls, data: bytes) -> ONNXGraph:
        """A converted network, from the bytes of its file."""
        import onnx

        return cls(onnx.load_from_string(data))

    def layers(self) -> list[str]:
        """Names of the int8 layers, or of those that could be."""
        made = self._makers()
        nodes = [node for node in self.model.graph.node if node.op_type in WEIGHTED]
        quantised = [node for node in nodes if self._int8_weight(node, made)]
        return [self._name(node, made) for node in quantised or nodes]

    def quantised(self, frames: Sequence[NDArray[np.uint8]]) -> ONNXGraph:
        """In int8, by NNCF."""
        entry = self.model.graph.input[0].name
        with quiet_nncf() as nncf:
            data = nncf.Dataset(list(frames), lambda frame: {entry: frame})
            return ONNXGraph(nncf.quantize(self.model, data, subset_size=len(frames), **_how(nncf)))

    def without(self, layers: Sequence[str], original: ONNXGraph) -> ONNXGraph:
        """With these layers in float: they read what the quantisers read, and have their own weights and bias."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        changed = ONNXGraph(model)
        made = changed._makers()
        theirs = {node.name: node for node in original.model.graph.node}
        tensors = {tensor.name: tensor for tensor in original.model.graph.initializer}
        for node in model.graph.node:
            if node.op_type not in WEIGHTED or self._name(node, made) not in layers:
                continue
            reads = made.get(node.input[0])
            if reads is not None and reads.op_type == "DequantizeLinear":
                node.input[0] = made[reads.input[0]].input[0]
            for place in range(1, len(node.input)):
                own = f"float.{theirs[node.name].input[place]}"
                if own.removeprefix("float.") in tensors:
                    tensor = model.graph.initializer.add()
                    tensor.CopyFrom(tensors[own.removeprefix("float.")])
                    tensor.name = node.input[place] = own
        _drop_unused(model)
        return changed

    def engine(self, precision: Arithmetic) -> ONNXEngine:
        """Ready to run."""
        return ONNXEngine(open_session(self.model.SerializeToString(), "cpu"), precision=precision)

    def save(self, folder: Path, precision: Arithmetic) -> None:  # noqa: ARG002 - OpenVINO's depends on it
        """Write `model.onnx`."""
        (folder / onnx_engine.GRAPH).write_bytes(self.model.SerializeToString())

    def _makers(self) -> dict[str, Any]:
        return {output: node for node in self.model.graph.node for output in node.output}

    @staticmethod
    def _int8_weight(node: Any, made: Mapping[str, Any]) -> bool:
        return node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear"

    def _name(self, node: Any, made: Mapping[str, Any]) -> str:
        """From the name of the weight, which int8 hides between a prefix and a number."""
        weight = made[node.input[1]].input[0] if self._int8_weight(node, made) else node.input[1]
        weight = weight.removeprefix("float.").removeprefix("q_output_").removeprefix("q_")
        return str(weight).rpartition(".weight")[0] or str(weight)


@contextlib.contextmanager
def quiet_nncf() -> Iterator[Any]:
    """NNCF, without its telemetry, progress bars and log; `UserError` where it is not installed."""
    import_openvino(converter=True)
    silence_onnxruntime()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")  # of its imports and of the versions it was tested with
        try:
            import nncf
        except ImportError:
            raise UserError("int8 needs nncf, which is not installed", mend="pip install 'trocar[export]'") from None
        logging.getLogger("nncf").setLevel(logging.ERROR)
        yield nncf


def _how(nncf: Any) -> dict[str, Any]:
    """Activations with a zero point where they need one; bias corrected layer by layer."""
    return {"preset": nncf.QuantizationPreset.MIXED, "target_device": nncf.TargetDevice.CPU}


# ------------------------------------------------------------------ OpenVINO's nodes


def _is_quantised(node: Any) -> bool:
    """Whether a layer's weights are int8: constant, made float, scaled."""
    weight = node.input_value(1).get_node()
    while weight.get_type_name() in ("Multiply", "Subtract", "Reshape"):
        weight = weight.input_value(0).get_node()
    return bool(weight.get_type_name() in ("Convert", "FakeQuantize"))


def _constant(output: Any) -> NDArray[np.float32]:
    """What a float layer has for weights. Converted networks hold them as they are, or reshaped."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return np.asarray(node.data, np.float32)
    assert node.get_type_name() in ("Reshape", "Convert"), node
    return _constant(node.input_value(0)).reshape(list(output.get_shape()))


def _put_bias_back(ov: Any, node: Any, original: Any) -> None:
    """NNCF corrects the bias behind a quantised layer: a layer in float has its own one again."""
    bias, before = _bias(node), _bias(original)
    if bias is not None and before is not None:
        constant = ov.opset13.constant(np.asarray(before.input_value(1).get_node().data, np.float32))
        bias.input(1).replace_source_output(constant.output(0))


def _bias(node: Any) -> Any | None:
    readers = [entry.get_node() for entry in node.output(0).get_target_inputs()]
    found = [one for one in readers if one.get_type_name() == "Add"]
    return found[0] if found and found[0].input_value(1).get_node().get_type_name() == "Constant" else None


def _names_by_weights(model: Any, weights: Weights) -> dict[str, str]:
    """The network's name of each layer of the graph.

    Converting renames the layers and multiplies the norms into the weights, an output channel at a time: a layer is
    known by its weights, each channel brought to length 1.
    """
    known: dict[tuple[int, int], list[tuple[str, NDArray[np.float32]]]] = {}
    for key, values in weights.items():
        if key.endswith("weight") and values.ndim >= 2:
            rows = _directions(values.reshape(len(values), -1))
            known.setdefault((rows.shape[0], rows.shape[1]), []).append((key.removesuffix(".weight"), rows))
    names: dict[str, str] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() not in WEIGHTED or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        values = _constant(node.input_value(1))
        groups = values.shape[0] * values.shape[1] if node.get_type_name() == "GroupConvolution" else values.shape[0]
        rows = _directions(values.reshape(groups, -1))
        alive = np.abs(rows).max(axis=1) > 0  # a norm whose scale is 0 leaves nothing to compare
        candidates = known.get((rows.shape[0], rows.shape[1]), []) if alive.any() else []
        near = [(float(np.abs(rows - own)[alive].max()), key) for key, own in candidates]
        distance, key = min(near, default=(1.0, ""))
        names[node.get_friendly_name()] = key if distance < 1e-3 else node.get_friendly_name()
    return names


def _directions(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row at length 1, its largest value positive. Shapes: (rows, n) -> the same."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    length = np.linalg.norm(rows, axis=1, keepdims=True) * np.where(largest < 0, -1, 1)
    return np.asarray(rows / np.where(length == 0, 1, length), np.float32)


def _drop_unused(model: Any) -> None:
    """Take out of an ONNX graph what nothing reads."""
    while True:
        read = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
        idle = [node for node in model.graph.node if not any(name in read for name in node.output)]
        if not idle:
            break
        for node in idle:
            model.graph.node.remove(node)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)
