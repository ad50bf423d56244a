"""A module's forward pass as a functional graph whose batch dimension is free."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.messages import one_line, quiet
from seewhy_export.capture.in_place_removal import detach_no_grad, make_functional
from seewhy_export.capture.unsupported_networks import refuse_batch_statistics, refuse_randomness
from seewhy_export.lowering.padding_and_unfold import copy

ZERO = "seewhy_zero"
"""Key in a placeholder's `meta`: a buffer or constant that holds nothing but zeros."""

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
def _mark(x: Tensor) -> Tensor:
    """Marks the output of the layer asked for; it is the identity, and leaves the graph again."""
    return x.clone()


@_mark.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@dataclass(frozen=True)
class ForwardGraph:
    """A functional ATen graph: its placeholders are `weights`, in that order, and then the images."""

    graph_module: GraphModule
    weights: dict[str, Tensor]
    """Parameters, buffers and constants by their path in the module."""
    images: Node
    logits: Node
    marked: Node | None
    """The node that the layer asked for returned last, where one was asked for."""
    returned: Node
    """What the module returns: the logits, or their score where `stripped`."""
    stripped: str | None
    """The kind of the final score operator that was taken off, if there was one."""
    mutated: tuple[str, ...] = ()
    """Buffers that the forward pass changes; the graph starts from their values at export each time."""

    def to(self, dtype: torch.dtype) -> ForwardGraph:
        """The same graph with its floating point weights in another dtype."""
        weights = {name: w.to(dtype) if w.is_floating_point() else w for name, w in self.weights.items()}
        return replace(self, weights=weights)

    @property
    def nodes(self) -> list[Node]:
        return [node for node in self.graph_module.graph.nodes if node.op == "call_function"]

    def reached_from_images(self, without: Node | None = None) -> set[Node]:
        """Every node that depends on the images' pixels, along paths that do not pass `without`."""
        reached = {self.images}
        for node in self.nodes:
            # A batch size taken from the images says nothing about their pixels.
            carries_pixels = not isinstance(node.meta.get("val"), torch.SymInt)
            if carries_pixels and node is not without and any(n in reached for n in node.all_input_nodes):
                reached.add(node)
        return reached

    def from_images_to_logits(self) -> list[Node]:
        """The nodes that a gradient passes, in order."""
        between = self.reached_from_images() & ancestors(self.logits)
        return [node for node in self.nodes if node in between]

    @property
    def channels(self) -> int:
        return int(value_of(self.images).shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = value_of(self.images).shape[2:]
        return int(height), int(width)

    @property
    def class_count(self) -> int:
        return int(value_of(self.logits).shape[1])


def ancestors(node: Node) -> set[Node]:
    """The nodes that a node depends on, and itself."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return seen


def value_of(node: Node) -> Any:
    """The fake value that a node had when it was traced."""
    return node.meta["val"]


def trace_forward(module: nn.Module, image_size: tuple[int, int], channels: int, layer: str | None) -> ForwardGraph:
    """Trace a prepared module.

    Args:
        module: what `prepare` returned.
        image_size: (H, W) in pixels.
        channels: of the images.
        layer: module path of the target layer, whose last output is marked; None marks nothing.

    Raises:
        ExportError: the module cannot be traced, or returns something other than (N, classes) logits.
    """
    example = example_images(image_size, channels)
    with _marking(module, layer), quiet(), sdpa_kernel(SDPBackend.MATH):
        try:
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
            detach_no_grad(program.graph_module.graph)
            if not make_functional(program.graph_module.graph):
                program = program.run_decompositions(_WRITES)
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"{type(module).__name__} cannot be traced with images of shape (N, {channels}, {image_size[0]}, "
                f"{image_size[1]}): {_reason(error)}"
            ) from error
    graph_module = program.graph_module
    placeholders = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
    weights: dict[str, Tensor] = {}
    inputs = []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(placeholders[spec.arg.name])
        else:
            stored = (program.state_dict if spec.target in program.state_dict else program.constants)[spec.target]
            if not isinstance(stored, Tensor):
                raise ExportError(
                    f"the forward pass uses a {type(stored).__name__}, which a model file cannot hold; where it draws "
                    f"random numbers, draw them once, in __init__"
                )
            weights[str(spec.target)] = stored.detach()
            if spec.kind != InputKind.PARAMETER and not stored.any():
                placeholders[spec.arg.name].meta[ZERO] = True
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
    marked = _unmark(graph_module)
    returned = _only_logits(outputs)
    _name_squeezed(graph_module.graph)
    logits, stripped = _strip_final_score(returned)
    needed = ancestors(returned)
    refuse_randomness(node for node in graph_module.graph.nodes if node in needed)
    forward = ForwardGraph(graph_module, weights, inputs[0], logits, marked, returned, stripped, mutated)
    refuse_batch_statistics(forward.from_images_to_logits())
    return forward


# What functionalization makes of writing into views has no derivative in PyTorch.
_WRITES: dict[Any, Callable[..., Any]] = {aten.copy.default: copy}


def example_images(image_size: tuple[int, int], channels: int) -> Tensor:
    """What modules are traced with. Two images, since torch.export takes a batch of one for a constant."""
    return torch.zeros(2, channels, *image_size)


_REASONS = {
    "specialized it to be a constant": "its code fixes the batch size, and a model file takes any number of images; "
    "take sizes from x.shape[0], or write -1, where a number of images stands now",
    "data-dependent expression": "its code decides by the values of a tensor (an if, a loop or an index), and a graph "
    "cannot; use torch.where or a mask",
    "data-dependent": "its code takes a size or a number from the values of a tensor, and a graph cannot",
}


def _reason(error: BaseException) -> str:
    """torch.export's reason in the user's terms, and where in the user's code it is."""
    found = next((reason for text, reason in _REASONS.items() if text in str(error)), None)
    where = _users_line(error)
    return (found or one_line(error)) + (f" (at {where})" if where else "")


def _users_line(error: BaseException) -> str | None:
    """The innermost line of the traceback that is neither PyTorch's, Python's nor ours."""
    own = (os.path.dirname(torch.__file__), os.path.dirname(__file__), os.path.dirname(os.__file__) + os.sep, "<")
    packages = sysconfig.get_path("purelib")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(packages) and not frame.filename.startswith(own[:2]):
            return f"{os.path.relpath(frame.filename, packages)}:{frame.lineno}"
        if not frame.filename.startswith(own):
            return f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return None


@contextmanager
def _marking(module: nn.Module, layer: str | None) -> Iterator[None]:
    if layer is None:
        yield
        return
    modules = dict(module.named_modules())
    if layer not in modules or layer == "":
        names = [name for name in modules if name]
        hint = did_you_mean(layer, names) or (f" Modules are for example {', '.join(names[-5:])}" if names else "")
        raise ExportArgumentError(f"Unknown layer {layer!r}.{hint}")

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


def _unmark(graph_module: GraphModule) -> Node | None:
    """Take the marks out again and return the node that the last one marked."""
    marked = None
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.seewhy.target_layer.default:
            marked = node.args[0]
            node.replace_all_uses_with(marked)
            graph_module.graph.erase_node(node)
    return marked


def _only_logits(outputs: list[Any]) -> Node:
    nodes = [node for node in outputs if isinstance(node, Node)]
    shapes = [tuple(value_of(node).shape) for node in nodes]
    if len(nodes) != 1 or len(shapes[0]) != 2:
        written = ", ".join(f"({', '.join(['N', *map(str, shape[1:])])})" for shape in shapes)
        raise ExportError(
            f"the network must return one (N, classes) tensor of logits, not {len(nodes)} of shape {written or 'none'}"
        )
    dtype = value_of(nodes[0]).dtype
    if dtype is not torch.float32:
        raise ExportError(
            f"the network computes its logits in {dtype} although its weights are float32; take .half(), .bfloat16() "
            f"and autocast out of its code"
        )
    batch, classes = shapes[0]
    if isinstance(batch, int) or not isinstance(classes, int):
        raise ExportError(
            f"the network returns ({batch}, {re.sub(r's[0-9]+', 'N', str(classes))}) for N images instead of "
            f"(N, classes); its code moves images out of dimension 0, as reshape(1, -1) does"
        )
    return nodes[0]


def _name_squeezed(graph: Graph) -> None:
    """squeeze() without dimensions would drop the batch of a single image; squeeze those that were 1 in the trace."""
    for node in graph.nodes:
        if node.target is aten.squeeze.default:
            sizes = value_of(node.args[0]).shape
            node.target = aten.squeeze.dims
            node.args = (node.args[0], [i for i, size in enumerate(sizes) if isinstance(size, int) and size == 1])


# What may stand between the final score and the end without changing a number.
_UNCHANGING = {
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


def _takes_everything(node: Node) -> bool:
    """Whether a select or slice leaves nothing out, as x[:, :, 0, 0] of what was pooled to 1x1."""
    before, after = (tuple(map(str, value_of(n).shape)) if isinstance(n, Node) else () for n in (node.args[0], node))
    if node.target is aten.select.int:
        return before[int(node.args[1])] == "1"  # type: ignore[arg-type]
    return node.target is aten.slice.Tensor and before == after


def _strip_final_score(returned: Node) -> tuple[Node, str | None]:
    """A network that ends in softmax or sigmoid: its logits are what goes into that, reshaped as that is behind."""
    behind: list[Node] = []
    node = returned
    while isinstance(node.args[0], Node) and (node.target in _UNCHANGING or _takes_everything(node)):
        behind.insert(0, node)
        node = node.args[0]
    kind = FINAL_SCORES.get(node.target)
    if kind is None:
        return returned, None
    args: tuple[Any, ...] = node.args
    sizes = value_of(node).shape[1:]
    classes = value_of(returned).shape[1]
    over = args[1] % (len(sizes) + 1) if kind == "softmax" else None
    if over is not None and (over == 0 or sizes[over - 1] != classes):
        raise ExportError(f"the network ends in a softmax over dimension {args[1]}, which is not that of the classes")
    logits: Node = args[0]
    graph = returned.graph
    with graph.inserting_before(graph.output_node()):
        for step in behind:
            copied = graph.create_node(step.op, step.target, (logits, *step.args[1:]), dict(step.kwargs))
            copied.meta = dict(step.meta)
            logits = copied
    return logits, kind
