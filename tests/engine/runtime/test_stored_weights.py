"""Tests of `seewhy.runtime.stored_weights`: what is read at once, what stays in the file, and changes of the file."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from seewhy import Explainer, ModelFileError
from seewhy.contract import checksum
from seewhy.runtime import stored_weights
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.onnx_messages import ModelProto
from support.tiny_model import Tiny
from support.tiny_model_files import pixels, refused


@pytest.fixture(autouse=True)
def _small_weights_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_weights, "LARGE", 100)


def test_the_messages_are_those_of_onnx() -> None:
    assert ModelProto is onnx.ModelProto


def test_the_weights_are_those_that_onnx_reads(model_path: Path) -> None:
    expected = {one.name: numpy_helper.to_array(one) for one in onnx.load(model_path).graph.initializer}
    model = ModelFile.read(model_path)
    large = {name for name, values in expected.items() if values.nbytes >= 100}
    assert 0 < len(large) < len(expected) and set(model.stored.positions) == large
    light = {one.name: one for one in model.proto.graph.initializer}
    assert all(len(light[name].raw_data) == (0 if name in large else expected[name].nbytes) for name in expected)
    assert all(tuple(light[name].dims) == expected[name].shape for name in expected)
    found = model.values(expected)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_everything_else_is_read_as_onnx_reads_it(model_path: Path) -> None:
    whole, light = onnx.load(model_path), ModelFile.read(model_path).proto
    for model in (whole, light):
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
    assert light.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_truncated_and_damaged_files(model_path: Path, tmp_path: Path) -> None:
    data = model_path.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in {*range(0, len(data), 61), len(data) - 1}:
        path.write_bytes(data[:length])
        refused(path, "cut.onnx: ")
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        refused(path, "cut.onnx: ")


def test_values_of_a_weight_that_are_given_twice(tiny: Tiny, tmp_path: Path) -> None:
    """protobuf takes the last ones, and so does onnxruntime, because the bytes are passed on unchanged."""
    model = tiny.proto()
    tensor = next(one for one in model.graph.initializer if one.name == "fc.weight")
    first, second = numpy_helper.to_array(tensor), np.random.default_rng(1).random(tensor.dims, np.float32)
    other = onnx.TensorProto(raw_data=second.tobytes()).SerializeToString()
    old = tensor.SerializeToString()
    data = _with_field(model, old, old + other)
    (tmp_path / "twice.onnx").write_bytes(data)
    model_file = ModelFile.read(tmp_path / "twice.onnx", verify=False)
    np.testing.assert_array_equal(model_file.values(["fc.weight"])["fc.weight"], second)
    assert not np.array_equal(first, second)


def _with_field(model: onnx.ModelProto, old: bytes, new: bytes) -> bytes:
    """Return a serialised model in which the message `old` of one weight is replaced by `new`."""
    kept = [one for one in model.graph.initializer if one.SerializeToString() != old]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    weight = stored_weights.field_start(5, len(new)) + new
    return model.SerializeToString() + stored_weights.field_start(7, len(weight)) + weight


def test_numbers_of_bytes_are_encoded_as_protobuf_does() -> None:
    for length in (0, 1, 127, 128, 300, 2**14, 2**21 + 5):
        tensor = onnx.TensorProto(raw_data=bytes(length)).SerializeToString()
        assert tensor == stored_weights.field_start(9, length) + bytes(length)


def test_large_weights_are_not_in_memory(tiny: Tiny, tmp_path: Path) -> None:
    """Hashing a file of 32 MiB takes one block of memory."""
    model = tiny.proto()
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2**23, np.float32), "unused"))
    path = tmp_path / "large.onnx"
    path.write_bytes(checksum.seal(model.SerializeToString()))
    tracemalloc.start()
    try:
        model_file = ModelFile.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
    assert model_file.values(["unused"])["unused"].sum() == 2**23


def test_a_file_that_is_overwritten_gives_no_numbers(tiny: Tiny, tmp_path: Path) -> None:
    """Existing sessions go on with the numbers that they have. A new session is refused."""
    path = tiny.save(tmp_path / "model.onnx")
    explainer = Explainer(path, threads=1)
    expected = explainer.explain(pixels()).maps
    content, times = bytearray(path.read_bytes()), path.stat()
    content[content.index(tiny.weights()["conv2.weight"].tobytes())] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    np.testing.assert_array_equal(explainer.explain(pixels()).maps, expected)
    for _ in range(2):
        with pytest.raises(ModelFileError, match=r"model\.onnx: was overwritten since it was first read"):
            explainer.explain(pixels(), "backprop")
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="was overwritten"):
        explainer.with_shuffled_parameters(["fc.weight"])


def test_a_file_that_is_replaced_changes_nothing(tiny: Tiny, explainer: Explainer, tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "model.onnx")
    loaded = Explainer(path, threads=1)
    os.replace(tiny.save(tmp_path / "other.onnx", seed=1), path)
    np.testing.assert_array_equal(loaded.explain(pixels()).maps, explainer.explain(pixels()).maps)
    path.unlink()
    found, expected = (one.explain(pixels(), "backprop").attributions for one in (loaded, explainer))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts the open files in /proc")
def test_the_file_is_closed_with_its_explainer(model_path: Path) -> None:
    def opened() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    explainer = Explainer(model_path, threads=1)
    explainer.explain(pixels())
    assert opened() == before + 1
    del explainer
    assert opened() == before
    with pytest.raises(ModelFileError):
        Explainer(Path(__file__))
    assert opened() == before
