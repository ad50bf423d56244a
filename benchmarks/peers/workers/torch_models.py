"""The networks as PyTorch modules, for every tool that needs one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze

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


def formats(task: Task, make: Callable[[nn.Module, Tensor], Callable[[], Any]], note: str = "") -> Job:
    """Make a run of the network and its images in both memory formats that PyTorch's guide for CPUs names.

    The quicker one is measured.
    """
    named = f"{note}, " if note else ""
    kinds = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    ways = {
        f"{named}{kind}": make(network(task).to(memory_format=form), images(task).to(memory_format=form))
        for kind, form in kinds.items()
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
