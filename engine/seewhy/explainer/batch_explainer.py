"""One batch of images with K classes each: what runs once for all classes, and what for each of them.

The plain run takes the images as they are and asks for their first class. What it gives is all that there is to do for
one class. For the others, methods that need no gradient of the image run the head alone, from the activations that are
there already, wherever the target layer separates input from logits; otherwise the image is repeated. Methods of many
passes ask for their runs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy.contract.constants import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, IMAGES, LOGITS, PREDICTED, TARGETS
from seewhy.errors import NonFiniteError
from seewhy.methods.base import COMPLETENESS, RuleContext, RuleResult, Values
from seewhy.methods.multi_pass import Batch, MultiPass, PassCounter, row_slices
from seewhy.methods.options import Options
from seewhy.methods.registry import Method
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.in_graph_maps import IN_GRAPH_MAPS, InGraphMap
from seewhy.runtime.model_file import repeat_reason
from seewhy.runtime.sessions import Outputs
from seewhy.targets.class_targets import top_classes

_FROM_THE_LAYER_ON = frozenset({ACTIVATIONS, GRADIENTS, CLASS_WEIGHTS})


@dataclass(frozen=True)
class BatchRequest:
    """What to find out about every image."""

    methods: Sequence[Method]
    options: Mapping[str, Options]
    """Each method's, by name, with a value for every one."""
    classes_per_image: int
    """K, classes per image."""
    batch_size: int
    """Most rows in one run."""
    size: RuleContext

    reduced: bool = False
    """Whether the graph makes the maps that it can make; see `seewhy.runtime.in_graph_maps`."""

    @property
    def outputs(self) -> frozenset[str]:
        """What the plain run has to compute."""
        return frozenset({LOGITS}).union(
            *(self.read(m) if m.multi_pass is None else m.multi_pass.outputs for m in self.methods)
        )

    def reduction(self, method: Method) -> InGraphMap | None:
        """How the graph makes the method's map, where it does."""
        return IN_GRAPH_MAPS.get(method.name) if self.reduced else None

    def read(self, method: Method) -> tuple[str, ...]:
        """Outputs that a method of one run needs."""
        reduction = self.reduction(method)
        return method.outputs if reduction is None else (reduction.output,)

    @property
    def varying(self) -> list[Method]:
        """Methods of one run whose answer depends on the class."""
        return [m for m in self.methods if m.multi_pass is None and set(m.outputs) != {ACTIVATIONS}]


@dataclass(frozen=True)
class MethodResult:
    """What one method says about a batch: (K,n,...), class-major; a map or values, as its rule makes them."""

    maps: Floats | None
    attributions: Floats | None
    completeness: Floats | None = None
    """(K,n), for integrated gradients."""


@dataclass(frozen=True)
class BatchResult:
    """What all methods say about a batch."""

    logits: Floats
    """(n,classes)"""
    targets: Integers
    """(n,K)"""
    methods: Mapping[str, MethodResult]


def explain_batch(
    runs: GraphRunner, request: BatchRequest, pixels: Floats, asked: Integers | None, first: int, counter: PassCounter
) -> BatchResult:
    """Explain n images (n,Cin,H,W) for the classes `asked` (n,K); None asks for the K highest, best first.

    `first` is the number of the first image, for errors; `counter` is told of every pass of methods of many passes.

    Raises:
        NonFiniteError: the graph or a rule produced NaN or infinity.
    """
    if runs.sessions.maps_in_graph:
        request = replace(request, reduced=True)
    by_head = _by_head(runs, request)
    outputs = request.outputs | {ACTIVATIONS} if by_head else request.outputs
    start = np.full(len(pixels), PREDICTED, np.int64) if asked is None else np.ascontiguousarray(asked[:, 0])
    numbers = range(first, first + len(pixels))
    values = {IMAGES: pixels, **runs(outputs, {IMAGES: pixels, TARGETS: start}, numbers)}
    targets = _targets(asked, values[LOGITS], request.classes_per_image)

    single = [method for method in request.methods if method.multi_pass is None]
    parts = {method.name: [_combine(method, values, request)] for method in single}
    varying = request.varying if request.classes_per_image > 1 else []
    if varying:
        # Class by class, and in each all images.
        for part in row_slices(len(pixels) * (request.classes_per_image - 1), request.batch_size):
            classes, images = np.divmod(np.arange(part.start, part.stop), len(pixels))
            again = _further(runs, request, values, targets[images, classes + 1], images, numbers, by_head)
            for method in varying:
                parts[method.name].append(_combine(method, again, request))
    answers = {name: _join(found, request.classes_per_image, len(pixels)) for name, found in parts.items()}

    many = [(method, method.multi_pass) for method in request.methods if method.multi_pass is not None]
    if not many:
        return BatchResult(values[LOGITS], targets, answers)
    batch = Batch(runs, pixels, targets, values, first, request.batch_size, request.size, counter)
    counter.expect(sum(passes.pass_count(batch, request.options[method.name]) for method, passes in many))
    # What overflows is found in what becomes of it, and named there.
    with np.errstate(over="ignore", invalid="ignore"):
        for method, passes in many:
            answers[method.name] = _of_passes(method, passes, batch, request)
    return BatchResult(values[LOGITS], targets, answers)


