"""Write the graph of a quantised file: pairs of QuantizeLinear and DequantizeLinear around the backbone's nodes.

    x -> Conv -> Relu -> y

becomes

    x -> Quantize -> Dequantize -> Conv(Dequantize(weights), Dequantize(bias)) -> Quantize -> Dequantize -> y

from which onnxruntime makes one QLinearConv. The Relu is gone: a range that starts at 0 clips as it does. Other
programs that run ONNX compute the same from the graph, apart from values that round to the next step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from seewhy.contract import constants as contract
from seewhy.quantization.backbone import Backbone, Layer
from seewhy.quantization.calibration import Range
from seewhy.quantization.weight_rounding import RoundedWeights

# Operators that onnxruntime computes in 8 bits if all their inputs are in 8 bits.
_FOLLOWERS = frozenset({"Add", "Mul", "Concat", "Sigmoid", "AveragePool", "GlobalAveragePool", "LeakyRelu"})
# Operators that move 8-bit values and keep their range.
_MOVERS = frozenset({"MaxPool", "Reshape", "Transpose", "Flatten"})
# Activations that the range of their output replaces.
_CLIPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Plan:
    """Nodes and values that are in 8 bits."""

    ranged: dict[str, str] = field(default_factory=dict)
    """Each value in 8 bits, with the value whose range it has: itself, or that which a pool or reshape got."""
    computed: set[str] = field(default_factory=set)
    """Values that nodes compute in 8 bits."""
    nodes: set[str] = field(default_factory=set)
    """First outputs of the nodes that run in 8 bits."""
    absorbed: dict[str, str] = field(default_factory=dict)
    """Output of an 8-bit node, with the output of the activation behind it that its range replaces."""

    @property
    def measured(self) -> list[str]:
        """Values whose range must be known."""
        return list(dict.fromkeys(self.ranged.values()))


def plan(backbone: Backbone, kept_float: Collection[str]) -> Plan:
    """Choose the nodes that run in 8 bits.

    Convolutions give 8-bit values. Matrix products take 8-bit values and give float32 ones, because what follows them
    in transformers (normalisation, attention, GELU) is computed in float32. Sums, products, pools and the like run in
    8 bits if all their inputs are.

    Args:
        backbone: The backbone.
        kept_float: Names of layers that stay in float32.

    Returns:
        The plan.
    """
    result = Plan()
    layers = {layer.name for layer in backbone.layers} - set(kept_float)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in backbone.model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {value.name for value in backbone.model.graph.output}
    taken: set[str] = set()
    for node in backbone.model.graph.node:
        output = node.output[0]
        if output not in backbone.names or output in taken:
            continue
        if output in layers:
            result.ranged.setdefault(node.input[0], node.input[0])
            result.nodes.add(output)
            if node.op_type != "Conv":
                continue
        elif node.op_type in _MOVERS and node.input[0] in result.computed and len(node.output) == 1:
            result.nodes.add(output)
            result.computed.add(output)
            result.ranged[output] = result.ranged[node.input[0]]
            continue
        elif node.op_type in _FOLLOWERS and result.computed.issuperset(node.input):
            result.nodes.add(output)
        else:
            continue
        [*following] = users.get(output, [])
        if len(following) == 1 and following[0].op_type in _CLIPS and output not in outputs:
            clip = following[0]
            if _contains_zero(clip, backbone.arrays):
                result.absorbed[output] = clip.output[0]
                taken.add(clip.output[0])
                output = clip.output[0]
        result.computed.add(output)
        result.ranged[output] = output
    return result


def _contains_zero(clip: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the bounds of a Relu or Clip are known and contain 0, as the range of an 8-bit value does."""
    low, high, *_ = *(arrays.get(name, np.nan) if name else 0.0 for name in clip.input[1:]), 0.0, 0.0
    return bool(low <= 0 <= high)


