"""Sum maps over channels inside the graph if it runs on another device.

Activations and their gradients are large compared with the resulting map (2,048 channels of ResNet-50 against one), and
copying them from a GPU to the host takes longer than summing them on the GPU. Therefore the nodes of these methods are
appended to the graph when a session is created, and only the maps are copied. On the CPU, the kernels in csrc compute
the maps.

The maps equal those of `seewhy.methods` before ReLU and upsampling, but are summed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, Shape

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SHAPE: Shape = ("N", "h", "w")
"""Shape of every map, in the letters of `Metadata.shapes`."""

_PREFIX = "seewhy/map/"
_POSITIONS, _CHANNELS = f"{_PREFIX}places", f"{_PREFIX}channels"
_AXES = {_POSITIONS: [2, 3], _CHANNELS: [1]}


@dataclass(frozen=True)
class InGraphMap:
    """Nodes that compute the map of a method in the graph."""

    method: str
    """Name of the method."""
    inputs: tuple[str, ...]
    """Outputs of the file that the nodes read."""
    factor: Callable[[str], list[NodeProto]]
    """Function that returns nodes whose last output has a given name.

    That output is multiplied by the activations, and the product is summed over channels.
    """

    @property
    def output(self) -> str:
        """Name of the map in the graph."""
        return _PREFIX + self.method

    def nodes(self) -> list[NodeProto]:
        """Return the nodes that compute the map."""
        from onnx import helper

        factor, product = f"{self.output}/factor", f"{self.output}/product"
        return [
            *self.factor(factor),
            helper.make_node("Mul", [ACTIVATIONS, factor], [product], name=product),
            helper.make_node("ReduceSum", [product, _CHANNELS], [self.output], name=self.output, keepdims=0),
        ]


def _single(operator: str, *inputs: str) -> Callable[[str], list[NodeProto]]:
    """Return a `factor` function that creates a single node."""

    def nodes(output: str) -> list[NodeProto]:
        from onnx import helper

        return [helper.make_node(operator, inputs, [output], name=output)]

    return nodes


IN_GRAPH_MAPS = {
    in_graph_map.method: in_graph_map
    for in_graph_map in (
        InGraphMap("cam", (ACTIVATIONS, CLASS_WEIGHTS), _single("Unsqueeze", CLASS_WEIGHTS, _POSITIONS)),
        InGraphMap("gradcam", (ACTIVATIONS, GRADIENTS), _single("ReduceMean", GRADIENTS, _POSITIONS)),
        InGraphMap("hirescam", (ACTIVATIONS, GRADIENTS), _single("Identity", GRADIENTS)),
        InGraphMap("layercam", (ACTIVATIONS, GRADIENTS), _single("Relu", GRADIENTS)),
    )
}
"""Maps that the graph can compute, by method."""

_BY_OUTPUT = {in_graph_map.output: in_graph_map for in_graph_map in IN_GRAPH_MAPS.values()}


def file_outputs(outputs: Collection[str]) -> frozenset[str]:
    """Return the outputs of the file that `outputs` need; the latter may include maps."""
    return frozenset(
        name for output in outputs for name in (_BY_OUTPUT[output].inputs if is_map(output) else (output,))
    )


def is_map(output: str) -> bool:
    """Return True if `output` is the name of a map."""
    return output in _BY_OUTPUT


def add_maps(model: ModelProto, outputs: Collection[str]) -> None:
    """Append the nodes of the maps among `outputs` to a model, in place.

    Args:
        model: Model that computes `file_outputs(outputs)`, or has them as inputs.
        outputs: Names of the outputs that the model will have.
    """
    maps = [in_graph_map for output, in_graph_map in _BY_OUTPUT.items() if output in outputs]
    if not maps:
        return
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept = [value for value in graph.output if value.name in outputs]
    del graph.output[:]
    graph.output.extend(kept)
    for in_graph_map in maps:
        graph.node.extend(in_graph_map.nodes())
        graph.output.append(helper.make_tensor_value_info(in_graph_map.output, TensorProto.FLOAT, SHAPE))
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(axes, np.int64), name) for name, axes in _AXES.items() if name in used
    )
