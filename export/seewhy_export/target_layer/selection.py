"""Selection of the target layer, and of what the graph around it allows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export.capture.forward_graph import ForwardGraph, ancestors, value_of
from seewhy_export.target_layer.axis_tracking import CONVOLUTIONS, layouts
from seewhy_export.target_layer.tensor_layout import C, H, Layout, N, W

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


SOFTMAX = {aten.softmax.int, aten._softmax.default}

ATTENTION = {aten.scaled_dot_product_attention.default} | SOFTMAX

PRODUCTS = {aten.matmul.default, aten.bmm.default, aten.baddbmm.default, aten.einsum.default}

SCALING = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.div.Tensor,
    aten.div.Scalar,
    aten.masked_fill.Scalar,
    aten.view.default,
    aten.reshape.default,
}
"""What happens to the products of queries and keys before their softmax."""

NO_LAYERS = (
    {aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.square.default, aten.exp.default, aten.log.default}
    | {aten.neg.default}
    | ATTENTION
)
"""What pools otherwise than by a mean (powers, log-sum-exp, attention) or compares with prototypes."""

PERMUTATIONS = {aten.permute.default, aten.transpose.int}

SPLITS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.select.int,
    aten.slice.Tensor,
    operator.getitem,
}

LEARNED = CONVOLUTIONS | {aten.conv1d.default, aten.linear.default}

NORMS = {
    aten.layer_norm.default,
    aten.native_layer_norm.default,
    aten.rms_norm.default,
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
}


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
        return int(value_of(self.node).shape[self.layout.axes.index(C)]), *self.layout.size


def target_layer(forward: ForwardGraph, name: str | None) -> TargetLayer:
    """The layer asked for, or the automatic choice.

    Automatic: the last convolution or linear layer whose map is larger than 1x1, and from there on to the last map of
    the same size before pooling, so that its norm, residual addition or concatenation and activation are included.
    Where there are class tokens, what the last block's attention reads, which is its first norm: at that block's
    output, the gradient with respect to all other tokens is zero.

    Raises:
        ExportError: there is no such layer, or its output is no map, or the logits do not depend on it.
    """
    found, uncertain = layouts(forward.nodes, forward.images)
    node, chosen = (forward.marked, "named") if name is not None else (_automatic(forward, found), "automatic")
    if node is None:
        raise ExportArgumentError(f"layer {name!r} is not called in the forward pass; name one that is")
    name = name if name is not None else _name(node)
    layout = found.get(node) or (_plain_map(node, forward) if node in uncertain else None)
    if layout is None:
        raise ExportError(
            f"layer {name!r} gives shape {_written(node)}, and which of its dimensions are places is not known; a map "
            f"(N, C, h, w), a channels-last map or the tokens of a transformer are needed; name another layer"
        )
    if node not in ancestors(forward.logits):
        raise ExportError(f"layer {name!r}: its gradient is identically zero, since the logits do not depend on it")
    separates = layout.others == 0 and _separates(forward, node)
    return TargetLayer(node, name, chosen, layout, separates, _pooled_linear_head(forward.logits, node, layout, found))


def _plain_map(node: Node, forward: ForwardGraph) -> Layout | None:
    """Four dimensions of which nothing is known are what they are in nearly every network; the user named the layer."""
    value = value_of(node)
    images = value_of(forward.images).shape[0]
    if not isinstance(value, torch.Tensor) or value.dim() != 4 or str(value.shape[0]) != str(images):
        return None
    return Layout((N, C, H, W), (int(value.shape[2]), int(value.shape[3])))


def _written(node: Node) -> str:
    value = value_of(node)
    if not isinstance(value, torch.Tensor):
        return "?"
    return f"({', '.join(['N', *(str(size) for size in value.shape[1:])])})"


def _automatic(forward: ForwardGraph, found: dict[Node, Layout]) -> Node:
    leading = ancestors(forward.logits)
    nodes = [node for node in forward.nodes if node in leading]
    maps = [n for n in nodes if n in found and found[n].places > 1]
    several = [node for node in maps if _channels(node, found) > 1]
    maps = several or maps
    last = _last_learned(maps)
    if last is None:
        raise ExportError(
            "of no layer that leads to the logits is it known where the places of the image are, so none can be chosen "
            "as target; name one with `layer`, or ask only for the outputs logits, input_gradients and guided_gradients"
        )
    attention = next((node for node in reversed(nodes) if node.target in ATTENTION), None)
    # Only attention that the choice feeds: what a class token reads, or what is pooled by attention.
    if attention is not None and (found[last].others or last in ancestors(attention)):
        read = _read_by(attention, maps)
        if read is not None and (found[last].others or found[read].size == found[last].size):
            if not (found[read].others and _only_pools(attention, nodes, found)):
                return read
            above = ancestors(read)
            last = _last_learned([node for node in maps if node in above and not found[node].others]) or last
    return _last_map(forward, last, nodes, maps, found)


def _last_learned(maps: list[Node]) -> Node | None:
    return next((node for node in reversed(maps) if node.target in LEARNED), None)


def _channels(node: Node, found: dict[Node, Layout]) -> int:
    return int(value_of(node).shape[found[node].axes.index(C)])


def _last_map(
    forward: ForwardGraph, last: Node, nodes: list[Node], maps: list[Node], found: dict[Node, Layout]
) -> Node:
    """The last map of the size of a layer's, before pooling, that all paths from the images to the logits pass.

    So a gate beside the features is not taken for them. Where none separates, the last that follows from the layer.
    """
    behind = {last}
    for node in nodes:  # in topological order
        if node.target not in POOLS | NO_LAYERS and any(n in behind for n in node.all_input_nodes):
            behind.add(node)
    above = ancestors(last)
    maps = [
        n for n in maps if (n in behind or n in above) and (found[n].size, found[n].others) == (found[last].size, 0)
    ]
    # What reorders or takes a part is no part of the layer, except that norms have several results.
    no_layers = RESHAPES | PERMUTATIONS | SPLITS | NO_LAYERS
    whole = [node for node in maps if node.target not in no_layers or _is_first_result_of_norm(node)]
    separating = next((node for node in reversed(whole) if _separates(forward, node)), None)
    following = [node for node in whole if node in behind] or [node for node in maps if node in behind]
    return _completed(separating or (following[-1] if following else last), maps)


def _completed(node: Node, maps: list[Node]) -> Node:
    """Up to the end of the module that it lies in, where that only reorders it, as a norm over the channels does."""
    users = list(node.users)
    while _name(node) == node.name and len(users) == 1 and users[0] in maps and users[0].target in PERMUTATIONS:
        if _name(users[0]) != users[0].name:
            return users[0]
        users = list(users[0].users)
    return node


def _only_pools(attention: Node, nodes: list[Node], found: dict[Node, Layout]) -> bool:
    """Whether it is the network's one attention, and nothing is added to what it makes of the places."""
    if any(node.target in ATTENTION for node in ancestors(attention) - {attention}):
        return False
    behind = {attention}
    for node in nodes:
        if any(n in behind for n in node.all_input_nodes):
            beside = [n for n in node.all_input_nodes if n not in behind and n in found and found[n].places > 1]
            if beside and node.target is aten.add.Tensor:
                return False
            behind.add(node)
    return True


