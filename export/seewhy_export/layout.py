"""Where the places of a feature map are in each value of a forward graph.

Convolutional networks keep maps as (N, C, h, w). Transformers flatten them to tokens (N, T, D), often with class tokens
in front, or keep them channels-last (N, h, w, D); shapes alone do not tell these apart. So the layout is followed from
the convolutions on through the graph, operator by operator, and given up wherever it is not certain.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten: Any = torch.ops.aten

N, C, H, W, PLACES = "N", "C", "h", "w", "places"


@dataclass(frozen=True)
class Layout:
    """What each dimension of a value is."""

    axes: tuple[str, ...]
    """One of N, C, h, w or places (h and w flattened) for each dimension."""
    size: tuple[int, int]
    """(h, w) of the map."""
    prefix: int = 0
    """Tokens before the places that belong to none: class, distillation and register tokens."""

    @property
    def form(self) -> str | None:
        """The file contract's name of this layout, or None where no activations can be made of it."""
        if self.axes == _MAP:
            return "map"
        return {frozenset(_MAP): "channels-last", frozenset(_TOKENS): "tokens"}.get(frozenset(self.axes))

    @property
    def spatial(self) -> list[int]:
        """The dimensions that the places lie in."""
        return [index for index, axis in enumerate(self.axes) if axis in (H, W, PLACES)]

    def to_map(self, value: Tensor) -> Tensor:
        """A value of this layout as (N, C, h, w), without its prefix."""
        if PLACES not in self.axes:
            return _reorder(value, self.axes, _MAP)
        tokens = _reorder(value, self.axes, _TOKENS)[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *self.size)

    def from_map(self, activations: Tensor, value: Tensor) -> Tensor:
        """The inverse; the prefix comes from `value`."""
        if PLACES not in self.axes:
            return _reorder(activations, _MAP, self.axes)
        tokens = activations.flatten(2).transpose(1, 2)
        if self.prefix:
            tokens = torch.cat([_reorder(value, self.axes, _TOKENS)[:, : self.prefix], tokens], 1)
        return _reorder(tokens, _TOKENS, self.axes)


