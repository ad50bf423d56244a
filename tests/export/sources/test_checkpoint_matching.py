"""Tests of `seewhy_export.sources.checkpoint_matching`: nested and prefixed checkpoints load or are refused."""

from __future__ import annotations

import argparse
import os
import pathlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export.sources.checkpoint_matching import load_checkpoint
from support.exporting.networks import branches, live_weights
from support.exporting.timed_process import in_time

State = dict[str, Tensor]


class Net(nn.Module):
    """A backbone with a batch norm, and a head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x).mean((2, 3)))


def net(seed: int, classes: int = 3) -> nn.Module:
    return live_weights(Net(classes), seed)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def loads(path: Path, state: State, key: str | None = None) -> tuple[str, ...]:
    """Load `path` into a network with other weights, assert that it then has those of `state`, and return the notes."""
    module = net(99)
    assert not torch.equal(module.state_dict()["head.weight"], state["head.weight"])
    notes = load_checkpoint(module, path, key)
    found = module.state_dict()
    assert set(found) == set(state)
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    return notes


LAYOUTS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5, "note": "best"},
    "model": lambda state: {"model": state, "scaler": {"scale": 65536.0}},
    "net": lambda state: {"net": state},
    "any name": lambda state: {"the_weights": state},
    "deep": lambda state: {"checkpoint": {"model": state}},
    "data parallel": lambda state: prefixed(state, "module."),
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "both": lambda state: {"model": prefixed(state, "module._orig_mod.")},
    "compiled inside": lambda state: {
        name.replace("backbone.", "backbone._orig_mod."): value for name, value in state.items()
    },
    "net prefix": lambda state: prefixed(state, "net."),
    "without counters": lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    "plain data beside": lambda state: {
        "model": state,
        "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("runs")),
        "best": np.float64(0.9),
        "history": np.arange(3),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    state = net(1).state_dict()
    torch.save(LAYOUTS[layout](state), tmp_path / "best.pth")
    expected = {**state, "backbone.1.num_batches_tracked": torch.tensor(0)} if layout == "without counters" else state
    notes = loads(tmp_path / "best.pth", expected)
    assert bool(notes) == (layout not in ("bare", "compiled", "compiled inside", "without counters"))
    assert all(note.startswith("best.pth: weights loaded from ") for note in notes)


def test_checkpoint_with_optimiser_state(tmp_path: Path) -> None:
    module = net(1)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.zeros(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    torch.save({"model": module.state_dict(), "optimizer": optimiser.state_dict(), "epoch": 7}, tmp_path / "last.pt")
    assert loads(tmp_path / "last.pt", module.state_dict()) == ("last.pt: weights loaded from model",)


def test_the_format_before_pytorch_1_6(tmp_path: Path) -> None:
    state = net(1).state_dict()
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loads(tmp_path / "old.pth", state)


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = net(1).state_dict()
    safetensors.save_file(prefixed(state, "model."), tmp_path / "best.safetensors")
    loads(tmp_path / "best.safetensors", state)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ExportError, match="bad.safetensors: is not a safetensors file"):
        load_checkpoint(net(2), tmp_path / "bad.safetensors")


def test_a_network_that_wraps_the_saved_one(tmp_path: Path) -> None:
    inner = net(1)
    torch.save(inner.state_dict(), tmp_path / "inner.pth")

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = net(2)

    module = Wrapped()
    load_checkpoint(module, tmp_path / "inner.pth")
    assert all(torch.equal(value, inner.state_dict()[name]) for name, value in module.network.state_dict().items())


def test_ignored_tensors_are_named(tmp_path: Path) -> None:
    state = net(1).state_dict()
    torch.save({"state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(3)}}, tmp_path / "a.ckpt")
    (note,) = loads(tmp_path / "a.ckpt", state)
    assert note == (
        "a.ckpt: weights loaded from state_dict, with the prefix 'model.'; ignored other tensors (1): loss.weight"
    )


def test_several_that_fit(tmp_path: Path) -> None:
    state, ema = net(1).state_dict(), net(2).state_dict()
    path = tmp_path / "both.pth"
    torch.save({"model": state, "model_ema": prefixed(ema, "module.")}, path)
    with pytest.raises(ExportError, match="several sets of weights fit: model, model_ema.module; choose one") as caught:
        load_checkpoint(net(3), path)
    assert "\n" not in str(caught.value)
    loads(path, state, "model")
    loads(path, ema, "model_ema.module")
    with pytest.raises(ExportError, match="unknown weights key 'ema'. The file has model, model_ema.module"):
        load_checkpoint(net(3), path, "ema")
    # The choice is unambiguous if both sets are equal.
    torch.save({"model": state, "copy": {name: value.clone() for name, value in state.items()}}, path)
    loads(path, state)


def test_an_average_with_a_prefix(tmp_path: Path) -> None:
    state, ema = net(1).state_dict(), net(2).state_dict()
    path = tmp_path / "both.pth"
    torch.save({**state, **prefixed(ema, "ema.")}, path)
    with pytest.raises(ExportError, match=r"several sets of weights fit: \., ema; choose one with --weights-key \.$"):
        load_checkpoint(net(3), path)
    loads(path, state, ".")
    assert loads(path, ema, "ema")
    torch.save({**prefixed(state, "student."), **prefixed(ema, "student.teacher.")}, path)
    with pytest.raises(ExportError, match=r"several sets of weights fit: student, student.teacher; choose one"):
        load_checkpoint(net(3), path)
    loads(path, state, "student")


def test_an_average_is_not_chosen_if_the_weights_have_additional_names(tmp_path: Path) -> None:
    state, ema = net(1).state_dict(), net(2).state_dict()
    path = tmp_path / "more.pth"
    torch.save({"model": {**state, "neck.weight": torch.ones(2)}, "state_dict_ema": ema}, path)
    with pytest.raises(ExportError, match="several sets of weights fit: model, state_dict_ema; choose one"):
        load_checkpoint(net(3), path)
    with pytest.raises(ExportError, match="does not fit the network: it has unknown neck.weight$"):
        load_checkpoint(net(3), path, "model")
    loads(path, ema, "state_dict_ema")


@pytest.mark.parametrize("place", ["momentum_buffers", "optimizer", "OptimiserState", "exp_avg"])
def test_an_optimisers_tensors_are_not_the_weights(place: str, tmp_path: Path) -> None:
    state, buffers = net(1).state_dict(), net(2).state_dict()
    path = tmp_path / "last.pth"
    torch.save({"model": state, place: buffers}, path)
    assert loads(path, state) == ("last.pth: weights loaded from model",)
    loads(path, buffers, place)
    torch.save({"model": {**state, "neck.weight": torch.ones(2)}, place: {"state": buffers}}, path)
    with pytest.raises(ExportError, match="does not fit the network: it has unknown neck.weight$"):
        load_checkpoint(net(3), path)
    torch.save({place: buffers}, path)
    with pytest.raises(ExportError, match=f"seems to hold only tensors of an optimiser: {place}; use --weights-key"):
        load_checkpoint(net(3), path)
    # A key that only resembles an optimiser's holds the weights.
    torch.save({"optimized_model": state}, path)
    loads(path, state)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    """Removing `_orig_mod.` may give two tensors the same name."""
    state, other = net(1).state_dict(), net(2).state_dict()
    path = tmp_path / "two.pth"
    torch.save({**state, **prefixed(other, "_orig_mod.")}, path)
    with pytest.raises(ExportError, match=r"several sets of weights fit: \., _orig_mod; choose one"):
        load_checkpoint(net(3), path)
    loads(path, other, "_orig_mod")
    for first, second in (("", "_orig_mod."), ("_orig_mod.", "")):
        rest = {second + name: value for name, value in state.items() if name != "head.bias"}
        torch.save({**rest, second + "head.bias": state["head.bias"], first + "head.bias": other["head.bias"]}, path)
        with pytest.raises(ExportError, match="does not fit the network: it has unknown _orig_mod.head.bias$"):
            load_checkpoint(net(3), path)
    torch.save({**state, **prefixed(state, "_orig_mod.")}, path)
    loads(path, state)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "complex64": lambda weight: weight.to(torch.complex64),
    "int32": lambda weight: weight.to(torch.int32),
    "sparse_coo": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "nested": lambda weight: torch.nested.nested_tensor(list(weight)),
    "without data": lambda weight: weight.to("meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_another_kind(kind: str, tmp_path: Path) -> None:
    state = net(1).state_dict()
    path = tmp_path / "kind.pth"
    torch.save({**state, "head.weight": KINDS[kind](state["head.weight"])}, path)
    with pytest.raises(ExportError, match=f"kind.pth: holds head.weight as {kind} instead of float32; save dense"):
        load_checkpoint(net(2), path)


def test_numbers_beyond_the_networks_type(tmp_path: Path) -> None:
    torch.save({**net(1).state_dict(), "head.bias": torch.tensor([1e39, 0, 0], dtype=torch.float64)}, tmp_path / "a.pt")
    with pytest.raises(ExportError, match="holds NaN or infinity in head.bias"):
        load_checkpoint(net(2), tmp_path / "a.pt")


def test_half_precision_weights(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in net(1).state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    module = net(2)
    load_checkpoint(module, tmp_path / "half.pth")
    assert module.state_dict()["head.weight"].dtype == torch.float32
    assert torch.equal(module.state_dict()["head.weight"], state["head.weight"].float())


def test_files_that_are_not_regular(tmp_path: Path) -> None:
    for name in ("pipe.pth", "pipe.safetensors"):
        os.mkfifo(tmp_path / name)
    for name in ("zero.pth", "zero.safetensors"):
        (tmp_path / name).symlink_to("/dev/zero")
    paths = sorted(tmp_path.iterdir())
    refused = in_time(REFUSED_FILES, *paths)
    for path, line in zip(paths, refused, strict=True):
        kind = {"pipe": "a pipe", "zero": "a device"}[path.stem]
        assert line == f"{path}: cannot be read: it is {kind}, not a regular file"


REFUSED_FILES = """
import sys
from pathlib import Path
from seewhy.errors import ExportError
from seewhy_export.sources.checkpoint_reading import read_checkpoint
for path in sys.argv[1:]:
    try:
        read_checkpoint(Path(path))
    except ExportError as error:
        print(error)
