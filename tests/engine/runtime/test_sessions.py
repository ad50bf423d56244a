"""Tests of `seewhy.runtime.sessions`: a provider is never replaced silently, and the cache of sessions is bounded."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from seewhy import ArgumentError, Explainer, ModelFileError, ProviderError
from seewhy._shared.cpu_count import most_threads
from seewhy.runtime import batch_splitting, checked_runs, sessions
from seewhy.runtime.model_file import ModelFile
from support.session_calls import StartedSessions
from support.tiny_model import DEFAULT_OUTPUTS, Tiny
from support.tiny_model_files import external

CPU = "CPUExecutionProvider"


def test_default_provider(model_path: Path) -> None:
    providers = Explainer(model_path).providers
    assert providers[-1] == CPU
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert providers == (CPU,)


@pytest.mark.parametrize("asked", [["cpu"], ["CPU"], [CPU], [(CPU, {})], [("cpu", {"use_arena": "1"})], "cpu"])
def test_names_of_a_provider(model_path: Path, asked: Any) -> None:
    assert Explainer(model_path, asked).providers == (CPU,)


@pytest.mark.parametrize("asked", [["rocket"], ["cpu", "rocket"], [("rocket", {"device": 0})], [""]])
def test_unknown_provider(model_path: Path, asked: Any) -> None:
    with pytest.raises(ProviderError, match=f"is not available in this onnxruntime; it has .*{CPU}") as raised:
        Explainer(model_path, asked)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_missing_cuda(model_path: Path) -> None:
    with pytest.raises(ProviderError, match="provider 'cuda' is not available"):
        Explainer(model_path, ["cuda"])


def test_no_provider(model_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no provider given"):
        Explainer(model_path, [])


def test_provider_that_does_not_start(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unknown provider option: devise_id\nin cuda_provider.cc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ProviderError, match=f"{CPU} did not start: Unknown provider option: devise_id$"):
        Explainer(model_path, [(CPU, {"devise_id": 0})])


class FallbackSession:
    """Session as onnxruntime creates it if CUDA is installed but the driver is missing: silently on the CPU."""

    def get_providers(self) -> list[str]:
        return [CPU]

    def disable_fallback(self) -> None:
        pass


class Started(FallbackSession):
    """Session as onnxruntime creates it if CUDA works."""

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", CPU]


def test_silent_fallback_is_an_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: FallbackSession())
    with pytest.raises(ProviderError, match="CUDAExecutionProvider did not start: onnxruntime fell back to CPU"):
        Explainer(model_path, ["cuda"])
    assert Explainer(model_path).providers == (CPU,)  # None means CUDA only where it is usable


def test_fallback_of_one_session_is_an_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider starts for the test model, but not for the real one."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Started())
    explainer = Explainer(model_path, ["cuda"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: FallbackSession())
    with pytest.raises(ProviderError, match="runs on CPUExecutionProvider instead of CUDAExecutionProvider"):
        explainer.explain(np.zeros((1, 3, 12, 16), np.float32))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, np.float32(2), most_threads() + 1, 3000, 10**30])
def test_wrong_threads(model_path: Path, threads: Any) -> None:
    """Thousands of threads would freeze the machine."""
    with pytest.raises(ArgumentError, match=f"threads must be an integer from 1 to {most_threads()} on this machine"):
        Explainer(model_path, threads=threads)
    with pytest.raises(ArgumentError, match="threads must be an integer from 1 to"):
        Explainer(model_path).with_threads(threads)


def test_an_integer_of_numpy_is_a_number_of_threads(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=np.int64(2))  # type: ignore[arg-type]
    assert type(explainer.threads) is int and explainer.threads == 2
    assert explainer.with_threads(np.int32(2)) is explainer  # type: ignore[arg-type]


def test_cache_is_bounded_and_reused(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = StartedSessions(monkeypatch)
    found = sessions.SessionCache(ModelFile.read(model_path), None, 1)
    feeds = {"images": np.zeros((1, 3, 12, 16), np.float32), "targets": np.array([0])}
    sets = [frozenset(names) for names in combinations(DEFAULT_OUTPUTS, 2)]
    assert len(sets) > sessions.CACHED_SESSIONS
    for names in sets:
        assert set(found.run(names, feeds)) == names
        assert len(started.kept()) <= sessions.CACHED_SESSIONS
    before = started.count
    found.run(sets[-1], feeds)
    assert started.count == before


def test_cache_is_bounded_by_weights(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each graph has all weights of the network, 4 bytes each, and at most 100 bytes of constants."""
    started = StartedSessions(monkeypatch)
    weights = 4 * sum(array.size for array in Tiny().weights().values())
    feeds = {"images": np.zeros((1, 3, 12, 16), np.float32), "targets": np.array([0])}
    sets = [frozenset(names) for names in combinations(DEFAULT_OUTPUTS, 2) if "logits" in names]
    assert weights > 4 * 200 and len(sets) > 4
    for limit, kept in [(3 * (weights + 100), 3), (2 * (weights + 100), 2), (weights, 2), (0, 2)]:
        monkeypatch.setattr(sessions, "CACHED_BYTES", limit)
        found = sessions.SessionCache(ModelFile.read(model_path), None, 1)
        for names in sets:
            found.run(names, feeds)
        assert started.kept() == sets[-kept:]
        del found


