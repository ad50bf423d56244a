"""Explain one batch of images with K classes each: what runs once for all classes, and what runs for each of them.

The plain run takes the images as they are and computes the gradients for their first class. For further classes,
methods that need no gradient of the image run the head alone, from the activations that the plain run computed, if the
target layer separates input from logits; otherwise the image is repeated. Multi-pass methods plan their own runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, IMAGES, LOGITS, PREDICTED, TARGETS
from seewhy.methods.base import COMPLETENESS, RuleContext, Values
from seewhy.methods.method import Method, MethodRequest, apply_rule
from seewhy.methods.multi_pass import Batch, MultiPass, PassCounter, row_slices
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.in_graph_maps import IN_GRAPH_MAPS, InGraphMap
from seewhy.runtime.model_file import repeat_reason
from seewhy.runtime.sessions import Outputs
from seewhy.targets.class_targets import top_classes

_FROM_TARGET_LAYER = frozenset({ACTIVATIONS, GRADIENTS, CLASS_WEIGHTS})


@dataclass(frozen=True)
class BatchRequest:
    """Methods, classes and limits for every image of a batch."""

    methods: Sequence[MethodRequest]
    """Each method once, with its options."""
    classes_per_image: int
    """K, the number of classes for each image."""
    batch_size: int
    """Maximum number of rows in one run of the graph."""
    context: RuleContext
    """Size of the input and number of threads."""
    reduced: bool = False
    """True if the graph computes the maps that it can; see `seewhy.runtime.in_graph_maps`."""

    @property
    def outputs(self) -> frozenset[str]:
        """Outputs that the plain run has to compute."""
        read = (
            self.read(one.method) if one.method.multi_pass is None else one.method.multi_pass.outputs
            for one in self.methods
        )
        return frozenset({LOGITS}).union(*read)

    def in_graph_map(self, method: Method) -> InGraphMap | None:
        """Return how the graph computes the method's map, or None if it does not."""
        return IN_GRAPH_MAPS.get(method.name) if self.reduced else None

    def read(self, method: Method) -> tuple[str, ...]:
        """Return the outputs that a method of a single run needs."""
        in_graph = self.in_graph_map(method)
        return method.outputs if in_graph is None else (in_graph.output,)

    @property
    def single_run(self) -> list[MethodRequest]:
        """Methods of a single run."""
        return [one for one in self.methods if one.method.multi_pass is None]

    @property
    def class_dependent(self) -> list[MethodRequest]:
        """Methods of a single run whose result depends on the class."""
        return [one for one in self.single_run if set(one.method.outputs) != {ACTIVATIONS}]


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
    if runs.sessions.maps_in_graph:
        request = replace(request, reduced=True)
    by_head = _by_head(runs, request)
    outputs = request.outputs | {ACTIVATIONS} if by_head else request.outputs
    start = np.full(len(pixels), PREDICTED, np.int64) if targets is None else np.ascontiguousarray(targets[:, 0])
    numbers = range(first, first + len(pixels))
    values = {IMAGES: pixels, **runs(outputs, {IMAGES: pixels, TARGETS: start}, numbers)}
    targets = _known_targets(targets, values[LOGITS], request.classes_per_image)

    found = {one.name: [_combine(one, values, request)] for one in request.single_run}
    further = request.class_dependent if request.classes_per_image > 1 else []
    if further:
        # Class by class, and for each class all images.
        for part in row_slices(len(pixels) * (request.classes_per_image - 1), request.batch_size):
            classes, images = np.divmod(np.arange(part.start, part.stop), len(pixels))
            again = _further_values(runs, request, values, targets[images, classes + 1], images, numbers, by_head)
            for one in further:
                found[one.name].append(_combine(one, again, request))
    results = {
        name: MethodResult(_join(arrays, request.classes_per_image, len(pixels))) for name, arrays in found.items()
    }

    many = [(one, one.method.multi_pass) for one in request.methods if one.method.multi_pass is not None]
    if not many:
        return BatchResult(values[LOGITS], targets, results)
    batch = Batch(runs, pixels, targets, values, first, request.batch_size, request.context, counter)
    counter.expect(sum(passes.pass_count(batch, one.options) for one, passes in many))
    # Values that overflow are found in the result, and the error there names the method.
    with np.errstate(over="ignore", invalid="ignore"):
        for one, passes in many:
            results[one.name] = _multi_pass(one, passes, batch, request)
    return BatchResult(values[LOGITS], targets, results)


def _by_head(runs: GraphRunner, request: BatchRequest) -> bool:
    """Return whether further classes run the head alone."""
    if request.classes_per_image == 1:
        return False
    further = request.class_dependent
    enough = bool(further) and all(_FROM_TARGET_LAYER.issuperset(one.method.outputs) for one in further)
    return enough and repeat_reason(runs.model) is None


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


def _further_values(
    runs: GraphRunner,
    request: BatchRequest,
    values: Outputs,
    targets: Integers,
    images: Integers,
    numbers: Sequence[int],
    by_head: bool,
) -> Values:
    """Return the values for m further pairs of class and image; `images` (m,) are their rows in `values`."""
    pixels = _rows(values[IMAGES], images)
    picked = [numbers[image] for image in images]
    if not by_head:  # with the outputs of the plain run, so that its session serves here, too
        return {IMAGES: pixels, **runs(request.outputs, {IMAGES: pixels, TARGETS: targets}, picked)}
    outputs = frozenset(name for one in request.class_dependent for name in request.read(one.method)) - {ACTIVATIONS}
    activations = _rows(values[ACTIVATIONS], images)
    computed = runs(outputs, {ACTIVATIONS: activations, TARGETS: targets}, picked)
    return {IMAGES: pixels, ACTIVATIONS: activations, **computed}


def _rows(value: Floats, images: Integers) -> Floats:
    # A run for one class of all images, which a full batch is, needs no copy of them.
    return value if np.array_equal(images, np.arange(len(value))) else value[images]


def _combine(one: MethodRequest, values: Values, request: BatchRequest) -> Floats:
    """Return one method's result for m rows: (m,...)."""
    in_graph = request.in_graph_map(one.method)
    return apply_rule(one, values, request.context) if in_graph is None else values[in_graph.output]


def _multi_pass(one: MethodRequest, passes: MultiPass, batch: Batch, request: BatchRequest) -> MethodResult:
    made = passes.run(batch, one.options)
    found = []
    for k in range(request.classes_per_image):
        values = {**batch.values, **{name: value[k] for name, value in made.items()}}
        found.append(_combine(one, values, request))
    return MethodResult(_join(found, request.classes_per_image, len(batch.pixels)), made.get(COMPLETENESS))


def _join(arrays: Sequence[Floats], per_image: int, images: int) -> Floats:
    """Join arrays that follow each other class by class; a single one of all images holds for every class."""
    joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    if len(joined) == images:
        # Not broadcast_to, because users may write to what they get.
        return joined[None] if per_image == 1 else np.repeat(joined[None], per_image, axis=0)
    return joined.reshape(per_image, images, *joined.shape[1:])
