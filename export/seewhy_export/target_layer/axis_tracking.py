"""Tracking of a feature map's axes through a forward graph.

Convolutional networks keep maps as (N, C, h, w). Transformers flatten them to tokens (N, T, D), often with additional
class tokens, cut them into windows, or keep them channels-last. Shapes alone do not distinguish these forms. The axes
are therefore followed from the images through the graph, operator by operator, and dropped wherever they are uncertain.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from seewhy_export._shared.torch_internals import multiple_of_size
from seewhy_export.target_layer.axis_algebra import BATCH, ONE, Axes, AxisFactor, Dimension, broadcast, whole_axis
from seewhy_export.target_layer.tensor_layout import C, H, Layout, N, W

aten: Any = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.convolution.default, aten.conv_transpose2d.input}


class Unknown(enum.Enum):
    """Reasons why the axes of a value are unknown."""

    UNCERTAIN = "an operator has an unknown effect on positions"
    MOVED = "an operator moves positions"


State = Axes | Unknown
"""Axes of a value, or the reason why they are unknown."""
Shape = tuple[int, ...]
"""Shape in which BATCH stands for the number of images, as in `Dimension.size`."""


def find_layouts(nodes: Sequence[Node], images: Node) -> tuple[dict[Node, Layout], set[Node]]:
    """Find the nodes whose values hold a whole map.

    Args:
        nodes: Nodes of a forward graph, in topological order.
        images: Placeholder of the images.

    Returns:
        The layout of every node that is known to hold a map, and the nodes that may hold one but are uncertain.
    """
    start = images.meta["val"].shape
    states: dict[Node, State] = {images: _map(_sizes(start, start[0]) or ())}
    for node in nodes:
        value = node.meta.get("val")
        inputs = [states[n] for n in node.all_input_nodes if n in states]
        if inputs and isinstance(value, (Tensor, list, tuple)):
            shape = _sizes(value.shape, start[0]) if isinstance(value, Tensor) else ()
            axes = None if shape is None else _RULES.get(node.target, _pointwise)(node, shape, states)
            moved = node.target in _MOVING or any(map(_is_moved, inputs))
            states[node] = axes or (Unknown.MOVED if moved else Unknown.UNCERTAIN)
    tensors = {node: state for node, state in states.items() if isinstance(node.meta["val"], Tensor)}
    known = {node: layout for node, state in tensors.items() if isinstance(state, Axes) and (layout := state.layout())}
    return known, {node for node, state in states.items() if state is Unknown.UNCERTAIN}


def _is_moved(state: State) -> bool:
    return state is Unknown.MOVED or (isinstance(state, Axes) and state.shift != (0, 0))


def _map(shape: Shape) -> Axes:
    """Return the axes of a map (N, C, h, w)."""
    height, width = shape[2:]
    dimensions = (Dimension((AxisFactor(N, 1),)), whole_axis(C, shape[1]), whole_axis(H, height), whole_axis(W, width))
    return Axes(dimensions, (height, width))


def _sizes(shape: Sequence[Any], batch: Any) -> Shape | None:
    """Return a shape in terms of BATCH, or None if a size is neither a number nor a multiple of the batch."""
    sizes = []
    for size in shape:
        if not isinstance(size, int):
            multiple = multiple_of_size(size, batch)
            if multiple is None:
                return None
            size = BATCH if multiple == 1 else -multiple
        sizes.append(size)
    return tuple(sizes)


Rule = Callable[[Node, Shape, "dict[Node, State]"], "Axes | None"]
"""Function (node, shape of its value, states so far) -> axes of its value, or None if they are unknown."""


def _axes(value: Any, states: dict[Node, State]) -> Axes | None:
    """Return the axes of an argument, if it is a node with known axes."""
    state = states.get(value) if isinstance(value, Node) else None
    return state if isinstance(state, Axes) else None


def _source(node: Node, states: dict[Node, State]) -> Axes | None:
    """Return the axes of a node's first argument."""
    return _axes(node.args[0], states) if node.args else None


