"""Composition of a value's dimensions, and how reshaping and slicing change it.

A dimension is a product of pieces of the batch, of h, of w and of channels. Splitting h into windows makes two pieces
of it; a patch merging puts the finer pieces of h and w among the channels. Such bookkeeping is exact: whatever order a
network brings its values into, it is known where each place of the map is, or that it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from seewhy_export.target_layer.tensor_layout import PLACES, C, H, Layout, N, W

BATCH = 0
"""Stands for the number of images where that is a size; -n stands for n times that number."""


@dataclass(frozen=True)
class Piece:
    """A part of one axis: `size` steps of `stride` each."""

    axis: str
    size: int
    stride: int = 1


@dataclass(frozen=True)
class Dimension:
    """Pieces, the slowest first; none where the size is 1."""

    pieces: tuple[Piece, ...] = ()
    before: int = 0
    """Entries in front that belong to no place, such as a class token."""
    after: int = 0
    """Such entries behind."""

    @property
    def size(self) -> int:
        steps = math.prod(piece.size for piece in self.pieces if piece.axis != N)
        if N in self.axes:
            return BATCH if steps == 1 else -steps
        return self.before + steps + self.after

    @property
    def axes(self) -> set[str]:
        return {piece.axis for piece in self.pieces}

    @property
    def is_spatial(self) -> bool:
        return bool(self.axes & {H, W})

    @property
    def units(self) -> list[Any]:
        """What a reshape may take apart: pieces, or the whole where other entries stand beside them."""
        return [self] if self.before or self.after else list(self.pieces)


ONE = Dimension()
"""A dimension of size 1."""


def of(pieces: Sequence[Piece]) -> Dimension:
    """A dimension of these pieces; those that are one run of one axis become one. Channels have no order to keep."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.axis == piece.axis == C:
            joined[-1] = Piece(C, last.size * piece.size)
        elif last is not None and last.axis == piece.axis and last.stride == piece.size * piece.stride:
            joined[-1] = Piece(piece.axis, last.size * piece.size, piece.stride)
        else:
            joined.append(piece)
    return Dimension(tuple(joined))


def fresh(axis: str, size: int) -> Dimension:
    """A dimension that is one axis, or part of none where there is one step."""
    return Dimension((Piece(axis, size),) if size != 1 else ())


