"""Overlays in OpenCV and in NumPy, written as their users would who want them quick."""

from __future__ import annotations

import cv2
import numpy as np
from tool_job import Job, Task


def opencv(task: Task) -> Job:
    """One image at a time, as OpenCV works."""
    cv2.setNumThreads(task.threads)
    maps, photographs, palette = _inputs(task)
    colours = np.ascontiguousarray(palette[:, None])
    size = (photographs.shape[2], photographs.shape[1])

    def run() -> np.ndarray:
        found = np.empty_like(photographs)
        for cam, photograph, picture in zip(maps, photographs, found, strict=True):
            heat = cv2.resize(np.maximum(cam, 0), size, interpolation=cv2.INTER_LINEAR)
            grey = cv2.normalize(heat, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
            cv2.addWeighted(cv2.applyColorMap(grey, colours), 0.5, photograph, 0.5, 0, dst=picture)
        return found

    return Job(run)


def numpy(task: Task) -> Job:
    maps, photographs, palette = _inputs(task)
    down = _weights(photographs.shape[1], maps.shape[1])
    across = _weights(photographs.shape[2], maps.shape[2])
    half = 0.5 * palette.astype(np.float32)

    def run() -> np.ndarray:
        heat = down @ np.maximum(maps, 0) @ across.T
        low = heat.min((1, 2), keepdims=True)
        heat -= low
        heat *= 255 / heat.max((1, 2), keepdims=True)
        colours = half[np.rint(heat, out=heat).astype(np.uint8)]
        colours += photographs * np.float32(0.5)
        return np.rint(colours, out=colours).astype(np.uint8)

    return Job(run)


def _inputs(task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    options = task.options
    batch = slice(task.batch)
    return np.load(options["maps"])[batch], np.load(options["photographs"])[batch], np.load(options["palette"])


def _weights(large: int, small: int) -> np.ndarray:
    """(large,small): bilinear, half-pixel centres, edges repeated."""
    places = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    left = np.minimum(places.astype(int), small - 2)
    matrix = np.zeros((large, small), np.float32)
    rows = np.arange(large)
    matrix[rows, left], matrix[rows, left + 1] = 1 - (places - left), places - left
    return matrix
