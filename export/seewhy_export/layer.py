"""Which layer Grad-CAM looks at, and what the graph around it allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportError

from .forward import ForwardGraph, value_of

aten: Any = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.convolution.default, aten.conv_transpose2d.input}

POOLS = {
    aten.max_pool2d.default,
    aten.max_pool2d_with_indices.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool2d.default,
    aten.adaptive_max_pool2d.default,
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


@dataclass(frozen=True)
class TargetLayer:
    """The layer whose output is `activations`."""

    node: Node
    name: str
    chosen: str
    separates: bool
    class_weights: Node | None
    """The weight (classes, C) of the linear head, where that follows global average pooling of this very layer."""


def target_layer(forward: ForwardGraph, name: str | None) -> TargetLayer:
    """The layer asked for, or the automatic choice.

    Automatic: the last convolution whose map is larger than 1x1, and from there on to the last map of the same size
    before pooling, so that its norm, residual addition or concatenation and activation are included.

    Raises:
        ExportError: there is no such layer, or its output is no (N, C, h, w) map, or the logits do not depend on it.
    """
    node, chosen = (forward.marked, "named") if name is not None else (_last_map(forward), "automatic")
    if node is None:
        raise ExportError(f"layer {name!r} is not called in the forward pass; name one that is")
    name = name if name is not None else _name(node)
    value = value_of(node)
    if not isinstance(value, torch.Tensor) or value.dim() != 4:
        shape = ", ".join(["N", *(str(size) for size in value.shape[1:])]) if isinstance(value, torch.Tensor) else "?"
        raise ExportError(f"layer {name!r} gives shape ({shape}), but a map (N, C, h, w) is needed; name another layer")
    if node not in _ancestors(forward.logits):
        raise ExportError(f"layer {name!r}: its gradient is identically zero, since the logits do not depend on it")
    return TargetLayer(node, name, chosen, _separates(forward, node), _pooled_linear_head(forward.logits, node))


def _ancestors(node: Node) -> set[Node]:
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return seen


def _map_size(node: Node) -> tuple[int, int] | None:
    """(h, w) where the node's value is a map with more than one place."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dim() != 4:
        return None
    height, width = value.shape[2:]
    return (int(height), int(width)) if height * width > 1 else None


def _last_map(forward: ForwardGraph) -> Node:
    leading = _ancestors(forward.logits)
    convolutions = [n for n in forward.nodes if n in leading and n.target in CONVOLUTIONS and _map_size(n)]
    if not convolutions:
        raise ExportError("no convolution leads to the logits, so no target layer can be chosen; name one with `layer`")
    last = convolutions[-1]
    size = _map_size(last)
    reached = {last}
    for node in forward.nodes:  # in topological order
        # Through other layouts as well: ConvNeXt's blocks norm and project channels-last, and come back.
        if node in leading and node.target not in POOLS and any(n in reached for n in node.all_input_nodes):
            reached.add(node)
    return [n for n in forward.nodes if n in reached and _map_size(n) == size][-1]


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
    reached = {forward.images}
    for node in forward.nodes:
        # A batch size taken from the images says nothing about their pixels.
        carries_pixels = not isinstance(node.meta.get("val"), torch.SymInt)
        if carries_pixels and node is not layer and any(n in reached for n in node.all_input_nodes):
            reached.add(node)
    return forward.logits not in reached


def _pools_globally(node: Node, layer: Node) -> bool:
    """Whether a node is the mean over all places of the layer."""
    args: tuple[Any, ...] = node.args
    if not args or args[0] is not layer:
        return False
    if node.target in (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default):
        return list(args[1]) in ([1], [1, 1])
    if node.target is aten.mean.dim:
        return args[1] is not None and sorted(dimension % 4 for dimension in args[1]) == [2, 3]
    if node.target is aten.avg_pool2d.default:
        kernel, padding = list(args[1]), args[3] if len(args) > 3 else [0]
        return tuple(kernel * (2 // len(kernel))) == _map_size(layer) and not any(padding)
    return False


def _pooled_linear_head(logits: Node, layer: Node) -> Node | None:
    """The weight of the one linear layer behind the pooled target layer; None where CAM has no meaning."""
    if logits.target is not aten.linear.default:
        return None
    args: tuple[Any, ...] = logits.args
    features, weight = args[:2]
    while features.target in RESHAPES:
        features = features.args[0]
    return weight if _pools_globally(features, layer) else None
