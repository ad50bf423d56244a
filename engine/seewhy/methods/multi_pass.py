"""Batches of images and classes, and runs of the graph for multi-pass methods.

Each multi-pass method plans its runs of the graph in its own module, and combines their results with a rule of
`cam_rules.py` or `gradient_rules.py`. For n images with K classes each, results have the shape (K, n, ...), so that
the results of one class are contiguous in memory.
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
from seewhy.methods.options import Options
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.model_file import repeat_reason
from seewhy.runtime.sessions import Outputs


class PassCounter:
    """Counter of passes that calls a function with (passes done, total) after every run."""

    def __init__(self, images: int, callback: Callable[[int, int], object] | None = None) -> None:
        self._images = images
        self._callback = callback
        self._done = self._total = 0

    def expect(self, passes: int) -> None:
        """Set the number of passes that one image takes."""
        self._total = passes * self._images

    def add(self, passes: int) -> None:
        """Add passes that are done or turned out to be unnecessary."""
        self._done += passes
        if passes and self._callback is not None:
            self._callback(self._done, self._total)


@dataclass(frozen=True)
class Batch:
    """A batch of n images with K classes each, the results of the plain run, and methods for further runs."""

    runs: GraphRunner
    pixels: Floats
    """Preprocessed images of shape (n,Cin,H,W)."""
    targets: Integers
    """Class indices of shape (n,K)."""
    values: Outputs
    """Results of the plain run: `logits` (n,classes), and the outputs that the methods read."""
    first: int
    """Number of the first image of the batch, for messages."""
    batch_size: int
    """Maximum number of rows in one run."""
    context: RuleContext
    counter: PassCounter = field(repr=False)
    """Counter of the passes."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing that the model file records, or None."""
        return self.runs.model.metadata.preprocessing

    def run_slices(self, rows: int) -> Iterator[slice]:
        """Yield slices of at most `batch_size` rows, one for each run, that together make up `rows` rows."""
        return row_slices(rows, self.batch_size)

    def gradients(self, pixels: Floats, targets: Integers, images: Integers) -> Floats:
        """Return the gradients dy/dx (m,Cin,H,W) at `pixels` (m,Cin,H,W) for the classes `targets` (m,).

        `images` (m,) are the numbers of the images of the batch that the rows belong to.
        """
        feeds: dict[str, NDArray[Any]] = {IMAGES: pixels, TARGETS: targets}
        return self.runs(frozenset({INPUT_GRADIENTS}), feeds, images + self.first)[INPUT_GRADIENTS]

    def logits(self, pixels: Floats, images: Integers) -> Floats:
        """Return the logits (m,classes) at `pixels` (m,Cin,H,W); `images` as in `gradients`."""
        return self.runs(frozenset({LOGITS}), {IMAGES: pixels}, images + self.first)[LOGITS]

    def logits_from_activations(self, activations: Floats, images: Integers) -> Floats:
        """Return the logits (m,classes) for `activations` (m,C,h,w) in place of the target layer's output.

        If other paths of the network bypass that layer, they get the unchanged images.
        """
        feeds: dict[str, Floats] = {ACTIVATIONS: activations}
        if repeat_reason(self.runs.model) is not None:
            feeds[IMAGES] = self.pixels[images]
        return self.runs(frozenset({LOGITS}), feeds, images + self.first)[LOGITS]


@dataclass(frozen=True)
class MultiPass:
    """Runs of a multi-pass method."""

    run: Callable[[Batch, Options], Outputs]
    """Function that returns the values that the rule needs, each of shape (K,n,...)."""
    pass_count: Callable[[Batch, Options], int]
    """Function that returns the number of passes for one image."""
    outputs: tuple[str, ...] = ()
    """Outputs of the plain run that the runs need besides the logits."""


def row_slices(rows: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows that together make up `rows` rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def sum_gradients(batch: Batch, weights: NDArray[np.float64], make: Callable[[int, int], Floats]) -> Floats:
    """Return the sum over s of weights[s] * dy/dx at the pixels `make(image, s)`, for each image and class.

    The sums are computed in float64 for one image and class at a time, so that memory does not grow with the number of
    passes.

    Args:
        batch: The batch.
        weights: Weight of each sample, float64 of shape (samples,).
        make: Function that returns the preprocessed pixels (Cin, H, W) of an image for a sample.

    Returns:
        Sums, float32 of shape (K, n, Cin, H, W).
    """
    n, each = batch.targets.shape
    count = len(weights)
    result = np.empty((each, *batch.pixels.shape), np.float32)
    total = np.zeros(batch.pixels.shape[1:])
    for part in batch.run_slices(n * each * count):
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
