"""Tests of `seewhy_export.backward.gradient_rules`: rectifiers at and near their bounds, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from seewhy_export import export
from seewhy_export.backward.joint_graph import build_joint
from seewhy_export.backward.rectifiers import in_scope, rectifier_of
from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.module_preparation import prepare
from seewhy_export.exporter import count_rectifiers
from seewhy_export.target_layer.selection import target_layer
from support.exporting.networks import live_weights

functional = nn.functional
RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu in place": lambda x: functional.relu(x * 1, inplace=True),
    "relu6": functional.relu6,
    "hardtanh": lambda x: functional.hardtanh(x, 0.0, 0.7),
    "clamp": lambda x: x.clamp(min=0),
    "clamp both": lambda x: x.clamp(0, 2),
    "clamp_min": lambda x: torch.clamp_min(x, 0.0),
    "threshold": lambda x: functional.threshold(x, 0.0, 0.0),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.1),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "rrelu": lambda x: functional.rrelu(x, 0.1, 0.4),
    "clamp by a tensor": lambda x: x.clamp(min=torch.zeros(1, dtype=x.dtype)),
    "maximum with zeros": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum with a constant": lambda x: torch.maximum(torch.tensor(0.0, dtype=x.dtype), x),
    "max with new zeros": lambda x: torch.max(x, x.new_zeros(1)),
    "where(x > 0)": lambda x: torch.where(x > 0, x, 0.0),
    "where(x >= 0)": lambda x: torch.where(x >= 0, x, torch.zeros_like(x)),
    "where(x < 0)": lambda x: torch.where(x < 0, 0.0, x),
    "where(x <= 0)": lambda x: torch.where(x <= torch.zeros(1), torch.full_like(x, 0.0), x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "x * (x > 0)": lambda x: x * (x > 0),
    "(x >= 0) * x": lambda x: (x >= 0).to(x.dtype) * x,
}


SLOPES = {"leaky_relu": 0.1, "prelu": 0.25, "rrelu": 0.25}
"""Slope below zero by rectifier; 0 for all others."""

KINDS = {
    "relu in place": "relu",
    "clamp both": "clamp",
    "clamp_min": "clamp",
    "rrelu": "leaky_relu",
    "clamp by a tensor": "clamp",
    "maximum with zeros": "maximum",
    "maximum with a constant": "maximum",
    "max with new zeros": "maximum",
    **dict.fromkeys(["where(x > 0)", "where(x >= 0)", "where(x < 0)", "where(x <= 0)"], "where"),
    "x * (x > 0)": "mask",
    "(x >= 0) * x": "mask",
}
"""Kind that the model file reports, if it differs from the name."""


class Pointwise(nn.Module):
    """Network with logits (f(x) * pixel weights).sum() for class 0 and the negative for class 1: both signs occur."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)
        self.function = function
        # Powers of two are exact in float32, so gradients computed by hand are exact too.
        self.register_buffer("weights", torch.tensor([1.0, -2.0, 4.0, -0.5]).repeat(3)[:12].reshape(1, 1, 2, 6))

    def forward(self, x: Tensor) -> Tensor:
        score = (self.function(self.conv(x)) * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([score, -score], 1)


VALUES = [-3.0, -1e-30, 0.0, 1e-30, 0.5, 0.7, 1.0, 2.0, 5.9999995, 6.0, 6.0000005, 50.0]


@pytest.mark.parametrize("name", RECTIFIERS)
def test_the_plain_gradient_equals_pytorchs_at_every_bound(name: str) -> None:
    forward = trace_forward(prepare(Pointwise(RECTIFIERS[name])), (2, 6), 1, None).to(torch.float64)
    names = ["input_gradients", "guided_gradients", "deconvnet_gradients"]
    joint = build_joint(forward, target_layer(forward, None), names)
    x = torch.tensor(VALUES, dtype=torch.float64).reshape(1, 1, 2, 6).requires_grad_(True)
    module = Pointwise(RECTIFIERS[name]).double()
    ours = joint.run(x.detach(), torch.tensor([0]))
    (plain,) = torch.autograd.grad(module(x)[0, 0], x)
    assert torch.equal(ours["input_gradients"], plain)
    # By hand: the incoming gradient is the pixel weight, clipped at zero; f'(x) follows from the plain gradient.
    weights = module.weights
    guided = torch.where(weights > 0, plain, torch.zeros_like(plain))
    assert torch.equal(ours["guided_gradients"], guided)
    # Deconvnet depends on the incoming gradient alone.
    deconvnet = torch.where(weights > 0, weights, SLOPES.get(name, 0.0) * weights)
    assert torch.equal(ours["deconvnet_gradients"], deconvnet)


def test_deconvnet_uses_the_slope_of_each_channel() -> None:
    class Slopes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 1, groups=3, bias=False), nn.PReLU(3)
            self.conv.weight.data.fill_(1.0)
            self.act.weight.data = torch.tensor([0.5, -0.25, 2.0])

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.conv(x)).sum((1, 2, 3), keepdim=True).flatten(1)
            return torch.cat([y, -y], 1)

    forward = trace_forward(prepare(Slopes()), (1, 2), 3, None).to(torch.float64)
    joint = build_joint(forward, target_layer(forward, None), ["deconvnet_gradients"])
    x = torch.tensor([[-1.0, 3.0]] * 3, dtype=torch.float64).reshape(1, 3, 1, 2)
    for target, expected in ((0, [1.0, 1.0, 1.0]), (1, [-0.5, 0.25, -2.0])):
        gradient = joint.run(x, torch.tensor([target]))["deconvnet_gradients"]
        assert gradient.flatten(2).tolist() == [[[slope, slope] for slope in expected]]