@pytest.mark.parametrize(("in_cache", "sizes"), [(10**9, [1, 1, 1, 1]), (0, [2, 2])])
def test_sub_batches_of_networks_that_fit_in_the_cache_are_small(
    in_cache: int, sizes: list[int], model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_splitting, "CACHED_WEIGHT_BYTES", in_cache)
    seen: list[list[slice]] = []
    run = checked_runs.run_sub_batches
    monkeypatch.setattr(
        checked_runs, "run_sub_batches", lambda work, parts, *more: (seen.append(parts), run(work, parts, *more))[1]
    )
    Explainer(model_path, ["cpu"], threads=2).explain(np.zeros((4, 3, 12, 16), np.float32), "gradcam")
    assert [[part.stop - part.start for part in parts] for parts in seen] == [sizes]


def test_weights_beside_the_file_count_for_the_limit(
    tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of three graphs (weights and at most 100 bytes of constants each) keeps three, a lower limit two."""
    started = StartedSessions(monkeypatch)
    weights = sum(array.nbytes for array in tiny.weights().values())
    feeds = {"images": np.zeros((1, 3, 12, 16), np.float32), "targets": np.array([0])}
    sets = [{"logits", name} for name in DEFAULT_OUTPUTS if name != "logits"]
    for path in (tiny.save(tmp_path / "m.onnx"), external(tmp_path, tiny)):
        for limit, kept in [(3 * (weights + 100), 3), (3 * weights - 1, 2)]:
            monkeypatch.setattr(sessions, "CACHED_BYTES", limit)
            found = sessions.SessionCache(ModelFile.read(path), None, 1)
            for names in sets:
                found.run(frozenset(names), feeds)
            assert started.kept() == sets[-kept:]
            del found


def test_failure_while_running(model_path: Path) -> None:
    found = sessions.SessionCache(ModelFile.read(model_path), None, 1)
    with pytest.raises(ProviderError, match=f"onnxruntime failed on 1 images with {CPU}: ") as raised:
        found.run(frozenset({"logits"}), {"images": np.zeros((1, 3, 9, 9), np.float32)})
    assert "\n" not in str(raised.value)


def test_the_head_alone(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the target layer's output is fed, the graph starts there and needs no image."""
    found = sessions.SessionCache(ModelFile.read(model_path), None, 1)
    started = StartedSessions(monkeypatch)
    images, targets = np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32), np.array([4, 1])
    whole = found.run(frozenset({"logits", "activations", "gradients"}), {"images": images, "targets": targets})
    head = found.run(frozenset({"logits", "gradients"}), {"activations": whole["activations"], "targets": targets})
    for name, value in head.items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6, atol=1e-7)
    assert len(started.kept()) == 2


def test_an_input_that_is_not_fed(model_path: Path) -> None:
    found = sessions.SessionCache(ModelFile.read(model_path), None, 1)
    feeds = {"activations": np.zeros((1, 5, 6, 8), np.float32), "targets": np.array([0])}
    with pytest.raises(ModelFileError, match=r"computing input_gradients needs images besides activations and targets"):
        found.run(frozenset({"input_gradients"}), feeds)


def test_threads_do_not_spin_in_the_head(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions.SessionCache(ModelFile.read(model_path), None, 2)
    entries: list[dict[str, str]] = []

    class Options(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            entries.append({})

        def add_session_config_entry(self, name: str, value: str) -> None:
            entries[-1][name] = value
            super().add_session_config_entry(name, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    feeds = {"images": np.zeros((1, 3, 12, 16), np.float32), "targets": np.array([0])}
    values = made.run(frozenset({"logits", "activations"}), feeds)
    made.run(frozenset({"logits"}), {"activations": values["activations"], "targets": np.array([0])})
    # Only the session of the head turns spinning off.
    off = {"session.intra_op.allow_spinning": "0"}
    assert entries == [{}, off]


_MEMORY = """
import os, sys
import numpy as np
from seewhy._shared.cpu_count import most_threads
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import SessionCache

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

found = SessionCache(ModelFile.read(sys.argv[1]), None, 1)
feeds = {"images": np.ones((32, 3, 192, 192), np.float32), "targets": np.zeros(32, np.int64)}

session = found.create_session(frozenset({"logits", "guided_gradients"}), lambda options: None)

def run(rows):  # without sub-batches
    session.run(None, {name: value[:rows] for name, value in feeds.items()})

before = resident()
run(32)
once = resident()
for rows in np.random.default_rng(1).permutation(np.repeat(np.arange(1, 33), 2)):  # a plan is used from the second time
    run(rows)
print((resident() - before) / (once - before))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_batches_of_many_sizes_take_little_more_memory_than_the_largest(tmp_path: Path, tiny: Tiny) -> None:
    """With onnxruntime's memory patterns, they take 2.4 times as much."""
    path = tiny.save(tmp_path / "m.onnx", size=(192, 192))
    done = subprocess.run([sys.executable, "-c", _MEMORY, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.6
