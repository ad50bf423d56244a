"""The backbone of a model file: its nodes up to the target layer, and the layers that can run in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from seewhy.contract import constants as contract
from seewhy.errors import ModelFileError
from seewhy.runtime.graph_pruning import needed_nodes, prune
from seewhy.runtime.model_file import ModelFile

OUTPUTS = (
    contract.LOGITS,
    contract.ACTIVATIONS,
    contract.GRADIENTS,
    contract.CLASS_WEIGHTS,
    contract.GRADCAM_MAP,
)
"""Outputs that a quantised file can have. Gradients of the image would need the backbone in float32."""
_LAYERS = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Layer:
    """Convolution or matrix product with constant weights."""

    name: str
    """Name of the layer: that of its output in the graph."""
    node: onnx.NodeProto
    """The node."""
    weights: NDArray[np.float32]
    """Weights of shape (O, I, ...): O output channels first, whatever the operator stores."""
    transposed: bool
    """True if the operator stores the weights as (I, O)."""
    groups: int
    """Number of groups of a convolution."""


@dataclass(frozen=True)
class Backbone:
    """The graph that a quantised file is made of."""

    model: onnx.ModelProto
    """The float32 model with the outputs of a quantised file; its initializers may be elsewhere."""
    arrays: Mapping[str, NDArray[Any]]
    """Values of its initializers by name."""
    names: frozenset[str]
    """Outputs of the nodes up to the target layer."""
    layers: tuple[Layer, ...]
    """Layers of the backbone with constant weights, in order."""


def read_backbone(file: ModelFile) -> Backbone:
    """Find the backbone of a model file.

    Args:
        file: A float32 model file.

    Returns:
        The backbone. Padding before a convolution is part of the convolution, weights that the graph transposes
        before a matrix product are stored transposed, and means over height and width are pools.

    Raises:
        ModelFileError: If the file is quantised, or has no layer before the target layer that can run in 8 bits.
    """
    if file.metadata.quantization is not None:
        raise ModelFileError(
            f"{file.name}: is quantised already; quantise {file.metadata.quantization.float32_file}, the file that it "
            f"was made from"
        )
    needed = (contract.ACTIVATIONS, contract.GRADIENTS)
    missing = next((name for name in needed if name not in file.outputs), None)
    if missing is not None:
        raise ModelFileError(f"{file.name}: has no output {missing}, which Grad-CAM needs; export the network again")
    model = prune(file.proto, [name for name in file.outputs if name in OUTPUTS])
    arrays = file.values(tensor.name for tensor in model.graph.initializer)
    _fold_padding(model.graph, arrays)
    _fold_transposed_weights(model.graph, arrays)
    nodes, _ = needed_nodes(model.graph.node, [contract.ACTIVATIONS])
    _replace_spatial_means(nodes, model.graph, arrays)
    names = frozenset(name for node in nodes for name in node.output if name)
    layers = tuple(layer for node in nodes if (layer := _layer(node, arrays)) is not None)
    if not layers:
        raise ModelFileError(
            f"{file.name}: no convolution and no matrix product with constant weights comes before the target layer "
            f"{file.metadata.layer.name if file.metadata.layer else ''}, so there is nothing to quantise"
        )
    return Backbone(model, arrays, names, layers)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _layer(node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> Layer | None:
    """Return a node as a layer, or None if it is none."""
    if node.op_type not in _LAYERS or node.input[0] in arrays or node.input[1] not in arrays:
        return None
    weights, options = arrays[node.input[1]], attributes(node)
    constant_bias = len(node.input) < 3 or node.input[2] in arrays
    plain = not options.get("transA") and options.get("alpha", 1) == options.get("beta", 1) == 1
    flat = weights.ndim == 2 if node.op_type != "Conv" else weights.ndim == 4 and _pads_explicitly(options)
    if weights.dtype != np.float32 or not (constant_bias and plain and flat):
        return None
    transposed = node.op_type != "Conv" and not options.get("transB")
    return Layer(node.output[0], node, weights.T if transposed else weights, transposed, options.get("group", 1))


def _pads_explicitly(options: Mapping[str, Any]) -> bool:
    """Return whether a convolution's attributes give its padding as numbers."""
    return bool(options.get("auto_pad", b"NOTSET") == b"NOTSET")


def _fold_padding(graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Replace each zero padding of height and width before a convolution by the convolution's own padding.

    onnxruntime does so in float32 graphs only, and an 8-bit Pad is slow.
    """
    padded = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        pad = padded.get(node.input[0]) if node.op_type == "Conv" else None
        if (
            pad is None
            or len(pad.input) > 3
            or pad.input[1] not in arrays
            or attributes(pad).get("mode", b"constant") != b"constant"
        ):
            continue
        sizes = arrays[pad.input[1]].tolist()
        value = arrays.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(())
        options = attributes(node)
        if value is None or value != 0 or len(sizes) != 8 or any(sizes[i] for i in (0, 1, 4, 5)) or min(sizes) < 0:
            continue
        if not _pads_explicitly(options):
            continue
        own = options.pop("pads", [0, 0, 0, 0])
        options["pads"] = [a + b for a, b in zip(own, (*sizes[2:4], *sizes[6:8]), strict=True)]
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in options.items())
        node.input[0] = pad.input[0]
    kept, _ = needed_nodes(graph.node, [value.name for value in graph.output])
    del graph.node[:]
    graph.node.extend(kept)


def _replace_spatial_means(
    nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Replace means over height and width by GlobalAveragePool, which onnxruntime computes in 8 bits.

    Squeeze-and-excitation consists of such a mean, which would otherwise convert all its inputs to float32.
    """
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for node in nodes:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in arrays:
            continue
        axes = sorted(axis % 4 for axis in arrays[node.input[1]].reshape(-1).tolist())
        if axes == [2, 3] and ranks.get(node.input[0]) == 4 and attributes(node).get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


def _fold_transposed_weights(graph: onnx.GraphProto, arrays: dict[str, NDArray[Any]]) -> None:
    """Replace each transposition of constant weights before a matrix product of the backbone by an initializer.

    The exporter writes linear layers so, and onnxruntime computes the transposition when it loads the graph. An 8-bit
    layer needs its weights as a constant of the file.
    """
    nodes, _ = needed_nodes(graph.node, [contract.ACTIVATIONS])
    transposed = {node.output[0]: node for node in nodes if node.op_type == "Transpose" and node.input[0] in arrays}
    products = [node for node in nodes if node.op_type in ("MatMul", "Gemm")]
    folded = dict.fromkeys(node.input[1] for node in products if node.input[1] in transposed)
    for name in folded:
        node = transposed[name]
        arrays[name] = arrays[node.input[0]].transpose(attributes(node).get("perm"))
        kind = helper.np_dtype_to_tensor_dtype(arrays[name].dtype)
        graph.initializer.add(name=name, dims=arrays[name].shape, data_type=kind)
    kept = [node for node in graph.node if node.output[0] not in folded]
    del graph.node[:]
    graph.node.extend(kept)
