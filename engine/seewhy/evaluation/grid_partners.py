"""Images of other classes for the grids of `grid-pointing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from seewhy._shared.arrays import Bytes
from seewhy.bulk.image_stages import ImageStages
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ImageTask
from seewhy.errors import NonFiniteError
from seewhy.images.preprocessing import normalise
from seewhy.inputs.image_inputs import Inputs
from seewhy.metrics.base import NotMeasurable

_MOST = 64
"""Number of images from which partners are chosen."""
_MOST_BYTES = 64 * 2**20
"""Total size of their views, in bytes."""


class Partner(NamedTuple):
    """An image that can stand beside others in a grid."""

    path: str
    view: Bytes
    """The model's view, uint8 of shape (H, W, C)."""
    target: int
    """Predicted class."""


def find_partners(request: JobRequest, inputs: Inputs, should_stop: Callable[[], bool]) -> list[Partner]:
    """Load some images of a job and predict their classes.

    They are spread evenly over all images, or are the first ones if there are archives, whose images are not counted.
    Images that fail are left out; the job reports them later.

    Args:
        request: The resolved settings.
        inputs: All images of the job. No other iteration over them may run.
        should_stop: Function that returns whether to stop. It is called before each image.

    Returns:
        At most 64 images.
    """
    height, width = request.explainer.metadata.image_size
    most = max(8, min(_MOST, _MOST_BYTES // (height * width * 3)))
    step = 1 if inputs.total is None else max(1, -(-inputs.total // most))
    stages = ImageStages(request, None, None)
    partners: list[Partner] = []
    with closing(iter(inputs)) as images:
        for number, image in enumerate(images):
            if len(partners) == most or should_stop():
                break
            if number % step:
                continue
            (task,) = stages.load([ImageTask(image)])
            if task.image is None:
                continue
            try:
                prediction = request.explainer.predict(normalise([task.image], request.explainer.metadata, 1))
            except NonFiniteError:
                continue
            partners.append(Partner(image.path, task.image.view, int(prediction.classes[0])))
    return partners


def choose_partners(
    partners: Sequence[Partner], path: str, target: int, count: int, rng: np.random.Generator
) -> list[tuple[Bytes, int]]:
    """Choose other images at random.

    Args:
        partners: What `find_partners` returned.
        path: Path of the image that gets partners.
        target: Its class.
        count: Number of images to choose.
        rng: Source of randomness.

    Returns:
        Views and predicted classes, which differ from each other and from `target`.

    Raises:
        NotMeasurable: If the images have too few classes.
    """
    chosen: dict[int, Bytes] = {}
    for index in rng.permutation(len(partners)):
        one = partners[index]
        if one.path != path and one.target != target and one.target not in chosen:
            chosen[one.target] = one.view
        if len(chosen) == count:
            return [(view, label) for label, view in chosen.items()]
    raise NotMeasurable(f"a grid needs images of {count + 1} predicted classes, and there are {len(chosen) + 1}")
