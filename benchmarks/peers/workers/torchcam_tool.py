"""Grad-CAM and a folder of overlays by torch-cam, used as in its README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import heatmaps
from torch_models import formats, layer, network
from torchcam.methods import GradCAM
from torchcam.utils import overlay_mask
from torchvision.transforms import v2


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
    options = task.options
    source, out = sorted(Path(options["photographs"]).iterdir()), Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    crop = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    normalize = v2.Normalize(options["mean"], options["std"])
    extractor = GradCAM(module, layer(task, module))

    def run(paths: list[Path]) -> int:
        for path in paths:
            image = Image.open(path).convert("RGB")
            cropped = crop(image)
            scores = module(normalize(to_tensor(cropped))[None])
            cam = extractor(scores.squeeze(0).argmax().item(), scores)[0]
            canvas = image if options["form"] == "original" else cropped
            overlay = overlay_mask(canvas, v2.functional.to_pil_image(cam.squeeze(0), mode="F"), alpha=0.5)
            if options["form"] == "jpeg":
                overlay.save(out / f"{path.stem}.jpg", quality=90)
            else:
                overlay.save(out / f"{path.stem}.png", compress_level=1)  # the same level as SeeWhy
        return len(paths)

    return Job(lambda: run(source), to_array=lambda count: [count], warm=lambda: run(source[:2]))
