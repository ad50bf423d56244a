"""Batches of images and classes, and runs of the graph for multi-pass methods.

Each multi-pass method plans its runs of the graph in its own module, and combines their results with a rule of
`cam_rules.py` or `gradient_rules.py`. For n images with K classes each, results have the shape (K, n, ...), so that
the results of one class are contiguous in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import IMAGES, INPUT_GRADIENTS, LOGITS, TARGETS
from seewhy.contract.metadata import Preprocessing
from seewhy.methods.base import RuleContext
from seewhy.methods.options import Options
from seewhy.runtime.checked_runs import GraphRunner, SubBatchRun
from seewhy.runtime.sessions import Outputs

_Result = TypeVar("_Result")
Run: TypeAlias = "Callable[[Mapping[str, NDArray[Any]], Integers], Floats]"
"""Function that runs the graph with feeds of m rows, and the image of the batch (m,) that each row belongs to."""


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

    def logits(self, pixels: Floats, images: Integers) -> Floats:
        """Return the logits (m,classes) at `pixels` (m,Cin,H,W), which belong to `images` (m,) of the batch."""
        return self.runs(frozenset({LOGITS}), {IMAGES: pixels}, images + self.first)[LOGITS]

    def each(
        self,
        output: str,
        given: tuple[str, ...],
        rows: int,
        work: Callable[[slice, Run], _Result],
        take: Callable[[slice, _Result], object],
    ) -> None:
        """Compute one output of the graph for many rows, in sub-batches with at most `batch_size` rows at a time.

        Args:
            output: Name of the output.
            given: Names of the values that the graph starts from.
            rows: Number of rows.
            work: Function that gets the rows of a sub-batch and a function that runs the graph for them. Several
                threads call it at the same time.
            take: Function that receives the rows and the result of `work` for each sub-batch, in order.
        """
        if rows == 0:
            return
        plan = self.runs.sessions.plan(frozenset({output}), given, rows, self.batch_size)

        def checked(part: slice, run: SubBatchRun) -> _Result:
            return work(part, lambda feeds, images: run(feeds, images + self.first)[output])

        self.runs.in_sub_batches(plan, checked, take)


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

    The sums are computed in float64 for one image and class at a time, in the order of s, so that memory does not grow
    with the number of passes and the result does not depend on the number of threads.

    Args:
        batch: The batch.
        weights: Weight of each sample, float64 of shape (samples,).
        make: Function that returns the preprocessed pixels (Cin, H, W) of an image for a sample. Several threads call
            it at the same time.

    Returns:
        Sums, float32 of shape (K, n, Cin, H, W).
    """
    n, each = batch.targets.shape
    count = len(weights)
    result = np.empty((each, *batch.pixels.shape), np.float32)
    total, weighted = np.zeros(batch.pixels.shape[1:]), np.empty(batch.pixels.shape[1:])

    def places(part: slice) -> Iterator[tuple[int, int, int]]:
        """Yield image, class and sample of each row."""
        for row in range(part.start, part.stop):
            pair, sample = divmod(row, count)
            yield *divmod(pair, each), sample

    def gradients(part: slice, run: Run) -> Floats:
        pixels = [make(image, sample)[None] for image, _, sample in places(part)]
        images, classes, _ = np.array(list(places(part))).T
        feeds = {IMAGES: _join(pixels), TARGETS: batch.targets[images, classes]}
        return run(feeds, images)

    def add(part: slice, found: Floats) -> None:
        for gradient, (image, k, sample) in zip(found, places(part), strict=True):
            np.copyto(weighted, gradient)  # converting first is faster than a ufunc that converts
            np.multiply(weighted, weights[sample], out=weighted)
            np.add(total, weighted, out=total)
            if sample == count - 1:
                result[k, image] = total
                total[...] = 0
        batch.counter.add(len(found))

    batch.each(INPUT_GRADIENTS, (IMAGES, TARGETS), n * each * count, gradients, add)
    return result


def _join(arrays: list[Floats]) -> Floats:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
