"""Deletion and insertion (Petsiuk et al. 2018, RISE, arXiv:1806.07421, section 4.1 and figure 3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seewhy._shared.arrays import Floats, Integers
from seewhy.methods.options import Option, Options, integer
from seewhy.metrics.base import HIGHER, LOWER, Measured
from seewhy.metrics.baselines import baseline, baseline_logits, baseline_option
from seewhy.metrics.evaluated_image import BATCH_SIZE, EvaluatedExplanation
from seewhy.metrics.metric import Metric
from seewhy.metrics.scores import SCORE, needs_score, resolve_score


def _deletion(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the area under the score while pixels are removed, from the highest value of the map to the lowest."""
    return _area(explanation, options, inserts=False)


def _insertion(explanation: EvaluatedExplanation, options: Options) -> Measured:
    """Return the area under the score while pixels are put back, from the highest value of the map to the lowest."""
    return _area(explanation, options, inserts=True)


def _area(explanation: EvaluatedExplanation, options: Options, inserts: bool) -> Measured:
    """Return the area under the curve of the score over the share of changed pixels, by the trapezoid rule.

    The curve has steps + 1 points, from no pixel changed to all. Both ends are known for all methods of an image: the
    logits of the image, and those of its baseline.
    """
    image, ranking = explanation.image, explanation.ranking()
    ends = [(image.pixels, image.logits[None]), (baseline(image, options["baseline"]), None)]
    start, end = reversed(ends) if inserts else ends
    changed = np.arange(options["steps"] + 1) * len(ranking) // options["steps"]
    logits = [image.logits_at(images) for images in changed_images(start[0], end[0], ranking, changed[1:-1])]
    known = [baseline_logits(image, options["baseline"]) if one[1] is None else one[1] for one in (start, end)]
    score = resolve_score(options["score"], image.metadata)
    curve = image.scores(np.concatenate([known[0], *logits, known[1]]), score)
    shares = changed / len(ranking)
    return Measured(float(np.sum(np.diff(shares) * (curve[1:] + curve[:-1]) / 2)), curve.tolist())


def changed_images(start: Floats, end: Floats, ranking: Integers, changed: Integers) -> Iterator[Floats]:
    """Yield images between two, in batches. Pixels change in the order of the ranking.

    Args:
        start: Image before any change, float32 of shape (Cin, H, W).
        end: Image after all changes, of the same shape.
        ranking: Flat indices of all pixels, the first one to change first.
        changed: Number of changed pixels of each image, in ascending order.

    Yields:
        Batches of images, float32 of shape (n, Cin, H, W).
    """
    current, final = start.reshape(len(start), -1).copy(), end.reshape(len(end), -1)
    done = 0
    for first in range(0, len(changed), BATCH_SIZE):
        counts = changed[first : first + BATCH_SIZE]
        batch = np.empty((len(counts), *current.shape), np.float32)
        for row, count in zip(batch, counts, strict=True):
            pixels = ranking[done:count]
            current[:, pixels] = final[:, pixels]
            row[...] = current
            done = count
        yield batch.reshape(-1, *start.shape)


def _options(default: str) -> tuple[Option, ...]:
    steps = Option("steps", 20, integer(1, 1000), "Number of equal steps from no changed pixel to all.")
    return steps, baseline_option(default), SCORE


DELETION = (
    Metric(
        "deletion",
        "Deletion",
        "faithfulness",
        LOWER,
        _deletion,
        (None, None),
        "Petsiuk et al. 2018, RISE, section 4.1: area under the score while the highest-ranked pixels are removed, in "
        "[0, 1] for probabilities",
        "steps - 1, and 1 for all methods of an image",
        _options("zero"),
        unsuitable=needs_score,
    ),
    Metric(
        "insertion",
        "Insertion",
        "faithfulness",
        HIGHER,
        _insertion,
        (None, None),
        "Petsiuk et al. 2018, RISE, section 4.1: area under the score while the highest-ranked pixels are put back, in "
        "[0, 1] for probabilities",
        "steps - 1, and 1 for all methods of an image",
        _options("blur"),
        unsuitable=needs_score,
    ),
)
