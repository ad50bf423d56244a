"""Explain one batch of images with K classes each: what runs once for all classes, and what runs for each of them.

The plain run takes the images as they are and computes the gradients for their first class. For further classes,
methods that need no gradient of the image run the head alone, from the activations that the plain run computed, if the
target layer separates input from logits; otherwise the image is repeated. Multi-pass methods plan their own runs.

The thread that runs a sub-batch also checks its outputs and applies the rules, while they are in the core's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, IMAGES, LOGITS, PREDICTED, TARGETS
from seewhy.methods.base import COMPLETENESS, RuleContext, Values
from seewhy.methods.method import Method, MethodRequest, apply_rule
from seewhy.methods.multi_pass import Batch, MultiPass, PassCounter
from seewhy.runtime.checked_runs import GraphRunner, SubBatchRun
from seewhy.runtime.in_graph_maps import IN_GRAPH_MAPS
from seewhy.runtime.sessions import Feeds
from seewhy.targets.class_targets import top_classes

_FROM_TARGET_LAYER = frozenset({ACTIVATIONS, GRADIENTS, CLASS_WEIGHTS})


@dataclass(frozen=True)
class BatchRequest:
    """Methods, classes and limits for every image of a batch, and what follows from them for every run."""

    methods: tuple[MethodRequest, ...]
    """Each method once, with its options."""
    classes_per_image: int
    """K, the number of classes for each image."""
    batch_size: int
    """Maximum number of rows in one run of the graph."""
    context: RuleContext
    """Size of the input and number of threads."""
    reduced: bool
    """True if the graph computes the maps that it can; see `seewhy.runtime.in_graph_maps`."""
    starts_at_layer: bool
    """True if the graph can start at the activations of the target layer."""

    @cached_property
    def single_run(self) -> list[MethodRequest]:
        """Methods of a single run."""
        return [one for one in self.methods if one.method.multi_pass is None]

    @cached_property
    def multi_pass(self) -> list[tuple[MethodRequest, MultiPass]]:
        """Multi-pass methods, with their runs."""
        return [(one, one.method.multi_pass) for one in self.methods if one.method.multi_pass is not None]

    @cached_property
    def further(self) -> list[MethodRequest]:
        """Methods of a single run that need another one for each class after the first."""
        several = self.classes_per_image > 1
        return [one for one in self.single_run if several and set(one.method.outputs) != {ACTIVATIONS}]

    @cached_property
    def by_head(self) -> bool:
        """True if these further runs are runs of the head alone."""
        from_layer = all(_FROM_TARGET_LAYER.issuperset(one.method.outputs) for one in self.further)
        return bool(self.further) and from_layer and self.starts_at_layer

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """Outputs of the plain run that are needed when it is over."""
        later = [passes.outputs for _, passes in self.multi_pass] + [(ACTIVATIONS,) if self.by_head else ()]
        return tuple(dict.fromkeys([LOGITS, *itertools.chain(*later)]))

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Outputs that the plain run has to compute."""
        return frozenset(self.kept).union(*(self.read(one.method) for one in self.single_run))

    @cached_property
    def further_outputs(self) -> frozenset[str]:
        """Outputs that further runs have to compute."""
        if not self.by_head:  # those of the plain run, so that its session serves here, too
            return self.outputs
        return frozenset(name for one in self.further for name in self.read(one.method)) - {ACTIVATIONS}

    @cached_property
    def in_graph(self) -> dict[str, str]:
        """Output with the map of each method whose map the graph computes."""
        names = [one.name for one in self.methods if self.reduced and one.name in IN_GRAPH_MAPS]
        return {name: IN_GRAPH_MAPS[name].output for name in names}

    def read(self, method: Method) -> tuple[str, ...]:
        """Return the outputs that a method of a single run needs."""
        return (self.in_graph[method.name],) if method.name in self.in_graph else method.outputs


@dataclass(frozen=True)
class MethodResult:
    """Result of one method for a batch: (K,n,...), one class after the other."""

    values: Floats
    """Maps (K,n,h,w) of a map method; attributions (K,n,Cin,H,W) of a gradient method."""
    completeness: Floats | None = None
    """Completeness error (K,n), for integrated gradients."""


@dataclass(frozen=True)
class BatchResult:
    """Results of all methods for a batch."""

    logits: Floats
    """Logits of shape (n,classes)."""
    targets: Integers
    """Class indices that were explained, of shape (n,K)."""
    methods: Mapping[str, MethodResult]
    """Result of each method by its name."""


