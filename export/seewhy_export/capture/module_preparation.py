"""Preparation of a user's module for export: a copy in evaluation mode that returns one tensor of logits."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.messages import one_line, quiet
from seewhy_export._shared.torch_internals import convert_torchscript, forget_compiled_call, unwrap_module

LOGITS_KEY = "logits"
"""Key or attribute that holds the logits if outputs have names, as in Hugging Face's models."""


def prepare(module: nn.Module) -> nn.Module:
    """Copy a module in evaluation mode and float32, on the CPU, without gradients.

    Modules that torch.compile or data parallelism wraps are unwrapped: they compute the same, and can be traced.

    Args:
        module: User's module, which is not changed.

    Returns:
        The copy.

    Raises:
        ExportError: If the module cannot be copied.
    """
    try:
        prepared = _copy(unwrap_module(module))
    except Exception as error:
        raise ExportError(f"{type(module).__name__} cannot be copied: {one_line(error)}") from error
    for submodule in prepared.modules():
        for name, child in list(submodule.named_children()):
            if unwrap_module(child) is not child:
                setattr(submodule, name, unwrap_module(child))
        if not isinstance(submodule, torch.jit.ScriptModule):
            forget_compiled_call(submodule)
    prepared = prepared.eval().float().cpu()
    for parameter in prepared.parameters():  # TorchScript modules have no requires_grad_().
        parameter.requires_grad_(False)
    return prepared


def _copy(module: nn.Module) -> nn.Module:
    """Return a copy that shares no weights with the module."""
    if not isinstance(module, torch.jit.ScriptModule):
        return copy.deepcopy(module)
    # deepcopy shares the weights of modules that torch.jit.trace made.
    stored = io.BytesIO()
    torch.jit.save(module, stored)
    stored.seek(0)
    loaded: nn.Module = torch.jit.load(stored, map_location="cpu")
    return loaded


def traceable(module: nn.Module, example: Tensor) -> nn.Module:
    """Return a module that torch.export can trace.

    Args:
        module: Prepared module.
        example: Images of shape (N, C, H, W).

    Returns:
        The module itself, or the result of PyTorch's converter if it is a scripted or traced module.

    Raises:
        ExportError: If PyTorch cannot convert a TorchScript module.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    try:
        with quiet():
            converted = convert_torchscript(module, example)
    except Exception as error:
        raise ExportError(
            f"PyTorch cannot convert this TorchScript module: {one_line(error)}; export the nn.Module that it was made "
            f"from instead"
        ) from error
    return converted.requires_grad_(False)


def find_output(module: nn.Module, example: Tensor, output: str | int | None) -> str | None:
    """Find the logits among the tensors that a prepared module returns.

    Args:
        module: Module that `prepare` returned; it is run once.
        example: Images of shape (N, C, H, W).
        output: Which of several outputs holds the logits: an index, or a key, attribute or path of these ("head.0").
            None chooses the only tensor, or the one called `logits`.

    Returns:
        The path of the chosen output, or None if the module returns a single tensor.

    Raises:
        ExportError: If the module fails on the example, has no such output, or has several and none was chosen.
    """
    try:
        with torch.no_grad(), quiet(), _buffers_restored(module):
            returned = module(example)
    except Exception as error:
        size = ", ".join(str(size) for size in example.shape[1:])
        raise ExportError(
            f"{type(module).__name__} fails on float32 images of shape (N, {size}): {one_line(error)}; check the image "
            f"size, the channels and dtypes fixed in its code"
        ) from error
    if isinstance(returned, Tensor):
        if output is not None:
            raise ExportArgumentError(f"output {output!r}: the network returns a single tensor; leave `head` out")
        return None
    return _choose(dict(_tensors(returned)), output)


def returning(module: nn.Module, path: str | None) -> nn.Module:
    """Make a module return only one of its tensors.

    Args:
        module: Prepared or traceable module. A plain module is changed, by a hook.
        path: Path that `find_output` returned; None changes nothing.

    Returns:
        The module, or a wrapper around it.
    """
    if path is None:
        return module
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):  # Hooks are refused, or not traced.
        return _SingleOutput(module, path)
    module.register_forward_hook(lambda _module, _inputs, value: dict(_tensors(value))[path])
    return module


class _SingleOutput(nn.Module):
    """Wrapper that returns one of the tensors that a module returns."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__()
        self.module, self.path = module, path

    def forward(self, images: Tensor) -> Tensor:
        return dict(_tensors(self.module(images)))[self.path]


@contextlib.contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Restore the module's buffers after a forward pass that may change them."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested tuples, dicts and dataclasses, with its path."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, member in _items(value):
        yield from _tensors(member, f"{path}.{key}" if path else str(key))


def _items(value: Any) -> list[tuple[Any, Any]]:
    """Return the keys and values of a container; nothing for other objects."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []


def _choose(found: dict[str, Tensor], output: str | int | None) -> str:
    """Return the path of the tensor that `output` selects."""
    paths = list(found)
    if output is None:
        named = [path for path in paths if path == LOGITS_KEY or path.endswith("." + LOGITS_KEY)]
        chosen = named if len(named) == 1 else paths
    elif isinstance(output, int) and not isinstance(output, bool) and str(output) not in found:
        chosen = paths[output : output + 1] if output >= 0 else []
    else:
        chosen = [path for path in paths if path == str(output)]
    if len(chosen) == 1:
        return chosen[0]
    if not paths:
        raise ExportError("the network returns no tensor; it must return logits (N, classes)")
    listed = ", ".join(
        f"{path} ({', '.join(['N', *(str(size) for size in value.shape[1:])])})" for path, value in found.items()
    )
    if output is None:
        raise ExportError(f"the network returns several tensors: {listed}; choose the logits with `head`")
    raise ExportArgumentError(f"no output {output!r}.{did_you_mean(str(output), paths)} The network returns {listed}")
