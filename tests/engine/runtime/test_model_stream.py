"""Tests of `seewhy.runtime.model_stream`: how large weights reach onnxruntime."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from seewhy import Explainer, ModelFileError
from seewhy.runtime import model_stream, stored_weights
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.model_file import ModelFile
from support.tiny_model import Tiny
from support.tiny_model_files import pixels, write

PIPES = pytest.mark.skipif(sys.platform != "linux", reason="pipes are used on Linux")


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str | bytes]:
    """Make all but the smallest weights large, and return a list that gets what each session is created from."""
    monkeypatch.setattr(stored_weights, "LARGE", 100)
    found: list[str | bytes] = []
    start = onnxruntime.InferenceSession

    def recorded(source: str | bytes, *others: Any, **named: Any) -> onnxruntime.InferenceSession:
        found.append(source)
        return start(source, *others, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    return found


@pytest.mark.parametrize("method", ["gradcam", "guided-backprop"])
@pytest.mark.parametrize("pipes", [pytest.param(True, marks=PIPES), False])
def test_the_results_have_the_same_bits(
    method: str,
    pipes: bool,
    model_path: Path,
    explainer: Explainer,
    sources: list[str | bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_stream, "_HAS_PIPES", pipes)
    expected = explainer.explain(pixels(), method)
    sources.clear()
    found = Explainer(model_path, threads=1).explain(pixels(), method)
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.attributions, expected.attributions)
    assert [isinstance(source, str) for source in sources] == [pipes]


@pytest.mark.parametrize("pipes", [pytest.param(True, marks=PIPES), False])
def test_onnxruntime_gets_the_pruned_model(
    pipes: bool, model_path: Path, sources: list[str | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_stream, "_HAS_PIPES", pipes)
    model = ModelFile.read(model_path)
    pruned = prune(model.proto, ["logits", "gradients"])
    expected = prune(onnx.load(model_path), ["logits", "gradients"])
    found = onnx.ModelProto.FromString(model_stream.start_from(pruned, model.stored, _content, True))
    for one in (found, expected):  # the order of weights has no meaning
        one.graph.initializer.sort(key=lambda tensor: tensor.name)
    assert found == expected


def _content(source: str | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


@PIPES
@pytest.mark.parametrize("change", [lambda node: setattr(node, "op_type", "NoSuchOperator"), lambda node: node.Clear()])
def test_a_graph_that_onnxruntime_refuses(
    change: Callable[[onnx.NodeProto], object], tiny: Tiny, tmp_path: Path, sources: list[str | bytes]
) -> None:
    model = tiny.proto()
    change(next(node for node in model.graph.node if node.op_type == "Relu"))
    explainer = Explainer(write(tmp_path / "odd.onnx", model), threads=1)
    with pytest.raises(ModelFileError, match=r"odd\.onnx: onnxruntime \S+ cannot load it"):
        explainer.explain(pixels())
    assert sources and all(isinstance(source, str) for source in sources)


@pytest.fixture
def larger_than_a_pipe(tiny: Tiny, tmp_path: Path) -> ModelFile:
    model = tiny.proto()
    for node in model.graph.node:
        if node.op_type == "Gemm":
            node.input[2] = "big"
    values = np.arange(2**20, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "big"))
    return ModelFile.read(write(tmp_path / "big.onnx", model))


@PIPES
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("forks", [False, True])
def test_a_reader_that_stops_ends_the_stream(forks: bool, larger_than_a_pipe: ModelFile) -> None:
    """The thread that writes would otherwise wait for ever, and so would it if another process could read."""
    children = []

    def stop(_: str | bytes) -> None:
        if forks:
            children.append(forked())
        raise ValueError("enough")

    threads = threading.active_count()
    try:
        with pytest.raises(ValueError, match="enough"):
            model_stream.start_from(prune(larger_than_a_pipe.proto, ["logits"]), larger_than_a_pipe.stored, stop, True)
    finally:
        end(children)
    assert threading.active_count() == threads


@PIPES
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_hold_the_pipe_open(larger_than_a_pipe: ModelFile) -> None:
    children = []

    def read(source: str | bytes) -> bytes:
        children.append(forked())
        return _content(source)

    try:
        model = prune(larger_than_a_pipe.proto, ["logits"])
        assert model_stream.start_from(model, larger_than_a_pipe.stored, read, True)
    finally:
        end(children)


def test_a_system_without_more_threads(larger_than_a_pipe: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    model = prune(larger_than_a_pipe.proto, ["logits"])
    content = model_stream.start_from(model, larger_than_a_pipe.stored, _content, True)
    assert _values(content) == list(range(2**20)) and not model_stream._writing


def test_a_model_of_many_blocks_is_joined(larger_than_a_pipe: ModelFile) -> None:
    """The blocks share one piece of memory."""
    model = prune(larger_than_a_pipe.proto, ["logits"])
    assert _values(model_stream.start_from(model, larger_than_a_pipe.stored, _content, False)) == list(range(2**20))


def _values(content: bytes) -> list[float]:
    """Return the values of the large weight of a serialised model."""
    weights = onnx.ModelProto.FromString(content).graph.initializer
    values: list[float] = onnx.numpy_helper.to_array(next(one for one in weights if one.name == "big")).tolist()
    return values


def forked() -> int:
    """Return the number of a child process, which waits for its end, but not for ever."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        signal.pause()
        os._exit(0)
    return child


def end(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@PIPES
def test_a_file_that_was_overwritten_by_another_is_named(
    tiny: Tiny, larger_than_a_pipe: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime may fail on the new bytes before the hash of the file is known."""
    monkeypatch.setattr(stored_weights, "LARGE", 64)
    path = tiny.save(tmp_path / "m.onnx")
    explainer = Explainer(path, threads=1)
    path.write_bytes(larger_than_a_pipe.path.read_bytes())
    with pytest.raises(ModelFileError, match=r"m\.onnx: was overwritten since it was first read"):
        explainer.explain(pixels())
