"""Values of an ONNX graph that PyTorch runs, and the information about a node that its operator needs.

A value that depends on the images is a tensor. A known value does not depend on them (shapes, axes, sizes, scalars) and
is a NumPy array. Its elements are Python objects if a size may be symbolic, as the batch size is while PyTorch traces.
Arithmetic on shapes is therefore exact, and no operator reads numbers out of a tensor, which a trace does not allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KnownValue: TypeAlias = NDArray[Any]
Value: TypeAlias = Tensor | KnownValue
Size: TypeAlias = Any
"""An int, or a torch.SymInt while PyTorch traces."""

MAX_ELEMENTS = 2**28
"""Maximum number of elements of one value for the file's own batch size.

Without a limit, a file of a few bytes could request any amount of memory.
"""

MAX_COMPUTED_ELEMENTS = 2**26
"""Maximum number of elements that one forward pass computes one by one, in one or two minutes.

Shapes and tables of indices need thousands.
"""
_SYMBOLIC_COST = 2**10
"""Number of elements that one element counts as if it may be a symbolic size."""

_MOST_DIMENSIONS = 64
"""Maximum number of dimensions of one value, as in NumPy."""


@dataclass
class ForwardState:
    """State that all nodes share during one forward pass."""

    dtype: torch.dtype = torch.float32
    """Dtype of the images. Every floating-point type in the file becomes this one."""
    batch: int = 1
    """Batch size that the file was written for."""
    computed_elements: int = 0
    """Number of elements of known values that this pass has computed one by one."""

    def count_elements(self, shape: tuple[int, ...], symbolic: bool) -> None:
        """Count the elements of a known value that is about to be computed.

        Args:
            shape: Shape of the value.
            symbolic: True if the elements may be symbolic sizes, which count more.

        Raises:
            Unsupported: If this pass has computed too many elements.
        """
        self.computed_elements += math.prod(shape) * (_SYMBOLIC_COST if symbolic else 1)
        if self.computed_elements > MAX_COMPUTED_ELEMENTS:
            raise Unsupported(f"more than {MAX_COMPUTED_ELEMENTS} elements of values that do not depend on the images")


@dataclass
class NodeInfo:
    """Information about a node that its operator needs besides the inputs."""

    operation: str
    opset: int
    attributes: dict[str, Any]
    outputs: int
    """Number of outputs up to the last one that is used."""
    state: ForwardState
    file_input_shapes: list[tuple[int, ...] | None] = field(default_factory=list)
    """Shapes of the inputs for the file's own batch size. Empty until the graph has run with it."""
    file_output_shape: tuple[int, ...] | None = None
    """Shape of the first output for the file's own batch size."""
    file_target_shape: list[Any] | None = None
    """Target shape of a Reshape or Expand for the file's own batch size."""
    outer_factor: int = 1
    """Factor in front of the batch size in the dimension that holds it: 197 if (197, N, C) became (197 N, C)."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the node, or `default` if the node does not have it."""
        return self.attributes.get(name, default)


Operator: TypeAlias = Callable[..., Any]
"""(node, *inputs) -> one value or a tuple of values. An input that the node leaves out is None."""


class Unsupported(Exception):
    """An operator is used in a form that cannot be converted. The message names the form."""


class NeedsTensor(Unsupported):
    """A known value is symbolic, so only a tensor operator can use it."""


def is_known(value: Any) -> bool:
    """Return True if a value does not depend on the images."""
    return isinstance(value, np.ndarray)


def object_array(values: Any) -> KnownValue:
    """Return an array of Python objects, for sizes that may be symbolic."""
    if not isinstance(values, (list, tuple)):
        return np.array(values, dtype=object)
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def known_sizes(value: Value | None, what: str) -> list[Size]:
    """Read the integers in a known value.

    Args:
        value: The value.
        what: Meaning of the value, for the error message.

    Returns:
        The integers as a flat list. An element may be symbolic.

    Raises:
        Unsupported: If the value depends on the images.
    """
    if not isinstance(value, np.ndarray):
        raise Unsupported(f"its {what} depends on the pixels of the images")
    return [size if isinstance(size, torch.SymInt) else int(size) for size in value.reshape(-1)]


def static_sizes(value: Value | None, what: str) -> list[int]:
    """Read the integers in a known value that must not contain the batch size.

    Args:
        value: The value.
        what: Meaning of the value, for the error message.

    Returns:
        The integers as a flat list.

    Raises:
        Unsupported: If the value depends on the images.
        NeedsTensor: If it depends on the batch size.
    """
    found = known_sizes(value, what)
    if any(isinstance(size, torch.SymInt) for size in found):
        raise NeedsTensor(f"its {what} depends on the number of images")
    return found


def as_tensor(value: Value, node: NodeInfo) -> Tensor:
    """Return any value as a tensor. Known floating-point values get the dtype of the images."""
    if isinstance(value, Tensor):
        return value
    if value.dtype == object:
        if value.ndim == 0 and isinstance(value.item(), torch.SymInt):
            return torch.scalar_tensor(value.item(), dtype=torch.int64)
        value = value.astype(np.float64 if any(isinstance(v, float) for v in value.reshape(-1)) else np.int64)
    dtype = node.state.dtype if value.dtype.kind == "f" else torch.from_numpy(np.empty(0, value.dtype)).dtype
    if value.size and (value == value.flat[0]).all():
        # Create it from one number, which stays visible in a trace: a maximum with zero is a rectifier.
        return torch.full(value.shape, value.flat[0].item(), dtype=dtype)
    return torch.tensor(value.tolist(), dtype=dtype).reshape(value.shape)


def as_operand(value: Value, other: Tensor, node: NodeInfo) -> Any:
    """Return a value for arithmetic with `other`: as a Python number if it is one number that broadcasts alike."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= other.dim():
        return value.item()
    return as_tensor(value, node)


def normalized_axes(rank: int, axes: Sequence[int]) -> list[int]:
    """Replace negative axes.

    Args:
        rank: Number of dimensions.
        axes: Axes from -rank to rank - 1.

    Returns:
        The axes, from 0 to rank - 1.

    Raises:
        Unsupported: If an axis is out of range, or there are too many dimensions.
    """
    if rank > _MOST_DIMENSIONS:
        raise Unsupported(f"a value with {rank} dimensions")
    for axis in axes:
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} of a value with {rank} dimensions")
    return [axis % rank for axis in axes]
