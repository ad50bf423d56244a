"""Test of `max-sensitivity` against Captum's `sensitivity_max`, with the same perturbations and networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import captum.attr
import captum.metrics
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.contract.metadata import Preprocessing
from seewhy.metrics.robustness import ROBUSTNESS, perturbations
from support.evaluated import evaluated, measure
from support.exporting.networks import live_weights, stacked

_, MAX_SENSITIVITY = ROBUSTNESS


@pytest.mark.parametrize("radius", [0.02, 0.2])
@pytest.mark.parametrize("method", ["backprop", "inputxgradient", "gradcam"])
def test_max_sensitivity_equals_captum(exported: Callable[..., Path], method: str, radius: float) -> None:
    module = live_weights(stacked(nn.Softplus, nn.AvgPool2d(2)), 0).eval()
    options = {"image_size": (16, 16), "layer": "second_act", "preprocessing": Preprocessing()}
    explainer = seewhy.Explainer(exported("sensitivity", module, **options), threads=1)
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    one = evaluated(explainer, image.numpy(), [method])[method]
    target = one.image.target
    changes = torch.from_numpy(perturbations(one.image, radius, 10)).double()

    double = module.double()
    gradcam = captum.attr.LayerGradCam(double, double.second_act)

    def explain(given: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        images = (given if isinstance(given, Tensor) else given[0]).detach().requires_grad_()
        if method == "gradcam":
            maps = gradcam.attribute(images, target, relu_attributions=True)
            return (nn.functional.interpolate(maps, (16, 16), mode="bilinear", align_corners=False),)
        if method == "backprop":
            return (captum.attr.Saliency(double).attribute(images, target, abs=False),)
        return (captum.attr.InputXGradient(double).attribute(images, target),)

    theirs = captum.metrics.sensitivity_max(
        explain,
        image[None].double(),
        perturb_func=lambda images: images + changes,
        n_perturb_samples=10,
    )
    ours = measure(MAX_SENSITIVITY, one, radius=radius, samples=10).value
    assert ours == pytest.approx(float(theirs), rel=1e-3) and ours > 0
    assert radius != 0.02 or ours == measure(MAX_SENSITIVITY, one).value  # Captum's defaults


def test_perturbations_fill_the_same_cube(exported: Callable[..., Path]) -> None:
    """Compare the quantiles of the drawn changes with those of Captum's default function."""
    from captum.metrics._core.sensitivity import default_perturb_func

    module = live_weights(stacked(nn.Softplus, nn.AvgPool2d(2)), 0).eval()
    options = {"image_size": (16, 16), "layer": "second_act", "preprocessing": Preprocessing()}
    explainer = seewhy.Explainer(exported("sensitivity", module, **options), threads=1)
    image = evaluated(explainer, np.zeros((3, 16, 16), np.float32), ["backprop"])["backprop"].image
    (theirs,) = default_perturb_func(torch.zeros(50, 3, 16, 16), 0.02)
    shares = np.linspace(0, 1, 11)
    ours = np.quantile(perturbations(image, 0.02, 50), shares)
    np.testing.assert_allclose(ours, np.quantile(theirs.numpy(), shares), atol=0.0005)
