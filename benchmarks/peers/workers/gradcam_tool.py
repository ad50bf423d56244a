"""Grad-CAM, guided backpropagation and a folder of overlays by pytorch-grad-cam, used as in its README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze
from torch_models import formats, freeze_before, images, layer, network


def gradcam(task: Task, frozen: bool = False) -> Job:
    def make(module: nn.Module, x: Tensor) -> Callable[[], Any]:
        target_layer = layer(task, module)
        if frozen:
            freeze_before(module, target_layer, x)
        cam = GradCAM(model=module, target_layers=[target_layer])
        targets = [ClassifierOutputTarget(target) for target in task.targets]
        return lambda: cam(input_tensor=x, targets=targets)

    return formats(task, make)


def gradcam_frozen(task: Task) -> Job:
    return gradcam(task, frozen=True)


def guided(task: Task, frozen: bool = False) -> Job:
    """Run one image at a time, because the library returns only the gradient of the first image."""
    module = network(task)
    if frozen:
        freeze(module)
    guide = GuidedBackpropReLUModel(model=module, device="cpu")
    pairs = [(image[None], target) for image, target in zip(images(task), task.targets, strict=True)]

    def run() -> list[np.ndarray]:
        gradients = []
        for image, target in pairs:
            gradients.append(guide(image.detach(), target_category=target))
            module.zero_grad()
        return gradients

    return Job(run, to_array=lambda gradients: np.stack(gradients).transpose(0, 3, 1, 2), note="one image at a time")


def guided_frozen(task: Task) -> Job:
    return guided(task, frozen=True)


def folder(task: Task) -> Job:
    """Run the loop of the README, one image at a time."""
    module = network(task)
    options = task.options
    source, out = sorted(Path(options["photographs"]).iterdir()), Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    cam = GradCAM(model=module, target_layers=[layer(task, module)])

    def run(paths: list[Path]) -> int:
        for path in paths:
            image = cv2.imread(str(path))[:, :, ::-1]
            crop = _center_crop(image)
            tensor = preprocess_image(np.float32(crop) / 255, options["mean"], options["std"])
            heat = cam(input_tensor=tensor, targets=None)[0]
            if options["form"] == "original":
                crop, heat = image, cv2.resize(heat, image.shape[1::-1])
            overlay = cv2.cvtColor(show_cam_on_image(np.float32(crop) / 255, heat, use_rgb=True), cv2.COLOR_RGB2BGR)
            if options["form"] == "jpeg":
                cv2.imwrite(str(out / f"{path.stem}.jpg"), overlay, [cv2.IMWRITE_JPEG_QUALITY, 90])
            else:
                cv2.imwrite(str(out / f"{path.stem}.png"), overlay)
        return len(paths)

    torch.set_num_threads(task.threads)
    cv2.setNumThreads(task.threads)
    return Job(lambda: run(source), to_array=lambda count: [count], warm=lambda: run(source[:2]))


def _center_crop(image: np.ndarray) -> np.ndarray:
    """Resize the shorter side to 256 pixels and return the central 224x224 pixels."""
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    return resized[top : top + 224, left : left + 224]
