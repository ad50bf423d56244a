"""Common scale of a job's figures: the maxima of its first images, computed before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from seewhy.bulk.image_stages import ImageStages
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ImageTask
from seewhy.errors import ArgumentError
from seewhy.inputs.image_inputs import Inputs
from seewhy.visualization.drawings import Drawing


def first_maxima(
    request: JobRequest, inputs: Inputs, count: int, should_stop: Callable[[], bool]
) -> dict[str, float] | None:
    """Return the value of the hottest colour for each method: the maximum over the first images of a job.

    It is the largest value of the maps. For gradients with robust scaling, it is the largest value at which one of the
    images is clipped. Images that fail are left out; the job reports them later.

    Args:
        request: The resolved settings.
        inputs: All images of the job.
        count: Number of images, N.
        should_stop: Function that returns whether to stop. It is called before each batch.

    Returns:
        A positive number by the name of the method, or None if the job is to stop.

    Raises:
        ArgumentError: If none of these images can be explained, or a method's maps are 0 in all that can.
        SeewhyError: If the images cannot be listed.
    """
    stages = ImageStages(replace(request, style=replace(request.style, canvas="model")), None, None)
    largest = {one.name: 0.0 for one in request.methods}
    explained, error = 0, None
    images = islice(iter(inputs), count)
    while batch := list(islice(images, 1 if request.has_multi_pass else request.settings.batch_size)):
        if should_stop():
            return None
        for task in stages.explain(list(stages.load([ImageTask(image) for image in batch]))):
            if task.error is None:
                explained += 1
                for name, drawings in stages.drawn(task.own_results()).items():
                    largest[name] = max(largest[name], *(_limit(one) for one in drawings))
            error = error or task.error
    for name, value in largest.items():
        if value == 0:
            zero = f"{name} is 0 in all that can be explained ({explained})"
            none = f"none can be explained ({error or 'there are no images'})"
            raise ArgumentError(
                f"the first {count} images give no scale, because {zero if explained else none}; give more images with "
                f"first:N, or a number"
            )
    return largest


def _limit(drawing: Drawing) -> float:
    """Return the value of the hottest colour in a figure with a scale of its own; 0 if no value is positive."""
    return max(0.0, -drawing.scale.low if drawing.scale.signed else 0.0, drawing.scale.high)
