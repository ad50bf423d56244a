"""Reference implementation of the tiny model and the single-pass methods, in NumPy float64 with plain loops.

It shares only the weights with the engine and the ONNX graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from support.tiny_model import Tiny

Array = NDArray[np.float64]


@dataclass
class Trace:
    """Intermediate values of the forward pass of one image."""

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
    """The tiny model and the methods for one image of shape (C, H, W), with float64 results."""

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
        """Return d logit[target] / d activations."""
        channels, height, width = trace.c2.shape
        row = self.w["fc.weight"][target] / (height * width)
        return np.array([np.full((height, width), row[k]) for k in range(channels)])

    def backprop(self, trace: Trace, target: int, rule: str = "plain") -> Array:
        gradient = RULES[rule](self.gradients(trace, target), trace.c2)
        gradient = _conv_backward(gradient, self.w["conv2.weight"])
        unpooled = np.zeros_like(trace.c1)
        for (c, y, x), (row, column) in trace.winners.items():
            unpooled[c, row, column] += gradient[c, y, x]
        return _conv_backward(RULES[rule](unpooled, trace.c1), self.w["conv1.weight"])

    def attribution(self, method: str, trace: Trace, target: int) -> tuple[Array | None, Array, Array]:
        """Return (map or None, attribution, heatmap) of one method for one image."""
        if method == "cam":
            raw = weighted(self.w["fc.weight"][target], trace.activations)
            values = upsample(raw, self.size)
            return raw, values, minmax(values)
        if method in MAPS:
            raw = MAPS[method](trace.activations, self.gradients(trace, target))
            values = upsample(np.maximum(raw, 0), self.size)
            return raw, values, minmax(values)
        values = self.backprop(trace, target, RULE_OF[method])
        if method == "guided-gradcam":
            values = values * self.attribution("gradcam", trace, target)[2]
        if method == "inputxgradient":
            values = values * trace.image
        return None, values, minmax(np.abs(values).max(axis=0))


# The CAM family: activations and gradients of shape (C, h, w) -> weights (C,), or the map (h, w) before the ReLU.


def weighted(weights: Array, activations: Array) -> Array:
    """Return the weighted sum of the channels."""
    return sum(w * a for w, a in zip(weights, activations, strict=True))


def gradcam_weights(activations: Array, gradients: Array) -> Array:
    return gradients.mean(axis=(1, 2))


def gradcam_plus_plus_weights(activations: Array, gradients: Array) -> Array:
    """Return the weights of equation 19 in the Grad-CAM++ paper, with the derivatives of e^y.

    The factor e^y cancels. Terms with a zero denominator count as 0.
    """
    weights = np.zeros(len(activations))
    for k in range(len(activations)):
        for g in gradients[k].flat:
            second, third = g**2, g**3
            denominator = 2 * second + activations[k].sum() * third
            alpha = second / denominator if denominator != 0 else 0.0
            weights[k] += alpha * max(g, 0.0)
    return weights


def xgradcam_weights(activations: Array, gradients: Array) -> Array:
    weights = np.zeros(len(activations))
    for k in range(len(activations)):
        total = activations[k].sum()
        for a, g in zip(activations[k].flat, gradients[k].flat, strict=True):
            weights[k] += a * g  # with small integers, this is exact, unlike a / total * g
        weights[k] = weights[k] / total if total != 0 else 0.0
    return weights


def hirescam(activations: Array, gradients: Array) -> Array:
    return sum(g * a for g, a in zip(gradients, activations, strict=True))


def layercam(activations: Array, gradients: Array) -> Array:
    result = np.zeros(activations.shape[1:])
    for k, i, j in np.ndindex(activations.shape):
        result[i, j] += max(gradients[k, i, j], 0.0) * activations[k, i, j]
    return result


def eigencam(activations: Array, gradients: Array) -> Array:
    channels, height, width = activations.shape
    vectors = np.array([[activations[k, i, j] for k in range(channels)] for i in range(height) for j in range(width)])
    _, _, right = np.linalg.svd(vectors)
    projection = (vectors @ right[0]).reshape(height, width)
    positive = (projection * activations.sum(axis=0)).sum() >= 0
    return projection if positive else -projection


Rule: TypeAlias = Callable[[Array, Array], Array]

WEIGHTS: dict[str, Rule] = {
    "gradcam": gradcam_weights,
    "gradcam++": gradcam_plus_plus_weights,
    "xgradcam": xgradcam_weights,
}


def _map_of(weights: Rule) -> Rule:
    return lambda activations, gradients: weighted(weights(activations, gradients), activations)


MAPS: dict[str, Rule] = {
    **{name: _map_of(weights) for name, weights in WEIGHTS.items()},
    "hirescam": hirescam,
    "layercam": layercam,
    "eigencam": eigencam,
}

# Backward rules of a rectifier: (incoming gradient, input of the rectifier) -> gradient of the input.
RULES: dict[str, Rule] = {
    "plain": lambda gradient, before: np.where(before > 0, gradient, 0),
    "guided": lambda gradient, before: np.where(before > 0, np.maximum(gradient, 0), 0),
    "deconvnet": lambda gradient, before: np.maximum(gradient, 0),
}
RULE_OF = {
    "backprop": "plain",
    "inputxgradient": "plain",
    "guided-backprop": "guided",
    "guided-gradcam": "guided",
    "deconvnet": "deconvnet",
}


def upsample(image: Array, size: tuple[int, int]) -> Array:
    """Resize a map bilinearly with half-pixel centers and clamped edges."""
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
    """Scale values to [0, 1]; constant values become 0."""
    low, high = image.min(), image.max()
    return np.zeros_like(image) if high == low else (image - low) / (high - low)


def _conv(image: Array, weight: Array, bias: Array) -> Array:
    """Convolve with 3x3 kernels, stride 1 and padding 1."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    result = np.empty((len(weight), height, width))
    for k in range(len(weight)):
        for y in range(height):
            for x in range(width):
                result[k, y, x] = (padded[:, y : y + 3, x : x + 3] * weight[k]).sum() + bias[k]
    return result


def _conv_backward(gradient: Array, weight: Array) -> Array:
    """Return the gradient of the input of `_conv`: add each output's gradient to its nine inputs."""
    _, height, width = gradient.shape
    padded = np.zeros((weight.shape[1], height + 2, width + 2))
    for k in range(len(weight)):
        for y in range(height):
            for x in range(width):
                padded[:, y : y + 3, x : x + 3] += gradient[k, y, x] * weight[k]
    return padded[:, 1:-1, 1:-1]


def _max_pool(image: Array) -> tuple[Array, dict[tuple[int, int, int], tuple[int, int]]]:
    """Return the maxima of 2x2 windows and their positions; of equal values, the first in row-major order wins."""
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
