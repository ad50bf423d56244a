"""Names of the layers of a network: module paths, those of module objects, and suggestions for unknown ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from seewhy._shared.suggestions import did_you_mean, did_you_mean_one_of
from seewhy._shared.text import brief
from seewhy.errors import ExportArgumentError
from seewhy_export._shared.torch_internals import unwrap_module

_SHOWN = 3
"""Number of layers that an error message suggests."""


def layer_name(network: nn.Module, layer: Any) -> str | None:
    """Return the module path of a layer that the user gave as a path or as a module.

    Args:
        network: User's network, which may be wrapped by torch.compile or data parallelism.
        layer: Module path, a module of the network, or None.

    Returns:
        The module path, or None if `layer` is None.

    Raises:
        ExportArgumentError: If the layer is not a module of the network, or neither a path nor a module.
    """
    if layer is None or isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise ExportArgumentError(
            f"layer must be a module path such as 'layer4', or a module of the network, not {brief(layer)}"
        )
    wanted = unwrap_module(layer)
    for name, module in unwrap_module(network).named_modules():
        if name and unwrap_module(module) is wanted:
            return str(name)
    reason = "is the network itself" if wanted is unwrap_module(network) else "is not a module of the network"
    raise ExportArgumentError(f"layer {reason} ({type(wanted).__name__}); give one of the network's own modules")


def unknown_layer(name: str, network: nn.Module) -> ExportArgumentError:
    """Return the error for a layer that a network does not have.

    Args:
        name: Module path that the user gave.
        network: The network.

    Returns:
        An error that suggests modules: those with the same last part in their path, or else the most similar path, or
        else the last modules of the network.
    """
    modules = {path: module for path, module in network.named_modules() if path}
    last = name.rpartition(".")[2]
    same = [path for path in modules if path.rpartition(".")[2] == last and not last.isdigit()]
    hint = did_you_mean_one_of(reversed(same[-_SHOWN:])) if same else did_you_mean(name, modules)
    if not hint and modules:
        shown = [f"{path} ({type(module).__name__})" for path, module in list(modules.items())[-_SHOWN:]]
        hint = f" The network's last modules are {', '.join(shown)}."
    return ExportArgumentError(
        f"Unknown layer {name!r}.{hint} `seewhy_export.list_layers` and --list-layers list all layers"
    )
