"""Tests of benchmarks/peers: statistics, comparisons, the results file, the page, and rounds with real workers."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from benchmarks.peers import (
    benchmark_questions,
    cold_start,
    compare_tools,
    input_files,
    measurement_rounds,
    result_agreement,
    results_file,
    tool_environments,
)
from benchmarks.peers.page import comparison_plots, comparison_tables, performance_aims, write_page
from benchmarks.peers.worker_process import Process, ToolFailure
from benchmarks.shared import round_statistics
from hypothesis import given
from hypothesis import strategies as st

from support.repository import ROOT

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)


@given(times, st.floats(0, 1))
def test_percentiles_equal_numpy(values: list[float], share: float) -> None:
    assert round_statistics.percentile(values, share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9)


@given(times)
def test_a_summary_is_in_order(values: list[float]) -> None:
    summary = round_statistics.summary(values)
    assert summary["median"] == statistics.median(values)
    assert min(values) <= summary["p10"] <= summary["median"] * (1 + 1e-12)
    assert summary["median"] <= summary["p90"] * (1 + 1e-12) <= max(values) * (1 + 2e-12)


def test_a_slow_round_does_not_move_a_ratio() -> None:
    assert round_statistics.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0
    with pytest.raises(ValueError, match="2 rounds against 1"):
        round_statistics.ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="percentile 0.5 of 0 values"):
        round_statistics.percentile([], 0.5)


@given(st.integers(1, 9), st.integers(0, 40))
def test_every_round_has_every_name_once(count: int, turn: int) -> None:
    names = [f"tool {i}" for i in range(count)]
    assert sorted(round_statistics.order(names, turn)) == names


def test_no_name_always_follows_the_same_name() -> None:
    names = ["a", "b", "c", "d", "e", "f", "g", "h"]
    before: dict[str, set[str]] = {name: set() for name in names}
    for turn in range(8):
        ordered = round_statistics.order(names, turn)
        for first, second in itertools.pairwise(ordered):
            before[second].add(first)
    assert all(len(others) > 1 for others in before.values())


def test_short_calls_are_repeated_and_long_ones_are_not() -> None:
    assert [round_statistics.repeats(seconds) for seconds in (2.0, 0.06, 0.01, 1e-9)] == [1, 1, 10, 200]


def test_heatmaps_are_compared_pixel_by_pixel() -> None:
    ours = np.zeros((2, 4, 4), np.float32)
    ours[0, 1, 2] = 1
    assert result_agreement.heatmaps(ours, ours)["same"] is True
    assert result_agreement.heatmaps(ours, np.where(ours > 0, 1 - 1 / 200, ours))["same"] is False
    assert result_agreement.heatmaps(ours * 0, ours * 0)["same"] is None, "two empty maps cannot be compared"
    assert result_agreement.heatmaps(ours * 0, ours)["same"] is False
    assert result_agreement.agreement_of(result_agreement.heatmaps, ours, ours[:1])["same"] is False


def test_gradients_are_compared_image_by_image() -> None:
    ours = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    theirs = ours.copy()
    theirs[0] *= 2  # as if rounding had flipped a rectifier in one image
    assert result_agreement.gradients(ours, theirs)["same"] is True
    assert result_agreement.gradients(ours, 1.1 * ours)["error"] == pytest.approx(0.1, rel=1e-4)
    assert result_agreement.gradients(ours, 1.1 * ours)["same"] is False
    assert result_agreement.gradients(0 * ours, ours)["same"] is None


def test_gpu_libraries_are_found_in_a_pip_report() -> None:
    names = ["torch", "nvidia-cublas", "numpy", "triton", "cuda-bindings", "nvidia_cudnn_cu13", "tritonclient2"]
    found = tool_environments.gpu_libraries({"install": [{"metadata": {"name": name}} for name in names]})
    assert {"nvidia-cublas", "triton", "cuda-bindings", "nvidia_cudnn_cu13"} <= set(found)
    assert not {"torch", "numpy", "tritonclient2"} & set(found)


def test_every_rival_has_an_environment_and_a_job() -> None:
    for question in benchmark_questions.QUESTIONS.values():
        names = [rival.name for rival in question.rivals]
        assert len(set(names)) == len(names)
        assert question.ours in names and question.floor in (None, *names)
        for rival in question.rivals:
            assert rival.environment in tool_environments.ENVIRONMENTS
            module, _, job = rival.job.partition(":")
            text = (ROOT / "benchmarks/peers/workers" / f"{module}.py").read_text(encoding="utf-8")
            assert f"def {job}(task: Task" in text


def test_results_are_kept_only_under_the_same_conditions(tmp_path: Path) -> None:
    path = tmp_path / "results" / "peers.json"
    conditions = {"machine": {"cores": 2}, "threads": 2, "sources": "one"}
    first = results_file.Results(path, conditions, keep=True)
    first.add("gradcam/resnet50/1", {"rivals": {}})
    reopened = results_file.Results(path, conditions, keep=True)
    assert reopened.has("gradcam/resnet50/1") and not reopened.has("gradcam/resnet50/8")
    with pytest.raises(results_file.OtherConditions, match="threads is 2, and now it is 1"):
        results_file.Results(path, {**conditions, "threads": 1}, keep=True)
    assert not results_file.Results(path, {**conditions, "threads": 1}, keep=False).has("gradcam/resnet50/1")
    assert [file.name for file in path.parent.iterdir()] == ["peers.json"]


def test_results_of_earlier_commits_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    results_file.Results(path, {"sources": "one"}, keep=True).add("gradcam/resnet50/1", {"rivals": {}})
    results_file.Results(path, {"sources": "one"}, keep=True).add("gradcam/resnet50/8", {"rivals": {}})
    with pytest.raises(results_file.OtherConditions, match="sources is one, and now it is other"):
        results_file.Results(path, {"sources": "other"}, keep=True)
    later = results_file.Results(path, {"sources": "other"}, keep=True, earlier=True)
    assert not later.has("gradcam/resnet50/1")
    later.add("gradcam/resnet50/1", {"rivals": {}})
    assert later.has("gradcam/resnet50/1") and not later.has("gradcam/resnet50/8")
    data = results_file.read(path)
    assert "not repeated since: gradcam/resnet50/8." in write_page.earlier_results(data["records"], data["sources"])
    later.add("gradcam/resnet50/8", {"rivals": {}})
    data = results_file.read(path)
    assert write_page.earlier_results(data["records"], data["sources"]) == ""


def rival(milliseconds: list[float], **others: Any) -> dict[str, Any]:
    return {"environment": "torch", "ms": round_statistics.summary(milliseconds), "rounds_ms": milliseconds, **others}


def example_results() -> dict[str, Any]:
    """Return results in the format of `compare_tools.py`, with numbers that are easy to check."""
    differs = {"measure": "relative L2 difference", "error": 1.0, "tolerance": 0.05, "same": False}
    gradcam = {
        benchmark_questions.FLOOR: rival([10.0, 20.0, 10.0]),
        benchmark_questions.OURS: rival([10.4, 20.8, 10.4], to_floor=1.04),
        "Captum": rival([30.0, 60.0, 30.0], to_floor=3.0, to_ours=30 / 10.4, agreement=differs),
        "pytorch-grad-cam": rival([40.0, 80.0, 40.0], to_floor=4.0, to_ours=40 / 10.4),
        "torch-cam": {"environment": "torchcam", "failed": "RuntimeError: <no>\nreason"},
        performance_aims.RECIPROCAM: rival([9.0, 18.0, 9.0], to_floor=0.9, to_ours=9 / 10.4),
    }
    start = {"peak_bytes": 2**28, "installed_bytes": 2**29}
    cold = {"SeeWhy": rival([500.0], **start), "pytorch-grad-cam": rival([4000.0], to_ours=8.0, **start)}
    return {
        "machine": {
            "processor": "P",
            "cores": 2,
            "instructions": [],
            "memory_gib": 8,
            "distribution": "",
            "python": "3",
        },
        "threads": 2,
        "packages": {"torch": {"torch": "2.13.0"}},
        "records": {
            "gradcam/resnet50/1": {"rounds": 3, "rivals": gradcam, "others_share": 0.25},
            "cold/resnet50/1": {"rounds": 1, "rivals": cold},
        },
    }


def test_aims_are_reached_missed_or_not_measured() -> None:
    records = example_results()["records"]
    found = {row.measure: (row.value(records), row.reached(records)) for row in performance_aims.aims()}
    assert found["Grad-CAM ÷ onnxruntime forward, resnet50, batch 1"] == (pytest.approx(1.04), True)
    assert found["Grad-CAM ÷ onnxruntime forward, resnet50, batch 8"] == (None, None)
    # Captum counts although its result differs; Recipro-CAM does not count because it uses no gradient.
    assert found["Grad-CAM: best gradient-based rival ÷ ours, resnet50, batch 1"] == (
        pytest.approx(30 / 10.4),
        True,
    )
    assert found["Grad-CAM: pytorch-grad-cam ÷ ours, resnet50, batch 1"] == (pytest.approx(40 / 10.4), False)
    assert found["openvino_xai's Recipro-CAM ÷ our Grad-CAM, resnet50, batch 1"] == (pytest.approx(9 / 10.4), False)
    assert found["cold start to first heatmap ÷ pytorch-grad-cam's, resnet50"] == (0.125, True)
    printed = comparison_tables.aims_table(records)
    assert printed.count("**missed**") == 2 and printed.count("| reached |") == 3


def test_a_tool_that_runs_out_of_memory_is_measured_separately(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tools with other failures and tools that were already measured separately are not measured again."""
    records = example_results()["records"]
    group = records["gradcam/resnet50/1"]["rivals"]
    group["torch-cam"] = {"failed": "exit status -9: no message"}
    group["Captum"] = {"failed": "exit status -9: no message", "apart": True}
    group["pytorch-grad-cam"] = {"failed": "exit status 1: no"}
    results = results_file.Results(tmp_path / "peers.json", {"sources": "one"}, keep=False)
    results.add("gradcam/resnet50/1", {"rivals": group})
    comparison = object.__new__(compare_tools.Comparison)
    started = []

    @contextlib.contextmanager
    def tools(name: str, model: str, question: Any, rivals: Sequence[measurement_rounds.Rival]) -> Iterator[list[str]]:
        started.append({rival.name for rival in rivals})
        yield [rival.name for rival in rivals]

    def measured(question: Any, model: str, batch: int, tools: Sequence[str]) -> dict[str, Any]:
        return {"rivals": {name: {"ms": {"median": 7.0}} for name in tools}}

    monkeypatch.setattr(comparison, "started_tools", tools)
    monkeypatch.setattr(comparison, "measure_group", measured)
    for _ in range(2):
        comparison.measure_apart(results, "gradcam", benchmark_questions.QUESTIONS["gradcam"], "resnet50", 1)
    assert started == [{"torch-cam", "SeeWhy", "onnxruntime forward"}]
    found = results.rivals("gradcam/resnet50/1")
    assert found["torch-cam"] == {"ms": {"median": 7.0}, "apart": True}
    assert {**found, "torch-cam": group["torch-cam"]} == group


