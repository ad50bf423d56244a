"""Composition of a tensor's dimensions from the axes of a map, and how reshaping and slicing change it.

A dimension is a product of factors of the batch, h, w and channels. Splitting h into windows splits it into two
factors. Patch merging moves the finer factors of h and w to the channels. The bookkeeping is exact: in whatever order a
network arranges its values, the position of each element is either known or known to be lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from seewhy_export.target_layer.tensor_layout import POSITIONS, C, H, Layout, N, W

BATCH = 0
"""Size that stands for the number of images; -n stands for n times that number."""


@dataclass(frozen=True)
class AxisFactor:
    """Factor of one axis: `size` steps of `stride` each."""

    axis: str
    size: int
    stride: int = 1


@dataclass(frozen=True)
class Dimension:
    """One dimension of a tensor, as a product of axis factors."""

    factors: tuple[AxisFactor, ...] = ()
    """Factors, the slowest first; none if the size is 1."""
    before: int = 0
    """Number of leading entries that belong to no position, such as a class token."""
    after: int = 0
    """Number of such entries at the end."""

    @property
    def size(self) -> int:
        """Number of entries; BATCH or a negative number if the batch is a factor."""
        steps = math.prod(factor.size for factor in self.factors if factor.axis != N)
        if N in self.axes:
            return BATCH if steps == 1 else -steps
        return self.before + steps + self.after

    @property
    def axes(self) -> set[str]:
        """Axes that have a factor here."""
        return {factor.axis for factor in self.factors}

    @property
    def is_spatial(self) -> bool:
        """True if h or w has a factor here."""
        return bool(self.axes & {H, W})

    @property
    def units(self) -> list[Any]:
        """Units that a reshape may separate: factors, or the whole dimension if it has other entries."""
        return [self] if self.before or self.after else list(self.factors)


ONE = Dimension()
"""Dimension of size 1."""


def merge_factors(factors: Sequence[AxisFactor]) -> Dimension:
    """Build a dimension from factors, merging neighbours that are contiguous on one axis.

    Channels always merge, since their order is free.

    Args:
        factors: Factors, the slowest first.

    Returns:
        The dimension.
    """
    joined: list[AxisFactor] = []
    for factor in factors:
        last = joined[-1] if joined else None
        if last is not None and last.axis == factor.axis == C:
            joined[-1] = AxisFactor(C, last.size * factor.size)
        elif last is not None and last.axis == factor.axis and last.stride == factor.size * factor.stride:
            joined[-1] = AxisFactor(factor.axis, last.size * factor.size, factor.stride)
        else:
            joined.append(factor)
    return Dimension(tuple(joined))


def whole_axis(axis: str, size: int) -> Dimension:
    """Build a dimension that is one whole axis of the given size; without factors if the size is 1."""
    return Dimension((AxisFactor(axis, size),) if size != 1 else ())


@dataclass(frozen=True)
class Axes:
    """Dimensions of one tensor."""

    dimensions: tuple[Dimension, ...]
    extent: tuple[int, int]
    """Extent (h, w) in the unit of the factors' strides."""
    shift: tuple[int, int] = (0, 0)
    """Distances by which h and w are rolled."""
    mirrored: tuple[bool, bool] = (False, False)
    """True if h and w are flipped."""

    def layout(self) -> Layout | None:
        """Return the layout, or None if the tensor holds no whole map that can be converted to (N, C, h, w)."""
        kinds = [_kind(dimension) for dimension in self.dimensions]
        if len(kinds) == 4 and all(kind in ("", usual) for kind, usual in zip(kinds, (N, C, H, W), strict=True)):
            kinds = [N, C, H, W]
        if C not in kinds and kinds.count("") == 1:
            kinds[kinds.index("")] = C
        size = self._size()
        if size is None or self.shift != (0, 0):
            return None
        # A map of one row has no factor of h, so a dimension of size 1 without a kind takes its place.
        for axis, steps in zip((H, W), size, strict=True):
            if steps == 1 and axis not in kinds and POSITIONS not in kinds and "" in kinds:
                kinds[kinds.index("")] = axis
        if len(kinds) == 3 and 1 in size and C in kinds:
            kinds = [POSITIONS if kind in (H, W) else kind for kind in kinds]
        if sorted(kinds) not in (sorted((N, C, H, W)), sorted((N, POSITIONS, C))):
            return None
        with_extra = [dimension for dimension in self.dimensions if dimension.before or dimension.after]
        if any(not dimension.is_spatial for dimension in with_extra):
            return None
        before, after = (with_extra[0].before, with_extra[0].after) if with_extra else (0, 0)
        return Layout(tuple(kinds), size, before, after, self.mirrored)

    def _size(self) -> tuple[int, int] | None:
        """Return (h, w) of the map if it has every step of both exactly once, else None."""
        sizes = []
        for axis, extent in zip((H, W), self.extent, strict=True):
            factors = [factor for d in self.dimensions for factor in d.factors if factor.axis == axis]
            factors.sort(key=lambda factor: -factor.stride)
            ends = [factor.size * factor.stride for factor in factors]
            # Factors run from coarse to fine without a gap. The finest may be missing, as after patch merging.
            if factors and ends != [extent, *(factor.stride for factor in factors[:-1])]:
                return None
            if not factors and extent != 1:
                return None
            sizes.append(math.prod(factor.size for factor in factors))
        return sizes[0], sizes[1]

    def has_whole(self, index: int, axis: str) -> bool:
        """Tell whether a dimension is one whole axis in order, and nothing else."""
        dimension = self.dimensions[index]
        extent = self.extent[(H, W).index(axis)]
        alone = not (dimension.before or dimension.after) and dimension.axes <= {axis}
        others = [factor for d in self.dimensions if d is not dimension for factor in d.factors if factor.axis == axis]
        ends = [factor.size * factor.stride for factor in dimension.factors]
        return alone and not others and ends in ([], [extent, *(p.stride for p in dimension.factors[:-1])])

    def with_dimension(self, index: int, dimension: Dimension) -> Axes:
        """Return the axes with one dimension replaced."""
        dimensions = list(self.dimensions)
        dimensions[index] = dimension
        return replace(self, dimensions=tuple(dimensions))

    def permuted(self, order: Sequence[int]) -> Axes:
        """Return the axes after a permutation of the dimensions."""
        return replace(self, dimensions=tuple(self.dimensions[index] for index in order))

    def without(self, indices: Sequence[int], keep: bool) -> Axes:
        """Return the axes after a reduction or selection along some dimensions; `keep` leaves dimensions of size 1."""
        left = [ONE if i in indices else d for i, d in enumerate(self.dimensions) if keep or i not in indices]
        return replace(self, dimensions=tuple(left)).normalised()

    def contracted(self, index: int, size: int) -> Axes | None:
        """Return the axes after a matrix product turns a dimension into channels; None if h, w or the batch is lost."""
        result = self.with_dimension(index, whole_axis(C, size))
        lost = self.dimensions[index].axes - {C} - {axis for d in result.dimensions for axis in d.axes}
        return None if lost or self.dimensions[index].before or self.dimensions[index].after else result.normalised()

    def normalised(self) -> Axes:
        """Return the axes with strides in units of the finest remaining factor, as is needed after patch merging."""
        axes = self
        for side, axis in enumerate((H, W)):
            strides = [factor.stride for d in axes.dimensions for factor in d.factors if factor.axis == axis]
            finest = min(strides, default=1)
            if finest > 1 and axes.extent[side] % finest == 0 and not axes.shift[side]:
                dimensions = tuple(
                    replace(d, factors=tuple(_divided(p, finest) if p.axis == axis else p for p in d.factors))
                    for d in axes.dimensions
                )
                extent = list(axes.extent)
                extent[side] //= finest
                axes = replace(axes, dimensions=dimensions, extent=(extent[0], extent[1]))
        return axes

    def resized(self, shape: Sequence[int]) -> Axes | None:
        """Return the axes with the sizes of `shape`, or None; only channels and whole h and w may change their size."""
        if len(shape) != len(self.dimensions):
            return None
        axes: Axes = self
        for index, size in enumerate(shape):
            changed = axes._with_size(index, size)
            if changed is None:
                return None
            axes = changed
        return axes

    def _with_size(self, index: int, size: int) -> Axes | None:
        """Return the axes with another size of one dimension, or None."""
        dimension = self.dimensions[index]
        if dimension.size == size:
            return self
        if dimension.axes <= {C} and size != BATCH and not dimension.before and not dimension.after:
            return self.with_dimension(index, whole_axis(C, size))
        for side, axis in enumerate((H, W)):
            if dimension.axes == {axis} and self.has_whole(index, axis) and not self.shift[side]:
                extent = (size, self.extent[1]) if axis == H else (self.extent[0], size)
                return replace(self.with_dimension(index, whole_axis(axis, size)), extent=extent)
        return None

    def viewed(self, shape: Sequence[int]) -> Axes | None:
        """Return the axes after a reshape; None if it splits what must stay together."""
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
        """Extent, shift and mirroring, which tensors must share for their positions to match."""
        return self.extent, self.shift, self.mirrored

    def flipped(self, indices: Sequence[int]) -> Axes | None:
        """Return the axes after torch.flip, or None."""
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
        """Return the axes after torch.roll, or None."""
        shift = list(self.shift)
        for by, index in zip(shifts, indices, strict=True):
            dimension = self.dimensions[index % len(self.dimensions)]
            if dimension.axes <= {C}:
                continue
            axis = next(iter(dimension.axes))
            if axis == N or any(self.mirrored) or not self.has_whole(index % len(self.dimensions), axis):
                return None
            side = (H, W).index(axis)
            shift[side] = (shift[side] + by * dimension.factors[-1].stride) % self.extent[side]
        return replace(self, shift=(shift[0], shift[1]))


