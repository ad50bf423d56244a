"""The two kinds of value in an ONNX graph that is run by PyTorch, and what an operator sees of its node.

What depends on the images is a tensor. What is known without them (shapes, axes, sizes, scalars) is a NumPy array: of
Python objects where a size may be symbolic, as the batch is while PyTorch traces. Arithmetic on shapes then stays
exact, and no operator has to read numbers out of a tensor, which a trace cannot.
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

Known: TypeAlias = NDArray[Any]
Value: TypeAlias = Tensor | Known
Size: TypeAlias = Any
"""An int, or a torch.SymInt while PyTorch traces."""

LARGEST = 2**28
"""Elements of one value for the file's own batch; a file of a few bytes can ask for any number of them."""

MOST_STEPS = 2**26
"""Elements that one run computes one by one, in one or two minutes; shapes and tables of indices need thousands."""
_SYMBOLIC_STEPS = 2**10
"""Steps counted for an element that may hold a symbolic size."""

_MOST_DIMENSIONS = 64
"""Dimensions of one value, as in NumPy."""


@dataclass
class Run:
    """What all nodes of one run share."""

    dtype: torch.dtype = torch.float32
    """That of the images; floating point in the file means this one."""
    batch: int = 1
    """How many images the file was written for."""
    steps: int = 0
    """Number of elements of known values that this run has computed one by one."""

    def count(self, shape: tuple[int, ...], symbolic: bool) -> None:
        """Count the elements of a known value that is about to be computed.

        Raises:
            Unsupported: This run has computed too many.
        """
        self.steps += math.prod(shape) * (_SYMBOLIC_STEPS if symbolic else 1)
        if self.steps > MOST_STEPS:
            raise Unsupported(f"more than {MOST_STEPS} elements of values that are known without the images")


@dataclass
class At:
    """One node: what its operator needs beside the inputs."""

    operation: str
    opset: int
    attributes: dict[str, Any]
    outputs: int
    """How many of its outputs are used, up to the last one that is."""
    run: Run
    file_inputs: list[tuple[int, ...] | None] = field(default_factory=list)
    """Shapes of the inputs for the batch that the file was written for, once it has been run so."""
    file_output: tuple[int, ...] | None = None
    file_target: list[Any] | None = None
    """What a Reshape or Expand was asked for in that run."""
    outer: int = 1
    """What the dimension with the batch in it has in front of the batch: 197 where (197, N, C) became (197 N, C)."""

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


Operator: TypeAlias = Callable[..., Any]
"""(at, *inputs) -> a value, or a tuple of them. An input that the node leaves out is None."""


class Unsupported(Exception):
    """A form of an operator that cannot be converted; the message says which."""


class NeedsTensor(Unsupported):
    """What is known of a value is symbolic, so only a tensor operator can use it."""


def is_known(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def known(values: Any) -> Known:
    """An array of Python objects, for sizes that may be symbolic."""
    if not isinstance(values, (list, tuple)):
        return np.array(values, dtype=object)
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def sizes(value: Value | None, what: str) -> list[Size]:
    """The integers in a known value.

    Raises:
        Unsupported: it depends on the images.
    """
    if not isinstance(value, np.ndarray):
        raise Unsupported(f"its {what} depends on the pixels of the images")
    return [size if isinstance(size, torch.SymInt) else int(size) for size in value.reshape(-1)]


def static(value: Value | None, what: str) -> list[int]:
    """The same where no number of images may stand in it."""
    found = sizes(value, what)
    if any(isinstance(size, torch.SymInt) for size in found):
        raise NeedsTensor(f"its {what} depends on the number of images")
    return found


def tensor(value: Value, at: At) -> Tensor:
    """Any value as a tensor; a known floating point one in the run's dtype."""
    if isinstance(value, Tensor):
        return value
    if value.dtype == object:
        if value.ndim == 0 and isinstance(value.item(), torch.SymInt):
            return torch.scalar_tensor(value.item(), dtype=torch.int64)
        value = value.astype(np.float64 if any(isinstance(v, float) for v in value.reshape(-1)) else np.int64)
    dtype = at.run.dtype if value.dtype.kind == "f" else torch.from_numpy(np.empty(0, value.dtype)).dtype
    if value.size and (value == value.flat[0]).all():
        # As a number, which a trace shows: a maximum with zero is a rectifier.
        return torch.full(value.shape, value.flat[0].item(), dtype=dtype)
    return torch.tensor(value.tolist(), dtype=dtype).reshape(value.shape)


def operand(value: Value, other: Tensor, at: At) -> Any:
    """A value for arithmetic with `other`: a Python number where it is just one, and broadcasts the same."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= other.dim():
        return value.item()
    return tensor(value, at)


def axes_of(rank: int, axes: Sequence[int]) -> list[int]:
    """Axes counted from the front, checked."""
    if rank > _MOST_DIMENSIONS:
        raise Unsupported(f"a value with {rank} dimensions")
    for axis in axes:
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} of a value with {rank} dimensions")
    return [axis % rank for axis in axes]