@pytest.mark.parametrize("name", RECTIFIERS)
def test_masks_are_exact_in_onnx(name: str, tmp_path: object) -> None:
    path = f"{tmp_path}/model.onnx"
    export(Pointwise(RECTIFIERS[name]), path, image_size=(2, 6), verify=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.tensor(VALUES, dtype=torch.float32).reshape(1, 1, 2, 6).requires_grad_(True)
    feeds = {"images": x.detach().numpy(), "targets": torch.tensor([1]).numpy()}
    (ours,) = session.run(["input_gradients"], feeds)
    (plain,) = torch.autograd.grad(Pointwise(RECTIFIERS[name])(x)[0, 1], x)
    assert torch.equal(torch.from_numpy(ours), plain)


NO_RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardtanh from -1": functional.hardtanh,
    "silu": functional.silu,
    "clamp from -1": lambda x: x.clamp(min=-1),
    "clamp below": lambda x: x.clamp(max=0),
    "threshold at 1": lambda x: functional.threshold(x, 1.0, 0.0),
    "rectified and more": lambda x: torch.maximum(x, torch.ones_like(x)),
    "the larger of two": lambda x: torch.maximum(x, 1 - x),
    "the smaller one": lambda x: torch.minimum(x, torch.zeros_like(x)),
    "where another is positive": lambda x: torch.where(1 - x > 0, x, 0.0),
    "where it is above 1": lambda x: torch.where(x > 1, x, 0.0),
    "where it is negative": lambda x: torch.where(x < 0, x, 0.0),
    "where it is positive, its double": lambda x: torch.where(x > 0, 2 * x, 0.0),
    "where it is positive, else 1": lambda x: torch.where(x > 0, x, 1.0),
    "filled with 1": lambda x: x.masked_fill(x < 0, 1.0),
    "filled where positive": lambda x: x.masked_fill(x > 0, 0.0),
    "times another's mask": lambda x: x * (1 - x > 0),
    "times itself": lambda x: x * x,
    "zeros that are computed": lambda x: torch.maximum(x, x * 0),
    "a softer relu": lambda x: (x + x.abs()) / 2,
}


