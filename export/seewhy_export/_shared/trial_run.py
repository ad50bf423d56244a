"""Forward pass of a module that leaves the module unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seewhy_export._shared.messages import quiet


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore its mode and its buffers afterwards; PyTorch prints nothing."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        with quiet():
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def trial_run(module: nn.Module, channels: int, image_size: tuple[int, int], count: int = 2) -> Any:
    """Run a module once in evaluation mode on a batch of black images.

    Args:
        module: Module that takes images (N, C, H, W). Its mode, buffers and gradients stay as they are.
        channels: Number of image channels.
        image_size: (H, W) of the images in pixels.
        count: Number of images in the batch.

    Returns:
        What the module returns.

    Raises:
        Exception: If the module fails: its own exception.
    """
    first = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), torch.empty(0))
    images = torch.zeros(count, channels, *image_size, dtype=first.dtype, device=first.device)
    with torch.no_grad(), evaluating(module):
        return module(images)
