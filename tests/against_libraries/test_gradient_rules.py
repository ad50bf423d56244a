"""Tests of the gradient rules against Captum, pytorch-grad-cam and zennit.

All three libraries apply the rules only to modules of class nn.ReLU, where they agree with SeeWhy. For other
rectifiers they return the plain gradient, without a warning.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seewhy_export.backward.joint_graph import build_joint
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.target_layer.selection import target_layer

captum = pytest.importorskip("captum.attr")
gradcam = pytest.importorskip("pytorch_grad_cam")
zennit = pytest.importorskip("zennit.attribution")
composites = pytest.importorskip("zennit.composites")

VALUES = [-3.0, -1e-30, 0.0, 1e-30, 0.5, 0.7, 1.0, 2.0, 5.9, 6.0, 6.1, 50.0]


class Network(nn.Module):
    """An activation with incoming gradients of both signs, applied two times if `twice` is set."""

    def __init__(self, activation: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)
        self.activation, self.twice = activation, twice
        self.register_buffer("weights", torch.tensor([1.0, -2.0, 4.0, -0.5]).repeat(3).reshape(1, 1, 2, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.conv(x))
        if self.twice:
            y = self.activation(y * self.weights.abs() - 1)
        score = (y * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([score, -score], 1)


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x)


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class OwnReLU(nn.ReLU):
    """A subclass of nn.ReLU, as users write them."""


def captum_guided(module: nn.Module, x: Tensor) -> Tensor:
    return captum.GuidedBackprop(module).attribute(x.requires_grad_(True), target=0)


def captum_deconvnet(module: nn.Module, x: Tensor) -> Tensor:
    return captum.Deconvolution(module).attribute(x.requires_grad_(True), target=0)


def gradcam_guided(module: nn.Module, x: Tensor) -> Tensor:
    height_width_channels = torch.from_numpy(gradcam.GuidedBackpropReLUModel(module, "cpu")(x, 0))
    return height_width_channels.permute(2, 0, 1)[None]


def zennit_of(composite: type) -> Callable[[nn.Module, Tensor], Tensor]:
    def attribute(module: nn.Module, x: Tensor) -> Tensor:
        with zennit.Gradient(module, composite()) as attributor:
            return attributor(x, torch.eye(2, dtype=x.dtype)[[0]])[1]

    return attribute


LIBRARIES: dict[str, tuple[str, Callable[[nn.Module, Tensor], Tensor]]] = {
    "captum guided": ("guided_gradients", captum_guided),
    "pytorch-grad-cam guided": ("guided_gradients", gradcam_guided),
    "zennit guided": ("guided_gradients", zennit_of(composites.GuidedBackprop)),
    "captum deconvnet": ("deconvnet_gradients", captum_deconvnet),
    "zennit deconvnet": ("deconvnet_gradients", zennit_of(composites.DeconvNet)),
}
SAME: dict[str, Callable[[], nn.Module]] = {
    "nn.ReLU": lambda: Network(nn.ReLU()),
    "nn.ReLU in place": lambda: Network(nn.ReLU(inplace=True)),
    "nn.ReLU used twice": lambda: Network(nn.ReLU(), twice=True),
    "nn.ReLU in place, used twice": lambda: Network(nn.ReLU(inplace=True), twice=True),
    "a subclass of nn.ReLU": lambda: Network(OwnReLU()),
}
DIFFERENT: dict[str, Callable[[], nn.Module]] = {
    "F.relu": lambda: Network(Functional()),
    "clamp": lambda: Network(Clamped()),
    "nn.ReLU6": lambda: Network(nn.ReLU6()),
    "nn.Hardtanh(0, 1)": lambda: Network(nn.Hardtanh(0.0, 1.0)),
    "nn.Threshold(0, 0)": lambda: Network(nn.Threshold(0.0, 0.0)),
    "nn.LeakyReLU": lambda: Network(nn.LeakyReLU(0.1)),
    "nn.PReLU": lambda: Network(nn.PReLU()),
    "nn.RReLU": lambda: Network(nn.RReLU()),
}


def ours(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    forward = trace_forward(prepare(module), (2, 6), 1, None).to(torch.float64)
    names = ["input_gradients", "guided_gradients", "deconvnet_gradients"]
    return build_joint(forward, target_layer(forward, None), names).run(x, torch.tensor([0]))


@pytest.fixture
def x() -> Tensor:
    return torch.tensor(VALUES, dtype=torch.float64).reshape(1, 1, 2, 6)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("name", SAME)
def test_all_libraries_agree_on_relu_modules(name: str, x: Tensor) -> None:
    values = ours(SAME[name](), x)
    for library, (output, attribute) in LIBRARIES.items():
        assert torch.equal(attribute(SAME[name]().double().eval(), x.clone()), values[output]), library


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("name", DIFFERENT)
def test_libraries_return_the_plain_gradient_of_other_rectifiers(name: str, x: Tensor) -> None:
    values = ours(DIFFERENT[name](), x)
    for library, (output, attribute) in LIBRARIES.items():
        theirs = attribute(DIFFERENT[name]().double().eval(), x.clone())
        assert torch.equal(theirs, values["input_gradients"]), library
        assert not torch.equal(values[output], values["input_gradients"]), library
