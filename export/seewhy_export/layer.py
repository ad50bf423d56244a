"""Which layer Grad-CAM looks at, and what the graph around it allows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportError

from .forward import ForwardGraph, ancestors, value_of
from .layout import CONVOLUTIONS, Layout, layouts

aten: Any = torch.ops.aten

POOLS = {
    aten.max_pool2d.default,
    aten.max_pool2d_with_indices.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool2d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.mean.dim,
    aten.mean.default,
    aten.amax.default,
    aten.max.dim,
    aten.sum.dim_IntList,
}

RESHAPES = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.dropout.default,
    aten.alias.default,
}


PERMUTATIONS = {aten.permute.default, aten.transpose.int}

LEARNED = CONVOLUTIONS | {aten.linear.default}

NORMS = {
    aten.layer_norm.default,
    aten.native_layer_norm.default,
    aten.rms_norm.default,
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
}

ATTENTION = {aten.scaled_dot_product_attention.default, aten.softmax.int, aten._softmax.default}


@dataclass(frozen=True)
class TargetLayer:
    """The layer whose output, as a map (N, C, h, w), is `activations`."""

    node: Node
    name: str
    chosen: str
    layout: Layout
    separates: bool
    class_weights: Node | None
    """The weight (classes, C) of the linear head, where that follows global average pooling of this very layer."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the activations."""
        return int(value_of(self.node).shape[self.layout.axes.index("C")]), *self.layout.size


def target_layer(forward: ForwardGraph, name: str | None) -> TargetLayer:
    """The layer asked for, or the automatic choice.

    Automatic: the last convolution or linear layer whose map is larger than 1x1, and from there on to the last map of
    the same size before pooling, so that its norm, residual addition or concatenation and activation are included.
    Where there are class tokens, the first norm of the last block: at that block's output, the gradient with respect to
    all other tokens is zero.

    Raises:
        ExportError: there is no such layer, or its output is no map, or the logits do not depend on it.
    """
    found = layouts(forward.nodes)
    node, chosen = (forward.marked, "named") if name is not None else (_automatic(forward, found), "automatic")
    if node is None:
        raise ExportError(f"layer {name!r} is not called in the forward pass; name one that is")
    name = name if name is not None else _name(node)
    layout = found.get(node) or _plain_map(node)
    if layout is None or layout.form is None:
        raise ExportError(
            f"layer {name!r} gives shape {_written(node)}, and which of its dimensions are places is not known; a map "
            f"(N, C, h, w), a channels-last map or the tokens of a transformer are needed; name another layer"
        )
    if node not in ancestors(forward.logits):
        raise ExportError(f"layer {name!r}: its gradient is identically zero, since the logits do not depend on it")
    separates = layout.prefix == 0 and _separates(forward, node)
    return TargetLayer(node, name, chosen, layout, separates, _pooled_linear_head(forward.logits, node, layout, found))


def _plain_map(node: Node) -> Layout | None:
    """Four dimensions of which nothing more is known are what they are in nearly every network."""
    value = value_of(node)
    if not isinstance(value, torch.Tensor) or value.dim() != 4:
        return None
    return Layout(("N", "C", "h", "w"), (int(value.shape[2]), int(value.shape[3])))


def _written(node: Node) -> str:
    value = value_of(node)
    if not isinstance(value, torch.Tensor):
        return "?"
    return f"({', '.join(['N', *(str(size) for size in value.shape[1:])])})"


def _automatic(forward: ForwardGraph, found: dict[Node, Layout]) -> Node:
    leading = ancestors(forward.logits)
    nodes = [node for node in forward.nodes if node in leading]
    learned = [node for node in nodes if node.target in LEARNED and _places(found.get(node)) > 1]
    if not learned:
        raise ExportError("no convolution leads to the logits, so no target layer can be chosen; name one with `layer`")
    for last in reversed(learned):
        if found[last].prefix:
            return _first_norm_of_last_block(nodes, found) or last
        reached = {last}
        for node in nodes:  # in topological order
            if node.target not in POOLS and any(n in reached for n in node.all_input_nodes):
                reached.add(node)
        size = found[last].size
        maps = [n for n in nodes if n in reached and n in found and found[n].form and found[n].size == size]
        # Reshaping is no part of the layer; and there is none where a dimension is not known to be that of the places.
        maps = [node for node in maps if node.target not in RESHAPES] or maps
        if maps:
            return maps[-1]
    raise ExportError("nothing that leads to the logits is a map in a known layout; name a target layer with `layer`")


def _first_norm_of_last_block(nodes: list[Node], found: dict[Node, Layout]) -> Node | None:
    """The norm that the last attention reads, or what it reads where there is no norm in front of it."""
    attention = [node for node in nodes if node.target in ATTENTION]
    read = ancestors(attention[-1]) if attention else set()
    tokens = [node for node in nodes if node in read and node in found and found[node].form == "tokens"]
    norms = [node for node in tokens if node.target in NORMS or _is_first_result_of_norm(node)]
    found_there = norms or tokens
    return found_there[-1] if found_there else None


def _is_first_result_of_norm(node: Node) -> bool:
    return node.target is operator.getitem and node.args[0].target in NORMS  # type: ignore[union-attr]


def _places(layout: Layout | None) -> int:
    return 0 if layout is None else layout.size[0] * layout.size[1]


def _name(node: Node) -> str:
    """The outermost module whose last call returns this value; the operation's own name where there is none."""
    outside = [set(user.meta.get("nn_module_stack", {})) for user in node.users if user.op != "output"]
    last_calls = {path: key for n in node.graph.nodes for key, (path, _) in n.meta.get("nn_module_stack", {}).items()}
    for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
        if path and last_calls[path] == key and all(key not in keys for keys in outside):
            return str(path)
    return node.name


def _separates(forward: ForwardGraph, layer: Node) -> bool:
    """Whether every path from the images to the logits passes the layer."""
    return forward.logits not in forward.reached_from_images(without=layer)


def _pools_globally(node: Node, layer: Node, layout: Layout, found: dict[Node, Layout]) -> bool:
    """Whether a node is the mean over all places of the layer."""
    args: tuple[Any, ...] = node.args
    source = args[0] if args and isinstance(args[0], Node) else None
    while source is not None and source is not layer and source.target in PERMUTATIONS | RESHAPES:
        source = source.all_input_nodes[0]
    pooled = layout if args and args[0] is layer else found.get(args[0]) if args else None
    if source is not layer or pooled is None or pooled.prefix:
        return False
    rank = len(pooled.axes)
    if node.target in (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default):
        return pooled.spatial == [2, 3] and list(args[1]) in ([1], [1, 1])
    if node.target is aten.adaptive_avg_pool1d.default:
        return pooled.spatial == [2] and list(args[1]) == [1]
    if node.target is aten.mean.dim:
        return args[1] is not None and sorted(dimension % rank for dimension in args[1]) == pooled.spatial
    if node.target is aten.avg_pool2d.default:
        kernel, padding = list(args[1]), args[3] if len(args) > 3 else [0]
        whole = tuple(kernel * (2 // len(kernel))) == pooled.size
        return pooled.spatial == [2, 3] and whole and not any(padding)
    return False


def _pooled_linear_head(logits: Node, layer: Node, layout: Layout, found: dict[Node, Layout]) -> Node | None:
    """The weight of the one linear layer behind the pooled target layer; None where CAM has no meaning."""
    if logits.target is not aten.linear.default:
        return None
    args: tuple[Any, ...] = logits.args
    features, weight = args[:2]
    while features.target in RESHAPES:
        features = features.args[0]
    return weight if _pools_globally(features, layer, layout, found) else None
