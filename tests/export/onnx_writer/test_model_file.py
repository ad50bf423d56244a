"""Tests of `seewhy_export.onnx_writer.model_file`: files are complete, and never replace another program's file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import onnx
import pytest
from torch import Tensor, nn

from seewhy.contract import constants as contract
from seewhy.errors import ExportError
from seewhy_export import export, exporter
from seewhy_export.onnx_writer import model_file
from support.exporting.networks import branches


class FailingModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the work has begun")


@pytest.mark.parametrize("old", [None, "not a model", "a model without a weights file", "another's model"])
def test_another_programs_weights_file_is_kept(old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if old == "not a model":
        path.write_bytes(b"mine")
    elif old == "a model without a weights file":
        export(branches(), path, image_size=(40, 40), verify=False)
    elif old == "another's model":
        onnx.save(onnx.ModelProto(ir_version=8), path)
    (tmp_path / "model.onnx.data").write_bytes(b"weights of another.onnx")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ExportError, match="model.onnx.data: would be replaced, but is not the weights file") as caught:
        export(FailingModule(), path, image_size=(40, 40), verify=False)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_failed_publish_restores_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 4096)
    path = tmp_path / "model.onnx"
    export(branches(), path, image_size=(40, 40), verify=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    replace = os.replace

    def fail(source: object, destination: object) -> None:
        if Path(str(destination)) == path:
            raise OSError(28, "No space left on device")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ExportError, match="No space left on device"):
        export(branches(classes=9), path, image_size=(40, 40), verify=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["write", "measure_parity", "publish"])
def test_a_signal_leaves_no_file(
    step: str, signal_number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line turns SIGTERM into an exception, like SIGINT."""

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal_number)
        time.sleep(10)  # Python calls the handler now

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    owner = {"write": model_file, "measure_parity": exporter, "publish": model_file}[step]
    monkeypatch.setattr(owner, step, stop)
    (tmp_path / "model.onnx").write_bytes(b"mine")
    previous = signal.signal(signal_number, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            export(branches(), tmp_path / "model.onnx", image_size=(40, 40))
    finally:
        signal.signal(signal_number, previous)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"model.onnx": b"mine"}


@pytest.mark.parametrize("moves", range(3))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_publish_restores_the_old_pair(
    error: type[BaseException], moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupt each step of a publish: old weights away, new weights in, model in."""
    monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 4096)
    path = tmp_path / "model.onnx"
    export(branches(), path, image_size=(40, 40), verify=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    publish, replace, done = model_file.publish, os.replace, []

    def fail(source: Path, destination: Path) -> None:
        done.append(destination)
        if len(done) == moves + 1:
            raise error("interrupted")
        replace(source, destination)

    def interrupted(staged: Path, destination: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            publish(staged, destination)

    monkeypatch.setattr(model_file, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else ExportError):
        export(branches(classes=9), path, image_size=(40, 40), verify=False)
    assert len(done) > moves
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_empty_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="path must not be empty"):
        export(FailingModule(), "")
    assert list(tmp_path.iterdir()) == []


def test_a_destination_other_than_a_file_is_kept(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ExportError, match="pipe.onnx: cannot be written: it is a pipe or a device"):
        export(FailingModule(), tmp_path / "pipe.onnx")
    assert (tmp_path / "pipe.onnx").is_fifo()
