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
from seewhy.errors import OutputError
from seewhy.methods.base import COMPLETENESS, Attribution, Size, Values
from seewhy.methods.multi_pass import Batch, Count, Passes, slices
from seewhy.methods.options import Options
from seewhy.methods.registry import Method
from seewhy.runtime.checked_runs import Runs
from seewhy.runtime.in_graph_maps import REDUCTIONS, Reduction
from seewhy.runtime.model_file import why_repeated
from seewhy.runtime.sessions import Outputs
from seewhy.targets.class_targets import highest

_FROM_THE_LAYER_ON = frozenset({ACTIVATIONS, GRADIENTS, CLASS_WEIGHTS})


@dataclass(frozen=True)
class Question:
    """What to find out about every image."""

    methods: Sequence[Method]
    options: Mapping[str, Options]
    """Each method's, by name, with a value for every one."""
    each: int
    """K, classes per image."""
    batch_size: int
    """Most rows in one run."""
    size: Size

    reduced: bool = False
    """Whether the graph makes the maps that it can make; see `seewhy.runtime.in_graph_maps`."""

    @property
    def outputs(self) -> frozenset[str]:
        """What the plain run has to compute."""
        return frozenset({LOGITS}).union(*(self.read(m) if m.passes is None else m.passes.reads for m in self.methods))

    def reduction(self, method: Method) -> Reduction | None:
        """How the graph makes the method's map, where it does."""
        return REDUCTIONS.get(method.name) if self.reduced else None

    def read(self, method: Method) -> tuple[str, ...]:
        """Outputs that a method of one run needs."""
        reduction = self.reduction(method)
        return method.outputs if reduction is None else (reduction.output,)

    @property
    def varying(self) -> list[Method]:
        """Methods of one run whose answer depends on the class."""
        return [m for m in self.methods if m.passes is None and set(m.outputs) != {ACTIVATIONS}]


@dataclass(frozen=True)
class Answer:
    """What one method says about a batch: (K,n,...), class-major; a map or values, as its rule makes them."""

    maps: Floats | None
    values: Floats | None
    completeness: Floats | None = None
    """(K,n), for integrated gradients."""


@dataclass(frozen=True)
class Answers:
    """What all methods say about a batch."""

    logits: Floats
    """(n,classes)"""
    targets: Integers
    """(n,K)"""
    methods: Mapping[str, Answer]


def answer(runs: Runs, question: Question, pixels: Floats, asked: Integers | None, first: int, count: Count) -> Answers:
    """Explain n images (n,Cin,H,W) for the classes `asked` (n,K); None asks for the K highest, best first.

    `first` is the number of the first image, for errors; `count` is told of every pass of methods of many passes.

    Raises:
        OutputError: the graph or a rule produced NaN or infinity.
    """
    if runs.sessions.reduces:
        question = replace(question, reduced=True)
    by_head = _by_head(runs, question)
    outputs = question.outputs | {ACTIVATIONS} if by_head else question.outputs
    start = np.full(len(pixels), PREDICTED, np.int64) if asked is None else np.ascontiguousarray(asked[:, 0])
    numbers = range(first, first + len(pixels))
    values = {IMAGES: pixels, **runs(outputs, {IMAGES: pixels, TARGETS: start}, numbers)}
    targets = _targets(asked, values[LOGITS], question.each)

    single = [method for method in question.methods if method.passes is None]
    parts = {method.name: [_combine(method, values, question)] for method in single}
    varying = question.varying if question.each > 1 else []
    if varying:
        # Class by class, and in each all images.
        for part in slices(len(pixels) * (question.each - 1), question.batch_size):
            classes, images = np.divmod(np.arange(part.start, part.stop), len(pixels))
            again = _further(runs, question, values, targets[images, classes + 1], images, numbers, by_head)
            for method in varying:
                parts[method.name].append(_combine(method, again, question))
    answers = {name: _join(found, question.each, len(pixels)) for name, found in parts.items()}

    many = [(method, method.passes) for method in question.methods if method.passes is not None]
    if not many:
        return Answers(values[LOGITS], targets, answers)
    batch = Batch(runs, pixels, targets, values, first, question.batch_size, question.size, count)
    count.expect(sum(passes.count(batch, question.options[method.name]) for method, passes in many))
    # What overflows is found in what becomes of it, and named there.
    with np.errstate(over="ignore", invalid="ignore"):
        for method, passes in many:
            answers[method.name] = _of_passes(method, passes, batch, question)
    return Answers(values[LOGITS], targets, answers)


def _by_head(runs: Runs, question: Question) -> bool:
    """Whether further classes run the head alone."""
    if question.each == 1:
        return False
    varying = question.varying
    everything_there = bool(varying) and all(_FROM_THE_LAYER_ON.issuperset(method.outputs) for method in varying)
    return everything_there and why_repeated(runs.model) is None


def _targets(asked: Integers | None, logits: Floats, each: int) -> Integers:
    if asked is None:
        return highest(logits, each)
    if PREDICTED not in asked.ravel().tolist():
        return asked
    return np.where(asked == PREDICTED, logits.argmax(axis=1)[:, None], asked)


def _further(
    runs: Runs,
    question: Question,
    values: Outputs,
    targets: Integers,
    images: Integers,
    numbers: Sequence[int],
    by_head: bool,
) -> Values:
    """The values for m further pairs of class and image; `images` (m,) are their rows in the plain run's `values`."""
    pixels = _rows(values[IMAGES], images)
    if not by_head:  # the plain run's outputs, so that its session serves here too
        return {IMAGES: pixels, **runs(question.outputs, {IMAGES: pixels, TARGETS: targets}, _picked(numbers, images))}
    outputs = frozenset(name for method in question.varying for name in question.read(method)) - {ACTIVATIONS}
    activations = _rows(values[ACTIVATIONS], images)
    computed = runs(outputs, {ACTIVATIONS: activations, TARGETS: targets}, _picked(numbers, images))
    return {IMAGES: pixels, ACTIVATIONS: activations, **computed}


def _picked(numbers: Sequence[int], images: Integers) -> list[int]:
    return [numbers[image] for image in images]


def _rows(value: Floats, images: Integers) -> Floats:
    # A run for one class of all images, which a full batch makes, needs no copy of them.
    return value if np.array_equal(images, np.arange(len(value))) else value[images]


def _combine(method: Method, values: Values, question: Question) -> Answer:
    """One method's answer for some rows: (m,...), not yet class-major."""
    reduction = question.reduction(method)
    try:
        if reduction is None:
            attribution = method.combine(values, question.size)
        else:
            attribution = Attribution(values[reduction.output])
    except OutputError as error:
        raise OutputError(f"{method.name}: {error}") from None
    return Answer(attribution.maps, attribution.values)


def _of_passes(method: Method, passes: Passes, batch: Batch, question: Question) -> Answer:
    made = passes.run(batch, question.options[method.name])
    answers = []
    for k in range(question.each):
        values = {**batch.values, **{name: value[k] for name, value in made.items()}}
        answers.append(_combine(method, values, question))
    return replace(_join(answers, question.each, len(batch.pixels)), completeness=made.get(COMPLETENESS))


def _join(parts: Sequence[Answer], each: int, images: int) -> Answer:
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

    return Answer(join([part.maps for part in parts]), join([part.values for part in parts]))