@pytest.mark.parametrize("name", NO_RECTIFIERS)
def test_other_operators_are_not_rectifiers(name: str) -> None:
    forward = trace_forward(prepare(Pointwise(NO_RECTIFIERS[name])), (2, 6), 1, None)
    assert not [node for node in forward.nodes if rectifier_of(node)]


def test_a_broadcast_against_zeros_is_not_a_rectifier() -> None:
    forward = trace_forward(
        prepare(Pointwise(lambda x: torch.maximum(x[:, :, :1], torch.zeros(2, 6)))), (2, 6), 1, None
    )
    assert not [node for node in forward.nodes if rectifier_of(node)]


def test_a_parameter_of_zeros_is_not_a_constant() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.floor = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(x, self.floor)

    forward = trace_forward(prepare(Pointwise(Learned())), (2, 6), 1, None)
    assert not [node for node in forward.nodes if rectifier_of(node)]


@pytest.mark.parametrize("name", RECTIFIERS)
def test_the_file_reports_the_kind_of_rectifier(name: str) -> None:
    forward = trace_forward(prepare(Pointwise(RECTIFIERS[name])), (2, 6), 1, None)
    counted = count_rectifiers(forward, None)
    assert counted.kinds == {KINDS.get(name, name): 1} and counted.guided == 1


def test_without_rectifiers_all_rules_give_the_plain_gradient() -> None:
    forward = trace_forward(prepare(Pointwise(functional.silu)), (2, 6), 1, None).to(torch.float64)
    names = ["input_gradients", "guided_gradients", "deconvnet_gradients"]
    joint = build_joint(forward, target_layer(forward, None), names)
    plain, *others = joint.run(
        torch.tensor(VALUES, dtype=torch.float64).reshape(1, 1, 2, 6), torch.tensor([0])
    ).values()
    assert bool(plain.any()) and all(torch.equal(plain, other) for other in others)


@pytest.mark.parametrize(("scope", "guided"), [(["part"], 0), (["partner"], 1), ([], None), (None, "both")])
def test_the_scope_applies_to_every_rule(scope: list[str] | None, guided: object) -> None:
    """Two ReLUs follow each other over a positive x; negative gradients stop at the first one that has a rule."""
    module = nn.ModuleDict({"part": nn.ReLU(), "partner": nn.ReLU()})

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.part, self.partner = nn.Conv2d(1, 1, 1, bias=False), module["part"], module["partner"]
            self.conv.weight.data.fill_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            # The factor -1 flips the gradient's sign between `partner` and `part`.
            y = self.partner(-self.part(self.conv(x)) + 10)
            return torch.cat([-y.sum((2, 3)), y.sum((2, 3))], 1)

    forward = trace_forward(prepare(Chain()), (1, 2), 1, None).to(torch.float64)
    names = ["input_gradients", "guided_gradients", "deconvnet_gradients"]
    joint = build_joint(forward, target_layer(forward, None), names, None if scope is None else tuple(scope))
    x = torch.full((1, 1, 1, 2), 2.0, dtype=torch.float64)
    for target, sign in ((0, 1.0), (1, -1.0)):
        plain, *ruled = (float(value.unique()) for value in joint.run(x, torch.tensor([target])).values())
        assert plain == sign
        # Target 0 sends a negative gradient to `partner` and a positive one to `part`; target 1 does the opposite.
        stopped = {0: target == 1, 1: target == 0, None: False, "both": True}[guided]
        assert ruled == [0.0 if stopped else plain] * 2


def test_the_scope_matches_whole_path_segments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.partner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.partner(self.part(x)).mean((2, 3)))

    forward = trace_forward(prepare(live_weights(Two())), (8, 8), 3, None)
    rectifiers = [node for node in forward.nodes if rectifier_of(node)]
    assert [in_scope(node, ("part",)) for node in rectifiers] == [True, False]
    assert [in_scope(node, ("partner.1",)) for node in rectifiers] == [False, True]
    assert [in_scope(node, None) for node in rectifiers] == [True, True]
    assert [in_scope(node, ()) for node in rectifiers] == [False, False]
