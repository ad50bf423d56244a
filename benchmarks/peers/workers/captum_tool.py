"""Grad-CAM, guided backpropagation, SmoothGrad, integrated gradients and a folder of overlays by Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from captum.attr import GuidedBackprop, IntegratedGradients, LayerAttribution, LayerGradCam, NoiseTunnel, Saliency
from PIL import Image
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze, heatmaps
from torch_models import formats, layer, network
from torchvision_folder import folder as torchvision_folder


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


def smoothgrad(task: Task) -> Job:
    """Use the noise of SeeWhy's default: 15 % of the value range of each image, for the single image of the task."""
    low, high = float(task.images.min()), float(task.images.max())

    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        targets, options = task.targets, task.options
        freeze(module)
        method = NoiseTunnel(Saliency(module))
        settings = {
            "nt_samples": options["samples"],
            "nt_samples_batch_size": 8,
            "stdevs": options["noise"] * (high - low),
            "abs": False,
        }
        return lambda: method.attribute(x, target=targets, **settings).detach().numpy()

    return formats(task, make, "8 samples in a batch")


def integrated_gradients(task: Task) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        targets, steps = task.targets, task.options["steps"]
        freeze(module)
        method = IntegratedGradients(module)
        return lambda: method.attribute(x, target=targets, n_steps=steps, internal_batch_size=8).detach().numpy()

    return formats(task, make, "8 steps in a batch")


def folder(task: Task) -> Job:
    """Run one image at a time, with transforms of torchvision and the blending of Captum's visualization."""
    module = network(task)
    method = LayerGradCam(module, layer(task, module))
    colors = np.uint8(255 * mpl.colormaps["jet"](np.arange(256))[:, :3])

    def overlay(canvas: Image.Image, x: Tensor) -> Image.Image:
        with torch.no_grad():
            target = module(x).argmax(1)
        maps = method.attribute(x, target=target, relu_attributions=True)
        heat = heatmaps(maps[:, 0].detach(), canvas.size[::-1])[0].numpy()
        return Image.blend(canvas, Image.fromarray(colors[np.uint8(255 * heat)]), 0.5)

    return torchvision_folder(task, overlay)
