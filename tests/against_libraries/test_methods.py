"""Tests of the single-pass methods against Captum and pytorch-grad-cam.

The numbers are equal where the definitions are equal. Where docs/concepts/semantics.md says that a library differs, the
tests show how. The libraries compute in float64 with module hooks, the engine in float32 from an exported file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import seewhy
from seewhy.methods.base import RuleContext
from seewhy.methods.registry import METHODS
from support.exporting.module_hooks import activations_and_gradients, gradient
from support.exporting.networks import live_weights, stacked
from support.references import relative_error
from support.references.methods import WEIGHTS

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")

TARGETS = [1, 4]
# Compares float32 with float64, over sums of a few hundred products. The limit is about a hundred float32 roundings.
RELATIVE = 1e-5

OUTPUTS = "activations,gradients,input_gradients,guided_gradients,deconvnet_gradients".split(",")


def network(rectifier: Callable[[], nn.Module] = nn.ReLU, gain: float = 1.0) -> nn.Module:
    """Return a network of convolutions and rectifiers, with a head for which the gradient varies over each map."""
    module = stacked(rectifier, nn.MaxPool2d(2))
    live_weights(module)
    with torch.no_grad():
        module.get_submodule("head").weight *= gain
    return module.eval()


class Functional(nn.Module):
    """The same network with functional rectifiers instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner
        x = inner.pool(torch.relu(inner.first(x)))
        x = torch.relu(inner.third(torch.relu(inner.second(x))))
        return inner.head(x.flatten(1))


Exported = Callable[..., Path]


def explainer(exported: Exported, name: str, module: nn.Module, layer: str = "second_act") -> seewhy.Explainer:
    path = exported(f"{name}-{layer}", module, image_size=(16, 16), layer=layer, outputs=OUTPUTS)
    return seewhy.Explainer(path)


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def maps(explainer: seewhy.Explainer, method: str) -> np.ndarray:
    found = explainer.explain(images().numpy(), method, target=TARGETS).maps
    assert found is not None
    return found


def attributions(explainer: seewhy.Explainer, method: str) -> np.ndarray:
    return explainer.explain(images().numpy(), method, target=TARGETS).attributions


