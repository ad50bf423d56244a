"""Parts of Grad-CAM and guided backpropagation, written by hand in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def halves(module: nn.Module, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Split a torchvision network into the part up to the target layer and the part from there to the logits."""
    name, _, index = layer.partition(".")
    parts = dict(module.named_children())
    if index:
        features, cut = list(parts["features"]), int(index) + 1
        return _sequential(features[:cut]), _sequential(features[cut:], _pool(parts), [parts["classifier"]])
    if name == "layer4":
        names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
        return _sequential(parts[each] for each in names), _sequential(_pool(parts), [parts["fc"]])
    # DenseNet applies a functional ReLU after its features.
    last = [nn.ReLU()] if type(module).__name__ == "DenseNet" else []
    pool = [parts["avgpool"]] if type(module).__name__ == "ConvNeXt" else _pool(parts)
    return _sequential([parts["features"]], last), _sequential(pool, [parts["classifier"]])


def _pool(parts: dict[str, nn.Module]) -> list[nn.Module]:
    return [parts.get("avgpool", nn.AdaptiveAvgPool2d(1)), nn.Flatten()]


def _sequential(*parts: Iterable[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(module for part in parts for module in part))


def freeze(module: nn.Module) -> None:
    """Disable the gradients of all parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def heatmaps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (N, h, w) to (N, H, W) and scale each to [0, 1]."""
    return scaled(nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0])


def scaled(heat: Tensor) -> Tensor:
    """Scale each of the maps (N, H, W) to [0, 1]."""
    low = heat.amin((1, 2), keepdim=True)
    span = heat.amax((1, 2), keepdim=True) - low
    return (heat - low) / span.clamp_min(1e-30)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(gradient.clamp_min(0), ctx.saved_tensors[0], 0)


class _GuidedReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 6)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(gradient.clamp_min(0), ctx.saved_tensors[0], 0, 6)


class _Guided(nn.Module):
    def __init__(self, rule: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule.apply(x)


_RULES = {nn.ReLU: _GuidedReLU, nn.ReLU6: _GuidedReLU6}


def guide(module: nn.Module) -> None:
    """Replace the rectifiers in a network with rectifiers that pass only positive gradients back."""
    for name, child in module.named_children():
        if type(child) in _RULES:
            setattr(module, name, _Guided(_RULES[type(child)]))
        else:
            guide(child)
