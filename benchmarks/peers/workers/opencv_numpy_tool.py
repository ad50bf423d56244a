"""Overlays in OpenCV and in NumPy, written for speed as their users would."""

from __future__ import annotations

import cv2
import numpy as np
from tool_job import Job, Task


def opencv(task: Task) -> Job:
    """Run one image at a time, as OpenCV does."""
    cv2.setNumThreads(task.threads)
    maps, images, palette = _inputs(task)
    colors = np.ascontiguousarray(palette[:, None])
    size = (images.shape[2], images.shape[1])

    def run() -> np.ndarray:
        overlays = np.empty_like(images)
        for cam, image, overlay in zip(maps, images, overlays, strict=True):
            heat = cv2.resize(np.maximum(cam, 0), size, interpolation=cv2.INTER_LINEAR)
            levels = cv2.normalize(heat, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
            cv2.addWeighted(cv2.applyColorMap(levels, colors), 0.5, image, 0.5, 0, dst=overlay)
        return overlays

    return Job(run)


def numpy(task: Task) -> Job:
    maps, images, palette = _inputs(task)
    down = _weights(images.shape[1], maps.shape[1])
    across = _weights(images.shape[2], maps.shape[2])
    half = 0.5 * palette.astype(np.float32)

    def run() -> np.ndarray:
        heat = down @ np.maximum(maps, 0) @ across.T
        low = heat.min((1, 2), keepdims=True)
        heat -= low
        heat *= 255 / heat.max((1, 2), keepdims=True)
        colors = half[np.rint(heat, out=heat).astype(np.uint8)]
        colors += images * np.float32(0.5)
        return np.rint(colors, out=colors).astype(np.uint8)

    return Job(run)


def _inputs(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    options = task.options
    batch = slice(task.batch)
    return np.load(options["maps"])[batch], np.load(options["photographs"])[batch], np.load(options["palette"])


def _weights(large: int, small: int) -> np.ndarray:
    """Return the matrix (large, small) of bilinear interpolation with half-pixel centers and repeated edges."""
    positions = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    left = np.minimum(positions.astype(int), small - 2)
    matrix = np.zeros((large, small), np.float32)
    rows = np.arange(large)
    matrix[rows, left], matrix[rows, left + 1] = 1 - (positions - left), positions - left
    return matrix