@dataclass(frozen=True)
class Axes:
    """The dimensions of one value."""

    dimensions: tuple[Dimension, ...]
    extent: tuple[int, int]
    """(h, w) in the units of the pieces' strides."""
    shift: tuple[int, int] = (0, 0)
    """How far h and w are rolled."""
    mirrored: tuple[bool, bool] = (False, False)
    """Whether h and w are flipped."""

    def layout(self) -> Layout | None:
        """The layout that these are, or None where the value holds no whole map that can be made (N, C, h, w)."""
        kinds = [_kind(dimension) for dimension in self.dimensions]
        if len(kinds) == 4 and all(kind in ("", usual) for kind, usual in zip(kinds, (N, C, H, W), strict=True)):
            kinds = [N, C, H, W]
        if C not in kinds and kinds.count("") == 1:
            kinds[kinds.index("")] = C
        size = self._size()
        if size is None or self.shift != (0, 0):
            return None
        # A map of one row has no piece of h; any single free dimension is it.
        for axis, steps in zip((H, W), size, strict=True):
            if steps == 1 and axis not in kinds and PLACES not in kinds and "" in kinds:
                kinds[kinds.index("")] = axis
        if len(kinds) == 3 and 1 in size and C in kinds:
            kinds = [PLACES if kind in (H, W) else kind for kind in kinds]
        if sorted(kinds) not in (sorted((N, C, H, W)), sorted((N, PLACES, C))):
            return None
        beside = [dimension for dimension in self.dimensions if dimension.before or dimension.after]
        if any(not dimension.is_spatial for dimension in beside):
            return None
        before, after = (beside[0].before, beside[0].after) if beside else (0, 0)
        return Layout(tuple(kinds), size, before, after, self.mirrored)

    def _size(self) -> tuple[int, int] | None:
        """(h, w) of the map, where every step of both is there once."""
        sizes = []
        for axis, extent in zip((H, W), self.extent, strict=True):
            pieces = [piece for d in self.dimensions for piece in d.pieces if piece.axis == axis]
            pieces.sort(key=lambda piece: -piece.stride)
            ends = [piece.size * piece.stride for piece in pieces]
            # Coarse to fine without a gap; the finest may be gone, as behind a patch merging.
            if pieces and ends != [extent, *(piece.stride for piece in pieces[:-1])]:
                return None
            if not pieces and extent != 1:
                return None
            sizes.append(math.prod(piece.size for piece in pieces))
        return sizes[0], sizes[1]

    def has_whole(self, index: int, axis: str) -> bool:
        """Whether a dimension is the whole of one axis, in order, and nothing else."""
        dimension = self.dimensions[index]
        extent = self.extent[(H, W).index(axis)]
        alone = not (dimension.before or dimension.after) and dimension.axes <= {axis}
        others = [piece for d in self.dimensions if d is not dimension for piece in d.pieces if piece.axis == axis]
        ends = [piece.size * piece.stride for piece in dimension.pieces]
        return alone and not others and ends in ([], [extent, *(p.stride for p in dimension.pieces[:-1])])

    def with_dimension(self, index: int, dimension: Dimension) -> Axes:
        dimensions = list(self.dimensions)
        dimensions[index] = dimension
        return replace(self, dimensions=tuple(dimensions))

    def permuted(self, order: Sequence[int]) -> Axes:
        return replace(self, dimensions=tuple(self.dimensions[index] for index in order))

    def without(self, indices: Sequence[int], keep: bool) -> Axes:
        """Some dimensions summed over, or one entry of them taken."""
        left = [ONE if i in indices else d for i, d in enumerate(self.dimensions) if keep or i not in indices]
        return replace(self, dimensions=tuple(left)).normalised()

    def contracted(self, index: int, size: int) -> Axes | None:
        """A dimension goes into a matrix product, and channels come out; None where h, w or the batch goes whole."""
        result = self.with_dimension(index, fresh(C, size))
        lost = self.dimensions[index].axes - {C} - {axis for d in result.dimensions for axis in d.axes}
        return None if lost or self.dimensions[index].before or self.dimensions[index].after else result.normalised()

    def normalised(self) -> Axes:
        """Strides count steps of the finest pieces that are left, as behind a patch merging."""
        axes = self
        for place, axis in enumerate((H, W)):
            strides = [piece.stride for d in axes.dimensions for piece in d.pieces if piece.axis == axis]
            finest = min(strides, default=1)
            if finest > 1 and axes.extent[place] % finest == 0 and not axes.shift[place]:
                dimensions = tuple(
                    replace(d, pieces=tuple(_divided(p, finest) if p.axis == axis else p for p in d.pieces))
                    for d in axes.dimensions
                )
                extent = list(axes.extent)
                extent[place] //= finest
                axes = replace(axes, dimensions=dimensions, extent=(extent[0], extent[1]))
        return axes

    def resized(self, shape: Sequence[int]) -> Axes | None:
        """The same with the sizes of `shape`; only channels, and whole h and w, may have other ones."""
        if len(shape) != len(self.dimensions):
            return None
        axes: Axes = self
        for index, size in enumerate(shape):
            found = axes._with_size(index, size)
            if found is None:
                return None
            axes = found
        return axes

    def _with_size(self, index: int, size: int) -> Axes | None:
        dimension = self.dimensions[index]
        if dimension.size == size:
            return self
        if dimension.axes <= {C} and size != BATCH and not dimension.before and not dimension.after:
            return self.with_dimension(index, fresh(C, size))
        for place, axis in enumerate((H, W)):
            if dimension.axes == {axis} and self.has_whole(index, axis) and not self.shift[place]:
                extent = (size, self.extent[1]) if axis == H else (self.extent[0], size)
                return replace(self.with_dimension(index, fresh(axis, size)), extent=extent)
        return None

    def viewed(self, shape: Sequence[int]) -> Axes | None:
        """After a reshape; None where it takes apart what cannot be told apart."""
        units = [unit for dimension in self.dimensions for unit in dimension.units]
        dimensions = []
        for size in shape:
            taken = _take(units, size)
            if taken is None:
                return None
            dimensions.append(taken)
        return None if units else replace(self, dimensions=tuple(dimensions))

    @property
    def frame(self) -> tuple[object, ...]:
        """What values must share for their places to be the same."""
        return self.extent, self.shift, self.mirrored

    def flipped(self, indices: Sequence[int]) -> Axes | None:
        """After torch.flip."""
        mirrored = list(self.mirrored)
        for index in (i % len(self.dimensions) for i in indices):
            axes = self.dimensions[index].axes
            if axes <= {C}:
                continue
            axis = next(iter(axes))
            if axis == N or not self.has_whole(index, axis) or self.shift != (0, 0):
                return None
            mirrored[(H, W).index(axis)] ^= True
        return replace(self, mirrored=(mirrored[0], mirrored[1]))

    def rolled(self, shifts: Sequence[int], indices: Sequence[int]) -> Axes | None:
        """After torch.roll."""
        shift = list(self.shift)
        for by, index in zip(shifts, indices, strict=True):
            dimension = self.dimensions[index % len(self.dimensions)]
            if dimension.axes <= {C}:
                continue
            axis = next(iter(dimension.axes))
            if axis == N or any(self.mirrored) or not self.has_whole(index % len(self.dimensions), axis):
                return None
            place = (H, W).index(axis)
            shift[place] = (shift[place] + by * dimension.pieces[-1].stride) % self.extent[place]
        return replace(self, shift=(shift[0], shift[1]))


