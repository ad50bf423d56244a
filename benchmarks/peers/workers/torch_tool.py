"""PyTorch alone: eager, torch.compile, and both methods written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tool_job import Job, Task
from torch import Tensor, nn
from torch_models import formats, freeze, halves, heatmaps, images, network


def forward(task: Task) -> Job:
    def make(form: torch.memory_format) -> Callable[[], Any]:
        module, x = network(task).to(memory_format=form), images(task).to(memory_format=form)

        def run() -> Any:
            with torch.inference_mode():
                return module(x).numpy()

        return run

    return formats(make)


def forward_compiled(task: Task) -> Job:
    """With frozen weights, as PyTorch's guide for inductor on CPUs says."""

    def make(form: torch.memory_format) -> Callable[[], Any]:
        module, x = _compiled(network(task).to(memory_format=form)), images(task).to(memory_format=form)

        def run() -> Any:
            with torch.no_grad():
                return module(x).numpy()

        return run

    return formats(make, "inductor, frozen weights")


def _compiled(module: nn.Module) -> nn.Module:
    """For one batch size each: by default, a second size would be compiled for any."""
    import torch._inductor.config

    torch._inductor.config.freezing = True  # it counts where no gradient is kept
    return torch.compile(module, dynamic=False)


def gradcam(task: Task, wrap: Callable[[nn.Module], nn.Module] = lambda module: module, note: str = "") -> Job:
    """No graph up to the target layer, and a backward pass from the logits to there."""

    def make(form: torch.memory_format) -> Callable[[], Any]:
        module, x = network(task).to(memory_format=form), images(task).to(memory_format=form)
        freeze(module)
        backbone, head = halves(task, module)
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

    return formats(make, note)


def gradcam_compiled(task: Task) -> Job:
    """The network up to the target layer, with frozen weights; the rest is small."""
    return gradcam(task, _compiled, "inductor, frozen weights")


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(gradient.clamp_min(0), ctx.saved_tensors[0], 0)


class _GuidedReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(gradient.clamp_min(0), ctx.saved_tensors[0], 0, 6)


class _Guided(nn.Module):
    def __init__(self, rule: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule.apply(x)


_RULES = {nn.ReLU: _GuidedReLU, nn.ReLU6: _GuidedReLU6}


def _guide(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) in _RULES:
            setattr(module, name, _Guided(_RULES[type(child)]))
        else:
            _guide(child)


def _guided(
    task: Task, form: torch.memory_format, wrap: Callable[[nn.Module], nn.Module] = lambda module: module
) -> Callable[[], Any]:
    whole = nn.Sequential(*halves(task, network(task)))
    freeze(whole)
    _guide(whole)
    module = wrap(whole.to(memory_format=form))
    x = images(task).to(memory_format=form).requires_grad_(True)
    rows, targets = torch.arange(task.batch), torch.tensor(task.targets)

    def run() -> Any:
        (gradient,) = torch.autograd.grad(module(x)[rows, targets].sum(), x)
        return gradient.numpy()

    return run


def guided(task: Task) -> Job:
    return formats(lambda form: _guided(task, form))


def guided_compiled(task: Task) -> Job:
    return formats(lambda form: _guided(task, form, _compiled), "inductor")


def overlays(task: Task) -> Job:
    torch.set_num_threads(task.threads)
    options = task.options
    maps = torch.from_numpy(np.load(options["maps"])[: task.batch])
    photographs = torch.from_numpy(np.load(options["photographs"])[: task.batch])
    palette = 0.5 * torch.from_numpy(np.load(options["palette"])).float()

    def run() -> Any:
        with torch.inference_mode():
            heat = heatmaps(maps.clamp_min(0), photographs.shape[1:3])
            colours = palette[heat.mul_(255).round_().int()]
            return colours.add_(photographs, alpha=0.5).round_().to(torch.uint8).numpy()

    return Job(run)
