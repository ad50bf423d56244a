"""PyTorch without libraries: eager, torch.compile, and both methods written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze, guide, halves, heatmaps
from torch_models import formats


def forward(task: Task) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return module(x).numpy()

        return run

    return formats(task, make)


def forward_compiled(task: Task) -> Job:
    """Compile the network with frozen weights, as PyTorch's guide for inductor on CPUs recommends."""

    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        module = _compiled(module)

        def run() -> Any:
            with torch.no_grad():
                return module(x).numpy()

        return run

    return formats(task, make, "inductor, frozen weights")


def _compiled(module: nn.Module) -> nn.Module:
    """Compile for one batch size; by default, a second batch size would be compiled for any size."""
    import torch._inductor.config

    torch._inductor.config.freezing = True  # has an effect only if no gradient is recorded
    return torch.compile(module, dynamic=False)


def gradcam(task: Task, wrap: Callable[[nn.Module], nn.Module] = lambda module: module, note: str = "") -> Job:
    """Record no graph up to the target layer, and run a backward pass from the logits to the target layer."""

    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        freeze(module)
        backbone, head = halves(module, task.facts["module"])
        backbone = wrap(backbone)
        rows, targets = torch.arange(task.batch), torch.tensor(task.targets)

        def run() -> Any:
            with torch.no_grad():
                activations = backbone(x)
            activations.requires_grad_(True)
            (gradients,) = torch.autograd.grad(head(activations)[rows, targets].sum(), activations)
            with torch.no_grad():
                maps = torch.einsum("nchw,nc->nhw", activations, gradients.mean((2, 3))).relu_()
                return heatmaps(maps, x.shape[-2:]).numpy()

        return run

    return formats(task, make, note)


def gradcam_compiled(task: Task) -> Job:
    """Compile the network up to the target layer with frozen weights; the rest is small."""
    return gradcam(task, _compiled, "inductor, frozen weights")


def guided(task: Task, wrap: Callable[[nn.Module], nn.Module] = lambda module: module, note: str = "") -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        guided_module = nn.Sequential(*halves(module, task.facts["module"]))
        freeze(guided_module)
        guide(guided_module)
        guided_module = wrap(guided_module)
        x.requires_grad_(True)
        rows, targets = torch.arange(task.batch), torch.tensor(task.targets)

        def run() -> Any:
            (gradient,) = torch.autograd.grad(guided_module(x)[rows, targets].sum(), x)
            return gradient.numpy()

        return run

    return formats(task, make, note)


def guided_compiled(task: Task) -> Job:
    return guided(task, _compiled, "inductor")


def overlays(task: Task) -> Job:
    torch.set_num_threads(task.threads)
    options = task.options
    maps = torch.from_numpy(np.load(options["maps"])[: task.batch])
    images = torch.from_numpy(np.load(options["photographs"])[: task.batch])
    palette = 0.5 * torch.from_numpy(np.load(options["palette"])).float()

    def run() -> Any:
        with torch.inference_mode():
            heat = heatmaps(maps.clamp_min(0), images.shape[1:3])
            colors = palette[heat.mul_(255).round_().int()]
            return colors.add_(images, alpha=0.5).round_().to(torch.uint8).numpy()

    return Job(run)
