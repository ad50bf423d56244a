"""Reference implementation of gradients and activations, by module hooks and PyTorch autograd, in any dtype.

Like Captum and pytorch-grad-cam, it finds only rectifiers that are modules, not calls of functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def gradient(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return d logit[target] / d images."""
    images = images.clone().requires_grad_(True)
    score = module(images).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(score, images)[0]


def guided_gradient(
    module: nn.Module, images: Tensor, targets: Tensor, guided: Callable[[str, nn.Module], bool]
) -> Tensor:
    """Return the gradient, with negative gradients set to zero at each module that `guided` accepts."""
    handles = []

    def keep_positive(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(lambda g: g.clamp(min=0))

    for name, part in module.named_modules():
        if guided(name, part):
            handles.append(part.register_forward_hook(keep_positive))
    try:
        return gradient(module, images, targets)
    finally:
        for handle in handles:
            handle.remove()


def activations_and_gradients(
    module: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the layer's last output A, and d logit[target] / d A."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        score = module(images.clone().requires_grad_(True)).gather(1, targets[:, None]).sum()
        return kept[-1].detach(), torch.autograd.grad(score, kept[-1])[0]
    finally:
        handle.remove()
