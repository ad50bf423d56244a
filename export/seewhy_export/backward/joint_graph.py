"""Joint graph: a network's forward and backward pass in one graph of forward operators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.contract import constants as contract
from seewhy.contract.metadata import ParameterGroup
from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line
from seewhy_export._shared.torch_internals import (
    fake_mode_of,
    flatten_calling_convention,
    symbolic_batch_size,
    trace_graph,
    tracing_with_module_stacks,
)
from seewhy_export.backward.batch_norm_folding import convolve_with_folded_norm, find_foldable_norms
from seewhy_export.backward.constant_folding import compute_constants
from seewhy_export.backward.gradient_rules import ActiveRule, Rule, RuledRectifier, deconvnet, guided, plain
from seewhy_export.backward.parameter_groups import group_parameters
from seewhy_export.backward.rectifiers import (
    Rectifier,
    in_scope,
    may_receive_infinite_gradient,
    rectifier_of,
)
from seewhy_export.capture.forward_graph import ForwardGraph, value_of
from seewhy_export.capture.in_place_removal import make_functional
from seewhy_export.capture.node_origins import OriginTracker, describe_node
from seewhy_export.lowering.forward_operators import FORWARD_LOWERINGS
from seewhy_export.lowering.table import IN_PLACE_LEFTOVERS, decomposition_table
from seewhy_export.target_layer.selection import TargetLayer

# Operators that detaching values and creating constants leave in a trace.
_IDENTITIES = {
    torch.ops.aten.detach.default,
    torch.ops.aten.detach_.default,
    torch.ops.aten.lift_fresh_copy.default,
}

RULES: dict[str, Rule] = {contract.GUIDED_GRADIENTS: guided, contract.DECONVNET_GRADIENTS: deconvnet}
"""Outputs that are input gradients by a rule other than the chain rule."""


class JointInterpreter(Interpreter):
    """Interpreter of the forward graph whose rectifiers follow the active rule. It keeps the values of chosen nodes.

    The target layer's value is converted to `activations` (N, C, h, w) and back. Whatever its layout, the activations
    then lie on the path to the logits, so gradients can be taken at them, and a pruned graph can start from them.

    Args:
        forward: Forward graph.
        layer: Target layer; None if no output needs one.
        scope: Module path prefixes inside which rectifiers follow the active rule; None means everywhere.
        keep: Nodes whose values are kept.
    """

    def __init__(
        self, forward: ForwardGraph, layer: TargetLayer | None, scope: tuple[str, ...] | None, keep: Sequence[Node]
    ) -> None:
        super().__init__(forward.graph_module)
        self.layer = layer
        self.scope = scope
        self.active = ActiveRule()
        self.origins = OriginTracker()
        self.kept: dict[Node, Any] = dict.fromkeys(keep)
        """Values of the nodes to keep."""
        self.norms = find_foldable_norms(forward.nodes, [*keep, None if layer is None else layer.node])
        self._folded_convolutions = set(self.norms.values())
        self.activations: Tensor | None = None
        """Value of the target layer as (N, C, h, w), once it has run."""
        self.has_ruled_rectifiers = False
        """True if a rectifier that follows the active rule lies between images and logits."""

    def run_node(self, node: Node) -> Any:
        """Run a node by its lowering, rectifiers by the active rule, and folded norms with their convolution."""
        # A folded norm becomes a part of its convolution.
        self.origins.enter(self.norms.get(node, node))
        if node in self._folded_convolutions:  # The norm runs it, and needs its arguments.
            return self.fetch_args_kwargs_from_env(node)
        rectifier = rectifier_of(node) if node.op == "call_function" else None
        if rectifier is not None:
            value: Any = self._run_rectifier(node, rectifier)
        elif node in self.norms:
            value = self._run_folded_norm(node)
        else:
            value = super().run_node(node)
        self.origins.follow(node, value)
        if self.layer is not None and node is self.layer.node:
            self.activations = self.layer.layout.to_map(value)
            value = self.layer.layout.from_map(self.activations, value)
        if node in self.kept:
            self.kept[node] = value
        return value

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call an operator, or its forward lowering if it has one."""
        return super().call_function(FORWARD_LOWERINGS.get(target, target), args, kwargs)

    def _run_folded_norm(self, node: Node) -> Tensor:
        """Run a batch norm together with the convolution before it."""
        ((x, weight, *others), options), *norm = self.fetch_args_kwargs_from_env(node)[0]
        bias = others.pop(0) if others else None
        convolution: Any = self.norms[node].target
        return convolve_with_folded_norm(partial(convolution, **options), x, weight, bias, others, tuple(norm))

    def _run_rectifier(self, node: Node, rectifier: Rectifier) -> Tensor:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        index = rectifier.input_index
        before, x, after = args[:index], args[index], args[index + 1 :]
        weight = None if rectifier.slope_index is None else args[rectifier.slope_index]
        operator: Any = FORWARD_LOWERINGS.get(node.target, node.target)

        def run(value: Tensor) -> Any:
            return operator(*before, value, *after, **kwargs)

        active = self.active if in_scope(node, self.scope) else None
        self.has_ruled_rectifiers = self.has_ruled_rectifiers or (active is not None and x.requires_grad)
        apply: Any = RuledRectifier.apply
        result: Tensor = apply(x, weight, run, rectifier, active, may_receive_infinite_gradient(node))
        return result


