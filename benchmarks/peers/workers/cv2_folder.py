"""Loop over a folder of images that reads, crops and writes with OpenCV, for the tools whose README does so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tool_job import Job, Task


def folder(
    task: Task, explain: Callable[[np.ndarray], np.ndarray], blend: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Job:
    """Return a job that explains one image at a time.

    Args:
        task: Task with the options `photographs`, `out` and `form`.
        explain: Function that takes an RGB crop (224, 224, 3) in [0, 1] and returns its heatmap (224, 224) in [0, 1].
        blend: Function that takes an RGB image in [0, 1] and a heatmap of its size and returns a uint8 RGB overlay.
    """
    options = task.options
    source, out = sorted(Path(options["photographs"]).iterdir()), Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(task.threads)

    def run(paths: list[Path]) -> int:
        for path in paths:
            image = cv2.imread(str(path))[:, :, ::-1]
            canvas = np.float32(_center_crop(image)) / 255
            heat = explain(canvas)
            if options["form"] == "original":
                canvas, heat = np.float32(image) / 255, cv2.resize(heat, image.shape[1::-1])
            overlay = cv2.cvtColor(blend(canvas, heat), cv2.COLOR_RGB2BGR)
            if options["form"] == "jpeg":
                cv2.imwrite(str(out / f"{path.stem}.jpg"), overlay, [cv2.IMWRITE_JPEG_QUALITY, 90])
            else:
                cv2.imwrite(str(out / f"{path.stem}.png"), overlay)
        return len(paths)

    return Job(lambda: run(source), to_array=lambda count: [count], warm=lambda: run(source[:2]))


def _center_crop(image: np.ndarray) -> np.ndarray:
    """Resize the shorter side to 256 pixels and return the central 224x224 pixels."""
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    return resized[top : top + 224, left : left + 224]
