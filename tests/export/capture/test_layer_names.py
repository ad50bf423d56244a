"""Tests of `seewhy_export.capture.layer_names`: layers as modules, and suggestions for unknown ones."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from seewhy.errors import ExportArgumentError
from seewhy_export.capture.layer_names import layer_name, unknown_layer


def network() -> nn.Module:
    def block() -> nn.Module:
        return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 3, 1), conv2=nn.Conv2d(3, 3, 1)))

    layers = {f"layer{i}": nn.Sequential(block(), block()) for i in (1, 2, 3, 4)}
    return nn.Sequential(OrderedDict(**layers, fc=nn.Linear(3, 2)))


def test_a_module_is_named_by_its_path() -> None:
    module = network()
    assert layer_name(module, module.layer4) == "layer4"
    assert layer_name(module, module.layer4[-1].conv2) == "layer4.1.conv2"
    assert layer_name(module, "anything") == "anything" and layer_name(module, None) is None


def test_wrapped_modules_have_the_paths_of_the_plain_network() -> None:
    module = network()
    assert layer_name(torch.compile(module), module.layer4) == "layer4"
    assert layer_name(nn.DataParallel(module), module.layer4[0]) == "layer4.0"
    module.layer4 = torch.compile(module.layer4)
    assert layer_name(module, module.layer4) == "layer4"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (7, "layer must be a module path such as 'layer4', or a module of the network, not 7"),
        ([nn.ReLU()], "layer must be a module path such as"),
        (nn.ReLU(), r"layer is not a module of the network \(ReLU\); give one of the network's own modules"),
    ],
)
def test_other_layers_are_refused(layer: object, message: str) -> None:
    with pytest.raises(ExportArgumentError, match=message):
        layer_name(network(), layer)


def test_the_network_itself_is_no_layer() -> None:
    module = network()
    with pytest.raises(ExportArgumentError, match=r"layer is the network itself \(Sequential\)"):
        layer_name(module, module)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("layr4", "Did you mean 'layer4'?"),
        ("model.layer4", "Did you mean 'layer4'?"),
        ("layer4[1]", "Did you mean 'layer4.1'?"),
        ("conv2", "Did you mean 'layer4.1.conv2', 'layer4.0.conv2' or 'layer3.1.conv2'?"),
        ("layer9.1.conv1", "Did you mean 'layer4.1.conv1', 'layer4.0.conv1' or 'layer3.1.conv1'?"),
        ("7", "The network's last modules are layer4.1.conv1 (Conv2d), layer4.1.conv2 (Conv2d), fc (Linear)."),
        ("", "The network's last modules are "),
    ],
)
def test_suggestions_for_unknown_layers(name: str, hint: str) -> None:
    message = str(unknown_layer(name, network()))
    assert message.startswith(f"Unknown layer {name!r}. {hint}")
    assert message.endswith(" `seewhy_export.list_layers` and --list-layers list all layers")


def test_a_network_without_modules() -> None:
    assert str(unknown_layer("layer4", nn.ReLU())).startswith("Unknown layer 'layer4'. `seewhy_export.list_layers`")
