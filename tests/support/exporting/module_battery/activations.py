"""Activations that must export, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.module_battery.networks import CHANNELS, Part, conv


class ReusedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = conv(3, padding=1), conv(1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.two(self.act(self.one(self.act(x)))))


class MaximumOfBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.zero)


ACTIVATIONS: dict[str, Callable[[], nn.Module | Part]] = {
    "relu function": lambda: F.relu,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu_ method": lambda: lambda x: (x * 1).relu_(),
    "relu reused": ReusedReLU,
    "relu6": nn.ReLU6,
    "clamp(min=0)": lambda: lambda x: x.clamp(min=0),
    "clamp(0, 6)": lambda: lambda x: x.clamp(0, 6),
    "clamp_min": lambda: lambda x: torch.clamp_min(x, 0),
    "clamp_ in place": lambda: lambda x: (x * 1).clamp_(min=0),
    "clamp by tensors": lambda: lambda x: x.clamp(min=torch.zeros(1, dtype=x.dtype)),
    "maximum with zeros": lambda: lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum with a constant": lambda: lambda x: torch.maximum(x, torch.tensor(0.0, dtype=x.dtype)),
    "maximum with a buffer": MaximumOfBuffer,
    "max with new_zeros": lambda: lambda x: torch.max(x, x.new_zeros(1)),
    "where(x > 0, x, 0)": lambda: lambda x: torch.where(x > 0, x, 0.0),
    "where(x > 0, x, zeros)": lambda: lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where(x >= 0, x, 0)": lambda: lambda x: torch.where(x >= 0, x, 0),
    "where(x < 0, 0, x)": lambda: lambda x: torch.where(x < 0, 0.0, x),
    "x * (x > 0)": lambda: lambda x: x * (x > 0),
    "x * (x > 0).float()": lambda: lambda x: x * (x > 0).to(x.dtype),
    "threshold": lambda: lambda x: F.threshold(x, 0.0, 0.0),
    "threshold above zero": lambda: nn.Threshold(0.3, -0.2),
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "prelu shared": nn.PReLU,
    "prelu by channel": lambda: nn.PReLU(CHANNELS),
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "celu": lambda: nn.CELU(0.7),
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu tanh": lambda: nn.GELU("tanh"),
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh,
    "hardtanh from 0": lambda: nn.Hardtanh(0, 2),
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "mish": nn.Mish,
    "softplus": lambda: nn.Softplus(2.0, 3.0),
    "softsign": nn.Softsign,
    "logsigmoid": nn.LogSigmoid,
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
    "glu": lambda: nn.GLU(1),
    "sigmoid gate": lambda: lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "squared relu": lambda: lambda x: F.relu(x).square(),
    "softmax inside": lambda: lambda x: x.softmax(1),
    "log_softmax inside": lambda: lambda x: x.log_softmax(1),
    "softmin": lambda: lambda x: F.softmin(x, 1),
    "abs": lambda: torch.abs,
    "maxout": lambda: lambda x: x.reshape(-1, 3, 2, 20, 24).amax(2),
    "maximum of halves": lambda: lambda x: torch.maximum(x[:, :3], x[:, 3:]),
    "power": lambda: lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    "sin and exp": lambda: lambda x: torch.sin(x) + torch.exp(-x * x) + torch.atan(x) + torch.erf(x) + torch.cos(x),
    "sqrt and rsqrt": lambda: lambda x: (x * x + 0.1).sqrt() + (x * x + 0.2).rsqrt() + torch.log1p(x * x),
}
