"""Tracing of a module's forward pass into a functional graph for any batch size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.errors import ExportError
from seewhy_export._shared.messages import quiet
from seewhy_export.capture.forward_failures import FixedBatchError, trace_failure
from seewhy_export.capture.in_place_removal import detach_no_grad, make_functional
from seewhy_export.capture.layer_names import unknown_layer
from seewhy_export.capture.unsupported_networks import refuse_batch_statistics, refuse_randomness
from seewhy_export.lowering.padding_and_unfold import copy

IS_ZERO = "seewhy_zero"
"""Key in the `meta` of a placeholder that is a buffer or constant of zeros."""

aten: Any = torch.ops.aten

FINAL_SCORES: dict[Any, str] = {
    aten.softmax.int: "softmax",
    aten._softmax.default: "softmax",
    aten.log_softmax.int: "softmax",
    aten._log_softmax.default: "softmax",
    aten.special_softmax.default: "softmax",
    aten.special_log_softmax.default: "softmax",
    aten.sigmoid.default: "sigmoid",
    aten.special_expit.default: "sigmoid",
}


@torch.library.custom_op("seewhy::target_layer", mutates_args=())
def _target_layer_marker(x: Tensor) -> Tensor:
    """Identity that marks the output of the target layer; it is removed from the graph after the trace."""
    return x.clone()


@_target_layer_marker.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@dataclass(frozen=True)
class ForwardGraph:
    """Functional ATen graph of a forward pass. Its placeholders are `weights`, in that order, and then the images."""

    graph_module: GraphModule
    weights: dict[str, Tensor]
    """Parameters, buffers and constants by their path in the module."""
    images: Node
    """Placeholder of the images (N, C, H, W)."""
    logits: Node
    """Node that computes the logits (N, class count)."""
    marked: Node | None
    """Node that computes the last output of the layer that the user named; None if none was named or it is unused."""
    returned: Node
    """Node that the module returns: the logits, or their score if a final score operator was removed."""
    stripped: str | None
    """Kind of the final score operator that was removed, `softmax` or `sigmoid`; None if there was none."""
    mutated: tuple[str, ...] = ()
    """Buffers that the forward pass changes. Each run of the graph starts from their values at export."""
    parameters: frozenset[str] = frozenset()
    """Names of the weights that are parameters."""

    def to(self, dtype: torch.dtype) -> ForwardGraph:
        """Return the same graph with its floating-point weights in another dtype."""
        weights = {name: w.to(dtype) if w.is_floating_point() else w for name, w in self.weights.items()}
        return replace(self, weights=weights)

    @property
    def nodes(self) -> list[Node]:
        """Nodes that call an operator, in execution order."""
        return [node for node in self.graph_module.graph.nodes if node.op == "call_function"]

    def reached_from_images(self, without: Node | None = None) -> set[Node]:
        """Return every node that depends on the images' pixels along a path that does not pass the node `without`."""
        reached = {self.images}
        for node in self.nodes:
            # A batch size that is read from the images does not depend on their pixels.
            carries_pixels = not isinstance(node.meta.get("val"), torch.SymInt)
            if carries_pixels and node is not without and any(n in reached for n in node.all_input_nodes):
                reached.add(node)
        return reached

    def from_images_to_logits(self) -> list[Node]:
        """Return the nodes between images and logits, which a gradient passes, in execution order."""
        between = self.reached_from_images() & ancestors(self.logits)
        return [node for node in self.nodes if node in between]

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(value_of(self.images).shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Image size (H, W) in pixels."""
        height, width = value_of(self.images).shape[2:]
        return int(height), int(width)

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return int(value_of(self.logits).shape[1])


def ancestors(node: Node) -> set[Node]:
    """Return a node and all nodes that it depends on."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return seen


def value_of(node: Node) -> Any:
    """Return the fake value that a node had when it was traced."""
    return node.meta["val"]


def trace_forward(module: nn.Module, image_size: tuple[int, int], channels: int, layer: str | None) -> ForwardGraph:
    """Trace a prepared module into a forward graph.

    Args:
        module: Module that `prepare` returned.
        image_size: Image size (H, W) in pixels.
        channels: Number of image channels.
        layer: Module path of the target layer, whose last output is marked; None marks nothing.

    Returns:
        The forward graph, whose batch size is symbolic.

    Raises:
        FixedBatchError: If the module's code fixes the batch size.
        ExportError: If the module cannot be traced, returns anything but logits (N, class count), draws random
            numbers, or uses the statistics of the batch.
    """
    example = example_images(image_size, channels)
    with _target_layer_marked(module, layer), quiet(), sdpa_kernel(SDPBackend.MATH):
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
            detach_no_grad(program.graph_module.graph)
            if not make_functional(program.graph_module.graph):
                program = program.run_decompositions(_VIEW_WRITES)
        except ExportError:
            raise
        except Exception as error:
            raise trace_failure(module, example, error) from error
    graph_module = program.graph_module
    placeholders = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
    weights: dict[str, Tensor] = {}
    parameters: dict[str, tuple[Any, ...]] = {}
    inputs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(placeholders[spec.arg.name])
        else:
            stored = (program.state_dict if spec.target in program.state_dict else program.constants)[spec.target]
            if not isinstance(stored, Tensor):
                raise ExportError(
                    f"the forward pass uses a {type(stored).__name__}, which a model file cannot hold; if the network "
                    f"draws random numbers, draw them once, in __init__"
                )
            weights[str(spec.target)] = stored.detach()
            if spec.kind == InputKind.PARAMETER:
                parameters[str(spec.target)] = (stored.data_ptr(), stored.shape, stored.stride(), spec.arg.name)
            elif not stored.any():
                placeholders[spec.arg.name].meta[IS_ZERO] = True
    _join_shared(parameters.values(), placeholders)
    outputs = [
        output
        for spec, output in zip(
            program.graph_signature.output_specs, graph_module.graph.output_node().args[0], strict=True
        )
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    mutated = tuple(
        str(spec.target) for spec in program.graph_signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION
    )
    marked = _remove_markers(graph_module)
    returned = _single_output(outputs)
    _fix_squeezed_dimensions(graph_module.graph)
    logits, stripped = _strip_final_score(returned)
    needed = ancestors(returned)
    refuse_randomness(node for node in graph_module.graph.nodes if node in needed)
    forward = ForwardGraph(
        graph_module, weights, inputs[0], logits, marked, returned, stripped, mutated, frozenset(parameters)
    )
    refuse_batch_statistics(forward.from_images_to_logits())
    return forward


# Functionalization replaces writes into views by this operator, which has no derivative in PyTorch.
_VIEW_WRITES: dict[Any, Callable[..., Any]] = {aten.copy.default: copy}


def example_images(image_size: tuple[int, int], channels: int) -> Tensor:
    """Return the zeros that modules are traced with: two images, since torch.export treats a batch of 1 as constant."""
    return torch.zeros(2, channels, *image_size)


@contextmanager
def _target_layer_marked(module: nn.Module, layer: str | None) -> Iterator[None]:
    """Insert the marker behind the named layer while the module is traced."""
    if layer is None:
        yield
        return
    modules = dict(module.named_modules())
    if layer not in modules or layer == "":
        raise unknown_layer(layer, module)

    def mark(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ExportError(
                f"layer {layer!r} returns {type(output).__name__}, not one tensor; name a layer inside it"
            )
        marked: Tensor = torch.ops.seewhy.target_layer(output)
        return marked

    handle = modules[layer].register_forward_hook(mark)
    try:
        yield
    finally:
        handle.remove()


def _remove_markers(graph_module: GraphModule) -> Node | None:
    """Remove the markers from the graph and return the node that the last one marked."""
    marked = None
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.seewhy.target_layer.default:
            marked = node.args[0]
            node.replace_all_uses_with(marked)
            graph_module.graph.erase_node(node)
    return marked


def _join_shared(parameters: Iterable[tuple[Any, ...]], placeholders: dict[str, Node]) -> None:
    """Use one placeholder for parameters that share their values in memory: they are one weight."""
    first: dict[tuple[Any, ...], Node] = {}
    for *place, name in parameters:
        node = placeholders[name]
        same = first.setdefault(tuple(place), node)
        if same is not node and value_of(node).numel():
            node.replace_all_uses_with(same)


def _single_output(outputs: list[Any]) -> Node:
    """Return the network's one output, checked to be float32 of shape (N, class count)."""
    nodes = [node for node in outputs if isinstance(node, Node)]
    shapes = [tuple(value_of(node).shape) for node in nodes]
    if len(nodes) != 1 or len(shapes[0]) != 2:
        written = ", ".join(f"({', '.join(['N', *map(str, shape[1:])])})" for shape in shapes)
        raise ExportError(
            f"the network must return one tensor of logits (N, classes), not {len(nodes)} of shape {written or 'none'}"
        )
    dtype = value_of(nodes[0]).dtype
    if dtype is not torch.float32:
        raise ExportError(
            f"the network computes its logits in {dtype} although its weights are float32; remove .half(), .bfloat16() "
            f"and autocast from its code"
        )
    batch, classes = shapes[0]
    if isinstance(batch, int) or not isinstance(classes, int):
        raise FixedBatchError(
            f"the network returns ({batch}, {re.sub(r's[0-9]+', 'N', str(classes))}) for N images instead of "
            f"(N, classes); its code moves images out of dimension 0, as reshape(1, -1) does"
        )
    return nodes[0]


def _fix_squeezed_dimensions(graph: Graph) -> None:
    """Give squeeze() the dimensions that were 1 in the trace: without them it would also drop a batch of 1."""
    for node in graph.nodes:
        if node.target is aten.squeeze.default:
            sizes = value_of(node.args[0]).shape
            node.target = aten.squeeze.dims
            node.args = (node.args[0], [i for i, size in enumerate(sizes) if isinstance(size, int) and size == 1])


# Operators that may follow the final score operator, since they change no values.
_KEEPING_VALUES = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.dropout.default,
    aten.to.dtype,
    aten._to_copy.default,
}


def _selects_everything(node: Node) -> bool:
    """Tell whether a select or slice omits nothing, as x[:, :, 0, 0] of a map that was pooled to 1x1."""
    if node.target not in (aten.select.int, aten.slice.Tensor):
        return False
    before, after = (tuple(map(str, value_of(n).shape)) for n in (node.args[0], node))  # type: ignore[arg-type]
    return before[int(node.args[1])] == "1" if node.target is aten.select.int else before == after  # type: ignore[arg-type]


def _strip_final_score(returned: Node) -> tuple[Node, str | None]:
    """Return the logits of a network that may end in softmax or sigmoid, and the kind of that score operator.

    The logits are the operator's input, reshaped as its output is.
    """
    reshapes: list[Node] = []
    node = returned
    while isinstance(node.args[0], Node) and (node.target in _KEEPING_VALUES or _selects_everything(node)):
        reshapes.insert(0, node)
        node = node.args[0]
    kind = FINAL_SCORES.get(node.target)
    if kind is None:
        return returned, None
    args: tuple[Any, ...] = node.args
    sizes = value_of(node).shape[1:]
    classes = value_of(returned).shape[1]
    dimension = args[1] % (len(sizes) + 1) if kind == "softmax" else None
    if dimension is not None and (dimension == 0 or sizes[dimension - 1] != classes):
        raise ExportError(
            f"the network ends in a softmax over dimension {args[1]}, which is not the dimension of the classes"
        )
    logits: Node = args[0]
    graph = returned.graph
    with graph.inserting_before(graph.output_node()):
        for step in reshapes:
            copied = graph.create_node(step.op, step.target, (logits, *step.args[1:]), dict(step.kwargs))
            copied.meta = dict(step.meta)
            logits = copied
    return logits, kind
