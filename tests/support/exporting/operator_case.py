"""Cases of the operator tests: nodes between images and output, and the opsets to test them with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto

from support.exporting.onnx_models import Array, node

OPSETS = (11, 13, 17, 18, 21)


@dataclass(frozen=True)
class Case:
    """A test case: nodes that compute `y` from `x` of shape (N, 6, 8, 8)."""

    name: str
    nodes: list[NodeProto]
    constants: dict[str, Array] = field(default_factory=dict)
    opsets: tuple[int, ...] = (17,)
    positive: bool = False
    fixed: bool = True
    """True if a file with a fixed batch size of 1 can be converted to any batch size."""
    free: bool = True
    """True if the nodes can be written for any batch size."""


def one(
    operator: str, *constants: Array | None, opsets: tuple[int, ...] = (17,), name: str = "", **options: Any
) -> Case:
    """Return a case of one node whose first input is the images."""
    of_case = {name: options.pop(name) for name in ("positive", "fixed", "free") if name in options}
    names = [f"c{i}" if constant is not None else "" for i, constant in enumerate(constants)]
    given = {key: constant for key, constant in zip(names, constants, strict=True) if constant is not None}
    nodes = [node(operator, ["x", *names], ["y"], **options)]
    return Case(name or operator + str(options or ""), nodes, given, opsets, **of_case)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def pair(operator: str, *rest: NodeProto, constants: dict[str, Array] | None = None, **options: Any) -> Case:
    return Case(options.pop("name", operator), list(rest), constants or {}, **options)
