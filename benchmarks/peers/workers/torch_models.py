"""The networks as PyTorch modules, for every tool that needs one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from tool_job import Job, Task
from torch import Tensor, nn

_LONG = 2.0
"""Seconds."""

_definitions: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import it beside a PyTorch without CUDA too, where torchvision's compiled operators do not load."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _definitions.append(library)
        import torchvision  # noqa: F401


def network(task: Task) -> nn.Module:
    """The model in evaluation mode, with the weights that all tools share."""
    import_torchvision()
    from torchvision.models import get_model

    torch.set_num_threads(task.threads)
    module = get_model(task.name, weights=None)
    module.load_state_dict(torch.load(task.model / "weights.pt", mmap=True))
    return module.eval()


def images(task: Task) -> Tensor:
    return torch.from_numpy(task.images)


def layer(task: Task, module: nn.Module) -> nn.Module:
    """The target layer; where that is a function and no module, the last module before it."""
    return module.get_submodule(task.facts["module"])


def halves(task: Task, module: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """The network up to the target layer, and from there to the logits."""
    name, _, index = task.facts["module"].partition(".")
    parts = dict(module.named_children())
    if index:
        features, cut = list(parts["features"]), int(index) + 1
        return _sequential(features[:cut]), _sequential(features[cut:], _pool(parts), [parts["classifier"]])
    if name == "layer4":
        names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
        return _sequential(parts[each] for each in names), _sequential(_pool(parts), [parts["fc"]])
    # DenseNet ends its features in a function.
    last = [nn.ReLU()] if task.name.startswith("densenet") else []
    keeps_maps = task.name.startswith("convnext")
    pool = [parts["avgpool"]] if keeps_maps else _pool(parts)
    return _sequential([parts["features"]], last), _sequential(pool, [parts["classifier"]])


def _pool(parts: dict[str, nn.Module]) -> list[nn.Module]:
    return [parts.get("avgpool", nn.AdaptiveAvgPool2d(1)), nn.Flatten()]


def _sequential(*parts: Iterable[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(module for part in parts for module in part))


def freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def freeze_before(module: nn.Module, target: nn.Module, x: Tensor) -> None:
    """Let only the last parameters that the target layer's output depends on take gradients.

    The backward pass then ends there, which no documentation mentions, but an attentive user might do.
    """
    owners: list[nn.Module] = []
    done: list[bool] = []
    hooks = [target.register_forward_hook(lambda *_: done.append(True))]
    for part in module.modules():
        if next(part.parameters(recurse=False), None) is not None:
            hooks.append(part.register_forward_hook(lambda part, *_: None if done else owners.append(part)))
    with torch.no_grad():
        module(x[:1])
    for hook in hooks:
        hook.remove()
    freeze(module)
    for parameter in owners[-1].parameters(recurse=False):
        parameter.requires_grad_(True)


def heatmaps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N,h,w) of at least 0 -> (N,H,W) in [0,1]."""
    heat = nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    low = heat.amin((1, 2), keepdim=True)
    span = heat.amax((1, 2), keepdim=True) - low
    return (heat - low) / span.clamp_min(1e-30)


def formats(make: Callable[[torch.memory_format], Callable[[], Any]], note: str = "") -> Job:
    """Both memory formats that PyTorch's guide for CPUs names; the quicker one is measured."""
    named = f"{note}, " if note else ""
    ways = {
        f"{named}contiguous": make(torch.contiguous_format),
        f"{named}channels_last": make(torch.channels_last),
    }
    return Job(next(iter(ways.values())), settle=_fastest(ways))


def _fastest(ways: Mapping[str, Callable[[], Any]]) -> Callable[[], tuple[Callable[[], Any], str]]:
    """Chooses by the best of three calls, or by one where that takes long, each after one that may compile."""

    def settle() -> tuple[Callable[[], Any], str]:
        seconds: dict[str, float] = {}
        for name, way in ways.items():
            way()
            for _ in range(3):
                if seconds.get(name, 0.0) < _LONG:
                    start = time.perf_counter()
                    way()
                    seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
        name = min(seconds, key=lambda name: seconds[name])
        return ways[name], name

    return settle
