"""Dispatch modes for running a network as the reference.

One computes in float64 even where the network's code says float32. The other works around a fault of PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seewhy_export._shared.torch_internals import TorchDispatchMode, pytree, schema_of


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """Run a block in which a network computes in `dtype`, and in which batch norm's gradient is right.

    In float64, tensors are float64 too if the network's code creates them in float32, casts them to float32, or keeps
    them outside of parameters and buffers. Otherwise norms that call `x.float()`, states that start as
    `torch.zeros(...)` and constants that are not buffers would round, or fail next to float64 tensors.

    Args:
        dtype: dtype of the network's weights and images.
    """
    with _ContiguousBatchNormGradient():  # type: ignore[no-untyped-call]
        if dtype != torch.float64:
            yield
            return
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with _Float64InsteadOfFloat32():  # type: ignore[no-untyped-call]
                yield
        finally:
            torch.set_default_dtype(default)


class _ContiguousBatchNormGradient(TorchDispatchMode):
    """Mode that gives batch norm's backward pass contiguous tensors.

    On the CPU and with a single image, PyTorch 2.13 mistakes a gradient with strides such as (16, 1, 64, 16), which
    attention produces, for a channels-last one. It then reads the gradient in another order than it writes the result,
    and returns numbers at wrong positions.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_batch_norm_backward.default:
            args = (args[0].contiguous(), args[1].contiguous(), *args[2:])
        return func(*args, **(kwargs or {}))


class _Float64InsteadOfFloat32(TorchDispatchMode):
    """Mode that replaces float32 by float64 in the arguments of every operator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # An in-place operator must get the tensor itself that it writes to.
        may_copy = not schema_of(func).is_mutable

        def widened(value: Any) -> Any:
            if value is torch.float32:
                return torch.float64
            is_float32 = may_copy and isinstance(value, Tensor) and value.dtype == torch.float32
            return value.double() if is_float32 else value

        args, kwargs = pytree.tree_map(widened, (args, kwargs or {}))
        return func(*args, **kwargs)
