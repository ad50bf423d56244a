"""Tests of exported files, run by the engine, against Captum, pytorch-grad-cam and module hooks.

The float32 results are compared with a float64 reference. The relative L2 error is at most the larger of 1e-4 and 4
times the float32 error of PyTorch itself. An input on which rounding flips a rectifier is drawn again, at most 4 times
(see seewhy_export/verification/parity.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import seewhy
from seewhy_export._shared.error_measure import relative_error
from support.exporting.module_hooks import activations_and_gradients, gradient, guided_gradient
from support.exporting.networks import torchvision_network

Compute = Callable[[nn.Module, Tensor, Tensor], Tensor]


def assert_agrees(
    ours: Callable[[Tensor], Tensor], theirs: Compute, module: nn.Module, targets: Tensor, size: int
) -> None:
    """Assert that `ours(images)` agrees with `theirs(module, images, targets)` in float64."""
    found = []
    for seed in range(5):
        images = torch.randn(len(targets), 3, size, size, generator=torch.Generator().manual_seed(seed))
        exact = theirs(module.double(), images.double(), targets)
        own = relative_error(theirs(module.float(), images, targets), exact)
        error = relative_error(ours(images), exact)
        assert error is not None and own is not None, "the reference is zero"
        found.append((error, own))
        if error <= max(1e-4, 4 * own):
            return
    raise AssertionError(f"(our error, PyTorch's) on each draw: {found}")


def saliency(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return captum.attr.Saliency(module).attribute(images.clone().requires_grad_(True), targets, abs=False)


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def captum_guided(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return captum.attr.GuidedBackprop(module).attribute(images.clone().requires_grad_(True), targets)


NETWORKS = ("alexnet", "resnet18", "mobilenet_v2")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, exported: Callable[..., Path]) -> tuple[nn.Module, seewhy.Explainer]:
    module = torchvision_network(request.param)
    return module, seewhy.Explainer(exported(request.param, module, image_size=(96, 96)))


TARGETS = torch.tensor([3, 700])


def attributions(explainer: seewhy.Explainer, method: str) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.from_numpy(
        explainer.explain(images.numpy(), method=method, target=TARGETS.tolist()).attributions
    )


def test_backprop_is_captums_saliency(network: tuple[nn.Module, seewhy.Explainer]) -> None:
    module, explainer = network
    assert_agrees(attributions(explainer, "backprop"), saliency, module, TARGETS, 96)


def test_guided_backprop_is_the_rule_at_every_rectifier(network: tuple[nn.Module, seewhy.Explainer]) -> None:
    module, explainer = network

    def hooked(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return guided_gradient(module, images, targets, lambda _, part: isinstance(part, (nn.ReLU, nn.ReLU6)))

    assert_agrees(attributions(explainer, "guided-backprop"), hooked, module, TARGETS, 96)


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_guided_backprop_is_captums_on_alexnet(exported: Callable[..., Path]) -> None:
    module = torchvision_network("alexnet")
    explainer = seewhy.Explainer(exported("alexnet", module, image_size=(96, 96)))
    assert_agrees(attributions(explainer, "guided-backprop"), captum_guided, module, TARGETS, 96)


def test_gradcam_is_captums_before_its_relu(network: tuple[nn.Module, seewhy.Explainer]) -> None:
    module, explainer = network
    layer = explainer.metadata.layer.name

    def layer_gradcam(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return captum.attr.LayerGradCam(module, module.get_submodule(layer)).attribute(images, targets)[:, 0].detach()

    def maps(images: Tensor) -> Tensor:
        return torch.from_numpy(explainer.explain(images.numpy(), target=TARGETS.tolist()).maps)

    assert_agrees(maps, layer_gradcam, module, TARGETS, 96)


def test_gradcam_heatmaps_are_pytorch_grad_cams(network: tuple[nn.Module, seewhy.Explainer]) -> None:
    """Heatmaps in [0, 1] agree to 2e-3.

    pytorch-grad-cam divides by max + 1e-7 twice, and resizes with the fixed-point weights of OpenCV.
    """
    module, explainer = network
    layer = module.get_submodule(explainer.metadata.layer.name)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    ours = explainer.explain(images.numpy(), target=TARGETS.tolist()).heatmaps
    with GradCAM(model=module.float(), target_layers=[layer]) as cam:
        theirs = cam(input_tensor=images, targets=[ClassifierOutputTarget(int(t)) for t in TARGETS])
    assert theirs.max() > 0.99
    assert np.abs(ours - theirs).max() <= 2e-3


def test_cam_is_gradcam_times_the_area_on_a_pooled_linear_head(network: tuple[nn.Module, seewhy.Explainer]) -> None:
    """CAM from class_weights equals Grad-CAM's sum before its ReLU times h w, because G is w / (h w) everywhere."""
    module, explainer = network
    if "cam" not in explainer.methods:
        assert isinstance(module, type(torchvision_network("alexnet")))
        return
    images = np.random.default_rng(0).standard_normal((2, 3, 96, 96), np.float32)
    # Use the least likely class, whose map has many negative values.
    unlikely = explainer.explain(images).logits.argmin(1).tolist()
    results = explainer.explain(images, method=["cam", "gradcam"], target=unlikely)
    cam, gradcam = results["cam"].maps, results["gradcam"].maps
    assert (cam < 0).any()
    # The maps sum up to 1280 float32 products. Allow a few hundred roundings of the largest term.
    np.testing.assert_allclose(cam, gradcam * gradcam[0].size, rtol=0, atol=1e-5 * np.abs(cam).max())