def _divided(factor: AxisFactor, by: int) -> AxisFactor:
    """Return a factor with its stride divided."""
    return AxisFactor(factor.axis, factor.size, factor.stride // by)


def _kind(dimension: Dimension) -> str:
    """Return N, C, h, w or positions; an empty string if the size is 1, `?` for a mixture."""
    axes = [factor.axis for factor in dimension.factors]
    if not axes:
        return "" if dimension.size == 1 else "?"
    if len(set(axes)) == 1:
        ordered = axes[0] == C or [p.stride for p in dimension.factors] == sorted(
            (p.stride for p in dimension.factors), reverse=True
        )
        only_batch = axes[0] != N or len(axes) == 1
        has_extra = dimension.before or dimension.after
        # A map of one row or column may be tokens: the other axis has a single step.
        return "?" if not (ordered and only_batch) else POSITIONS if has_extra and axes[0] in (H, W) else axes[0]
    split = axes.count(H)
    in_order = axes == [H] * split + [W] * (len(axes) - split)
    strides = [factor.stride for factor in dimension.factors]
    descending = all(half == sorted(half, reverse=True) for half in (strides[:split], strides[split:]))
    return POSITIONS if in_order and descending else "?"


def _take(units: list[Any], size: int) -> Dimension | None:
    """Remove leading units with product `size` (n, or the batch times n), splitting one if needed, or return None."""
    batch, left = (True, -size) if size < 0 else (size == BATCH, size or 1)
    factors: list[AxisFactor] = []
    while batch or left > 1:
        if not units:
            return None
        unit = units.pop(0)
        if isinstance(unit, Dimension):
            return unit if not factors and not batch and left == unit.size else None
        if (unit.axis == N) != batch:
            return None  # The batch must be the slowest factor; mixed with others it is unknown.
        if batch:
            batch = False
            factors.append(unit)
        elif left % unit.size == 0:
            left //= unit.size
            factors.append(unit)
        elif unit.size % left == 0:
            inner = unit.size // left
            factors.append(AxisFactor(unit.axis, left, 1 if unit.axis == C else unit.stride * inner))
            units.insert(0, AxisFactor(unit.axis, inner, unit.stride))
            left = 1
        else:
            return None
    return merge_factors(factors)


def broadcast(all_axes: Sequence[Axes], shape: Sequence[int]) -> Axes | None:
    """Return the axes of several tensors broadcast together, or None if they contradict each other.

    A dimension that none of them has counts as channels.

    Args:
        all_axes: Axes of the tensors.
        shape: Shape of the result; BATCH stands for the number of images.

    Returns:
        Axes of the result, or None.
    """
    dimensions = []
    for index, size in enumerate(shape):
        indices = [index - len(shape) + len(axes.dimensions) for axes in all_axes]
        found = {axes.dimensions[i] for axes, i in zip(all_axes, indices, strict=True) if i >= 0} - {ONE}
        if len(found) > 1:
            return None
        dimensions.append(found.pop() if found else whole_axis(C, size))
    if len({axes.frame for axes in all_axes}) > 1:
        return None
    return replace(all_axes[0], dimensions=tuple(dimensions))
