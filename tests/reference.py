"""The tiny model and every method again, in NumPy float64, by slow and literal loops.

Nothing here is shared with the engine or with the ONNX graph but the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiny_model import Tiny

Array = NDArray[np.float64]


@dataclass
class Trace:
    """The values of one forward pass of one image."""

    image: Array
    c1: Array
    winners: dict[tuple[int, int, int], tuple[int, int]]
    pooled: Array
    c2: Array
    logits: Array

    @property
    def activations(self) -> Array:
        return np.maximum(self.c2, 0)


class Reference:
    """One image at a time: (C,H,W) in, float64 out."""

    def __init__(self, tiny: Tiny) -> None:
        self.size = tiny.size
        self.w = {name: array.astype(np.float64) for name, array in tiny.weights().items()}

    def forward(self, image: Array) -> Trace:
        image = image.astype(np.float64)
        c1 = _conv(image, self.w["conv1.weight"], self.w["conv1.bias"])
        pooled, winners = _max_pool(np.maximum(c1, 0))
        c2 = _conv(pooled, self.w["conv2.weight"], self.w["conv2.bias"])
        features = np.maximum(c2, 0).mean(axis=(1, 2))
        return Trace(image, c1, winners, pooled, c2, self.w["fc.weight"] @ features + self.w["fc.bias"])

    def logits(self, image: Array) -> Array:
        return self.forward(image).logits

    def gradients(self, trace: Trace, target: int) -> Array:
        """d logit[target] / d activations."""
        channels, height, width = trace.c2.shape
        row = self.w["fc.weight"][target] / (height * width)
        return np.array([np.full((height, width), row[k]) for k in range(channels)])

    def backprop(self, trace: Trace, target: int, guided: bool = False) -> Array:
        gradient = _rectifier(self.gradients(trace, target), trace.c2, guided)
        gradient = _conv_backward(gradient, self.w["conv2.weight"])
        unpooled = np.zeros_like(trace.c1)
        for (c, y, x), (row, column) in trace.winners.items():
            unpooled[c, row, column] += gradient[c, y, x]
        return _conv_backward(_rectifier(unpooled, trace.c1, guided), self.w["conv1.weight"])

    def cam_map(self, trace: Trace, target: int) -> Array:
        return sum(w * a for w, a in zip(self.w["fc.weight"][target], trace.activations, strict=True))

    def gradcam_map(self, trace: Trace, target: int) -> Array:
        """The weighted sum, before the ReLU."""
        weights = self.gradients(trace, target).mean(axis=(1, 2))
        return sum(w * a for w, a in zip(weights, trace.activations, strict=True))

    def attribution(self, method: str, trace: Trace, target: int) -> tuple[Array | None, Array, Array]:
        """(map or None, attribution, heatmap) of one method for one image."""
        if method == "cam":
            raw = self.cam_map(trace, target)
            values = upsample(raw, self.size)
            return raw, values, minmax(values)
        if method == "gradcam":
            raw = self.gradcam_map(trace, target)
            values = upsample(np.maximum(raw, 0), self.size)
            return raw, values, minmax(values)
        values = self.backprop(trace, target, guided=method != "backprop")
        if method == "guided-gradcam":
            values = values * self.attribution("gradcam", trace, target)[2]
        return None, values, minmax(np.abs(values).max(axis=0))


def upsample(image: Array, size: tuple[int, int]) -> Array:
    """Bilinear with half-pixel centres, edges clamped."""
    height, width = image.shape
    result = np.empty(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * height / size[0] - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = math.floor(v), math.floor(u)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - (u - left)) + image[top, right] * (u - left)
            lower = image[bottom, left] * (1 - (u - left)) + image[bottom, right] * (u - left)
            result[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return result


def minmax(image: Array) -> Array:
    low, high = image.min(), image.max()
    return np.zeros_like(image) if high == low else (image - low) / (high - low)


def _conv(image: Array, weight: Array, bias: Array) -> Array:
    """3x3, stride 1, padding 1."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    result = np.empty((len(weight), height, width))
    for k in range(len(weight)):
        for y in range(height):
            for x in range(width):
                result[k, y, x] = (padded[:, y : y + 3, x : x + 3] * weight[k]).sum() + bias[k]
    return result


def _conv_backward(gradient: Array, weight: Array) -> Array:
    """Each output's gradient goes back to the nine inputs that it was made of."""
    _, height, width = gradient.shape
    padded = np.zeros((weight.shape[1], height + 2, width + 2))
    for k in range(len(weight)):
        for y in range(height):
            for x in range(width):
                padded[:, y : y + 3, x : x + 3] += gradient[k, y, x] * weight[k]
    return padded[:, 1:-1, 1:-1]


def _max_pool(image: Array) -> tuple[Array, dict[tuple[int, int, int], tuple[int, int]]]:
    """2x2 windows; of equal values the first in row-major order wins."""
    channels, height, width = image.shape
    result = np.empty((channels, height // 2, width // 2))
    winners = {}
    for c in range(channels):
        for y in range(height // 2):
            for x in range(width // 2):
                window = [(row, column) for row in (2 * y, 2 * y + 1) for column in (2 * x, 2 * x + 1)]
                best = max(window, key=lambda place: image[c, place[0], place[1]])
                winners[c, y, x] = best
                result[c, y, x] = image[c, best[0], best[1]]
    return result, winners


def _rectifier(gradient: Array, before: Array, guided: bool) -> Array:
    if guided:
        gradient = np.maximum(gradient, 0)
    return np.where(before > 0, gradient, 0)
