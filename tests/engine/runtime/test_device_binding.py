"""Tests of `seewhy.runtime.device_binding` and of maps computed in the graph, on the CPU provider."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from seewhy import ArgumentError, Explainer, NonFiniteError
from seewhy.runtime import device_binding, providers, sessions
from seewhy.runtime.device_binding import DeviceBinding
from seewhy.runtime.in_graph_maps import IN_GRAPH_MAPS, file_outputs, is_map
from seewhy.runtime.model_file import ModelFile
from support.session_calls import record_plans
from support.tiny_model import DEFAULT_OUTPUTS, Tiny
from support.tiny_model_files import pixels, write

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
NAMES = ["logits", "activations", "guided_gradients"]


@pytest.fixture
def session(model_path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model_path, providers=[CPU])


def feeds(rows: int, seed: int = 0) -> dict[str, Any]:
    return {"images": pixels(rows, seed), "targets": np.arange(rows) % 6}


@pytest.mark.parametrize("known", [True, False], ids=["shapes in the file", "shapes unknown"])
def test_bound_runs_equal_plain_runs(
    session: onnxruntime.InferenceSession, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        outputs = [SimpleNamespace(name=value.name, shape=["N", "C", "h", "w"]) for value in session.get_outputs()]
        monkeypatch.setattr(session, "get_outputs", lambda: outputs)
    bound = DeviceBinding(session, "cpu", 0)
    found = [(rows, bound.run(NAMES, feeds(rows, seed))) for seed, rows in enumerate((3, 3, 1, 5, 3, 4, 1))]
    # The results are compared only now, because a later run must not overwrite earlier results.
    for seed, (rows, values) in enumerate(found):
        for value, expected in zip(values, session.run(NAMES, feeds(rows, seed)), strict=True):
            np.testing.assert_array_equal(value, expected)
            value[...] = 0  # the array belongs to the caller


def test_outputs_are_allocated_once_for_a_batch_size(
    session: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    allocated: list[tuple[int, weakref.ref[onnxruntime.OrtValue]]] = []

    def recorded(shape: list[int], *others: Any) -> onnxruntime.OrtValue:
        value = allocate(shape, *others)
        allocated.append((shape[0], weakref.ref(value)))
        return value

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", recorded)
    bound = DeviceBinding(session, "cpu", 0)
    count = len(session.get_outputs())
    for rows, expected in [(3, [3]), (3, [3]), (2, [3, 2]), (3, [3, 2])]:
        # The smaller last batch of a folder does not replace the outputs of the other batches.
        bound.run(NAMES, feeds(rows))
        assert [size for size, _ in allocated] == [size for size in expected for _ in range(count)]
    for rows in (1, 4, 5):
        bound.run(NAMES, feeds(rows))
        kept = {size for size, value in allocated if value() is not None}
        assert rows in kept and len(kept) <= device_binding.KEPT_SIZES


def test_inputs_that_are_views(session: onnxruntime.InferenceSession) -> None:
    bound = DeviceBinding(session, "cpu", 0)
    given = feeds(6)
    every_other = {name: value[::2] for name, value in given.items()}
    for value, expected in zip(bound.run(NAMES, every_other), session.run(NAMES, every_other), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_threads_share_no_outputs(session: onnxruntime.InferenceSession) -> None:
    bound = DeviceBinding(session, "cpu", 0)
    expected = [session.run(NAMES, feeds(3, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(
            pool.map(lambda i: bound.run(NAMES, feeds(3, i % 8)), range(200)), expected * 25, strict=True
        ):
            for value, other in zip(found, right, strict=True):
                np.testing.assert_array_equal(value, other)


def bound_runs(monkeypatch: pytest.MonkeyPatch) -> list[DeviceBinding]:
    """Return a list to which every run with values on a device adds its binding."""
    runs: list[DeviceBinding] = []
    real = DeviceBinding.run
    monkeypatch.setattr(
        DeviceBinding, "run", lambda bound, names, feeds: (runs.append(bound), real(bound, names, feeds))[1]
    )
    return runs


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> list[DeviceBinding]:
    """Treat the CPU provider as a device with its own memory, and return a list of the bindings that run there."""
    monkeypatch.setitem(providers.DEVICE_MEMORY, CPU, ("cpu", "device_id"))
    return bound_runs(monkeypatch)


@pytest.mark.parametrize("size", [(12, 16), (32, 32)])
@pytest.mark.parametrize("how", [{}, {"target": 2}, {"top": 3}, {"top": 3, "batch_size": 2}])
@pytest.mark.parametrize("method", [*IN_GRAPH_MAPS, "guided-backprop", "gradcam++"])
def test_explanations_are_the_same(
    tmp_path: Path, tiny: Tiny, request: pytest.FixtureRequest, method: str, how: dict[str, Any], size: tuple[int, int]
) -> None:
    """Only the order of float32 sums differs: over 5 channels and at most 256 positions, each rounded to 2^-24."""
    path = tiny.save(tmp_path / "m.onnx", size=size)
    images = np.random.default_rng(3).standard_normal((5, 3, *size)).astype(np.float32)
    expected = Explainer(path, threads=1).explain(images, method, **how)
    runs = request.getfixturevalue("on_device")
    found = Explainer(path, threads=1).explain(images, method, **how)
    assert runs
    np.testing.assert_array_equal(found.targets, expected.targets)
    np.testing.assert_array_equal(found.logits, expected.logits)
    for name in ("maps", "attributions", "heatmaps"):
        value, right = getattr(found, name), getattr(expected, name)
        if right is None:
            assert value is None
        else:
            assert np.abs(right).max() > 0
            np.testing.assert_allclose(value, right, rtol=0, atol=1e-5 * np.abs(right).max())
    if method in ("gradcam", "hirescam"):
        assert (found.maps < 0).any()  # still before the ReLU


@pytest.mark.usefixtures("on_device")
def test_only_maps_are_copied_back(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = record_plans(monkeypatch)
    Explainer(model_path, threads=1).explain(pixels(), list(IN_GRAPH_MAPS))
    assert [outputs for outputs, _, _ in plans] == [{"logits", *(one.output for one in IN_GRAPH_MAPS.values())}]


@pytest.mark.usefixtures("on_device")
def test_map_that_overflows(tmp_path: Path, tiny: Tiny) -> None:
    weights = tiny.weights()
    weights["fc.weight"] = np.full_like(weights["fc.weight"], 3e38)
    path = write(tmp_path / "m.onnx", tiny.proto(weights))
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        Explainer(path).explain(100 * pixels(), "cam", target=1)


def test_maps_need_outputs_of_the_file() -> None:
    gradcam = IN_GRAPH_MAPS["gradcam"]
    assert file_outputs({"logits", gradcam.output}) == {"logits", "activations", "gradients"}
    assert is_map(gradcam.output) and not any(map(is_map, DEFAULT_OUTPUTS))


class Started:
    """Record of the sessions that onnxruntime starts, on a machine where CUDA works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self)

    def __call__(self, content: bytes, options: Any, providers: Any) -> Any:
        self.asked.append(providers)
        return self

    def disable_fallback(self) -> None:
        pass

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_inputs(self) -> list[Any]:
        return []

    def get_outputs(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("providers", "options", "device"),
    [
        (None, {}, 0),
        (["cuda"], {}, 0),
        ([("cuda", {"device_id": 1})], {"device_id": 1}, 1),
        ([("cuda", {"device_id": "2"}), "cpu"], {"device_id": "2"}, 2),
        ([("cuda", {"cudnn_conv_algo_search": "EXHAUSTIVE"})], {"cudnn_conv_algo_search": "EXHAUSTIVE"}, 0),
    ],
)
def test_options_of_cuda(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, providers: Any, options: dict[str, Any], device: int
) -> None:
    started = Started(monkeypatch)
    made = sessions.SessionCache(ModelFile.read(model_path), providers, None)
    name, given = started.asked[0][0]
    assert name == CUDA
    defaults = {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1"}
    assert given == {**defaults, **options}
    assert made.maps_in_graph
    bound: list[tuple[Any, str, int]] = []
    monkeypatch.setattr(sessions, "DeviceBinding", lambda *arguments: bound.append(arguments))
    made.create_session(frozenset({"logits"}), lambda options: None)
    assert bound == [(started, "cuda", device)]


@pytest.mark.parametrize("number", ["first", None, 1.5])
def test_device_id_that_is_not_a_number(model_path: Path, monkeypatch: pytest.MonkeyPatch, number: Any) -> None:
    Started(monkeypatch)
    with pytest.raises(ArgumentError, match="device_id must be a non-negative integer, not"):
        sessions.SessionCache(ModelFile.read(model_path), [("cuda", {"device_id": number})], None)


def test_the_cpu_is_not_a_device(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "DeviceBinding", lambda *_: pytest.fail("values lie on a device"))
    made = sessions.SessionCache(ModelFile.read(model_path), [("cpu", {})], None)
    assert not made.maps_in_graph
    made.run(frozenset({"logits"}), feeds(1))