def hooked(module: nn.Module, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations and gradients of the layer in float64."""
    found = activations_and_gradients(
        module.double(), module.get_submodule(layer), images().double(), torch.tensor(TARGETS)
    )
    return found[0].numpy(), found[1].numpy()


def library_map(name: str, module: nn.Module, layer: str) -> np.ndarray:
    """Return a map of pytorch-grad-cam before its ReLU, resizing and scaling."""
    activations, gradients = hooked(module, layer)
    with getattr(pytorch_grad_cam, name)(model=module, target_layers=[module.get_submodule(layer)]) as cam:
        return np.asarray(cam.get_cam_image(None, None, None, activations, gradients, False))


# The CAM family. The layer `second` comes before its rectifier, so its activations have both signs.

SAME = {"gradcam": "GradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM", "xgradcam": "XGradCAM"}
LAYERS = ["second", "second_act"]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", SAME)
def test_maps_equal_pytorch_grad_cam(exported: Exported, method: str, layer: str) -> None:
    module = network()
    theirs = library_map(SAME[method], module, layer)
    assert relative_error(maps(explainer(exported, "relu", module.float(), layer), method), theirs) <= RELATIVE


def test_the_methods_differ_on_this_network(exported: Exported) -> None:
    """If they did not differ, the tests above could not tell them apart."""
    ours = {name: maps(explainer(exported, "relu", network()), name) for name in (*SAME, "gradcam++", "eigencam")}
    scaled = {name: values / np.abs(values).max() for name, values in ours.items()}
    for first in scaled:
        for second in scaled:
            assert first == second or np.abs(scaled[first] - scaled[second]).max() > 0.01


@pytest.mark.parametrize("method", SAME)
def test_heatmaps_equal_pytorch_grad_cam_except_for_scaling(exported: Exported, method: str) -> None:
    """Heatmaps in [0, 1] agree within 2e-3.

    pytorch-grad-cam divides by max + 1e-7, resizes with OpenCV, and scales again.
    """
    module = network()
    ours = explainer(exported, "relu", module).explain(images().numpy(), method, target=TARGETS).heatmaps
    with getattr(pytorch_grad_cam, SAME[method])(model=module, target_layers=[module.second_act]) as cam:
        theirs = cam(input_tensor=images(), targets=[ClassifierOutputTarget(target) for target in TARGETS])
    assert theirs.max() > 0.99
    assert np.abs(ours - theirs).max() <= 2e-3


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("gain", "low", "high"), [(1e4, 0.0, 1e-5), (1e-3, 0.5, np.inf)])
def test_gradcam_plus_plus_is_equation_19_and_pytorch_grad_cam_agrees_for_large_gradients(
    exported: Exported, layer: str, gain: float, low: float, high: float
) -> None:
    """pytorch-grad-cam adds 1e-6 to the denominator 2 g^2 + ..., which dominates for gradients below 1e-3."""
    module = network(gain=gain)
    activations, gradients = hooked(module, layer)
    literal = np.array(
        [
            (WEIGHTS["gradcam++"](a, g)[:, None, None] * a).sum(axis=0)
            for a, g in zip(activations, gradients, strict=True)
        ]
    )
    theirs = library_map("GradCAMPlusPlus", module, layer)
    ours = maps(explainer(exported, f"gain{gain}", module.float(), layer), "gradcam++")
    # Denominators come close to zero where the sum of a map is negative, so the limit is larger.
    assert relative_error(ours, literal) <= 10 * RELATIVE
    assert low <= relative_error(theirs, literal) <= high


def test_xgradcam_where_a_channel_sums_to_zero() -> None:
    """pytorch-grad-cam adds 1e-7 to the sum; SeeWhy gives such a channel the weight 0."""
    activations, gradients = np.array([[[[3.0, -3.0]]]]), np.array([[[[2.0, 1.0]]]])
    with pytorch_grad_cam.XGradCAM(model=network(), target_layers=[]) as cam:
        theirs = cam.get_cam_weights(None, None, None, activations, gradients)
    assert theirs[0, 0] == pytest.approx(3e7)
    values = {"activations": activations.astype(np.float32), "gradients": gradients.astype(np.float32)}
    maps = METHODS["xgradcam"].rule(values, RuleContext(1, 2, 1))
    assert not maps.any()


def test_eigencam_of_centered_activations_equals_pytorch_grad_cam(exported: Exported) -> None:
    module = network()
    activations, _ = hooked(module, "second_act")
    centred = activations - activations.mean(axis=(2, 3), keepdims=True)
    theirs = library_map("EigenCAM", module, "second_act")
    values = {"activations": centred.astype(np.float32)}
    ours = METHODS["eigencam"].rule(values, RuleContext(16, 16, 1))
    for our_map, their_map in zip(ours, theirs, strict=True):
        # SeeWhy gets the activations in float32. Rounding rotates a singular vector by the rounding error divided by
        # the gap between singular values.
        assert min(relative_error(our_map, their_map), relative_error(our_map, -their_map)) <= 10 * RELATIVE
    # Without centering, SeeWhy's map is never negative. The map of pytorch-grad-cam has mean zero.
    plain = maps(explainer(exported, "relu", module.float()), "eigencam")
    assert plain.min() >= 0 and plain.max() > 1
    assert theirs.min() < -1 and np.abs(theirs.mean(axis=(1, 2))).max() < 1e-5


# Gradients of the input.


def captum_of(name: str, module: nn.Module, **options: object) -> np.ndarray:
    attribute = getattr(captum.attr, name)(module.double()).attribute
    inputs = images().double().requires_grad_(True)
    found: np.ndarray = attribute(inputs, torch.tensor(TARGETS), **options).detach().numpy()
    return found


def plain_gradient(module: nn.Module) -> np.ndarray:
    return gradient(module.double(), images().double(), torch.tensor(TARGETS)).numpy()


def test_inputxgradient_equals_captum(exported: Exported) -> None:
    module = network()
    ours = attributions(explainer(exported, "relu", module), "inputxgradient")
    assert relative_error(ours, captum_of("InputXGradient", module)) <= RELATIVE


def test_backprop_equals_signed_saliency_of_captum(exported: Exported) -> None:
    module = network()
    ours = attributions(explainer(exported, "relu", module), "backprop")
    assert relative_error(ours, captum_of("Saliency", module, abs=False)) <= RELATIVE
    assert relative_error(np.abs(ours), captum_of("Saliency", module)) <= RELATIVE


CAPTUM_RULES = {"guided-backprop": "GuidedBackprop", "deconvnet": "Deconvolution"}


@pytest.mark.parametrize("method", CAPTUM_RULES)
def test_rules_equal_captum_on_relu_modules(exported: Exported, method: str) -> None:
    module = network()
    ours = attributions(explainer(exported, "relu", module), method)
    theirs = captum_of(CAPTUM_RULES[method], module)
    assert relative_error(ours, theirs) <= RELATIVE
    assert relative_error(theirs, plain_gradient(module)) > 0.1


@pytest.mark.parametrize("method", CAPTUM_RULES)
@pytest.mark.parametrize("name", ["relu6", "functional"])
def test_captum_applies_no_rule_to_other_rectifiers(exported: Exported, method: str, name: str) -> None:
    module = Functional().eval() if name == "functional" else network(nn.ReLU6)
    layer = "inner.second" if name == "functional" else "second_act"
    ours = attributions(explainer(exported, name, module, layer), method)
    theirs = captum_of(CAPTUM_RULES[method], module)
    assert relative_error(theirs, plain_gradient(module)) == 0
    assert relative_error(ours, theirs) > 0.1
    if name == "functional":  # Captum applies the rule to the same network with modules
        assert relative_error(ours, captum_of(CAPTUM_RULES[method], network())) <= RELATIVE


@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6])
def test_guided_backprop_equals_pytorch_grad_cam_only_on_relu_modules(
    exported: Exported, rectifier: Callable[[], nn.Module]
) -> None:
    module = network(rectifier)
    ours = attributions(explainer(exported, rectifier.__name__.lower(), module), "guided-backprop")
    plain = plain_gradient(module)
    library = pytorch_grad_cam.GuidedBackpropReLUModel(model=module.double(), device="cpu")
    theirs = np.stack(
        [
            library(image[None].double(), target).transpose(2, 0, 1)
            for image, target in zip(images(), TARGETS, strict=True)
        ]
    )
    if rectifier is nn.ReLU:
        assert relative_error(ours, theirs) <= RELATIVE
        assert relative_error(theirs, plain) > 0.1
    else:
        assert relative_error(theirs, plain) <= 1e-12
        assert relative_error(ours, theirs) > 0.1


def test_deconvnet_without_max_pooling_does_not_depend_on_the_image(exported: Exported) -> None:
    """Captum's float64 attributions are the same bits for all images, and SeeWhy's are the same up to rounding."""
    module = network()
    module.pool = nn.AvgPool2d(2)
    theirs = captum.attr.Deconvolution(module.double())
    targets = torch.tensor([1, 1])
    first, second = theirs.attribute(images().double().requires_grad_(True), targets).detach().numpy()
    assert np.array_equal(first, second) and np.abs(first).max() > 0.01
    found = explainer(exported, "average", module).explain(images().numpy(), "deconvnet", target=1).attributions
    assert relative_error(found[0], first) <= RELATIVE and relative_error(found[1], first) <= RELATIVE
    # With max pooling, the attributions differ.
    found = explainer(exported, "relu", network()).explain(images().numpy(), "deconvnet", target=1).attributions
    assert relative_error(found[0], found[1]) > 0.1


def test_grad_cam_of_captum_has_no_relu(exported: Exported) -> None:
    module = network()
    ours = maps(explainer(exported, "relu", module), "gradcam")
    library = captum.attr.LayerGradCam(module.double(), module.second_act)
    inputs, targets = images().double(), torch.tensor(TARGETS)
    theirs = library.attribute(inputs, targets).detach().numpy()[:, 0]
    assert theirs.min() < 0 and relative_error(ours, theirs) <= RELATIVE
    rectified = library.attribute(inputs, targets, relu_attributions=True).detach().numpy()[:, 0]
    assert relative_error(np.maximum(ours, 0), rectified) <= RELATIVE


def test_guided_grad_cam_of_captum_is_not_scaled_and_uses_nearest_upsampling(exported: Exported) -> None:
    module = network()
    found = explainer(exported, "relu", module)
    guided, heat = attributions(found, "guided-backprop"), attributions(found, "gradcam")
    library = captum.attr.GuidedGradCam(module.double(), module.second_act)
    inputs, targets = images().double().requires_grad_(True), torch.tensor(TARGETS)
    bilinear = library.attribute(inputs, targets, interpolate_mode="bilinear").detach().numpy()
    assert relative_error(guided * heat[:, None], bilinear) <= RELATIVE
    nearest = library.attribute(inputs, targets).detach().numpy()
    blocks = np.maximum(maps(found, "gradcam"), 0).repeat(2, axis=1).repeat(2, axis=2)
    assert relative_error(guided * blocks[:, None], nearest) <= RELATIVE
    # SeeWhy scales the heatmap to [0, 1] before the product.
    low, high = heat.min(axis=(1, 2)), heat.max(axis=(1, 2))
    scaled = (heat - low[:, None, None]) / (high - low)[:, None, None]
    assert relative_error(attributions(found, "guided-gradcam"), guided * scaled[:, None]) <= RELATIVE
