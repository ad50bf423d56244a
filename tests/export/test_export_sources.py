"""Sources: torchvision, timm, factories; weights, sizes, labels, preprocessing; and the command line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from networks import branches

import seewhy
from seewhy.cli import main
from seewhy.contract import Preprocessing
from seewhy.errors import ExportError
from seewhy_export.sources import load_source

FACTORY = """
import torch
from torch import nn
from seewhy_export import Source

def small():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *head)

def described():
    return Source(small(), labels=("cat", "dog"), image_size=(16, 24))

def fails():
    raise ValueError("no GPU\\nhere")

nothing = 5
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_factories.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_torchvision() -> None:
    source = load_source("torchvision:resnet18", "none", seed=3)
    assert source.labels is not None and len(source.labels) == 1000 and source.labels[281] == "tabby"
    assert source.image_size == (224, 224)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert source.preprocessing == Preprocessing("shorter-side", 256, "bilinear", True, mean, std)
    again = load_source("torchvision:resnet18", "none", seed=3).module.state_dict()
    other = load_source("torchvision:resnet18", "none", seed=4).module.state_dict()
    name = "conv1.weight"
    assert torch.equal(source.module.state_dict()[name], again[name])
    assert not torch.equal(source.module.state_dict()[name], other[name])


def test_another_size_keeps_the_share_of_the_crop() -> None:
    source = load_source("torchvision:resnet18", "none", size=(448, 448))
    assert source.image_size == (448, 448)
    assert source.preprocessing is not None and source.preprocessing.size == 512


def test_squash() -> None:
    source = load_source("torchvision:alexnet", "none", size=(512, 512), resize="squash")
    assert source.preprocessing is not None
    assert (source.preprocessing.resize, source.preprocessing.size, source.preprocessing.crop) == (
        "squash",
        None,
        False,
    )


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    source = load_source("timm:resnet10t", "none")
    assert source.labels is not None and len(source.labels) == 1000 and "tabby" in source.labels[281]
    assert source.preprocessing is not None and source.preprocessing.resize == "shorter-side"
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(source.module))
    assert source.preprocessing.size == theirs.transforms[0].size
    assert source.image_size == tuple(theirs.transforms[1].size)
    assert torch.equal(torch.tensor(source.preprocessing.mean), theirs.transforms[-1].mean)


def test_factories(factories: Path) -> None:
    source = load_source("my_factories:small")
    assert source.name == "small" and source.preprocessing is None
    assert load_source("my_factories:described").image_size == (16, 24)


def test_checkpoint(tmp_path: Path, factories: Path) -> None:
    module = load_source("my_factories:small").module
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path)
    loaded = load_source("my_factories:small", str(path), seed=9).module
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple:
        return (open, ("evil-ran", "w"))


def test_a_checkpoint_that_needs_code_is_refused_and_not_run(factories: Path) -> None:
    torch.save({"0.weight": Evil()}, factories / "evil.pth")
    with pytest.raises(ExportError, match="holds more than tensors"):
        load_source("my_factories:small", "evil.pth")
    (factories / "pickle.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ExportError, match=r"holds more than tensors|not a PyTorch checkpoint"):
        load_source("my_factories:small", "pickle.pth")
    assert not (factories / "evil-ran").exists()


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        ("resnet18", "none", "'resnet18' is no source; write torchvision:NAME, timm:NAME or package.module:factory"),
        ("torchvision:resnet19", "none", "torchvision has no classifier 'resnet19'; close names: .*resnet18"),
        ("timm:resnet19", "none", "timm has no model 'resnet19'; close names: .*resnet"),
        ("no_such_module:factory", "none", "no module named 'no_such_module'"),
        ("my_factories:nowhere", "none", "my_factories has no function 'nowhere'"),
        ("my_factories:nothing", "none", "my_factories has no function 'nothing'"),
        ("my_factories:fails", "none", "calling fails.. failed: ValueError: no GPU"),
        ("my_factories:small", "missing.pth", "missing.pth: cannot be read: No such file"),
        ("my_factories:small", "my_factories.py", "my_factories.py: not a PyTorch checkpoint|holds more than tensors"),
        ("my_factories:small", "other.pth", "other.pth: does not fit the network: it lacks .* and has unknown"),
        ("my_factories:small", "shape.pth", "shape.pth: does not fit the network: .*size mismatch"),
        ("my_factories:small", "list.pth", "list.pth: not a state dict"),
        ("my_factories:small", "numbers.pth", "numbers.pth: not a state dict"),
    ],
)
def test_refused_in_one_line(spec: str, weights: str, message: str, factories: Path) -> None:
    torch.save(branches().state_dict(), factories / "other.pth")
    state = load_source("my_factories:small").module.state_dict()
    torch.save({**state, "0.weight": torch.zeros(1)}, factories / "shape.pth")
    torch.save([torch.zeros(1)], factories / "list.pth")
    torch.save({1: torch.zeros(1)}, factories / "numbers.pth")
    with pytest.raises(ExportError, match=message) as caught:
        load_source(spec, weights)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ExportError, match="Network is unreachable; give --weights FILE, or --weights none"):
        load_source("torchvision:resnet18", "DEFAULT")


def test_the_command(factories: Path) -> None:
    arguments = ["export", "my_factories:described", "-o", "out.onnx", "--weights", "none", "--seed", "1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "target layer: 1 (4 maps of 16x24)" in done.output
    assert "rectifiers:   1 of 1 guided (1 relu)" in done.output
    assert "input_gradients" in done.output and "class_weights" in done.output
    explainer = seewhy.Explainer("out.onnx")
    assert explainer.labels == ("cat", "dog") and explainer.metadata.model.source == "my_factories:described"


def test_the_commands_options(factories: Path) -> None:
    arguments = "export my_factories:small --weights none --size 20x30 --layer 0 --outputs input_gradients --no-verify"
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 0, done.output
    assert "target layer: 0 (4 maps of 20x30)" in done.output and "parity:       not checked" in done.output
    metadata = seewhy.Explainer("small.onnx").metadata
    assert metadata.image_size == (20, 30) and metadata.parity == {} and metadata.layer is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("my_factories:small --weights none --size big", "'big' is not a size"),
        ("my_factories:small --weights none --resize squash", "needs a source that says how pixels are normalised"),
        ("my_factories:small --weights none --layer one", "no layer is named 'one'"),
        ("my_factories:small --weights none --outputs heat", "unknown output 'heat'"),
        ("my_factories:small --weights none -o no/out.onnx", "no/out.onnx: cannot be written"),
        ("torchvision:resnet19 --weights none", "torchvision has no classifier"),
    ],
)
def test_the_commands_errors(arguments: str, message: str, factories: Path) -> None:
    done = CliRunner().invoke(main, ["export", *arguments.split()])
    assert done.exit_code == 2
    assert message in done.output and "Traceback" not in done.output