def explain_batch(
    runs: GraphRunner, request: BatchRequest, pixels: Floats, targets: Integers | None, first: int, counter: PassCounter
) -> BatchResult:
    """Explain a batch of n images.

    Args:
        runs: Runs the graph.
        request: Methods and limits.
        pixels: Preprocessed images, float32 of shape (n, Cin, H, W).
        targets: Class indices of shape (n, K), or None for the K classes with the highest logits, best first.
        first: Number of the first image, for messages.
        counter: Counts the passes of multi-pass methods.

    Returns:
        Logits of shape (n, class count), class indices of shape (n, K), and the results of each method.

    Raises:
        MethodError: If the rule of a method fails.
        NonFiniteError: If the graph or a rule produced NaN or infinity.
    """
    n, each = len(pixels), request.classes_per_image
    start = np.full(n, PREDICTED, np.int64) if targets is None else np.ascontiguousarray(targets[:, 0])
    numbers = range(first, first + n)

    def feeds_of(rows: slice) -> Feeds:
        return {IMAGES: pixels[rows], TARGETS: start[rows]}

    given = (IMAGES, TARGETS)
    computed = _run(runs, request, request.outputs, given, numbers, feeds_of, request.single_run, request.kept)
    values = {IMAGES: pixels, **dict(zip(request.kept, computed, strict=False))}
    found = {one.name: [result] for one, result in zip(request.single_run, computed[len(request.kept) :], strict=True)}
    targets = _known_targets(targets, values[LOGITS], each)
    if request.further:
        again = _run_further(runs, request, values, targets, numbers)
        for one, result in zip(request.further, again, strict=True):
            found[one.name].append(result)
    results = {name: MethodResult(_join(arrays, each, n)) for name, arrays in found.items()}
    if request.multi_pass:
        batch = Batch(runs, pixels, targets, values, first, request.batch_size, request.context, counter)
        counter.expect(sum(passes.pass_count(batch, one.options) for one, passes in request.multi_pass))
        # Values that overflow are found in the result, and the error there names the method.
        with np.errstate(over="ignore", invalid="ignore"):
            for one, passes in request.multi_pass:
                results[one.name] = _multi_pass(one, passes, batch, request)
    return BatchResult(values[LOGITS], targets, results)


def _run(
    runs: GraphRunner,
    request: BatchRequest,
    outputs: frozenset[str],
    given: tuple[str, ...],
    numbers: Sequence[int],
    feeds_of: Callable[[slice], Feeds],
    methods: Sequence[MethodRequest],
    kept: Sequence[str] = (),
) -> list[Floats]:
    """Run the graph for m rows, and apply the rules of methods to its outputs.

    Args:
        runs: Runs the graph.
        request: Methods and limits.
        outputs: Names of the outputs.
        given: Names of the values that the graph starts from.
        numbers: Number of the image of each row, of length m.
        feeds_of: Function that returns the given values of some rows, and their images.
        methods: Methods of a single run.
        kept: Names of outputs to return.

    Returns:
        The outputs `kept`, and the result of each method: (m,...).
    """
    plan = runs.sessions.plan(outputs, given, len(numbers), request.batch_size)
    context = request.context if plan.callers == 1 else replace(request.context, threads=1)
    parts: list[list[Floats]] = []

    def work(rows: slice, run: SubBatchRun) -> list[Floats]:
        feeds = feeds_of(rows)
        values = {**feeds, **run(feeds, numbers[rows])}
        del values[TARGETS]  # rules read images and outputs
        return [*[values[name] for name in kept], *[_combine(one, values, request, context) for one in methods]]

    runs.in_sub_batches(plan, work, lambda _, found: parts.append(found))
    return parts[0] if len(parts) == 1 else [np.concatenate(found) for found in zip(*parts, strict=True)]


def _run_further(
    runs: GraphRunner, request: BatchRequest, values: Values, targets: Integers, numbers: Sequence[int]
) -> list[Floats]:
    """Return the results of the methods `further` for all classes but the first, one class after the other."""
    start = ACTIVATIONS if request.by_head else IMAGES
    classes, images = np.divmod(np.arange(targets.size - len(targets)), len(targets))
    wanted = targets[images, classes + 1]

    def feeds_of(rows: slice) -> Feeds:
        names = dict.fromkeys((IMAGES, LOGITS, start))  # rules read the logits, which the head need not compute again
        return {TARGETS: wanted[rows], **{name: _rows(values[name], images[rows]) for name in names}}

    again = [numbers[image] for image in images]
    return _run(runs, request, request.further_outputs, (start, TARGETS), again, feeds_of, request.further)


def _rows(value: Floats, images: Integers) -> Floats:
    """Return the rows of some images, without a copy if these follow each other."""
    first, last = images[0], images[-1] + 1
    return value[first:last] if last - first == len(images) else value[images]


def _known_targets(targets: Integers | None, logits: Floats, per_image: int) -> Integers:
    """Return (n,K) class indices, with the predicted class in place of `PREDICTED`."""
    if targets is None:
        return top_classes(logits, per_image)
    listed = targets.ravel().tolist()
    if PREDICTED not in listed:
        return targets
    if listed == [PREDICTED]:
        return top_classes(logits, 1)
    return np.where(targets == PREDICTED, logits.argmax(axis=1)[:, None], targets)


def _combine(one: MethodRequest, values: Values, request: BatchRequest, context: RuleContext) -> Floats:
    """Return one method's result for m rows: (m,...)."""
    output = request.in_graph.get(one.name)
    return apply_rule(one, values, context) if output is None else values[output]


def _multi_pass(one: MethodRequest, passes: MultiPass, batch: Batch, request: BatchRequest) -> MethodResult:
    made = passes.run(batch, one.options)
    found = []
    for k in range(request.classes_per_image):
        values = {**batch.values, **{name: value[k] for name, value in made.items()}}
        found.append(_combine(one, values, request, request.context))
    return MethodResult(_join(found, request.classes_per_image, len(batch.pixels)), made.get(COMPLETENESS))


def _join(arrays: Sequence[Floats], per_image: int, images: int) -> Floats:
    """Join arrays that follow each other class by class; a single one of all images holds for every class."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if len(joined) == images:
        # Not broadcast_to, because users may write to what they get.
        return joined[None] if per_image == 1 else np.repeat(joined[None], per_image, axis=0)
    return joined.reshape(per_image, images, *joined.shape[1:])
