"""Selection of the target layer, and of the methods that its position in the graph allows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export.capture.forward_graph import ForwardGraph, ancestors, value_of
from seewhy_export.target_layer.axis_tracking import CONVOLUTIONS, find_layouts
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
"""Operators between the products of queries and keys and their softmax."""

NO_LAYERS = (
    {aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.square.default, aten.exp.default, aten.log.default}
    | {aten.neg.default}
    | ATTENTION
)
"""Operators that pool other than by a mean (powers, log-sum-exp, attention) or compare with prototypes."""

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
    """Layer whose output, as a map (N, C, h, w), is the output `activations`."""

    node: Node
    """Node of the forward graph that computes the layer's output."""
    name: str
    """Module path, or the name of the operation if no module returns the value."""
    chosen: str
    """`named` if the user named the layer, else `automatic`."""
    layout: Layout
    """Layout of the layer's output."""
    separates: bool
    """True if every path from the images to the logits passes the layer."""
    class_weights: Node | None
    """Weight (class count, C) of the linear head, if it directly follows global average pooling of this layer."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the activations."""
        return int(value_of(self.node).shape[self.layout.axes.index(C)]), *self.layout.size


def target_layer(forward: ForwardGraph, name: str | None) -> TargetLayer:
    """Find the layer that the user named, or choose one.

    The automatic choice starts at the last convolution or linear layer whose map is larger than 1x1. From there it goes
    to the last map of the same size before pooling, which includes the norm, residual addition or concatenation, and
    activation. With class tokens it takes the input of the last block's attention, which is the block's first norm: at
    the block's output, the gradient with respect to all other tokens is zero.

    Args:
        forward: Forward graph.
        name: Module path of the layer; None chooses one.

    Returns:
        The target layer.

    Raises:
        ExportError: If there is no such layer, its output is not a map, or the logits do not depend on it.
    """
    known, uncertain = find_layouts(forward.nodes, forward.images)
    node, chosen = (forward.marked, "named") if name is not None else (_choose(forward, known), "automatic")
    if node is None:
        raise ExportArgumentError(f"layer {name!r} is not called in the forward pass; name one that is")
    name = name if name is not None else _name(node)
    layout = known.get(node) or (_assumed_map(node, forward) if node in uncertain else None)
    if layout is None:
        raise ExportError(
            f"layer {name!r} returns shape {_shape_text(node)}, and its spatial dimensions are unknown; name a "
            f"layer that returns a map (N, C, h, w), a channels-last map or the tokens of a transformer"
        )
    if node not in ancestors(forward.logits):
        raise ExportError(f"layer {name!r}: its gradient is identically zero, since the logits do not depend on it")
    separates = layout.extra_tokens == 0 and _separates(forward, node)
    return TargetLayer(node, name, chosen, layout, separates, _pooled_linear_head(forward.logits, node, layout, known))


def _assumed_map(node: Node, forward: ForwardGraph) -> Layout | None:
    """Assume the layout (N, C, h, w) for a four-dimensional value of the layer that the user named."""
    value = value_of(node)
    images = value_of(forward.images).shape[0]
    if not isinstance(value, torch.Tensor) or value.dim() != 4 or str(value.shape[0]) != str(images):
        return None
    return Layout((N, C, H, W), (int(value.shape[2]), int(value.shape[3])))


def _shape_text(node: Node) -> str:
    """Return the shape of a node's value as text, such as `(N, 64, 7, 7)`."""
    value = value_of(node)
    if not isinstance(value, torch.Tensor):
        return "?"
    return f"({', '.join(['N', *(str(size) for size in value.shape[1:])])})"


def _choose(forward: ForwardGraph, known: dict[Node, Layout]) -> Node:
    """Choose the target layer automatically."""
    leading = ancestors(forward.logits)
    nodes = [node for node in forward.nodes if node in leading]
    maps = [n for n in nodes if n in known and known[n].position_count > 1]
    several = [node for node in maps if _channels(node, known) > 1]
    maps = several or maps
    last = _last_learned(maps)
    if last is None:
        raise ExportError(
            "no layer before the logits has known spatial dimensions, so no target layer can be chosen; name one with "
            "`layer`, or export only the outputs logits, input_gradients and guided_gradients"
        )
    attention = next((node for node in reversed(nodes) if node.target in ATTENTION), None)
    # Consider attention only if the choice feeds it: a class token reads the map, or attention pools it.
    if attention is not None and (known[last].extra_tokens or last in ancestors(attention)):
        read = _read_by(attention, maps)
        if read is not None and (known[last].extra_tokens or known[read].size == known[last].size):
            if not (known[read].extra_tokens and _only_pools(attention, nodes, known)):
                return read
            above = ancestors(read)
            last = _last_learned([node for node in maps if node in above and not known[node].extra_tokens]) or last
    return _last_map(forward, last, nodes, maps, known)


def _last_learned(maps: list[Node]) -> Node | None:
    """Return the last convolution or linear layer."""
    return next((node for node in reversed(maps) if node.target in LEARNED), None)


def _channels(node: Node, known: dict[Node, Layout]) -> int:
    """Return the number of channels of a map."""
    return int(value_of(node).shape[known[node].axes.index(C)])


