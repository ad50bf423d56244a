"""Reference implementation of the multi-pass methods on the tiny model, in NumPy float64, one pass at a time.

It shares only the seeds of NumPy's `SeedSequence` with the engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from support.references.methods import Array, Reference, Trace, minmax, upsample, weighted
from support.references.noise import normal_noise


def smoothgrad(reference: Reference, image: Array, target: int, samples: int, noise: float, seed: int) -> Array:
    deviation = noise * (image.max() - image.min())
    gradients = []
    for sample in range(samples):
        child = np.random.SeedSequence(seed).spawn(sample + 1)[-1]
        drawn = normal_noise(child.generate_state(64).reshape(4, 16), image.size).reshape(image.shape)
        # The model runs on float32 pixels, and rounding may change the sign of the input of a rectifier.
        noisy = (image + deviation * drawn).astype(np.float32)
        gradients.append(reference.backprop(reference.forward(noisy), target))
    return np.mean(gradients, axis=0)


def integrated_gradients(reference: Reference, image: Array, target: int, baseline: Array, steps: int) -> Array:
    """Integrate with the midpoint rule, which converges to the integral as `steps` grows."""
    total = np.zeros_like(image)
    for step in range(steps):
        point = baseline + (step + 0.5) / steps * (image - baseline)
        total += reference.backprop(reference.forward(point), target)
    return (image - baseline) * total / steps


def scorecam_weights(reference: Reference, trace: Trace, target: int) -> Array:
    scores = {}
    for k, channel in enumerate(trace.activations):
        if channel.min() < channel.max():
            mask = minmax(upsample(channel, reference.size))
            scores[k] = reference.logits(trace.image * mask)[target]
    powers = {k: np.exp(score - max(scores.values())) for k, score in scores.items()}
    return np.array([powers.get(k, 0.0) / sum(powers.values()) for k in range(len(trace.activations))])


def ablation_weights(reference: Reference, trace: Trace, target: int) -> Array:
    weights = []
    for k in range(len(trace.activations)):
        kept = trace.activations.copy()
        kept[k] = 0
        without = reference.w["fc.weight"] @ kept.mean(axis=(1, 2)) + reference.w["fc.bias"]
        weights.append((trace.logits[target] - without[target]) / abs(trace.logits[target]))
    return np.array(weights)


def attribution(reference: Reference, method: str, image: Array, target: int, options: Any) -> tuple[Any, Array]:
    """Return (map or None, attribution) of one method for one image."""
    image = image.astype(np.float64)
    if method == "smoothgrad":
        return None, smoothgrad(reference, image, target, **options)
    if method == "integrated-gradients":
        return None, integrated_gradients(reference, image, target, np.zeros_like(image), options["steps"])
    trace = reference.forward(image)
    weights = {"scorecam": scorecam_weights, "ablationcam": ablation_weights}[method](reference, trace, target)
    raw = weighted(weights, trace.activations)
    return raw, upsample(np.maximum(raw, 0), reference.size)
