"""Tests of `seewhy.bench`: measured cases, cases that fail, statistics and reports.

No test depends on how long anything takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seewhy import ArgumentError, MethodError, ModelFileError, ProviderError, _core
from seewhy.bench import measurement, operator_profile
from seewhy.bench import worker as bench_worker
from seewhy.bench.measurement import FORWARD, Measurement
from seewhy.bench.worker import BenchCase, TimedCase, WorkerTask
from support import command_line

CPU = "CPUExecutionProvider"
QUICK: dict[str, Any] = {"seconds": 0.01, "rounds": 2}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_worker, "PAUSE", 0)


def test_measure(model_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    found = measurement.measure(
        model_path, batches=[1, 3], threads=[2], progress=lambda *n: progress.append(n), **QUICK
    )
    layouts = [(1, 2), (2, 1)]
    methods = [FORWARD, "gradcam", "guided-backprop"]
    expected = [(CPU, batch, *layout, method) for batch in (1, 3) for layout in layouts for method in methods]
    assert [(row.provider, row.batch, row.workers, row.threads, row.method) for row in found.rows] == expected
    for row in found.rows:
        assert row.error is None
        assert row.runs >= 3 * row.workers
        assert 0 < row.p50 <= row.p90 <= row.p99
        assert row.images_per_second > 0
        base = next(r for r in found.rows if (r.method, r.batch, r.workers) == (FORWARD, row.batch, row.workers))
        assert row.ratio == row.p50 / base.p50
    assert progress == [(0, 2), (1, 2), (2, 2)]
    assert [advice.method for advice in found.advice] == methods[1:]
    assert found.machine["usable_cores"] >= 1 and found.machine["cpu_features"] == _core.cpu_features()
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["method"] == FORWARD


def test_default_methods_are_those_that_the_file_serves(model_path: Path, tmp_path: Path, tiny: Any) -> None:
    path = tiny.save(tmp_path / "plain.onnx", outputs=("logits", "input_gradients"))
    found = measurement.measure(path, batches=1, threads=1, **QUICK)
    assert [row.method for row in found.rows] == [FORWARD, "backprop"]
    found = measurement.measure(tiny.save(tmp_path / "bare.onnx", outputs=("logits",)), batches=1, threads=1, **QUICK)
    assert [row.method for row in found.rows] == [FORWARD]
    assert found.advice == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"methods": ["rocket"]}, MethodError, "Unknown method 'rocket'"),
        ({"methods": "rocket"}, MethodError, "Unknown method 'rocket'"),
        ({"batches": [0]}, ArgumentError, "batch must be an integer from 1 to 1000000, not 0"),
        ({"batches": [2.5]}, ArgumentError, "batch must be an integer"),
        ({"batches": []}, ArgumentError, r"batch must be an integer from 1 to 1000000, not \[\]"),
        ({"threads": [-1]}, ArgumentError, r"threads must be an integer from 1 to \d+, not -1"),
        ({"rounds": True}, ArgumentError, "rounds must be an integer"),
        ({"seconds": 0}, ArgumentError, "seconds must be a number above 0"),
        ({"seconds": float("nan")}, ArgumentError, "seconds must be a number above 0"),
        ({"providers": ["rocket"]}, ProviderError, "provider 'rocket' is not available"),
    ],
)
def test_wrong_arguments(model_path: Path, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        measurement.measure(model_path, **{**QUICK, **changes})
    assert "\n" not in str(raised.value)


def test_missing_model_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.onnx: cannot be read"):
        measurement.measure(tmp_path / "none.onnx")


def test_a_batch_too_large_for_memory_gives_a_row_with_an_error(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "MAX_BATCH", 10**15)
    found = measurement.measure(model_path, methods="gradcam", batches=[1, 10**12], threads=1, **QUICK)
    assert [row.error is None for row in found.rows] == [True, True, False, False]
    for row in found.rows[2:]:
        assert row.error.startswith("not enough memory for 1000000000000 images: ")
        assert row.p50 is row.images_per_second is row.ratio is None
    assert [advice.highest_throughput.batch for advice in found.advice] == [1]


def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make worker processes run `code` before their own program."""
    (tmp_path / "changed_worker.py").write_text(f"{code}\nfrom seewhy.bench.worker import main\nmain()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(measurement, "worker", SimpleNamespace(__name__="changed_worker"))


KILLED = """
import os, signal
from seewhy.explainer.explainer import Explainer
own = Explainer.explain
def explain(self, images, method, **rest):
    if method == "guided-backprop":
        os.kill(os.getpid(), signal.SIGKILL)
    return own(self, images, method, **rest)
Explainer.explain = explain
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without signals")
def test_a_killed_process_fails_only_its_case(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system kills a process that needs too much memory, without an exception."""
    worker(tmp_path, monkeypatch, KILLED)
    methods = ["gradcam", "guided-backprop", "backprop"]
    found = measurement.measure(model_path, methods=methods, batches=2, threads=1, **QUICK)
    assert [row.method for row in found.rows] == [FORWARD, *methods]
    assert [row.error for row in found.rows if row.method != "guided-backprop"] == [None] * 3
    assert "killed by the system, probably for lack of memory" in found.rows[2].error


def test_a_process_that_does_not_start(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(tmp_path, monkeypatch, "raise SystemExit('no such thing')")
    found = measurement.measure(model_path, methods="gradcam", batches=2, threads=1, **QUICK)
    assert [row.error for row in found.rows] == ["the process failed: no such thing"] * 2


def test_error_in_one_row(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(tmp_path, monkeypatch, KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise MemoryError('1 GiB')"))
    found = measurement.measure(model_path, batches=2, threads=1, **QUICK)
    assert [row.error for row in found.rows] == [None, None, "not enough memory: 1 GiB"]


@pytest.mark.parametrize(
    ("threads", "layouts"),
    [
        ([1], [(1, 1)]),
        ([2], [(1, 2), (2, 1)]),
        ([6], [(1, 6), (2, 3), (6, 1)]),
        ([8], [(1, 8), (2, 4), (4, 2), (8, 1)]),
        ([1, 3], [(1, 1), (1, 3), (3, 1)]),
    ],
)
def test_layouts_share_threads_among_workers(threads: list[int], layouts: list[tuple[int, int]]) -> None:
    assert measurement.layouts(CPU, threads) == layouts
    assert measurement.layouts("CUDAExecutionProvider", threads) == [(1, None)]


def test_percentiles() -> None:
    times = [float(i) for i in range(1, 101)]
    assert [measurement.percentile(times, percent) for percent in (50, 90, 99)] == [50, 90, 99]
    assert [measurement.percentile([1.0, 2.0, 7.0], percent) for percent in (50, 90, 99)] == [2, 7, 7]
    assert measurement.percentile([3.0], 50) == 3


def row(batch: int, workers: int, p50: float, rate: float, method: str = "gradcam") -> Measurement:
    return Measurement(CPU, workers, 2 // workers, batch, method, 5, p50, p50, p50, rate)


def test_advice_has_the_lowest_latency_and_the_highest_throughput() -> None:
    rows = [
        row(1, 1, 10, 100),
        row(1, 2, 9, 180),
        row(8, 1, 50, 160),
        row(8, 2, 70, 220),
        row(32, 1, 200, 165),
        row(32, 2, 280, 225),
        row(8, 2, 1, 900, FORWARD),
        Measurement(CPU, 1, 2, 64, "gradcam", error="not enough memory"),
    ]
    [advice] = measurement.advise(rows)
    assert advice.lowest_latency == rows[0]  # for a single caller
    assert advice.highest_throughput == rows[3]  # within 3 % of the highest, with a smaller batch


def test_the_first_run_of_a_measurement_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(i) for i in range(100))
    monkeypatch.setattr(bench_worker.time, "perf_counter", lambda: next(clock))
    runs = []
    case = TimedCase(0, 1, lambda: runs.append(1))
    bench_worker.run_case(case, 4)
    # The clock is read once at the beginning, and before and after every run.
    assert (case.times, case.busy, len(runs)) == ([1, 1], 4, 3)
    bench_worker.run_case(case, 0)  # runs of a second need no run to warm up
    assert (len(case.times), len(runs)) == (3, 4)


def test_error_in_a_thread_is_raised() -> None:
    def fail() -> None:
        raise MemoryError("here")

    case = TimedCase(0, 2, fail, times=[5.0])
    with pytest.raises(MemoryError, match="here"):
        bench_worker.run_case(case, 0)


def test_worker_measures_its_task(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measurement.measure(model_path, methods="cam", batches=1, providers=[("cpu", {"use_arena": "1"})], **QUICK)
    assert {row.provider for row in found.rows} == {CPU}
    sha256 = [hashlib.sha256(model_path.read_bytes()).hexdigest(), None]
    task = WorkerTask(str(model_path), [("cpu", {})], 2, [BenchCase("cam", 1, 1)], 0.01, 1, sha256=sha256)
    bench_worker.measure(task)
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(message == {"case": 0, "started": True} for message in messages[:-1])
    assert len(messages[-1]["times"]) >= 3


def test_a_worker_refuses_a_changed_model_file(model_path: Path) -> None:
    task = WorkerTask(str(model_path), [("cpu", {})], 2, [BenchCase("cam", 1, 1)], 0.01, 1, sha256=["0" * 64, None])
    with pytest.raises(ModelFileError, match=r"tiny\.onnx: the file changed during the measurement"):
        bench_worker.measure(task)


def test_profile(model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    found = measurement.measure(model_path, batches=[1, 2], threads=1, profile=True, **QUICK)
    by_case: dict[str, list[measurement.Operator]] = {}
    for one in found.operators:
        assert (one.provider, one.batch) == (CPU, 2)
        by_case.setdefault(one.method, []).append(one)
    assert list(by_case) == [FORWARD, "gradcam", "guided-backprop"]
    for operators in by_case.values():
        assert sum(one.share for one in operators) == pytest.approx(1)
        assert [one.milliseconds for one in operators] == sorted((o.milliseconds for o in operators), reverse=True)
    assert {one.part for one in by_case[FORWARD]} == {"forward"}
    # Grad-CAM needs the two convolutions and no gradient of them; guided backpropagation needs both gradients.
    assert [one.count for one in by_case["gradcam"] if one.type == "Conv"] == [2]
    backward = [one for one in by_case["guided-backprop"] if one.part == "backward"]
    assert [one.count for one in backward if one.type == "ConvTranspose"] == [2]
    assert [path for path in tmp_path.iterdir() if path.name != ".ses"] == []  # every session of onnxruntime creates it


def test_times_are_summed_by_type() -> None:
    def event(name: str, kind: str, duration: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": kind}, "dur": duration}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 9999},
        *(event("a", "Conv", duration) for duration in (9000, 1000, 3000, 1000)),
        *(event("b", "Conv", duration) for duration in (9000, 2000, 2000, 2000)),
        *(event("c", "Conv", duration) for duration in (9000, 6000, 6000, 6000)),
        event("d", "Relu", 1000),
    ]
    rows = operator_profile.sum_by_type(events, {"a": "forward", "b": "forward", "c": "backward"})
    assert rows == [
        {"part": "backward", "type": "Conv", "count": 1, "milliseconds": 6, "share": 0.6},
        {"part": "forward", "type": "Conv", "count": 2, "milliseconds": 3, "share": pytest.approx(0.3)},
        {"part": "unknown", "type": "Relu", "count": 1, "milliseconds": 1, "share": 0.1},
    ]


def test_the_command_prints_the_report(model_path: Path) -> None:
    options = ["--batch", 1, "--threads", 1, "--seconds", 0.01, "--rounds", 1, "--method", "cam"]
    result = command_line.run("bench", model_path, *options, "--profile")
    assert result.exit_code == 0, result.output
    assert "CPUExecutionProvider" in result.output and "÷ forward" in result.output
    assert "cam: lowest latency with batch_size=1, threads=1: " in result.output
    assert "time of each operator type in one run" in result.output
    result = command_line.run("bench", model_path, *options, "--json")
    assert [found["method"] for found in json.loads(result.output)["rows"]] == [FORWARD, "cam"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "rocket"], "Unknown method 'rocket'"),
        (["--batch", "0"], "batch must be an integer from 1 to 1000000, not 0"),
        (["--threads", "0"], r"threads must be an integer from 1 to \d+, not 0"),
        (["--seconds", "-1"], "seconds must be a number above 0"),
        (["--rounds", "0"], "rounds must be an integer"),
        (["--provider", "rocket"], "provider 'rocket' is not available"),
    ],
)
def test_command_with_wrong_options(model_path: Path, options: list[str], words: str) -> None:
    command_line.failed(command_line.run("bench", model_path, *options), words)


def test_command_without_a_model(tmp_path: Path) -> None:
    command_line.failed(command_line.run("bench", tmp_path / "none.onnx"), "none.onnx: cannot be read")


def test_failed_cases_are_printed(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(tmp_path, monkeypatch, "raise SystemExit('gone\\x1b[2J')")
    result = command_line.run("bench", model_path, "--batch", 1, "--threads", 1)
    assert result.exit_code == 0
    assert "not measured: the process failed: gone\\x1b[2J" in result.output
    assert "\x1b" not in result.output
