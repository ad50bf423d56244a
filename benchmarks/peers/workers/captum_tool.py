"""Grad-CAM and guided backpropagation by Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze, heatmaps
from torch_models import formats, layer


def gradcam(task: Task) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        targets = task.targets
        method = LayerGradCam(module, layer(task, module))

        def run() -> Any:
            maps = method.attribute(x, target=targets, relu_attributions=True)
            # Use the interpolation of Captum, and the scaling that it leaves to the user.
            large = LayerAttribution.interpolate(maps, x.shape[-2:], "bilinear")[:, 0].detach()
            return heatmaps(large, x.shape[-2:]).numpy()

        return run

    return formats(task, make)


def guided(task: Task) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        targets = task.targets
        freeze(module)
        method = GuidedBackprop(module)
        return lambda: method.attribute(x, target=targets).detach().numpy()

    return formats(task, make)
