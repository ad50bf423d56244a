"""Networks as PyTorch modules, for all tools that need one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tool_job import Job, Task
from torch import Tensor, nn
from torch_by_hand import freeze

_LONG_CALL = 2.0
"""Seconds; a variant with a longer call is timed only once."""

_definitions: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision, even if its compiled operators do not load in a PyTorch without CUDA."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _definitions.append(library)
        import torchvision  # noqa: F401


def network(task: Task) -> nn.Module:
    """Return the model in evaluation mode, with the weights that all tools share."""
    import_torchvision()
    from torchvision.models import get_model

    torch.set_num_threads(task.threads)
    module = get_model(task.name, weights=None)
    module.load_state_dict(torch.load(task.model / "weights.pt", mmap=True))
    return module.eval()


def images(task: Task) -> Tensor:
    return torch.from_numpy(task.images)


def layer(task: Task, module: nn.Module) -> nn.Module:
    """Return the target layer, or the last module before it if the target layer is a function."""
    return module.get_submodule(task.facts["module"])


def freeze_before(module: nn.Module, target: nn.Module, x: Tensor) -> None:
    """Disable the gradients of all parameters except the last ones before the output of the target layer.

    The backward pass then ends there. No documentation mentions this, but a careful user might do it.
    """
    owners: list[nn.Module] = []
    done: list[bool] = []
    hooks = [target.register_forward_hook(lambda *_: done.append(True))]
    for submodule in module.modules():
        if next(submodule.parameters(recurse=False), None) is not None:
            hooks.append(
                submodule.register_forward_hook(lambda submodule, *_: None if done else owners.append(submodule))
            )
    with torch.no_grad():
        module(x[:1])
    for hook in hooks:
        hook.remove()
    freeze(module)
    for parameter in owners[-1].parameters(recurse=False):
        parameter.requires_grad_(True)


def formats(task: Task, make: Callable[[nn.Module, Tensor], Callable[[], Any]], note: str = "") -> Job:
    """Return a job that measures the faster of the two memory formats in PyTorch's performance guide for CPUs.

    `make` gets the network and its images in one format and returns the function to time.
    """
    named = f"{note}, " if note else ""
    kinds = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    variants = {
        f"{named}{kind}": make(network(task).to(memory_format=form), images(task).to(memory_format=form))
        for kind, form in kinds.items()
    }
    return Job(next(iter(variants.values())), choose=_fastest(variants))


def _fastest(variants: Mapping[str, Callable[[], Any]]) -> Callable[[], tuple[Callable[[], Any], str]]:
    """Return a function that chooses the fastest variant.

    Each variant is called once to compile, and then timed by the best of three calls, or one call if it is long.
    """

    def choose() -> tuple[Callable[[], Any], str]:
        seconds: dict[str, float] = {}
        for name, variant in variants.items():
            variant()
            for _ in range(3):
                if seconds.get(name, 0.0) < _LONG_CALL:
                    start = time.perf_counter()
                    variant()
                    seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
        name = min(seconds, key=lambda name: seconds[name])
        return variants[name], name

    return choose