def test_any_batch_size_and_the_predicted_class(exported: Callable[..., Path]) -> None:
    module = torchvision_network("resnet18")
    explainer = seewhy.Explainer(exported("resnet18", module, image_size=(96, 96)))
    images = torch.randn(5, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    whole = explainer.explain(images.numpy(), method="backprop", batch_size=5)
    assert whole.targets.tolist() == module(images).argmax(1).tolist()
    for size in (1, 2, 3):
        batches = explainer.explain(images.numpy(), method="backprop", batch_size=size)
        assert batches.targets.tolist() == whole.targets.tolist()
        np.testing.assert_allclose(batches.logits, whole.logits, rtol=0, atol=1e-5 * np.abs(whole.logits).max())


def test_alexnet_at_512_with_the_rule_in_features_only(exported: Callable[..., Path]) -> None:
    """Reproduce the report that the project started from: 512x512, targets 56, 243, 751, 734, guided in `features`.

    The last maps are 31x31. Max pooling reduces them to 15x15, and adaptive pooling to 6x6.
    """
    module = torchvision_network("alexnet")
    path = exported("alexnet512", module, image_size=(512, 512), guided_scope=["features"])
    explainer = seewhy.Explainer(path)
    rectifiers = explainer.metadata.rectifiers
    assert (rectifiers.guided, sum(rectifiers.kinds.values()), rectifiers.guided_scope) == (5, 7, ("features",))
    targets = torch.tensor([56, 243, 751, 734])

    def run(method: str) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.from_numpy(
            explainer.explain(images.numpy(), method=method, target=targets.tolist()).attributions
        )

    def in_features(name: str, part: nn.Module) -> bool:
        return name.startswith("features.") and isinstance(part, nn.ReLU)

    assert_agrees(run("guided-backprop"), lambda m, x, t: guided_gradient(m, x, t, in_features), module, targets, 512)
    assert_agrees(run("backprop"), gradient, module, targets, 512)
    result = explainer.explain(np.zeros((1, 3, 512, 512), np.float32))
    assert result.maps.shape == (1, 31, 31)


def test_activations_and_gradients_are_the_hooked_layers(exported: Callable[..., Path]) -> None:
    import onnxruntime

    module = torchvision_network("resnet18")
    session = onnxruntime.InferenceSession(exported("resnet18", module, image_size=(96, 96)))
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(4))
    names = ["activations", "gradients"]
    values = session.run(names, {"images": images.numpy(), "targets": TARGETS.numpy()})
    expected = activations_and_gradients(module.double(), module.layer4, images.double(), TARGETS)
    for value, exact in zip(values, expected, strict=True):
        # After the last rectifier nothing can flip, so only float32 rounding remains.
        assert relative_error(torch.from_numpy(value), exact) <= 1e-5
