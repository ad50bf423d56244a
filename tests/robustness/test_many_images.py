"""Tests of large jobs: memory does not grow with the number of images, and threads can share one Explainer."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer
from support.repository import ROOT
from support.tiny_model_files import pixels

SCRIPT = ROOT / "benchmarks" / "micro" / "memory_growth.py"
THREADS, EXPLANATIONS = 8, 10_000
METHODS = (
    ["gradcam"],
    ["guided-backprop"],
    ["gradcam++", "cam"],
    ["backprop", "hirescam", "guided-gradcam"],
    ["eigencam"],
)


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not installed")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("form", ["png", "npz", "parquet"])
def test_memory_does_not_grow_with_the_images(form: str, model_path: Path, tmp_path: Path) -> None:
    """Six times the images may need at most 10 percent more memory, so a leak of about 2 KiB per image fails."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    spec = importlib.util.spec_from_file_location("memory_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(memory)
    few, many = (memory.measure(str(model_path), count, form, 2, tmp_path) for count in (1000, 6000))
    assert (few["images"], many["images"]) == (1000, 6000)
    assert many["peak"] <= 1.1 * few["peak"]
    assert many["final"] <= 1.1 * few["final"]


def result_bytes(explainer: Explainer, images: np.ndarray, methods: list[str], target: int | None) -> list[bytes]:
    """Return the bytes of the logits, attributions and heatmaps of all methods."""
    results = explainer.explain(images, methods, target=target)
    return [
        array.tobytes()
        for method in methods
        for array in (results[method].logits, results[method].attributions, results[method].heatmaps)
    ]


@pytest.mark.parametrize(
    ("count", "session_threads"),
    [
        (400, 1),
        pytest.param(EXPLANATIONS, 1, marks=pytest.mark.slow),
        pytest.param(EXPLANATIONS, 2, marks=pytest.mark.slow),
    ],
)
def test_threads_that_share_an_explainer(count: int, session_threads: int, model_path: Path) -> None:
    """Eight threads get the results of one thread, bit for bit."""
    explainer = Explainer(model_path, threads=session_threads)
    inputs = [
        (pixels(1 + number % 3, number), METHODS[number % len(METHODS)], (None, 3)[number % 2]) for number in range(60)
    ]
    # Use another Explainer for the expected results, so that the threads start the sessions at the same time.
    alone = Explainer(model_path, threads=session_threads)
    expected = [result_bytes(alone, *each) for each in inputs]
    wrong: list[int] = []
    done = [0] * THREADS
    begin = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        begin.wait()
        for number in np.random.default_rng(thread).integers(0, len(inputs), count // THREADS).tolist():
            if result_bytes(explainer, *inputs[number]) != expected[number]:
                wrong.append(number)
            done[thread] += 1

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [count // THREADS] * THREADS and not wrong
