"""Track the places of a feature map through the values of a forward graph.

Convolutional networks keep maps as (N, C, h, w). Transformers flatten them to tokens (N, T, D), often with class tokens
beside them, cut them into windows, or keep them channels-last; shapes alone do not tell these apart. So the axes are
followed from the images on through the graph, operator by operator, and given up wherever they are not certain.
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
from seewhy_export.target_layer.axis_algebra import BATCH, ONE, Axes, Dimension, Piece, broadcast, fresh
from seewhy_export.target_layer.tensor_layout import C, H, Layout, N, W

aten: Any = torch.ops.aten

CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.convolution.default, aten.conv_transpose2d.input}


class Unknown(enum.Enum):
    UNCERTAIN = "operators whose effect on places is not followed"
    MOVED = "operators that move places"


State = Axes | Unknown
Shape = tuple[int, ...]
"""As `Dimension.size` has it: BATCH for the number of images."""


def layouts(nodes: Sequence[Node], images: Node) -> tuple[dict[Node, Layout], set[Node]]:
    """The layout of every node that holds a whole map, and the nodes of which nothing is known but that they may.

    Args:
        nodes: in topological order.
        images: their placeholder.
    """
    start = images.meta["val"].shape
    states: dict[Node, State] = {images: _map(_sizes(start, start[0]) or ())}
    for node in nodes:
        value = node.meta.get("val")
        inputs = [states[n] for n in node.all_input_nodes if n in states]
        if inputs and isinstance(value, (Tensor, list, tuple)):
            shape = _sizes(value.shape, start[0]) if isinstance(value, Tensor) else ()
            found = None if shape is None else _RULES.get(node.target, _pointwise)(node, shape, states)
            moved = node.target in _MOVING or any(map(_is_moved, inputs))
            states[node] = found or (Unknown.MOVED if moved else Unknown.UNCERTAIN)
    single = {node: axes for node, axes in states.items() if isinstance(node.meta["val"], Tensor)}
    known = {node: layout for node, axes in single.items() if isinstance(axes, Axes) and (layout := axes.layout())}
    return known, {node for node, axes in states.items() if axes is Unknown.UNCERTAIN}


def _is_moved(state: State) -> bool:
    return state is Unknown.MOVED or (isinstance(state, Axes) and state.shift != (0, 0))


def _map(shape: Shape) -> Axes:
    height, width = shape[2:]
    dimensions = (Dimension((Piece(N, 1),)), fresh(C, shape[1]), fresh(H, height), fresh(W, width))
    return Axes(dimensions, (height, width))


def _sizes(shape: Sequence[Any], batch: Any) -> Shape | None:
    """None where a size is neither a number nor a multiple of the batch."""
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


def _axes(value: Any, states: dict[Node, State]) -> Axes | None:
    found = states.get(value) if isinstance(value, Node) else None
    return found if isinstance(found, Axes) else None


def _source(node: Node, states: dict[Node, State]) -> Axes | None:
    return _axes(node.args[0], states) if node.args else None


def _kept(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Norms, softmax, copies: nothing moves. Of several results, each is looked at where it is taken."""
    return _source(node, states)


