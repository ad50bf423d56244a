"""Rectifiers at and around their bounds, under each rule, against PyTorch and by hand."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
import pytest
import torch
from networks import live_weights
from torch import Tensor, nn

from seewhy_export import export
from seewhy_export.forward import trace_forward
from seewhy_export.joint import build_joint
from seewhy_export.layer import target_layer
from seewhy_export.prepare import prepare
from seewhy_export.rectifiers import in_scope, rectifier_of

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


class Pointwise(nn.Module):
    """logits = (f(x) * pixel weights).sum() for class 0 and its negative for class 1, so gradients have both signs."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)
        self.function = function
        # Powers of two: exact in float32, so that hand-computed gradients are too.
        self.register_buffer("weights", torch.tensor([1.0, -2.0, 4.0, -0.5]).repeat(3)[:12].reshape(1, 1, 2, 6))

    def forward(self, x: Tensor) -> Tensor:
        score = (self.function(self.conv(x)) * self.weights).flatten(1).sum(1, keepdim=True)
        return torch.cat([score, -score], 1)


VALUES = [-3.0, -1e-30, 0.0, 1e-30, 0.5, 0.7, 1.0, 2.0, 5.9999995, 6.0, 6.0000005, 50.0]


@pytest.mark.parametrize("name", RECTIFIERS)
def test_plain_gradient_is_pytorchs_at_every_bound(name: str) -> None:
    forward = trace_forward(prepare(Pointwise(RECTIFIERS[name])), (2, 6), 1, None).to(torch.float64)
    joint = build_joint(forward, target_layer(forward, None), ["input_gradients", "guided_gradients"])
    x = torch.tensor(VALUES, dtype=torch.float64).reshape(1, 1, 2, 6).requires_grad_(True)
    module = Pointwise(RECTIFIERS[name]).double()
    ours = joint.run(x.detach(), torch.tensor([0]))
    (plain,) = torch.autograd.grad(module(x)[0, 0], x)
    assert torch.equal(ours["input_gradients"], plain)
    # By hand: the pixel weight comes in, what is negative of it stops, and f'(x) is what plain made of it.
    weights = module.weights
    guided = torch.where(weights > 0, plain, torch.zeros_like(plain))
    assert torch.equal(ours["guided_gradients"], guided)


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


def test_what_is_no_rectifier_keeps_its_derivative() -> None:
    def not_rectifiers(x: Tensor) -> Tensor:
        return functional.hardtanh(x) + functional.silu(x) + x.clamp(min=-1)

    module = Pointwise(not_rectifiers)
    forward = trace_forward(prepare(module), (2, 6), 1, None).to(torch.float64)
    assert not [node for node in forward.nodes if rectifier_of(node)]
    joint = build_joint(forward, target_layer(forward, None), ["input_gradients", "guided_gradients"])
    values = joint.run(torch.tensor(VALUES, dtype=torch.float64).reshape(1, 1, 2, 6), torch.tensor([0]))
    assert torch.equal(values["input_gradients"], values["guided_gradients"])


def test_scope_takes_whole_path_segments() -> None:
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
