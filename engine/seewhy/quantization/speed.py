"""Measures the speed of two model files in turns, so that both meet the same state of the machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from seewhy._shared.arrays import Floats
from seewhy.contract.quantization import Speed
from seewhy.explainer.explainer import Explainer

_ROUNDS = 5
_RUNS = 3
# Threads of the session that ran last still spin for a while, and would slow down the other one.
_REST = 0.15


def measure_speed(
    float32: Explainer, int8: Explainer, pixels: Floats, batch_sizes: Sequence[int], method: str
) -> tuple[Speed, ...]:
    """Measure how long both files take for one image, by batch size.

    Args:
        float32: Explainer of the float32 file.
        int8: Explainer of the quantised file.
        pixels: Preprocessed pixels of one image, float32 of shape (1, Cin, H, W).
        batch_sizes: Batch sizes to measure.
        method: Name of the method to run.

    Returns:
        Medians of 15 runs of each file for each batch size.
    """
    found = []
    for size in batch_sizes:
        batch = np.repeat(pixels, size, axis=0)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(_ROUNDS):
            for explainer, spans in zip((float32, int8), times, strict=True):
                time.sleep(_REST)
                explainer.explain(batch, method)
                for _ in range(_RUNS):
                    start = time.perf_counter()
                    explainer.explain(batch, method)
                    spans.append((time.perf_counter() - start) * 1000 / size)
        found.append(Speed(size, *map(median, times)))
    return tuple(found)