def test_the_page_shows_faster_rivals_and_failures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "peers.json"
    data = example_results()
    data["records"]["gradcam/resnet50/1"]["rivals"]["pytorch-grad-cam"]["apart"] = True
    file.write_text(json.dumps(data))
    write_page.main(["--results", str(file), "--page", str(tmp_path / "benchmarks.md")])
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| SeeWhy | 10.4 (10.4–18.7; 1.04×) |" in page
    assert "| Captum | 30.0 (30.0–54.0; 3.00×) ≠ |" in page
    assert "| torch-cam | failed |" in page and "| PyTorch by hand | not measured |" in page
    assert "- gradcam/resnet50/1: torch-cam failed: RuntimeError: &lt;no> reason" in page
    assert page.count("×) † |") == 1 and "- gradcam/resnet50/1: pytorch-grad-cam † was measured apart" in page
    assert "| *best rival ÷ SeeWhy* | 0.87 (openvino_xai Recipro-CAM) |" in page
    assert "0.25 of a core" in page
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"benchmarks-gradcam.png", "benchmarks-cold.png"}
    assert all(f"(images/{path.name})" in page for path in (tmp_path / "images").iterdir())
    assert "results/peers.json`" in page and "another machine" not in page
    file.rename(tmp_path / "peers-b.json")
    write_page.main(["--results", str(tmp_path / "peers-b.json"), "--page", str(tmp_path / "benchmarks-b.md")])
    other = (tmp_path / "benchmarks-b.md").read_text(encoding="utf-8")
    assert "results/peers-b.json`" in other and "(images/benchmarks-b-cold.png)" in other
    assert "another machine: [benchmarks.md](benchmarks.md)." in other
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page