def _reorder(value: Tensor, axes: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    return value if axes == wanted else value.permute([axes.index(axis) for axis in wanted])


_MAP, _TOKENS = (N, C, H, W), (N, PLACES, C)

CONVOLUTIONS = {aten.conv2d.default, aten.conv2d.padding, aten.convolution.default, aten.conv_transpose2d.input}


def layouts(nodes: list[Node]) -> dict[Node, Layout]:
    """The layout of every node whose layout is certain; `nodes` in topological order."""
    found: dict[Node, Layout] = {}
    for node in nodes:
        shape = _shape(node)
        if shape is not None:
            layout = _RULES.get(node.target, _elementwise)(node, shape, found)
            if layout is not None:
                found[node] = layout
    return found


def _shape(node: Node) -> tuple[Any, ...] | None:
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        return ()
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _static(size: Any) -> int | None:
    return size if isinstance(size, int) else None


Rule = Callable[[Node, tuple[Any, ...], "dict[Node, Layout]"], "Layout | None"]


def _source(node: Node, found: dict[Node, Layout]) -> Layout | None:
    first = node.args[0] if node.args else None
    return found.get(first) if isinstance(first, Node) else None


def _map(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """What a 2-D convolution or pool returns."""
    return Layout((N, C, H, W), (int(shape[2]), int(shape[3]))) if len(shape) == 4 else None


def _several(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """An operator with several results; which of them has the layout is seen where one is taken."""
    return _source(node, found)


def _item(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """One of several results, or an input padded."""
    layout = _source(node, found)
    return None if layout is None else _resized(layout, shape)


def _resized(layout: Layout, shape: tuple[Any, ...]) -> Layout | None:
    """The same axes with the sizes of `shape`; only channels, and h and w kept apart, may change."""
    if len(shape) != len(layout.axes):
        return None
    if PLACES in layout.axes:
        places = _static(shape[layout.axes.index(PLACES)])
        return layout if places == layout.prefix + layout.size[0] * layout.size[1] else None
    height, width = (_static(shape[layout.axes.index(axis)]) for axis in (H, W))
    return None if height is None or width is None else replace(layout, size=(height, width))


def _elementwise(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """An unknown operator keeps the layout of an input of its own shape, if all such inputs agree."""
    inputs = [found[n] for n in node.all_input_nodes if n in found and _same(_shape(n), shape)]
    return inputs[0] if inputs and all(layout == inputs[0] for layout in inputs) else None


def _same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    # Batch sizes are symbols, and comparing those would put a condition on them.
    return one is not None and len(one) == len(other) and [*map(_static, one)] == [*map(_static, other)]


def _permute(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    layout = _source(node, found)
    if layout is None:
        return None
    order: list[int] = [int(axis) % len(shape) for axis in node.args[1]]  # type: ignore[arg-type, union-attr]
    return replace(layout, axes=tuple(layout.axes[axis] for axis in order))


def _transpose(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    layout = _source(node, found)
    if layout is None:
        return None
    axes = list(layout.axes)
    first, second = (int(axis) % len(axes) for axis in node.args[1:3])  # type: ignore[arg-type]
    axes[first], axes[second] = axes[second], axes[first]
    return replace(layout, axes=tuple(axes))


def _view(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """h and w flattened to places, or places unfolded to h and w; everything else is not certain."""
    layout = _source(node, found)
    before = _shape(node.all_input_nodes[0]) if layout is not None else None
    if layout is None or before is None:
        return None
    if _same(before, shape):
        return layout
    places = layout.size[0] * layout.size[1]
    flat: dict[tuple[str, ...], tuple[str, ...]] = {(N, C, H, W): (N, C, PLACES), (N, H, W, C): (N, PLACES, C)}
    if layout.axes in flat and len(shape) == 3:
        axes = flat[layout.axes]
        kept = [_static(size) for size, axis in zip(before, layout.axes, strict=True) if axis == C]
        if [*map(_static, shape[1:])] == [places if axis == PLACES else kept[0] for axis in axes[1:]]:
            return replace(layout, axes=axes)
    unfolded: dict[tuple[str, ...], tuple[str, ...]] = {(N, C, PLACES): (N, C, H, W), (N, PLACES, C): (N, H, W, C)}
    if layout.axes in unfolded and len(shape) == 4 and layout.prefix == 0:
        axes = unfolded[layout.axes]
        sizes = dict(zip((H, W), layout.size, strict=True)) | {C: _static(before[layout.axes.index(C)])}
        if [*map(_static, shape[1:])] == [sizes[axis] for axis in axes[1:]]:
            return replace(layout, axes=axes)
    return None


def _cat(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """Channels side by side, or tokens of no place in front of those that have one."""
    parts: Any = node.args[0]
    axis = int(node.args[1]) % len(shape) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    known = [found.get(part) for part in parts]
    with_places = [index for index, layout in enumerate(known) if layout is not None]
    if not with_places:
        return None
    layout = known[with_places[0]]
    assert layout is not None
    if layout.axes[axis] == C:
        same = all(other is None or other == layout for other in known)
        return layout if same else None
    if layout.axes[axis] != PLACES or len(with_places) > 1:
        return None
    lengths = [_static(part.meta["val"].shape[axis]) for part in parts]
    if any(length is None for length in lengths) or with_places[0] != len(parts) - 1:
        return None
    return replace(layout, prefix=layout.prefix + sum(length or 0 for length in lengths[:-1]))


def _slice(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    """Tokens cut off in front; a step or range along h, w or the channels."""
    layout = _source(node, found)
    before = _shape(node.all_input_nodes[0]) if layout is not None else None
    if layout is None or before is None or _same(before, shape):
        return layout
    args: tuple[Any, ...] = (*node.args, 0, 0)
    axis, start = int(args[1] or 0), int(args[2] or 0)
    if layout.axes[axis % len(shape)] != PLACES:
        return _resized(layout, shape)
    cut = replace(layout, prefix=layout.prefix - start)
    return _resized(cut, shape) if 0 <= cut.prefix else None


def _linear(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    layout = _source(node, found)
    return layout if layout is not None and layout.axes[-1] == C and len(shape) == len(layout.axes) else None


def _unknown(node: Node, shape: tuple[Any, ...], found: dict[Node, Layout]) -> Layout | None:
    return None


_RULES: dict[Any, Rule] = {
    **dict.fromkeys(CONVOLUTIONS, _map),
    **dict.fromkeys(
        [
            aten.max_pool2d.default,
            aten.avg_pool2d.default,
            aten.adaptive_avg_pool2d.default,
            aten.upsample_nearest2d.vec,
            aten.upsample_bilinear2d.vec,
            aten.pixel_shuffle.default,
            aten.pixel_unshuffle.default,
        ],
        _map,
    ),
    **dict.fromkeys(
        [
            aten._native_batch_norm_legit_no_training.default,
            aten.native_layer_norm.default,
            aten.native_group_norm.default,
            aten.max_pool2d_with_indices.default,
            aten.split.Tensor,
            aten.split_with_sizes.default,
            aten.chunk.default,
        ],
        _several,
    ),
    **dict.fromkeys([aten.pad.default, aten.constant_pad_nd.default], _item),
    **dict.fromkeys([aten.view.default, aten.reshape.default, aten._unsafe_view.default], _view),
    aten.flatten.using_ints: _view,
    aten.unflatten.int: _view,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.cat.default: _cat,
    aten.slice.Tensor: _slice,
    aten.linear.default: _linear,
    operator.getitem: _item,
    # Their results can have their input's shape although its places are mixed or moved.
    **dict.fromkeys([aten.matmul.default, aten.bmm.default, aten.einsum.default, aten.index.Tensor], _unknown),
    **dict.fromkeys([aten.expand.default, aten.scaled_dot_product_attention.default], _unknown),
}
