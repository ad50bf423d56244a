"""Common parts of multi-pass methods: a batch of images and classes, and ways to run the graph for it again.

Such a method is made of runs that its module plans, and of a rule in `cam_rules.py` or `gradient_rules.py` for what
comes of them. Results are class-major, (K,n,...) for n images with K classes each, so that one class's part is one
piece of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import ACTIVATIONS, IMAGES, INPUT_GRADIENTS, LOGITS, TARGETS
from seewhy.contract.metadata import Preprocessing
from seewhy.methods.base import RuleContext
from seewhy.methods.options import Option, Options
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.model_file import repeat_reason
from seewhy.runtime.sessions import Outputs


class PassCounter:
    """Counts passes, and tells a user's callback: (passes done, passes in all), after every run."""

    def __init__(self, images: int, callback: Callable[[int, int], object] | None = None) -> None:
        self._images = images
        self._callback = callback
        self._done = self._total = 0

    def expect(self, passes: int) -> None:
        """Say how many passes one image takes."""
        self._total = passes * self._images

    def add(self, passes: int) -> None:
        """Say that so many more passes are done, or found to be needless."""
        self._done += passes
        if passes and self._callback is not None:
            self._callback(self._done, self._total)


@dataclass(frozen=True)
class Batch:
    """n images with K classes each, the plain run for them, and the means to run the graph again."""

    runs: GraphRunner
    pixels: Floats
    """(n,Cin,H,W)"""
    targets: Integers
    """(n,K)"""
    values: Outputs
    """The plain run: `logits` (n,classes), and the outputs that a method reads."""
    first: int
    """The number of the batch's first image, for errors."""
    batch_size: int
    """Most rows in one run."""
    size: RuleContext
    counter: PassCounter = field(repr=False)
    """Told of every pass."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        return self.runs.model.metadata.preprocessing

    def parts(self, rows: int) -> Iterator[slice]:
        """The runs that `rows` are made in."""
        return row_slices(rows, self.batch_size)

    def gradients(self, pixels: Floats, targets: Integers, images: Integers) -> Floats:
        """(m,Cin,H,W) pixels, (m,) classes -> (m,Cin,H,W) dy/dx; `images` (m,) says which of the n a row belongs to."""
        feeds: dict[str, NDArray[Any]] = {IMAGES: pixels, TARGETS: targets}
        return self.runs(frozenset({INPUT_GRADIENTS}), feeds, images + self.first)[INPUT_GRADIENTS]

    def logits(self, pixels: Floats, images: Integers) -> Floats:
        """(m,Cin,H,W) pixels -> (m,classes)."""
        return self.runs(frozenset({LOGITS}), {IMAGES: pixels}, images + self.first)[LOGITS]

    def logits_behind(self, activations: Floats, images: Integers) -> Floats:
        """(m,C,h,w) in place of the target layer's output -> (m,classes).

        Where other paths lead around that layer, the rest of the network sees the images as they are.
        """
        feeds: dict[str, Floats] = {ACTIVATIONS: activations}
        if repeat_reason(self.runs.model) is not None:
            feeds[IMAGES] = self.pixels[images]
        return self.runs(frozenset({LOGITS}), feeds, images + self.first)[LOGITS]


@dataclass(frozen=True)
class MultiPass:
    """How a method of many passes runs."""

    run: Callable[[Batch, Options], Outputs]
    """Returns what its rule needs, each value (K,n,...)."""
    pass_count: Callable[[Batch, Options], int]
    """How many passes it takes for one image."""
    options: tuple[Option, ...] = ()
    outputs: tuple[str, ...] = ()
    """Outputs of the plain run that it needs besides the logits."""


def row_slices(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that make up `rows`."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def sum_gradients(batch: Batch, weights: NDArray[np.float64], make: Callable[[int, int], Floats]) -> Floats:
    """(K,n,Cin,H,W): for each image and class the sum over s of weights[s] * dy/dx at the pixels `make(image, s)`.

    Summed in float64, one image and class after the other, so that memory does not grow with the number of passes.
    """
    n, each = batch.targets.shape
    count = len(weights)
    result = np.empty((each, *batch.pixels.shape), np.float32)
    total = np.zeros(batch.pixels.shape[1:])
    for part in batch.parts(n * each * count):
        rows = np.arange(part.start, part.stop)
        pairs, samples = np.divmod(rows, count)
        images, classes = np.divmod(pairs, each)
        pixels = np.stack([make(image, sample) for image, sample in zip(images, samples, strict=True)])
        gradients = batch.gradients(pixels, batch.targets[images, classes], images)
        for gradient, image, k, sample in zip(gradients, images, classes, samples, strict=True):
            total += weights[sample] * gradient.astype(np.float64)
            if sample == count - 1:
                result[k, image] = total
                total[...] = 0
        batch.counter.add(len(rows))
    return result