def _resized(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Pools, paddings, upsampling: whole h and w may change their size."""
    axes = _source(node, states)
    return _begun(node, shape, states) if axes is None else axes.resized(shape)


def _begun(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """What a window slides over is a map, in nearly every network, unless places are known to have been moved."""
    source = node.args[0]
    uncertain = isinstance(source, Node) and states.get(source) is Unknown.UNCERTAIN
    return _map(shape) if uncertain and len(shape) == 4 and shape[0] == BATCH and min(shape[2:]) > 1 else None


def _convolution(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    weight: Any = node.args[1]
    if axes is None:
        slides = any(size > 1 for size in weight.meta["val"].shape[2:])
        return _begun(node, shape, states) if slides else None
    contracted = axes.contracted(1, shape[1]) if len(axes.dimensions) == len(shape) > 2 else None
    return None if contracted is None else contracted.resized(shape)


def _linear(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    return None if axes is None else axes.contracted(len(axes.dimensions) - 1, shape[-1])


def _matrix_product(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Rows of the one, columns of the other."""
    left, right = (_axes(value, states) for value in node.args[:2])
    if left is None or right is None:
        return _linear(node, shape, states) if node.args[1] not in states and len(shape) > 1 else None
    if min(len(left.dimensions), len(right.dimensions)) < 2:
        return None
    row, column = left.dimensions[-2], right.dimensions[-1]
    if left.frame != right.frame:
        # Queries of another map than the keys': to a query, its products with the keys are channels.
        if any(d.is_spatial for d in (*left.dimensions[:-2], *right.dimensions[:-2])):
            return None
        if row.is_spatial and column.is_spatial:
            column = fresh(C, shape[-1])
        base = left if row.is_spatial else right
        left, right = (replace(base, dimensions=axes.dimensions) for axes in (left, right))
    both = [replace(axes, dimensions=(*axes.dimensions[:-2], ONE, ONE)) for axes in (left, right)]
    outer = broadcast(both, (*shape[:-2], 1, 1))
    return None if outer is None else replace(outer, dimensions=(*outer.dimensions[:-2], row, column)).normalised()


def _einsum(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
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
    # A letter that only constants have is what their product gives: channels.
    dimensions = tuple(letters.get(letter) or fresh(C, sizes[letter]) for letter in result)
    return replace(known[0], dimensions=dimensions).normalised()


def _attention(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """The query's places, with the value's channels."""
    axes = _source(node, states)
    return None if axes is None else axes.contracted(len(shape) - 1, shape[-1])


def _pointwise(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Inputs of the result's own shape decide, if those that are known agree; else all, broadcast to it."""
    target: Any = node.target
    if torch.Tag.pointwise not in getattr(target, "tags", ()) and target not in _ELEMENTWISE:
        return None
    known = [axes for n in node.all_input_nodes if (axes := _axes(n, states)) is not None]
    full = [axes for axes in known if tuple(d.size for d in axes.dimensions) == shape]
    if full:
        return full[0] if all(axes == full[0] for axes in full) else None
    # Where what is not known has the larger shape, it decides.
    unknown = any(isinstance(states.get(n), Unknown) for n in node.all_input_nodes)
    return None if unknown or not known else broadcast(known, shape)


def _view(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    return None if axes is None else axes.viewed(shape)


def _expand(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    return None if axes is None else broadcast([axes], shape)


def _permute(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    if axes is None:
        return None
    # Each dimension's number as its size.
    permute: Any = node.target
    probe = torch.empty([2 + index for index in range(len(axes.dimensions))], device="meta")
    return axes.permuted([size - 2 for size in permute(probe, *node.args[1:], **node.kwargs).shape])


def _reduce(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
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
    axes = _source(node, states)
    index = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    return None if axes is None else _without(axes, [index % len(axes.dimensions)], keep=False)


def _without(axes: Axes, indices: Sequence[int], keep: bool) -> Axes | None:
    gone = {axis for index in indices for axis in axes.dimensions[index].axes}
    return None if N in gone else axes.without(indices, keep)


def _cat(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Channels side by side, or tokens of no place beside those that have one."""
    parts: Any = node.args[0]
    axis = int(node.args[1]) % len(shape) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    known = [_axes(part, states) for part in parts]
    has_place = [i for i, axes in enumerate(known) if axes is not None and axes.dimensions[axis].is_spatial]
    first = next((axes for axes in known if axes is not None), None)
    if first is None:
        return None
    if not has_place:
        others = {axes.with_dimension(axis, ONE) for axes in known if axes is not None}
        channels = all(axes is None or axes.dimensions[axis].axes <= {C} for axes in known)
        return first.with_dimension(axis, fresh(C, shape[axis])) if len(others) == 1 and channels else None
    place = known[has_place[0]]
    lengths = [part.meta["val"].shape[axis] for part in parts]
    if len(has_place) > 1 or place is None or not all(isinstance(length, int) for length in lengths):
        return None
    dimension = place.dimensions[axis]
    before, after = sum(lengths[: has_place[0]]), sum(lengths[has_place[0] + 1 :])
    beside = replace(dimension, before=dimension.before + before, after=dimension.after + after)
    return place.with_dimension(axis, beside)


def _slice(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Tokens of no place cut off; every nth place, or all but a border; any channels."""
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


def _taken(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """One of several results: of a split, only along channels."""
    axes = _source(node, states)
    if axes is None or len(axes.dimensions) != len(shape):
        return None
    sizes = list(zip(axes.dimensions, shape, strict=True))
    pool: Any = node.args[0]
    if pool.target not in _POOLS_WITH_INDICES and any(d.is_spatial and d.size != size for d, size in sizes):
        return None
    return axes.resized(shape)


def _roll(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    shifts: Any = node.args[1]
    indices: Any = node.args[2] if len(node.args) > 2 else ()
    if axes is None or len(shifts) != len(indices) or not all(isinstance(by, int) for by in shifts):
        return None
    return axes.rolled(shifts, indices)


def _flip(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    axes = _source(node, states)
    indices: Any = node.args[1]
    return None if axes is None else axes.flipped(indices)


def _among_channels(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Operators that change the order along dimensions: only channels have none to keep."""
    axes = _source(node, states)
    wanted: Any = node.args[1] if len(node.args) > 1 else ()
    if node.target is aten.index.Tensor:
        wanted = [i for i, index in enumerate(wanted) if index is not None]
    wanted = [wanted] if isinstance(wanted, int) else wanted
    if axes is None or any(not axes.dimensions[index].axes <= {C} for index in wanted):
        return None
    return axes.resized(shape)


def _shuffled(node: Node, shape: Shape, states: dict[Node, State]) -> Axes | None:
    """Between channels and places of a map: a map of another size."""
    axes = _source(node, states)
    layout = None if axes is None else axes.layout()
    return _map(shape) if layout is not None and layout.form == "map" else None


_POOLS_WITH_INDICES = {aten.max_pool2d_with_indices.default, aten.adaptive_max_pool2d.default}


def _named(*names: str) -> list[Any]:
    """Every overload of operators, whatever the version of PyTorch has of them."""
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return [getattr(packet, overload) for packet in packets for overload in packet.overloads()]


_ELEMENTWISE = set(
    _named("prelu", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "hardswish", "relu6")
) | set(_named("hardsigmoid", "hardtanh", "celu", "selu", "elu", "rrelu", "softshrink", "hardshrink", "tanhshrink"))
"""Pointwise, and not tagged so in every version of PyTorch."""


_MOVING = set(
    _named("flip", "roll", "index_select", "index", "gather", "sort", "argsort", "topk", "take_along_dim", "scatter")
) | set(_named("rot90", "fliplr", "flipud", "masked_select", "cumsum", "logcumsumexp", "cumprod", "take"))

_RULES: dict[Any, Rule] = {
    **dict.fromkeys([*CONVOLUTIONS, *_named("conv1d", "conv_transpose1d")], _convolution),
    **dict.fromkeys(_named("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _resized),
    **dict.fromkeys(_named("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "pad", "constant_pad_nd"), _resized),
    **dict.fromkeys(_named("reflection_pad2d", "replication_pad2d", "_pad_circular", "glu"), _resized),
    **dict.fromkeys(_named("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _resized),
    **dict.fromkeys(_POOLS_WITH_INDICES, _kept),
    **dict.fromkeys(_named("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm"), _kept),
    **dict.fromkeys(_named("layer_norm", "native_layer_norm", "group_norm", "native_group_norm"), _kept),
    **dict.fromkeys(_named("instance_norm", "rms_norm", "_fused_rms_norm", "local_response_norm"), _kept),
    **dict.fromkeys(_named("softmax", "_softmax", "log_softmax", "_log_softmax", "channel_shuffle"), _kept),
    **dict.fromkeys(_named("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy"), _kept),
    **dict.fromkeys(_named("split", "split_with_sizes", "chunk", "tensor_split"), _kept),
    **dict.fromkeys(_named("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), _view),
    **dict.fromkeys(_named("view_as", "reshape_as"), _view),
    **dict.fromkeys(_named("expand", "expand_as"), _expand),
    **dict.fromkeys(_named("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "mT"), _permute),
    **dict.fromkeys(_named("mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp"), _reduce),
    **dict.fromkeys(_named("select", "unbind"), _select),
    **dict.fromkeys(_named("index_select", "index"), _among_channels),
    aten.flip.default: _flip,
    **dict.fromkeys(_named("pixel_shuffle", "pixel_unshuffle"), _shuffled),
    **dict.fromkeys(_named("matmul", "bmm"), _matrix_product),
    aten.linear.default: _linear,
    aten.einsum.default: _einsum,
    aten.scaled_dot_product_attention.default: _attention,
    aten.cat.default: _cat,
    aten.slice.Tensor: _slice,
    aten.roll.default: _roll,
    operator.getitem: _taken,
    # Two values: the elementwise ones, not the reductions of the same name.
    **dict.fromkeys([aten.max.other, aten.min.other], _pointwise),
}