def test_a_tool_has_one_colour() -> None:
    """Every tool of the plots has a colour, and those of one plot have different ones."""
    for question in ("forward", "gradcam", "guided"):
        rivals = [rival.name for rival in benchmark_questions.QUESTIONS[question].rivals]
        plotted = [name for name in rivals if name != benchmark_questions.QUESTIONS[question].floor]
        colors = [comparison_plots.color_of(name) for name in plotted]
        assert len(set(colors)) == len(colors), plotted
    assert len({comparison_plots.color_of(name) for name in cold_start.TOOLS}) == len(cold_start.TOOLS)
    assert comparison_plots.color_of("openvino_xai Recipro-CAM") == comparison_plots.color_of("OpenVINO")


def test_cuda_results_are_shown_if_they_exist(tmp_path: Path) -> None:
    file = tmp_path / "cuda.json"
    assert write_page.cuda_table(file) == "Not measured.\n"
    file.write_text(json.dumps({"device": "a GPU", "rows": [{"model": "vgg16", "batch": 8, "ours, ms": 1.234}]}))
    assert write_page.cuda_table(file).splitlines()[-1] == "| vgg16 | 8 | 1.23 |"


def test_images_and_maps_are_reproducible(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    for name in ("one", "other"):
        input_files.write_inputs(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == input_files.IMAGE_COUNT + 3
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    np.save(tmp_path / "maps.npy", generator.standard_normal((2, 7, 7)).astype(np.float32))
    np.save(tmp_path / "views.npy", generator.integers(0, 256, (2, 224, 224, 3), np.uint8))
    np.save(tmp_path / "palette.npy", generator.permutation(256)[:, None].repeat(3, 1).astype(np.uint8))
    return tmp_path


def test_disturbed_turns_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program uses one core during the first turn and again before the third."""
    time = measurement_rounds.time
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(machine, "now", machine.now + seconds))
    monkeypatch.setattr(time, "perf_counter", lambda: machine.now)

    class Machine:
        now, turns = 0.0, 0
        busy: ClassVar = [(0.0, 4.0), (8.0, 9.0)]

        def others(self) -> float:
            return sum(min(self.now, end) - start for start, end in self.busy if self.now > start)

        def machine(self) -> float:
            return self.others() + self.turns

        def process(self, pid: int) -> float:
            return float(self.turns)

        def call(self, command: str, count: int, warm: bool) -> dict[str, list[float]]:
            self.now, self.turns = self.now + 1, self.turns + 1
            return {"times": [1.0]}

    machine = Machine()
    machine.pid = 1  # type: ignore[attr-defined]
    tool = measurement_rounds.Tool(measurement_rounds.Rival("one", "e", "m:f"), machine)  # type: ignore[arg-type]
    limited, unlimited = (measurement_rounds.LoadMonitor(machine, limit) for limit in (0.25, None))  # type: ignore[arg-type]
    measurement_rounds.take_turn(tool, unlimited)
    assert machine.now < 4 and unlimited.repeated == 0 and unlimited.share() == pytest.approx(1)
    for _ in range(4):
        measurement_rounds.take_turn(tool, limited)
    assert len(tool.times) == 5 and limited.repeated == machine.turns - 5 == 1
    assert limited.share() == pytest.approx(0) and machine.now > 9


@pytest.mark.slow
def test_workers_are_measured_in_rounds_and_compared(scratch: Path) -> None:
    pytest.importorskip("cv2")
    from seewhy.visualization.colormaps import palette

    np.save(scratch / "palette.npy", palette("jet"))
    question = benchmark_questions.QUESTIONS["overlays"]
    rivals = [rival for rival in question.rivals if rival.name in ("SeeWhy, 1 thread", "OpenCV, 1 thread", "NumPy")]
    rivals.append(measurement_rounds.Rival("broken", "opencv", "opencv_numpy_tool:nothing_of_the_kind"))
    tools = [
        measurement_rounds.Tool(rival, Process(Path(sys.executable), rival.job, 1, scratch / "logs" / f"{i}.log"))
        for i, rival in enumerate(rivals)
    ]
    try:
        for tool in tools:
            tool.attempt(lambda tool=tool: tool.process.ready() or {})
        tasks = {
            rival.name: {"model": "any", "batch": 2, "threads": 1, "options": question.options(rival, scratch, scratch)}
            for rival in rivals
        }
        group = measurement_rounds.Group(tools, tasks, question.ours, question.floor, question.compare, scratch)
        record = measurement_rounds.measure(group, 2)
    finally:
        for tool in tools:
            tool.process.close()
    assert "AttributeError" in record["rivals"].pop("broken")["failed"]
    assert set(record["rivals"]) == {"SeeWhy, 1 thread", "OpenCV, 1 thread", "NumPy"}
    for name, found in record["rivals"].items():
        assert len(found["rounds_ms"]) == 2 and min(found["rounds_ms"]) > 0
        if name != question.ours:
            assert found["agreement"]["same"] is True, found
            assert found["to_ours"] > 0


@pytest.mark.slow
def test_a_worker_that_exits_is_reported_with_its_last_line(tmp_path: Path) -> None:
    process = Process(Path(sys.executable), "no_such_module:job", 1, tmp_path / "log")
    try:
        with pytest.raises(ToolFailure, match="ModuleNotFoundError: No module named 'no_such_module'"):
            process.ready()
        with pytest.raises(ToolFailure, match="exit status 0"):
            process.call("load", task={})
    finally:
        process.close()


def test_generated_files_are_not_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for part in tool_environments.SOURCES:
        (tmp_path / part).write_text("a") if "." in part else (tmp_path / part / "x").mkdir(parents=True)
    (tmp_path / "engine" / "x" / "a.py").write_text("a")
    monkeypatch.setattr(tool_environments, "ROOT", tmp_path)
    before = tool_environments.sources_digest()
    for name in ("engine/.ruff_cache/0", "engine/x/__pycache__/a.pyc", "engine/x/_core.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("generated")
    assert tool_environments.sources_digest() == before
    (tmp_path / "engine" / "x" / "a.py").write_text("b")
    assert tool_environments.sources_digest() != before


def test_a_rival_that_is_left_out_is_a_dash() -> None:
    rivals = benchmark_questions.QUESTIONS["guided"].rivals
    compiled = next(rival for rival in rivals if rival.name == "torch.compile by hand")
    assert compiled.tries("vgg16", 8) and not compiled.tries("vgg16", 32) and not compiled.tries("densenet121", 8)
    record = {"rivals": {benchmark_questions.FLOOR: rival([1.0])}}
    printed = comparison_tables.question_table("guided", {"guided/densenet121/1": record, "guided/vgg16/1": record}, 1)
    assert "| torch.compile by hand | not measured | – |" in printed