"""


class Evil:
    def __reduce__(self) -> tuple:
        return (open, ("evil-ran", "w"))


class Settings:
    """A class of the training program."""


def refusals(folder: Path) -> dict[str, Any]:
    state = net(1).state_dict()
    return {
        "lacks": {name: value for name, value in state.items() if name != "head.bias"},
        "unknown": {**state, "neck.weight": torch.ones(2)},
        "lacks behind a prefix": {"model": {f"module.{name}": v for name, v in state.items() if "head" not in name}},
        "classes": net(1, classes=5).state_dict(),
        "other": branches().state_dict(),
        "nan": {**state, "head.weight": torch.full((3, 4), torch.nan)},
        "evil": {**state, "head.weight": Evil()},
        "settings": {"model": state, "settings": Settings()},
        "whole": net(1),
        "list": [torch.zeros(1)],
        "numbers": {1: torch.zeros(1)},
        "empty": {"epoch": 3},
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lacks", "does not fit the network: it lacks head.bias$"),
        ("unknown", "does not fit the network: it has unknown neck.weight$"),
        (
            "lacks behind a prefix",
            r"\(model, with the prefix 'module.'\): does not fit the network: it lacks head.weight, head.bias$",
        ),
        (
            "classes",
            "it has head.weight 5x4 instead of 3x4, head.bias 5 instead of 3; if the number of classes differs",
        ),
        ("other", "it lacks backbone.0.weight, .* and 3 more and has unknown stem.weight, .* and "),
        ("nan", "holds NaN or infinity in head.weight; use an earlier checkpoint"),
        ("evil", "holds more than tensors and plain data: .*open; loading these could run code"),
        ("settings", r"holds more than tensors and plain data: \S*Settings; .*save model.state_dict\(\) instead"),
        ("whole", r"holds a whole pickled network \(\S*Net\), which only the code of that class can load"),
        ("list", "holds no state dict"),
        ("numbers", "holds no state dict"),
        ("empty", "holds no state dict"),
    ],
)
def test_refused_in_one_line(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(refusals(tmp_path)[name], "file.pth")
    module = net(2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ExportError, match=message) as caught:
        load_checkpoint(module, Path("file.pth"))
    assert str(caught.value).startswith("file.pth") and "\n" not in str(caught.value)
    assert not Path("evil-ran").exists()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items()), "partly loaded"


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(net(1).eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "scripted.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "text.pth").write_text("weights: none")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save(net(1).state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:700])
    for name, message in {
        "scripted.pt": "is a TorchScript archive; save torch.jit.load",
        "evil.pkl": "is not a PyTorch checkpoint|holds more than",
        "text.pth": "is not a PyTorch checkpoint",
        "empty.pth": "is empty",
        "cut.pth": "is not a PyTorch checkpoint",
        "missing.pth": "cannot be read: No such file",
        ".": "cannot be read: it is a folder",
    }.items():
        with pytest.raises(ExportError, match=message) as caught:
            load_checkpoint(net(2), tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not Path("evil-ran").exists()