@dataclass(frozen=True)
class JointGraph:
    """Graph of forward operators. Its placeholders are `weights`, in that order, then images and targets."""

    graph_module: GraphModule
    weights: dict[str, Tensor]
    """Weights and constants by name."""
    outputs: tuple[str, ...]
    """Names of the outputs, in order."""
    parameters: tuple[ParameterGroup, ...]
    """Weights that are parameters or computed from parameters, by module, from the output down."""

    def run(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Run the graph in PyTorch, in the dtype of its weights.

        Args:
            images: Preprocessed images of shape (N, C, H, W).
            targets: Class indices, int64 of shape (N,); -1 for the predicted class.

        Returns:
            The value of each output, by its name.
        """
        with torch.no_grad():
            values = self.graph_module(*self.weights.values(), images, targets)
        return dict(zip(self.outputs, values, strict=True))


def build_joint(
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    guided_scope: tuple[str, ...] | None = None,
    table: dict[Any, Callable[..., Any]] | None = None,
) -> JointGraph:
    """Trace forward and backward pass into one graph.

    Args:
        forward: Forward graph; the joint graph gets the dtype of its weights.
        layer: Target layer; None if no output needs one.
        outputs: Names of outputs from the file contract.
        guided_scope: Module path prefixes inside which the guided and deconvnet rules apply; None applies them
            everywhere.
        table: Decompositions by operator; None uses `decomposition_table()`.

    Returns:
        The joint graph.

    Raises:
        ExportError: If an operator has no derivative or no lowering.
    """
    examples = [value_of(node) for node in forward.graph_module.graph.nodes if node.op == "placeholder"]
    mode = fake_mode_of(value_of(forward.images))
    dtype = next((w.dtype for w in forward.weights.values() if w.is_floating_point()), torch.float32)

    head = None if layer is None else layer.class_weights
    keep = [forward.logits, *([head] if head is not None else []), *(_head(forward.logits) or ())]
    run = JointInterpreter(forward, layer, guided_scope, keep)
    table = decomposition_table() if table is None else table

    def compute(weights: list[Tensor], images: Tensor, targets: Tensor) -> list[Tensor]:
        return _compute(run, forward, head, outputs, weights, images, targets)

    with mode, symbolic_batch_size(), tracing_with_module_stacks(), sdpa_kernel(SDPBackend.MATH):
        weights = [example.to(w.dtype) for example, w in zip(examples, forward.weights.values(), strict=False)]
        images = examples[-1].to(dtype)
        targets = images.new_zeros(images.shape[0], dtype=torch.int64)
        try:
            graph_module = trace_graph(compute, (weights, images, targets), table)
        except ExportError:
            raise
        except Exception as error:
            reason = one_line(error).removeprefix("NotImplementedError: ")
            origin = "" if run.origins.node is None else f" at {describe_node(run.origins.node)}"
            raise ExportError(f"the backward pass cannot be traced{origin}: {reason}") from error
        finally:
            run.origins.forget()
        graph_module = _remove_in_place_operators(graph_module, [*weights, images, targets], table)
    weights_used = dict(forward.weights)
    folded, learned = _flatten_and_fold(graph_module, weights_used, forward.parameters)
    groups = group_parameters(folded.graph, weights_used, learned)
    return JointGraph(folded, weights_used, tuple(outputs), groups)


def _compute(
    run: JointInterpreter,
    forward: ForwardGraph,
    head: Node | None,
    outputs: Sequence[str],
    weights: list[Tensor],
    images: Tensor,
    targets: Tensor,
) -> list[Tensor]:
    """Compute the outputs from weights, images and targets, in PyTorch."""
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        run.run(*weights, images, enable_io_processing=False)
        activations, logits = run.activations, run.kept[forward.logits]
        index = torch.where(targets < 0, logits.argmax(1), targets)
        start, seed = _backward_start(run, forward.logits, index)
        values: dict[str, Tensor] = {contract.LOGITS: logits}
        if activations is not None:
            values[contract.ACTIVATIONS] = activations
        if contract.CLASS_WEIGHTS in outputs and head is not None:
            values[contract.CLASS_WEIGHTS] = run.kept[head].index_select(0, index)
        values |= _plain_gradients(outputs, start, activations, images, seed)
        for name in [name for name in RULES if name in outputs]:
            if not run.has_ruled_rectifiers and contract.INPUT_GRADIENTS in values:
                # Without rectifiers the rules do not differ. A second trace of the same pass would only take time.
                values[name] = values[contract.INPUT_GRADIENTS]
                continue
            run.active.rule = RULES[name]
            values[name] = torch.autograd.grad(start, images, seed, retain_graph=True)[0]
            run.active.rule = plain
    if contract.GRADCAM_MAP in outputs:
        weighted = values[contract.GRADIENTS].mean((2, 3), keepdim=True) * values[contract.ACTIVATIONS]
        values[contract.GRADCAM_MAP] = torch.relu(weighted.sum(1))
    return [values[name].detach() for name in outputs]


def _backward_start(run: JointInterpreter, logits: Node, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return a value that the backward pass starts from, and the gradient of the target's logit at that value.

    If the network ends in a linear layer, the value is the layer's input, and the gradient a row of its weights.
    Otherwise they are the logits and a one-hot row.
    """
    head = _head(logits)
    if head is None:
        values = run.kept[logits]
        one_hot = torch.arange(values.shape[1], device=values.device) == index[:, None]
        return values, one_hot.to(values.dtype)
    features, weight = (run.kept[node] for node in head)
    return features, weight.index_select(0, index)


def _head(logits: Node) -> tuple[Node, Node] | None:
    """Return the nodes of the input (N, C) and weight (class count, C) of a final linear layer, or None."""
    features, weight = logits.args[:2] if logits.target is torch.ops.aten.linear.default else (None, None)
    if not isinstance(features, Node) or not isinstance(weight, Node):
        return None
    return (features, weight) if weight.op == "placeholder" and value_of(features).dim() == 2 else None


def _plain_gradients(
    outputs: Sequence[str], start: Tensor, activations: Tensor | None, images: Tensor, seed: Tensor
) -> dict[str, Tensor]:
    """Return the gradients by the chain rule with respect to activations and images, as far as outputs need them."""
    wanted: dict[str, Tensor] = {}
    if activations is not None and (contract.GRADIENTS in outputs or contract.GRADCAM_MAP in outputs):
        wanted[contract.GRADIENTS] = activations
    if contract.INPUT_GRADIENTS in outputs:
        wanted[contract.INPUT_GRADIENTS] = images
    if not wanted:
        return {}
    gradients = torch.autograd.grad(start, list(wanted.values()), seed, retain_graph=True)
    return dict(zip(wanted, gradients, strict=True))


def _remove_in_place_operators(
    traced: GraphModule, examples: Sequence[Tensor], table: dict[Any, Callable[..., Any]]
) -> GraphModule:
    """Remove the in-place operators that some of autograd's own formulas contain, such as a maximum's.

    Most are exchanged for functional ones. If some write into views, PyTorch's functionalization traces it again.
    """
    graph = traced.graph
    for node in list(graph.nodes):
        if node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    if not any(node.target is torch.ops.aten.copy_.default for node in graph.nodes) and make_functional(graph):
        return traced
    flatten_calling_convention(graph)
    traced.recompile()

    def functional(weights: list[Tensor], images: Tensor, targets: Tensor) -> Any:
        return functionalize(Interpreter(traced).run, remove="mutations")(*weights, images, targets)

    return trace_graph(functional, (list(examples[:-2]), *examples[-2:]), {**table, **IN_PLACE_LEFTOVERS})


def _flatten_and_fold(
    traced: GraphModule, weights: dict[str, Tensor], parameters: Collection[str]
) -> tuple[GraphModule, tuple[str, ...]]:
    """Name the placeholders, turn constants into weights, fold constants, and drop everything that is unused.

    Returns the graph, and the names of the weights that come from parameters.
    """
    graph = traced.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    graph.eliminate_dead_code()
    for index, (node, name) in enumerate(zip(placeholders, list(weights), strict=False)):
        if node.users:
            # Without the number, names that differ only in characters not allowed in identifiers would collide.
            node.name = node.target = f"w{index}_" + "".join(c if c.isalnum() else "_" for c in name)
        else:
            del weights[name]
            graph.erase_node(node)
    for node, name in zip(placeholders[-2:], contract.INPUTS, strict=True):
        node.name = node.target = name
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        constant = getattr(traced, node.target)
        weights[node.target] = constant
        with graph.inserting_before(placeholders[-2]):
            lifted = graph.placeholder(node.target)
        lifted.meta["val"] = node.meta.get("val", constant)
        node.replace_all_uses_with(lifted)
        graph.erase_node(node)
    learned = compute_constants(graph, weights, parameters)
    # The trace's own calling convention still expects a list of weights.
    flatten_calling_convention(graph)
    return GraphModule(torch.nn.Module(), graph), learned
