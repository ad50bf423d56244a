"""Tests of `seewhy_export.backward.joint_graph`: the graph, run by PyTorch, equals autograd, module hooks and Captum.

All compute in float64, in which no rectifier is within rounding error of zero, so the bound is 1e-9.
"""

from __future__ import annotations

import gc

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from seewhy_export.backward.joint_graph import build_joint
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import target_layer
from seewhy_export.verification.reference import reference_outputs
from support.exporting.module_hooks import activations_and_gradients, gradient, guided_gradient
from support.exporting.networks import branches, torchvision_network

OUTPUTS = ["logits", "activations", "gradients", "input_gradients", "guided_gradients"]
SIZES = {"alexnet": 96, "vgg11": 64, "resnet18": 64, "mobilenet_v2": 64, "squeezenet1_1": 64, "shufflenet_v2_x0_5": 64}
TARGETS = torch.tensor([-1, 3])


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    assert float(theirs.norm()) > 0
    assert float((ours - theirs).norm() / theirs.norm()) <= 1e-9


def joint_values(module: nn.Module, images: Tensor, scope: tuple[str, ...] | None = None) -> tuple[dict, str]:
    forward = trace_forward(prepare(module), tuple(images.shape[2:]), images.shape[1], None).to(torch.float64)
    layer = target_layer(forward, None)
    return build_joint(forward, layer, OUTPUTS, scope).run(images, TARGETS[: len(images)]), layer.name


def noise(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def is_rectifier(name: str, module: nn.Module) -> bool:
    return isinstance(module, (nn.ReLU, nn.ReLU6))


@pytest.fixture(scope="module", params=list(SIZES))
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor, dict, str]:
    module = torchvision_network(request.param)
    images = noise(SIZES[request.param])
    values, layer = joint_values(module, images)
    return request.param, module.double(), images, values, layer


def classes(module: nn.Module, images: Tensor) -> Tensor:
    return torch.where(TARGETS < 0, module(images).argmax(1), TARGETS)


def test_plain_gradients_equal_autograd(case: tuple[str, nn.Module, Tensor, dict, str]) -> None:
    _, module, images, values, layer = case
    targets = classes(module, images)
    assert_close(values["logits"], module(images))
    assert_close(values["input_gradients"], gradient(module, images, targets))
    activations, gradients = activations_and_gradients(module, module.get_submodule(layer), images, targets)
    assert_close(values["activations"], activations)
    assert_close(values["gradients"], gradients)


def test_guided_gradients_equal_module_hooks(case: tuple[str, nn.Module, Tensor, dict, str]) -> None:
    """Every rectifier of these networks is a module, including ReLU6, so hooks see all of them."""
    _, module, images, values, _ = case
    expected = guided_gradient(module, images, classes(module, images), is_rectifier)
    assert_close(values["guided_gradients"], expected)


def test_gradients_equal_those_of_captum(case: tuple[str, nn.Module, Tensor, dict, str]) -> None:
    name, module, images, values, layer = case
    targets = classes(module, images)
    saliency = captum.attr.Saliency(module).attribute(images.clone().requires_grad_(True), targets, abs=False)
    assert_close(values["input_gradients"], saliency)
    target_module = module.get_submodule(layer)
    theirs = captum.attr.LayerGradCam(module, target_module).attribute(images, targets)
    ours = (values["gradients"].mean((2, 3), keepdim=True) * values["activations"]).sum(1, keepdim=True)
    assert_close(ours, theirs.detach())
    if name in ("alexnet", "vgg11"):  # every rectifier is an nn.ReLU of its own
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            guided = captum.attr.GuidedBackprop(module).attribute(images.clone().requires_grad_(True), targets)
        assert_close(values["guided_gradients"], guided)


def test_every_rectifier_is_guided_however_it_is_written() -> None:
    """Compare functional, in-place and reused rectifiers, ReLU6 and clamp with a guided rule written by hand."""

    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            return g.clamp(min=0)

    module = branches()
    images = noise(33)
    values, _ = joint_values(module, images)
    m = module.double()
    x = images.clone().requires_grad_(True)
    t = m.pool(Cut.apply(m.stem(x).relu()))
    left = Cut.apply(m.left[1](m.left[0](t)).clamp(0, 6))
    t = torch.cat([left, Cut.apply(m.right(t).relu())], 1)
    # relu and clamp(min=0) differ only where their input is exactly 0.
    t = Cut.apply((m.norm(m.down(t)) + m.shortcut(t)).relu())
    logits = m.head(Cut.apply(m.last(t).relu()).mean((2, 3)))
    score = logits.gather(1, classes(m, images)[:, None]).sum()
    assert_close(values["guided_gradients"], torch.autograd.grad(score, x)[0])
    assert_close(values["input_gradients"], gradient(m, images, classes(m, images)))


@pytest.mark.parametrize("size", [(31, 47), (64, 64)])
def test_sizes_that_strides_do_not_divide(size: tuple[int, int]) -> None:
    module = branches()
    images = torch.randn(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))[:2]
    values, _ = joint_values(module, images)
    assert_close(values["input_gradients"], gradient(module.double(), images, classes(module, images)))


def test_a_target_other_than_minus_one_is_used_as_given() -> None:
    module = branches()
    images = noise(32)
    forward = trace_forward(prepare(module), (32, 32), 3, None).to(torch.float64)
    joint = build_joint(forward, target_layer(forward, None), ["input_gradients", "class_weights"])
    targets = torch.tensor([6, 0])
    values = joint.run(images, targets)
    assert_close(values["input_gradients"], gradient(module.double(), images, targets))
    assert torch.equal(values["class_weights"], module.head.weight[targets])


def test_no_autograd_graph_outlives_its_use() -> None:
    """A cycle through PyTorch's C++ is never collected, and would keep every activation of each export."""
    forward = trace_forward(prepare(branches()), (32, 32), 3, None)
    layer = target_layer(forward, None)
    outputs = ("logits", "gradients", "guided_gradients")
    build_joint(forward, layer, outputs)
    reference_outputs(forward, layer, outputs, torch.zeros(1, 3, 32, 32), torch.tensor([-1]))
    gc.collect()
    nodes = [value for value in gc.get_objects() if type(value).__name__ in ("RectifyBackward", "_RuledBackward")]
    assert nodes == []
