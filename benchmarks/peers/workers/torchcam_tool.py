"""Grad-CAM and a folder of overlays by torch-cam, used as in its README."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import heatmaps
from torch_models import formats, layer, network
from torchcam.methods import GradCAM
from torchcam.utils import overlay_mask
from torchvision.transforms.v2.functional import to_pil_image
from torchvision_folder import folder as torchvision_folder


def gradcam(task: Task) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        extractor = GradCAM(module, layer(task, module))
        targets = task.targets

        def run() -> Any:
            maps = extractor(targets, module(x), normalized=False)[0]
            return heatmaps(maps, x.shape[-2:]).numpy()

        return run

    return formats(task, make)


def folder(task: Task) -> Job:
    """Run the loop of the README, one image at a time."""
    module = network(task)
    extractor = GradCAM(module, layer(task, module))

    def overlay(canvas: Image.Image, x: Tensor) -> Image.Image:
        scores = module(x)
        cam = extractor(scores.squeeze(0).argmax().item(), scores)[0]
        return overlay_mask(canvas, to_pil_image(cam.squeeze(0), mode="F"), alpha=0.5)

    return torchvision_folder(task, overlay)
