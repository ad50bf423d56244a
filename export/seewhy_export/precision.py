"""Run a network in float64 whose code says float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """In float64, what is made in float32, cast to it or stored outside of parameters and buffers is float64 too.

    Norms that say `x.float()`, states that start as `torch.zeros(...)` and constants of a module that are no buffers
    would else round, or fail beside float64. In other dtypes this changes nothing.
    """
    if dtype != torch.float64:
        yield
        return
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(default)


class _Widen(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What writes in place must be given the very tensor that it writes to.
        tensors = not func._schema.is_mutable

        def widened(value: Any) -> Any:
            if value is torch.float32:
                return torch.float64
            single = tensors and isinstance(value, Tensor) and value.dtype == torch.float32
            return value.double() if single else value

        args, kwargs = pytree.tree_map(widened, (args, kwargs or {}))
        return func(*args, **kwargs)
