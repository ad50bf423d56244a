"""Preparation of a user's module for export: a copy in evaluation mode, unwrapped, in float32."""

from __future__ import annotations

import copy
import io

import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line, quiet
from seewhy_export._shared.torch_internals import convert_torchscript, forget_compiled_call, unwrap_module


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