def _unchanged(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Keep the axes for norms, softmax and copies. For several results, `_one_of_several` decides about each."""
    return _source(node, states)


def _resized(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Let h and w change their size if they are whole, for pools, padding and upsampling."""
    axes = _source(node, states)
    return _assumed_map(node, shape, states) if axes is None else axes.resized(shape)


def _assumed_map(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Assume that a sliding window moves over a map (N, C, h, w), unless positions are known to have moved."""
    source = node.args[0]
    uncertain = isinstance(source, Node) and states.get(source) is Unknown.UNCERTAIN
    return _map(shape) if uncertain and len(shape) == 4 and shape[0] == BATCH and min(shape[2:]) > 1 else None


def _convolution(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Replace the channels, and let h and w change their size."""
    axes = _source(node, states)
    weight: Any = node.args[1]
    if axes is None:
        slides = any(size > 1 for size in weight.meta["val"].shape[2:])
        return _assumed_map(node, shape, states) if slides else None
    contracted = axes.contracted(1, shape[1]) if len(axes.dimensions) == len(shape) > 2 else None
    return None if contracted is None else contracted.resized(shape)


def _linear(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Turn the last dimension into channels."""
    axes = _source(node, states)
    return None if axes is None else axes.contracted(len(axes.dimensions) - 1, shape[-1])


def _matrix_product(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Combine the rows of the first operand with the columns of the second."""
    left, right = (_axes(value, states) for value in node.args[:2])
    if left is None or right is None:
        return _linear(node, shape, states) if node.args[1] not in states and len(shape) > 1 else None
    if min(len(left.dimensions), len(right.dimensions)) < 2:
        return None
    row, column = left.dimensions[-2], right.dimensions[-1]
    if left.frame != right.frame:
        # Queries and keys belong to different maps. The products of a query with the keys then are its channels.
        if any(d.is_spatial for d in (*left.dimensions[:-2], *right.dimensions[:-2])):
            return None
        if row.is_spatial and column.is_spatial:
            column = whole_axis(C, shape[-1])
        base = left if row.is_spatial else right
        left, right = (replace(base, dimensions=axes.dimensions) for axes in (left, right))
    both = [replace(axes, dimensions=(*axes.dimensions[:-2], ONE, ONE)) for axes in (left, right)]
    outer = broadcast(both, (*shape[:-2], 1, 1))
    return None if outer is None else replace(outer, dimensions=(*outer.dimensions[:-2], row, column)).normalised()


def _einsum(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Follow the letters of an equation with an arrow and without dots."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    inputs, arrow, result = equation.partition("->")
    if not arrow or "." in equation or not isinstance(operands, (list, tuple)):
        return None
    letters: dict[str, Dimension] = {}
    known = []
    for term, operand in zip(inputs.split(","), operands, strict=True):
        axes = _axes(operand, states)
        if axes is not None:
            known.append(axes)
            for letter, dimension in zip(term, axes.dimensions, strict=True):
                if letters.setdefault(letter, dimension) not in (dimension, ONE):
                    return None
    sizes = dict(zip(result, shape, strict=True))
    if not known or len({axes.frame for axes in known}) > 1:
        return None
    # A letter that only constants have stands for channels.
    dimensions = tuple(letters.get(letter) or whole_axis(C, sizes[letter]) for letter in result)
    return replace(known[0], dimensions=dimensions).normalised()


def _attention(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Keep the positions of the queries, with the channels of the values."""
    axes = _source(node, states)
    return None if axes is None else axes.contracted(len(shape) - 1, shape[-1])


def _pointwise(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Use the inputs that have the shape of the result if they agree, else broadcast all known inputs."""
    target: Any = node.target
    if torch.Tag.pointwise not in getattr(target, "tags", ()) and target not in _ELEMENTWISE:
        return None
    known = [axes for n in node.all_input_nodes if (axes := _axes(n, states)) is not None]
    full = [axes for axes in known if tuple(d.size for d in axes.dimensions) == shape]
    if full:
        return full[0] if all(axes == full[0] for axes in full) else None
    # An unknown input may have the larger shape, so nothing is certain.
    unknown = any(isinstance(states.get(n), Unknown) for n in node.all_input_nodes)
    return None if unknown or not known else broadcast(known, shape)


def _view(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Split and merge the factors of the dimensions."""
    axes = _source(node, states)
    return None if axes is None else axes.viewed(shape)


def _expand(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Broadcast to the new shape."""
    axes = _source(node, states)
    return None if axes is None else broadcast([axes], shape)


def _permute(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Permute the dimensions as the operator does."""
    axes = _source(node, states)
    if axes is None:
        return None
    # Run the operator on a tensor whose sizes encode the numbers of its dimensions.
    permute: Any = node.target
    probe = torch.empty([2 + index for index in range(len(axes.dimensions))], device="meta")
    return axes.permuted([size - 2 for size in permute(probe, *node.args[1:], **node.kwargs).shape])


def _reduce(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Remove the dimensions that are reduced."""
    axes = _source(node, states)
    value = node.meta["val"]
    if axes is None:
        return None
    rank = len(axes.dimensions)
    wanted: Any = node.args[1] if len(node.args) > 1 else None
    wanted = range(rank) if wanted is None else [wanted] if isinstance(wanted, int) else wanted
    result_rank = value.dim() if isinstance(value, Tensor) else value[0].dim()
    return _without(axes, [index % rank for index in wanted], keep=result_rank == rank)


def _select(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Remove the dimension that an entry is selected from."""
    axes = _source(node, states)
    index = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    return None if axes is None else _without(axes, [index % len(axes.dimensions)], keep=False)


def _without(axes: Axes, indices: Sequence[int], keep: bool) -> Axes | None:
    """Remove dimensions; None if the batch is among them."""
    removed = {axis for index in indices for axis in axes.dimensions[index].axes}
    return None if N in removed else axes.without(indices, keep)


def _cat(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Concatenate channels, or tokens without a position with those that have one."""
    operands: Any = node.args[0]
    axis = int(node.args[1]) % len(shape) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    known = [_axes(operand, states) for operand in operands]
    with_positions = [i for i, axes in enumerate(known) if axes is not None and axes.dimensions[axis].is_spatial]
    first = next((axes for axes in known if axes is not None), None)
    if first is None:
        return None
    if not with_positions:
        others = {axes.with_dimension(axis, ONE) for axes in known if axes is not None}
        channels = all(axes is None or axes.dimensions[axis].axes <= {C} for axes in known)
        return first.with_dimension(axis, whole_axis(C, shape[axis])) if len(others) == 1 and channels else None
    spatial = known[with_positions[0]]
    lengths = [operand.meta["val"].shape[axis] for operand in operands]
    if len(with_positions) > 1 or spatial is None or not all(isinstance(length, int) for length in lengths):
        return None
    dimension = spatial.dimensions[axis]
    before, after = sum(lengths[: with_positions[0]]), sum(lengths[with_positions[0] + 1 :])
    extended = replace(dimension, before=dimension.before + before, after=dimension.after + after)
    return spatial.with_dimension(axis, extended)


def _slice(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Follow slices that cut off tokens without a position, take every nth position, drop a border, or cut channels."""
    axes = _source(node, states)
    args: tuple[Any, ...] = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :])
    index, start, end, step = args
    if axes is None or any(not isinstance(bound, int) for bound in (start or 0, end or 0)):
        return None
    index = index % len(shape)
    dimension = axes.dimensions[index]
    size = dimension.size
    if not dimension.is_spatial:
        return axes.resized(shape)
    first, last, _ = slice(start, end).indices(size)
    if dimension.before or dimension.after:
        cut = replace(dimension, before=dimension.before - first, after=dimension.after - (size - last))
        return axes.with_dimension(index, cut) if step == 1 and min(cut.before, cut.after) >= 0 else None
    border = max(1, step - 1)
    return axes.resized(shape) if first <= border and last >= size - border else None


def _one_of_several(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Follow one of several results; the results of a split only if it splits channels."""
    axes = _source(node, states)
    if axes is None or len(axes.dimensions) != len(shape):
        return None
    sizes = list(zip(axes.dimensions, shape, strict=True))
    pool: Any = node.args[0]
    if pool.target not in _POOLS_WITH_INDICES and any(d.is_spatial and d.size != size for d, size in sizes):
        return None
    return axes.resized(shape)


def _roll(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Record the shift, as of shifted windows."""
    axes = _source(node, states)
    shifts: Any = node.args[1]
    indices: Any = node.args[2] if len(node.args) > 2 else ()
    if axes is None or len(shifts) != len(indices) or not all(isinstance(by, int) for by in shifts):
        return None
    return axes.rolled(shifts, indices)


def _flip(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Record the mirrored axes."""
    axes = _source(node, states)
    indices: Any = node.args[1]
    return None if axes is None else axes.flipped(indices)


def _among_channels(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Follow operators that reorder dimensions only if these hold channels, whose order is free."""
    axes = _source(node, states)
    wanted: Any = node.args[1] if len(node.args) > 1 else ()
    if node.target is aten.index.Tensor:
        wanted = [i for i, index in enumerate(wanted) if index is not None]
    wanted = [wanted] if isinstance(wanted, int) else wanted
    if axes is None or any(not axes.dimensions[index].axes <= {C} for index in wanted):
        return None
    return axes.resized(shape)


def _shuffled_pixels(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Start a new map of another size, for operators that exchange channels and positions."""
    axes = _source(node, states)
    layout = None if axes is None else axes.layout()
    return _map(shape) if layout is not None and layout.form == "map" else None


_POOLS_WITH_INDICES = {aten.max_pool2d_with_indices.default, aten.adaptive_max_pool2d.default}


def _ops(*names: str) -> list[Any]:
    """Return every overload of the named operators that the installed PyTorch has."""
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return [getattr(packet, overload) for packet in packets for overload in packet.overloads()]


_ELEMENTWISE = set(
    _ops("prelu", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "hardswish", "relu6")
) | set(_ops("hardsigmoid", "hardtanh", "celu", "selu", "elu", "rrelu", "softshrink", "hardshrink", "tanhshrink"))
"""Pointwise operators that not every version of PyTorch tags as such."""


_MOVING = set(
    _ops("flip", "roll", "index_select", "index", "gather", "sort", "argsort", "topk", "take_along_dim", "scatter")
) | set(_ops("rot90", "fliplr", "flipud", "masked_select", "cumsum", "logcumsumexp", "cumprod", "take"))

_RULES: dict[Any, Rule] = {
    **dict.fromkeys([*CONVOLUTIONS, *_ops("conv1d", "conv_transpose1d")], _convolution),
    **dict.fromkeys(_ops("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _resized),
    **dict.fromkeys(_ops("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "pad", "constant_pad_nd"), _resized),
    **dict.fromkeys(_ops("reflection_pad2d", "replication_pad2d", "_pad_circular", "glu"), _resized),
    **dict.fromkeys(_ops("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _resized),
    **dict.fromkeys(_POOLS_WITH_INDICES, _unchanged),
    **dict.fromkeys(_ops("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm"), _unchanged),
    **dict.fromkeys(_ops("layer_norm", "native_layer_norm", "group_norm", "native_group_norm"), _unchanged),
    **dict.fromkeys(_ops("instance_norm", "rms_norm", "_fused_rms_norm", "local_response_norm"), _unchanged),
    **dict.fromkeys(_ops("softmax", "_softmax", "log_softmax", "_log_softmax", "channel_shuffle"), _unchanged),
    **dict.fromkeys(_ops("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy"), _unchanged),
    **dict.fromkeys(_ops("split", "split_with_sizes", "chunk", "tensor_split"), _unchanged),
    **dict.fromkeys(_ops("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), _view),
    **dict.fromkeys(_ops("view_as", "reshape_as"), _view),
    **dict.fromkeys(_ops("expand", "expand_as"), _expand),
    **dict.fromkeys(_ops("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "mT"), _permute),
    **dict.fromkeys(_ops("mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp"), _reduce),
    **dict.fromkeys(_ops("select", "unbind"), _select),
    **dict.fromkeys(_ops("index_select", "index"), _among_channels),
    aten.flip.default: _flip,
    **dict.fromkeys(_ops("pixel_shuffle", "pixel_unshuffle"), _shuffled_pixels),
    **dict.fromkeys(_ops("matmul", "bmm"), _matrix_product),
    aten.linear.default: _linear,
    aten.einsum.default: _einsum,
    aten.scaled_dot_product_attention.default: _attention,
    aten.cat.default: _cat,
    aten.slice.Tensor: _slice,
    aten.roll.default: _roll,
    operator.getitem: _one_of_several,
    # With two tensors these are pointwise, unlike the reductions of the same name.
    **dict.fromkeys([aten.max.other, aten.min.other], _pointwise),
}
