"""Run a network as the reference: in float64 even where its code says float32, and past a fault of PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seewhy_export._shared.torch_internals import TorchDispatchMode, pytree, schema_of


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """In float64, what is made in float32, cast to it or stored outside of parameters and buffers is float64 too.

    Norms that say `x.float()`, states that start as `torch.zeros(...)` and constants of a module that are no buffers
    would else round, or fail beside float64. In any dtype, batch norm's gradient is the right one.
    """
    with _Mend():  # type: ignore[no-untyped-call]
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


class _Mend(TorchDispatchMode):
    """Gives batch norm's backward pass a gradient in plain memory order.

    On CPU and a single image, PyTorch 2.13 takes one with strides like (16, 1, 64, 16), as behind attention, for
    channels-last, reads it in another order than it writes the result, and so returns numbers in wrong places.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_batch_norm_backward.default:
            args = (args[0].contiguous(), args[1].contiguous(), *args[2:])
        return func(*args, **(kwargs or {}))


class _Widen(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What writes in place must be given the very tensor that it writes to.
        tensors = not schema_of(func).is_mutable

        def widened(value: Any) -> Any:
            if value is torch.float32:
                return torch.float64
            single = tensors and isinstance(value, Tensor) and value.dtype == torch.float32
            return value.double() if single else value

        args, kwargs = pytree.tree_map(widened, (args, kwargs or {}))
        return func(*args, **kwargs)
