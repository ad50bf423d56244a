"""Captum."""

from __future__ import annotations

from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam
from job import Job, Task
from torch_models import freeze, heatmaps, images, layer, network


def gradcam(task: Task) -> Job:
    module, x, targets = network(task), images(task), task.targets
    method = LayerGradCam(module, layer(task, module))

    def run():
        maps = method.attribute(x, target=targets, relu_attributions=True)
        # Its own interpolation, and the scaling that it leaves to the user.
        large = LayerAttribution.interpolate(maps, x.shape[-2:], "bilinear")[:, 0].detach()
        return heatmaps(large, x.shape[-2:]).numpy()

    return Job(run)


def guided(task: Task) -> Job:
    module, x, targets = network(task), images(task), task.targets
    freeze(module)
    method = GuidedBackprop(module)
    return Job(lambda: method.attribute(x, target=targets).detach().numpy())
