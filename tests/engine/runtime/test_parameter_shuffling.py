"""Tests of `seewhy.runtime.parameter_shuffling` and of explainers with shuffled parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from seewhy import ArgumentError, Explainer, ModelFileError
from seewhy.runtime import model_stream, stored_weights
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.parameter_shuffling import with_shuffled_values
from support.tiny_model import Tiny
from support.tiny_model_files import external, pixels, write

NAMES = ("conv1.weight", "conv2.weight", "fc.weight", "fc.bias")
METHODS = ["gradcam", "cam", "backprop", "guided-backprop"]


@pytest.mark.parametrize("large", [stored_weights.LARGE, 64])
@pytest.mark.parametrize("has_pipes", [False, True])
def test_the_results_are_those_of_a_file_with_these_values(
    large: int, has_pipes: bool, tiny: Tiny, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large weights stay in the file, unless they are shuffled."""
    monkeypatch.setattr(stored_weights, "LARGE", large)
    monkeypatch.setattr(model_stream, "_HAS_PIPES", has_pipes and model_stream._HAS_PIPES)
    shuffled = with_shuffled_values(ModelFile.read(model_path), NAMES, 3).values(tiny.weights())
    for name, values in tiny.weights().items():
        np.testing.assert_array_equal(np.sort(shuffled[name], None), np.sort(values, None))
        assert np.array_equal(shuffled[name], values) == (name not in NAMES)
    other = Explainer(write(tmp_path / "m.onnx", tiny.proto(shuffled)), threads=1)
    explainer = Explainer(model_path, threads=1)
    found = explainer.with_shuffled_parameters(NAMES, 3).explain(pixels(2), METHODS)
    for name, expected in other.explain(pixels(2), METHODS).items():
        np.testing.assert_array_equal(found[name].attributions, expected.attributions)
        np.testing.assert_array_equal(found[name].logits, expected.logits)


def test_the_original_stays_as_it_is(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=1)
    before = explainer.explain(pixels(2), METHODS)
    shuffled = explainer.with_shuffled_parameters(NAMES)
    assert not np.allclose(shuffled.explain(pixels(2)).logits, before["gradcam"].logits)
    for name, after in Explainer.explain(explainer, pixels(2), METHODS).items():
        np.testing.assert_array_equal(after.attributions, before[name].attributions)
    assert (shuffled.sha256, shuffled.metadata, shuffled.path) == (explainer.sha256, explainer.metadata, explainer.path)


def test_the_order_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    graph = Tiny().proto()
    values = np.arange(60, dtype=np.float32)
    for name in ("first", "second"):
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    model = ModelFile.read(write(tmp_path / "m.onnx", graph))

    def order(name: str, seed: int, *others: str) -> list[float]:
        return with_shuffled_values(model, [*others, name], seed).values([name])[name].tolist()

    assert order("first", 0) == order("first", 0, "second", "fc.weight")
    assert len({tuple(order(name, seed)) for name in ("first", "second") for seed in (0, 1, 2**40)}) == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_beside_the_file(threads: int, tiny: Tiny, model_path: Path, tmp_path: Path) -> None:
    inside, beside = (Explainer(path, threads=1) for path in (model_path, external(tmp_path, tiny)))
    one, other = (each.with_shuffled_parameters(NAMES, 1).with_threads(threads) for each in (inside, beside))
    np.testing.assert_array_equal(*(each.explain(pixels(2), "backprop").attributions for each in (one, other)))
    assert other.external_data_sha256 == beside.external_data_sha256


def test_shuffling_twice_keeps_the_first_values(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=1)
    at_once = explainer.with_shuffled_parameters(NAMES, 2).predict(pixels(2)).logits
    one_by_one = explainer
    for name in NAMES:
        one_by_one = one_by_one.with_shuffled_parameters([name], 2)
    np.testing.assert_array_equal(one_by_one.predict(pixels(2)).logits, at_once)


def test_sessions_can_be_released(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=1)
    assert explainer.session_bytes == 0
    before = explainer.explain(pixels(2)).maps
    assert explainer.session_bytes > 0
    explainer.release_sessions()
    assert explainer.session_bytes == 0
    np.testing.assert_array_equal(explainer.explain(pixels(2)).maps, before)


def test_a_tensor_that_does_not_exist(model_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny\.onnx: has no weight 'fc.wight'"):
        Explainer(model_path).with_shuffled_parameters(["fc.wight"])


def test_damaged_values(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny.proto()
    next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight").raw_data = b"123"
    path = write(tmp_path / "m.onnx", model)
    with pytest.raises(ModelFileError, match=r"m\.onnx: a weight is damaged: "):
        Explainer(path).with_shuffled_parameters(["fc.weight"])


@pytest.mark.parametrize("seed", [-1, 0.5, "1", None, True])
def test_bad_seeds(seed: object, model_path: Path) -> None:
    with pytest.raises(ArgumentError, match="seed must be an integer of at least 0, not "):
        Explainer(model_path).with_shuffled_parameters(NAMES, seed)  # type: ignore[arg-type]


def test_nothing_is_written(model_path: Path) -> None:
    before = model_path.read_bytes()
    Explainer(model_path).with_shuffled_parameters(NAMES).predict(pixels(1))
    assert model_path.read_bytes() == before and onnx.load(model_path).graph.initializer