def _last_map(
    forward: ForwardGraph, last: Node, nodes: list[Node], maps: list[Node], known: dict[Node, Layout]
) -> Node:
    """Return the last map before pooling that has a layer's size and lies on all paths from the images to the logits.

    A gate next to the features is therefore not chosen. If no map separates, the last one that follows the layer is.
    """
    following = {last}
    for node in nodes:  # These are in topological order.
        if node.target not in POOLS | NO_LAYERS and any(n in following for n in node.all_input_nodes):
            following.add(node)
    above = ancestors(last)
    size = known[last].size
    maps = [n for n in maps if (n in following or n in above) and (known[n].size, known[n].extra_tokens) == (size, 0)]
    # Operators that reorder or split do not belong to the layer, but norms return several results.
    no_layers = RESHAPES | PERMUTATIONS | SPLITS | NO_LAYERS
    whole = [node for node in maps if node.target not in no_layers or _is_first_result_of_norm(node)]
    separating = next((node for node in reversed(whole) if _separates(forward, node)), None)
    candidates = [node for node in whole if node in following] or [node for node in maps if node in following]
    return _with_permutation(separating or (candidates[-1] if candidates else last), maps)


def _with_permutation(node: Node, maps: list[Node]) -> Node:
    """Return the end of a node's module if the module only permutes the value further, as a norm over channels does."""
    users = list(node.users)
    while _name(node) == node.name and len(users) == 1 and users[0] in maps and users[0].target in PERMUTATIONS:
        if _name(users[0]) != users[0].name:
            return users[0]
        users = list(users[0].users)
    return node


def _only_pools(attention: Node, nodes: list[Node], known: dict[Node, Layout]) -> bool:
    """Tell whether this is the network's only attention, without a residual addition after it."""
    if any(node.target in ATTENTION for node in ancestors(attention) - {attention}):
        return False
    following = {attention}
    for node in nodes:
        if any(n in following for n in node.all_input_nodes):
            others = [n for n in node.all_input_nodes if n not in following and n in known]
            if any(known[n].position_count > 1 for n in others) and node.target is aten.add.Tensor:
                return False
            following.add(node)
    return True


def _read_by(attention: Node, maps: list[Node]) -> Node | None:
    """Return the map that an attention computes its queries and keys from: the norm before it, or the values."""
    above = [ancestors(operand) for operand in _queries_and_keys(attention)]
    # Queries may be weights, and then only the keys come from a map.
    shared = [node for node in maps if all(node in one for one in above)] or [n for n in maps if n in above[-1]]
    source = shared[-1] if shared else None
    while source is not None and source.target in LEARNED | RESHAPES | PERMUTATIONS | SPLITS:
        if _is_first_result_of_norm(source) or source.args[0] not in maps:
            break
        source = source.args[0]  # type: ignore[assignment]
    return source


def _queries_and_keys(attention: Node) -> list[Node]:
    """Return the factors of the product whose softmax an attention computes; for linear attention, only the keys."""
    if attention.target not in SOFTMAX:
        return attention.all_input_nodes[:2]
    product = attention.all_input_nodes[0]
    while product.target in SCALING and product.all_input_nodes:
        product = product.all_input_nodes[0]
    return product.all_input_nodes[:2] if product.target in PRODUCTS else attention.all_input_nodes[:1]


def _is_first_result_of_norm(node: Node) -> bool:
    """Tell whether a node takes a result of a norm that returns several."""
    return node.target is operator.getitem and node.args[0].target in NORMS  # type: ignore[union-attr]


def _name(node: Node) -> str:
    """Return the outermost module whose last call returns this value, or the operation's own name if there is none."""
    outside = [set(user.meta.get("nn_module_stack", {})) for user in node.users if user.op != "output"]
    last_calls = {path: key for n in node.graph.nodes for key, (path, _) in n.meta.get("nn_module_stack", {}).items()}
    for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
        if path and last_calls[path] == key and all(key not in keys for keys in outside):
            return str(path)
    return node.name


def _separates(forward: ForwardGraph, layer: Node) -> bool:
    """Tell whether every path from the images to the logits passes the layer."""
    return forward.logits not in forward.reached_from_images(without=layer)


def _pools_globally(node: Node, layer: Node, layout: Layout, known: dict[Node, Layout]) -> bool:
    """Tell whether a node is the mean over all positions of the layer."""
    args: tuple[Any, ...] = node.args
    source = args[0] if args and isinstance(args[0], Node) else None
    while source is not None and source is not layer and source.target in PERMUTATIONS | RESHAPES:
        source = source.all_input_nodes[0]
    pooled = layout if args and args[0] is layer else known.get(args[0]) if args else None
    if source is not layer or pooled is None or pooled.extra_tokens:
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


def _pooled_linear_head(logits: Node, layer: Node, layout: Layout, known: dict[Node, Layout]) -> Node | None:
    """Return the weight of the only linear layer after the pooled target layer; None if CAM does not apply."""
    shape = value_of(logits).shape
    while logits.target in RESHAPES:  # (N, 1), squeezed to (N,) and made (N, 1) again
        logits = logits.args[0]  # type: ignore[assignment]
    if logits.target is not aten.linear.default or tuple(map(str, value_of(logits).shape)) != tuple(map(str, shape)):
        return None
    args: tuple[Any, ...] = logits.args
    features, weight = args[:2]
    while features.target in RESHAPES:
        features = features.args[0]
    return weight if _pools_globally(features, layer, layout, known) else None