def _divided(piece: Piece, by: int) -> Piece:
    return Piece(piece.axis, piece.size, piece.stride // by)


def _kind(dimension: Dimension) -> str:
    """N, C, h, w or places; empty where the size is 1, `?` for a mixture."""
    axes = [piece.axis for piece in dimension.pieces]
    if not axes:
        return "" if dimension.size == 1 else "?"
    if len(set(axes)) == 1:
        ordered = axes[0] == C or [p.stride for p in dimension.pieces] == sorted(
            (p.stride for p in dimension.pieces), reverse=True
        )
        only_batch = axes[0] != N or len(axes) == 1
        beside = dimension.before or dimension.after
        # A map of one row or column as tokens: the other axis has a single step.
        return "?" if not (ordered and only_batch) else PLACES if beside and axes[0] in (H, W) else axes[0]
    split = axes.count(H)
    in_order = axes == [H] * split + [W] * (len(axes) - split)
    strides = [piece.stride for piece in dimension.pieces]
    falling = all(part == sorted(part, reverse=True) for part in (strides[:split], strides[split:]))
    return PLACES if in_order and falling else "?"


def _take(units: list[Any], size: int) -> Dimension | None:
    """Take as many units from the front as make up `size` = n or BATCH * n, splitting one where needed."""
    batch, left = (True, -size) if size < 0 else (size == BATCH, size or 1)
    pieces: list[Piece] = []
    while batch or left > 1:
        if not units:
            return None
        unit = units.pop(0)
        if isinstance(unit, Dimension):
            return unit if not pieces and not batch and left == unit.size else None
        if (unit.axis == N) != batch:
            return None  # the batch is always the slowest, or it is not known what it is mixed with
        if batch:
            batch = False
            pieces.append(unit)
        elif left % unit.size == 0:
            left //= unit.size
            pieces.append(unit)
        elif unit.size % left == 0:
            inner = unit.size // left
            pieces.append(Piece(unit.axis, left, 1 if unit.axis == C else unit.stride * inner))
            units.insert(0, Piece(unit.axis, inner, unit.stride))
            left = 1
        else:
            return None
    return of(pieces)


def broadcast(all_axes: Sequence[Axes], shape: Sequence[int]) -> Axes | None:
    """What values of these axes are together, broadcast to `shape`; None where they contradict each other.

    What is broadcast along a dimension that none of them has is taken for channels.
    """
    dimensions = []
    for index, size in enumerate(shape):
        places = [index - len(shape) + len(axes.dimensions) for axes in all_axes]
        found = {axes.dimensions[i] for axes, i in zip(all_axes, places, strict=True) if i >= 0} - {ONE}
        if len(found) > 1:
            return None
        dimensions.append(found.pop() if found else fresh(C, size))
    if len({axes.frame for axes in all_axes}) > 1:
        return None
    return replace(all_axes[0], dimensions=tuple(dimensions))