def _by_head(runs: GraphRunner, request: BatchRequest) -> bool:
    """Whether further classes run the head alone."""
    if request.classes_per_image == 1:
        return False
    varying = request.varying
    everything_there = bool(varying) and all(_FROM_THE_LAYER_ON.issuperset(method.outputs) for method in varying)
    return everything_there and repeat_reason(runs.model) is None


def _targets(asked: Integers | None, logits: Floats, each: int) -> Integers:
    if asked is None:
        return top_classes(logits, each)
    if PREDICTED not in asked.ravel().tolist():
        return asked
    return np.where(asked == PREDICTED, logits.argmax(axis=1)[:, None], asked)


def _further(
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
    if not by_head:  # the plain run's outputs, so that its session serves here too
        return {IMAGES: pixels, **runs(request.outputs, {IMAGES: pixels, TARGETS: targets}, _picked(numbers, images))}
    outputs = frozenset(name for method in request.varying for name in request.read(method)) - {ACTIVATIONS}
    activations = _rows(values[ACTIVATIONS], images)
    computed = runs(outputs, {ACTIVATIONS: activations, TARGETS: targets}, _picked(numbers, images))
    return {IMAGES: pixels, ACTIVATIONS: activations, **computed}


def _picked(numbers: Sequence[int], images: Integers) -> list[int]:
    return [numbers[image] for image in images]


def _rows(value: Floats, images: Integers) -> Floats:
    # A run for one class of all images, which a full batch makes, needs no copy of them.
    return value if np.array_equal(images, np.arange(len(value))) else value[images]


def _combine(method: Method, values: Values, request: BatchRequest) -> MethodResult:
    """One method's answer for some rows: (m,...), not yet class-major."""
    reduction = request.reduction(method)
    try:
        if reduction is None:
            attribution = method.rule(values, request.size)
        else:
            attribution = RuleResult(values[reduction.output])
    except NonFiniteError as error:
        raise NonFiniteError(f"{method.name}: {error}") from None
    return MethodResult(attribution.maps, attribution.attributions)


def _of_passes(method: Method, passes: MultiPass, batch: Batch, request: BatchRequest) -> MethodResult:
    made = passes.run(batch, request.options[method.name])
    answers = []
    for k in range(request.classes_per_image):
        values = {**batch.values, **{name: value[k] for name, value in made.items()}}
        answers.append(_combine(method, values, request))
    return replace(_join(answers, request.classes_per_image, len(batch.pixels)), completeness=made.get(COMPLETENESS))


def _join(parts: Sequence[MethodResult], each: int, images: int) -> MethodResult:
    """Put parts together that follow each other class by class; a single one of all images holds for every class."""

    def join(arrays: Sequence[Floats | None]) -> Floats | None:
        there = [array for array in arrays if array is not None]
        if not there:
            return None
        joined = there[0] if len(there) == 1 else np.concatenate(there)
        if len(joined) == images:
            # Not broadcast_to: what users are given is theirs to write to.
            return joined[None] if each == 1 else np.repeat(joined[None], each, axis=0)
        return joined.reshape(each, images, *joined.shape[1:])

    return MethodResult(join([part.maps for part in parts]), join([part.attributions for part in parts]))
