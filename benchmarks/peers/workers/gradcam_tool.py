"""Grad-CAM, Score-CAM, Ablation-CAM, guided backpropagation and a folder of overlays by pytorch-grad-cam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2_folder
import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, GradCAM, GuidedBackpropReLUModel, ScoreCAM
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
    module, facts = network(task), task.facts
    cam = GradCAM(model=module, target_layers=[layer(task, module)])

    def explain(crop: np.ndarray) -> np.ndarray:
        return cam(input_tensor=preprocess_image(crop, facts["mean"], facts["std"]), targets=None)[0]

    torch.set_num_threads(task.threads)
    return cv2_folder.folder(task, explain, lambda image, heat: show_cam_on_image(image, heat, use_rgb=True))


def scorecam(task: Task) -> Job:
    return _one_format(task, ScoreCAM)


def ablationcam(task: Task) -> Job:
    return _one_format(task, AblationCAM)


def _one_format(task: Task, method: type) -> Job:
    """Return a job of a multi-pass method in the default memory format, with larger batches than the default of 32."""
    module = network(task)
    cam = method(model=module, target_layers=[layer(task, module)])
    cam.batch_size = 64
    targets = [ClassifierOutputTarget(target) for target in task.targets]
    return Job(lambda: cam(input_tensor=images(task), targets=targets))
