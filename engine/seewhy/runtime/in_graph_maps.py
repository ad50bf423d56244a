"""Sums over channels as part of the graph, where the graph runs on another device.

Activations and their gradients are large beside the map that comes of them (2,048 channels of ResNet-50 against one),
and sending them from a GPU to the host's memory takes longer than adding them up there. So these methods' nodes are put
behind the file's outputs when a session is made, and only maps come back. On the CPU the kernels in csrc do it.

The maps are those of `seewhy.methods`, before ReLU and upsampling, summed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, Shape

SHAPE: Shape = ("N", "h", "w")
"""Of every map, in the letters of `Metadata.shapes`."""

_PREFIX = "seewhy/map/"
_PLACES, _CHANNELS = f"{_PREFIX}places", f"{_PREFIX}channels"
_AXES = {_PLACES: [2, 3], _CHANNELS: [1]}


@dataclass(frozen=True)
class InGraphMap:
    """How the graph makes a method's map."""

    method: str
    reads: tuple[str, ...]
    """Outputs of the file, which the nodes take as inputs."""
    factor: Callable[[str], list[onnx.NodeProto]]
    """Nodes whose last output, of the name given, is multiplied by the activations and summed over channels."""

    @property
    def output(self) -> str:
        return _PREFIX + self.method

    def nodes(self) -> list[onnx.NodeProto]:
        factor, product = f"{self.output}/factor", f"{self.output}/product"
        return [
            *self.factor(factor),
            helper.make_node("Mul", [ACTIVATIONS, factor], [product], name=product),
            helper.make_node("ReduceSum", [product, _CHANNELS], [self.output], name=self.output, keepdims=0),
        ]


def _single(operator: str, *inputs: str) -> Callable[[str], list[onnx.NodeProto]]:
    return lambda output: [helper.make_node(operator, inputs, [output], name=output)]


IN_GRAPH_MAPS = {
    reduction.method: reduction
    for reduction in (
        InGraphMap("cam", (ACTIVATIONS, CLASS_WEIGHTS), _single("Unsqueeze", CLASS_WEIGHTS, _PLACES)),
        InGraphMap("gradcam", (ACTIVATIONS, GRADIENTS), _single("ReduceMean", GRADIENTS, _PLACES)),
        InGraphMap("hirescam", (ACTIVATIONS, GRADIENTS), _single("Identity", GRADIENTS)),
        InGraphMap("layercam", (ACTIVATIONS, GRADIENTS), _single("Relu", GRADIENTS)),
    )
}
_BY_OUTPUT = {reduction.output: reduction for reduction in IN_GRAPH_MAPS.values()}


def sources(outputs: Collection[str]) -> frozenset[str]:
    """Outputs of the file that are needed for `outputs`, some of which may be maps."""
    return frozenset(name for output in outputs for name in (_BY_OUTPUT[output].reads if is_map(output) else (output,)))


def is_map(output: str) -> bool:
    return output in _BY_OUTPUT


def add_maps(model: onnx.ModelProto, outputs: Collection[str]) -> None:
    """Make `model`, which computes `sources(outputs)` or is given them, compute `outputs`."""
    maps = [reduction for output, reduction in _BY_OUTPUT.items() if output in outputs]
    if not maps:
        return
    graph = model.graph
    kept = [value for value in graph.output if value.name in outputs]
    del graph.output[:]
    graph.output.extend(kept)
    for reduction in maps:
        graph.node.extend(reduction.nodes())
        graph.output.append(helper.make_tensor_value_info(reduction.output, TensorProto.FLOAT, SHAPE))
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(axes, np.int64), name) for name, axes in _AXES.items() if name in used
    )
