"""Loop over a folder of images with the transforms of torchvision, for tools that explain PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from tool_job import Job, Task
from torch import Tensor
from torchvision.transforms import v2


def folder(task: Task, overlay: Callable[[Image.Image, Tensor], Image.Image]) -> Job:
    """Return a job that explains one image at a time.

    Args:
        task: Task with the options `photographs`, `out` and `form`.
        overlay: Function that takes the canvas of the overlay and the normalized crop (1, 3, 224, 224), and returns
            the overlay in the size of the canvas.
    """
    options, facts = task.options, task.facts
    source, out = sorted(Path(options["photographs"]).iterdir()), Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    crop = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    normalize = v2.Normalize(facts["mean"], facts["std"])

    def run(paths: list[Path]) -> int:
        for path in paths:
            image = Image.open(path).convert("RGB")
            cropped = crop(image)
            canvas = image if options["form"] == "original" else cropped
            drawn = overlay(canvas, normalize(to_tensor(cropped))[None])
            if options["form"] == "jpeg":
                drawn.save(out / f"{path.stem}.jpg", quality=90)
            else:
                drawn.save(out / f"{path.stem}.png", compress_level=1)  # the same level as SeeWhy
        return len(paths)

    return Job(lambda: run(source), to_array=lambda count: [count], warm=lambda: run(source[:2]))