def _read_by(attention: Node, maps: list[Node]) -> Node | None:
    """What the queries and keys of an attention are made of: the norm in front, or the values themselves."""
    above = [ancestors(operand) for operand in _queries_and_keys(attention)]
    # Queries that are weights say nothing of where the keys come from.
    shared = [node for node in maps if all(node in one for one in above)] or [n for n in maps if n in above[-1]]
    source = shared[-1] if shared else None
    while source is not None and source.target in LEARNED | RESHAPES | PERMUTATIONS | SPLITS:
        if _is_first_result_of_norm(source) or source.args[0] not in maps:
            break
        source = source.args[0]  # type: ignore[assignment]
    return source


def _queries_and_keys(attention: Node) -> list[Node]:
    """The factors of the product whose softmax an attention takes; of linear attention, the keys alone."""
    if attention.target not in SOFTMAX:
        return attention.all_input_nodes[:2]
    product = attention.all_input_nodes[0]
    while product.target in SCALING and product.all_input_nodes:
        product = product.all_input_nodes[0]
    return product.all_input_nodes[:2] if product.target in PRODUCTS else attention.all_input_nodes[:1]


def _is_first_result_of_norm(node: Node) -> bool:
    return node.target is operator.getitem and node.args[0].target in NORMS  # type: ignore[union-attr]


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
    if source is not layer or pooled is None or pooled.others:
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