def build(
    backbone: Backbone, chosen: Plan, ranges: Mapping[str, Range], rounded: Mapping[str, RoundedWeights]
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Write the graph in which the nodes of a plan run in 8 bits.

    Args:
        backbone: The backbone.
        chosen: The plan.
        ranges: Range of each value that the plan measures.
        rounded: Weights of each layer in 8 bits, by its name.

    Returns:
        The model, whose initializers have no values, and these values by name.
    """
    return _Writer(backbone, chosen, ranges, rounded).model()


class _Writer:
    """Writes one graph."""

    def __init__(
        self, backbone: Backbone, chosen: Plan, ranges: Mapping[str, Range], rounded: Mapping[str, RoundedWeights]
    ) -> None:
        self._backbone, self._plan, self._ranges, self._rounded = backbone, chosen, ranges, rounded
        self._layers = {layer.name: layer for layer in backbone.layers}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._pairs: set[str] = set()

    def model(self) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
        for node in self._backbone.model.graph.node:
            if node.output[0] not in self._plan.absorbed.values():
                self._add(node)
        return self._assembled()

    def _add(self, node: onnx.NodeProto) -> None:
        """Add a node of the float32 graph, with the values that it reads."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        in_8_bits = node.output[0] in self._plan.nodes
        layer = self._layers.get(node.output[0])
        for i, name in enumerate(node.input):
            if in_8_bits and name in self._plan.ranged:
                copied.input[i] = self._pair(name)
                if layer is not None and _added_channels(layer):
                    copied.input[i] = self._widened(layer, copied.input[i])
            elif name in self._plan.computed and name != contract.ACTIVATIONS:
                copied.input[i] = self._float(name) if layer is not None else self._pair(name)
        if in_8_bits and layer is not None:
            copied.input[1] = self._weights(layer)
            if len(copied.input) > 2:
                copied.input[2] = self._bias(layer)
        output = self._plan.absorbed.get(node.output[0], node.output[0])
        if output in self._plan.computed:
            # What the graph calls `activations` is the value after conversion to 8 bits and back.
            copied.output[0] = _raw(output)
        self._nodes.append(copied)
        if output == contract.ACTIVATIONS and output in self._plan.computed:
            self._pair(output)

    def _pair(self, name: str) -> str:
        """Return the name of a value after conversion to 8 bits and back."""
        result = name if name == contract.ACTIVATIONS else f"{name}/8bit"
        if name in self._pairs:
            return result
        self._pairs.add(name)
        source = self._plan.ranged[name]
        scale, zero_point = f"{source}/scale", f"{source}/zero_point"
        self._arrays[scale] = np.array(self._ranges[source].scale)
        self._arrays[zero_point] = np.array(self._ranges[source].zero_point)
        start = _raw(name) if name in self._plan.computed else name
        self._op("QuantizeLinear", [start, scale, zero_point], f"{name}/quantized")
        self._op("DequantizeLinear", [f"{name}/quantized", scale, zero_point], result)
        return result

    def _float(self, name: str) -> str:
        """Return the name of an 8-bit value that a layer in float32 reads.

        onnxruntime would round the weights of a float32 layer between 8-bit values by itself, for all channels
        together. A Clip to the range of the value, which changes nothing, prevents that.
        """
        result = f"{name}/float"
        if result not in self._pairs:
            self._pairs.add(result)
            one = self._ranges[self._plan.ranged[name]]
            for end, stored in (("low", 0), ("high", 255)):
                self._arrays[f"{name}/{end}"] = np.array((np.float32(stored) - np.float32(one.zero_point)) * one.scale)
            self._op("Clip", [self._pair(name), f"{name}/low", f"{name}/high"], result)
        return result

    def _widened(self, layer: Layer, images: str) -> str:
        """Return the name of images whose first channels are repeated until their number is a multiple of four."""
        count = layer.weights.shape[1]
        name = f"{layer.name}/images"
        self._arrays[f"{name}/channels"] = np.arange(count + _added_channels(layer)) % count
        self._op("Gather", [images, f"{name}/channels"], name, axis=1)
        ends = [f"{contract.IMAGES}/scale", f"{contract.IMAGES}/zero_point"]
        self._op("QuantizeLinear", [name, *ends], f"{name}/quantized")
        self._op("DequantizeLinear", [f"{name}/quantized", *ends], f"{name}/8bit")
        return f"{name}/8bit"

    def _weights(self, layer: Layer) -> str:
        """Return the name of a layer's weights after conversion to 8 bits and back."""
        rounded, name = self._rounded[layer.name], f"{layer.name}/weights"
        stored = rounded.stored.T if layer.transposed else rounded.stored
        if added := _added_channels(layer):
            # Repeated channels have the weight 0.
            stored = np.pad(stored, ((0, 0), (0, added), (0, 0), (0, 0)))
        self._arrays[f"{name}/quantized"] = stored
        return self._constant(name, rounded.scale, np.int8, axis=1 if layer.transposed else 0)

    def _bias(self, layer: Layer) -> str:
        """Return the name of a layer's bias in steps of the products of inputs and weights, as 32-bit integers."""
        name, source = f"{layer.name}/bias", self._plan.ranged[layer.node.input[0]]
        scale = (self._ranges[source].scale * self._rounded[layer.name].scale).astype(np.float32)
        bias = self._backbone.arrays[layer.node.input[2]].astype(np.float64)
        limits = np.iinfo(np.int32)
        wanted = np.broadcast_to(bias.reshape(-1), scale.shape) - self._rounded[layer.name].shift
        steps = np.clip(np.rint(wanted / scale), limits.min, limits.max)
        self._arrays[f"{name}/quantized"] = steps.astype(np.int32)
        return self._constant(name, scale, np.int32, axis=0)

    def _constant(self, name: str, scale: NDArray[np.float32], dtype: Any, axis: int) -> str:
        """Add a DequantizeLinear of stored values with one scale for each output channel."""
        self._arrays[f"{name}/scale"] = scale
        self._arrays[f"{name}/zero_point"] = np.zeros(len(scale), dtype)
        self._op("DequantizeLinear", [f"{name}/quantized", f"{name}/scale", f"{name}/zero_point"], name, axis=axis)
        return name

    def _op(self, operator: str, inputs: list[str], output: str, **options: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **options))

    def _assembled(self) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
        """Return the model and its initializers."""
        old = self._backbone.model
        model = onnx.ModelProto()
        model.CopyFrom(old)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.value_info.extend(self._shapes())
        used = {name for node in self._nodes for name in node.input}
        arrays = {name: value for name, value in {**self._backbone.arrays, **self._arrays}.items() if name in used}
        for name, value in arrays.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            graph.initializer.add(name=name, dims=value.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
        return model, arrays

    def _shapes(self) -> Iterator[onnx.ValueInfoProto]:
        """Yield the known shapes of values, from which the head alone takes the number of images."""
        made = {name for node in self._nodes for name in node.output}
        for value in self._backbone.model.graph.value_info:
            for name in (value.name, _raw(value.name), f"{value.name}/8bit", f"{value.name}/float"):
                if name not in made:
                    continue
                copied = onnx.ValueInfoProto()
                copied.CopyFrom(value)
                copied.name = name
                yield copied


def _added_channels(layer: Layer) -> int:
    """Return the number of channels that the images lack for onnxruntime's fast convolution, or 0 without it.

    If the numbers of input and output channels are multiples of four, and there are at least 16 output channels,
    onnxruntime multiplies in place. Otherwise it copies the window of each pixel and rounds the sums in a second pass,
    which takes twice as long.
    """
    if layer.node.input[0] != contract.IMAGES or layer.node.op_type != "Conv" or layer.groups > 1:
        return 0
    outputs, inputs = layer.weights.shape[:2]
    return -inputs % 4 if outputs >= 16 and outputs % 4 == 0 else 0


def _raw(name: str) -> str:
    """Return the name of a node's result before it is converted to 8 bits."""
    return f"{name}/raw"
