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
from benchmarks.jobs import many_pass_page
from benchmarks.peers import (
    bench_quick,
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
from benchmarks.shared import case_files, images, machine_facts, round_statistics
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
            "instructions": ["avx2", "avx512_vnni"],
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
    found = {row.measure: (row.value(records), row.reached(records)) for row in performance_aims.earlier_aims()}
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
    printed = comparison_tables.aims_table(performance_aims.earlier_aims(), records)
    assert printed.count("**missed**") == 2 and printed.count("| reached |") == 3


def test_aims_of_8_bit_files_read_times_memory_and_the_stored_drift() -> None:
    records = int8_results()["records"]
    found = {row.measure: (row.value(records), row.reached(records)) for row in performance_aims.aims()}
    assert found["Grad-CAM int8 ÷ onnxruntime float32 forward, resnet50, batch 1"] == (pytest.approx(0.4), True)
    assert found["Grad-CAM: pytorch-grad-cam ÷ ours int8, resnet50, batch 1"] == (pytest.approx(10), False)
    drift = "int8 against float32, efficientnet_lite0"
    assert found[f"{drift}: median of the maps' correlation"] == (0.996, True)
    assert found[f"{drift}: 5th percentile of the maps' correlation"] == (0.97, False)
    assert found[f"{drift}: same class predicted, float32's probability above 0.3"] == (None, None)
    assert found["cold start ÷ onnxruntime's forward, peak memory, resnet50"] == (2.0, False)
    assert found["folder: pytorch-grad-cam's loop ÷ ours int8, resnet50, JPEG"] == (pytest.approx(16), True)
    assert found["folder: float32 before 8-bit files ÷ int8, efficientnet_lite0, JPEG"] == (pytest.approx(2.5), True)
    assert found["Score-CAM: best rival ÷ ours, mobilenet_v2"] == (pytest.approx(3), True)
    rate = "multi-pass methods: runs of the graph alone ÷ ours, the lowest"
    assert found[rate] == (None, None)
    # The third method runs the graph less often than it has passes, so its rate says nothing.
    numbers = {"a": (25, 26, 0.97), "b": (10, 10, 0.94), "c": (1280, 2, 0.5)}
    cases = {
        name: {"passes": passes, "passes_run": runs, "rows": {"runs alone": {"ratio": ratio}}}
        for name, (passes, runs, ratio) in numbers.items()
    }
    (row,) = (row for row in performance_aims.aims() if row.measure == rate)
    assert (row.value({"many-pass": cases}), row.reached({"many-pass": cases})) == (0.94, False)
    assert row.value({"many-pass": {"c": cases["c"]}}) is None
    rounds = {"job": [11, 12, 22], "parts": [10, 10, 20], "load": [2, 2], "load with Pillow's resizing": [4, 2.5]}
    core_time = {"core-time": {"mobilenet_v2": {"rounds": rounds}}}
    found = {row.measure: (row.value(core_time), row.reached(core_time)) for row in performance_aims.aims()}
    assert found["folder ÷ sum of its parts, core-ms, mobilenet_v2"] == (pytest.approx(1.1), False)
    load = "decode and resize ÷ the same with Pillow's resizing, core-ms, mobilenet_v2"
    assert found[load] == (pytest.approx(0.65), True)
    printed = comparison_tables.aims_table(performance_aims.aims(), records)
    assert "| ≥ 0.995 | 0.996 |  | reached |" in printed
    assert printed.count("**missed**") == 3 and "| ≤ 0.42 | 0.40 (0.40–0.40) | 0.40 | reached |" in printed


def test_the_drift_of_trained_networks_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comparison = object.__new__(compare_tools.Comparison)
    comparison.options = compare_tools.arguments().parse_args(["--missing"])
    monkeypatch.setattr(comparison, "_model_folder", lambda model: tmp_path / model)
    file = tmp_path / "peers.json"
    results = results_file.Results(file, {"sources": "one"}, keep=False)
    for model in comparison._models("drift"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "facts.json").write_text(json.dumps({"drift": {"correlation_p5": 0.99}}))
        comparison._drift(results, model)
    records = json.loads(file.read_text())["records"]
    found = {row.measure: row.value(records) for row in performance_aims.aims() if "5th percentile" in row.measure}
    names = [f"efficientnet_lite{i}" for i in range(3)]
    assert found == {f"int8 against float32, {name}: 5th percentile of the maps' correlation": 0.99 for name in names}
    (tmp_path / names[0] / "facts.json").unlink()
    comparison._drift(results, names[0])  # it is not missing, so it is not read again
    assert comparison_tables.differences(records).startswith("All results")


def test_missed_aims_of_8_bit_files_are_explained() -> None:
    """Each aim that a page marks as missed is named in the section that explains missed aims."""
    explained = (ROOT / "docs/performance/optimizations.md").read_text("utf-8").partition("## Aims that were missed")[2]
    measures = {aim.measure for aim in performance_aims.aims()}
    missed = {
        line.split(" | ")[0].removeprefix("| ")
        for page in (ROOT / "docs/performance").glob("benchmarks*.md")
        for line in page.read_text("utf-8").splitlines()
        if "| **missed**" in line
    }
    assert missed & measures, "no page has an aim of 8-bit files that was missed; check the format of the lines"
    assert not {measure for measure in missed & measures if f"| {measure} |" not in explained}


def test_every_group_of_an_aim_is_measured() -> None:
    """The measurement of the aims includes each group, and the tools that it leaves out have no aim."""
    keys = {
        results_file.key(name, model, batch)
        for name, question in benchmark_questions.QUESTIONS.items()
        for model in question.models
        for batch in question.batches
    }
    keys |= {results_file.key("cold", model, 1) for model in cold_start.MODELS}
    keys |= {results_file.key("drift", model, 1) for model in input_files.LITE_MODELS}
    needed = performance_aims.needed_groups()
    assert needed <= keys and len(needed) < len(keys) / 4
    assert all(set(aim.groups) <= needed for aim in performance_aims.aims())
    options = compare_tools.arguments().parse_args(["--aims", "--models", "resnet50", "--batches", "1", "8"])
    comparison = object.__new__(compare_tools.Comparison)
    comparison.options = options
    measured = {
        results_file.key(name, model, batch)
        for name in benchmark_questions.ALL
        for model in comparison._models(name)
        for batch in comparison._batches(name, model)
    }
    assert measured == {key for key in needed if "/resnet50/" in key}


def test_approximate_results_show_their_correlation() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    group = measurement_rounds.Group((), {}, "SeeWhy", None, result_agreement.heatmaps, Path())
    exact, close = (measurement_rounds.Rival("one", "e", "m:f", approximate=flag) for flag in (False, True))
    assert measurement_rounds._comparison(close, group, values, 2 * values + 1) == {"correlation": pytest.approx(1)}
    assert measurement_rounds._comparison(exact, group, values, 2 * values + 1)["agreement"]["same"] is False
    assert measurement_rounds._comparison(close, group, values, values[:1])["agreement"]["same"] is False
    other = values.copy()
    other[0], other[1] = 1, -other[1]
    assert result_agreement.correlation(values, other) == pytest.approx(0), "the constant image does not count"
    assert result_agreement.correlation(values, np.ones_like(values)) is None
    expected = np.corrcoef(values[2].ravel(), values[1].ravel())[0, 1]
    assert result_agreement.correlation(values[2:], values[1:2]) == pytest.approx(expected)


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


def int8_results() -> dict[str, Any]:
    """Return results of 8-bit files in the format of `compare_tools.py`."""
    data = example_results()
    names = ("images", "correlation_median", "correlation_p5", "correlation_worst", "top1_agreement")
    drift = {
        **dict(zip(names, (96, 0.996, 0.97, 0.9, 0.95), strict=True)),
        "top1_agreement_confident": None,
        "logits_error": 0.1,
    }
    forms = {
        "onnxruntime forward": rival([32.0]),
        "SeeWhy, JPEG": rival([40.0]),
        "SeeWhy int8, JPEG": rival([16.0]),
        "SeeWhy, PNG": rival([80.0]),
        "pytorch-grad-cam, JPEG": rival([256.0], to_ours=6.4),
        "openvino_xai Recipro-CAM int8, JPEG": rival([64.0], to_ours=1.6),
        "SeeWhy before 8-bit files, JPEG": rival([40.0]),
    }
    groups = data["records"]
    groups["gradcam/resnet50/1"]["rivals"]["SeeWhy int8"] = rival([4.0, 8.0, 4.0], correlation=0.9876, peak_bytes=2**28)
    groups["drift/efficientnet_lite0/1"] = {"rivals": {}, "stored_drift": drift}
    groups["cold/resnet50/1"]["rivals"]["onnxruntime forward"] = rival([400.0], peak_bytes=2**27, installed_bytes=1)
    groups["folder/resnet50/8"] = {"rivals": forms}
    groups["folder/efficientnet_lite0/8"] = {"rivals": forms}
    groups["scorecam/mobilenet_v2/1"] = {
        "rivals": {"SeeWhy": rival([1000.0], peak_bytes=2**28), "pytorch-grad-cam": rival([3000.0], to_ours=3.0)}
    }
    return data


def test_the_page_opens_with_a_chart_and_shows_8_bit_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    file = tmp_path / "peers-b.json"
    file.write_text(json.dumps(int8_results()))
    write_page.main(["--results", str(file), "--page", str(tmp_path / "benchmarks-b.md")])
    page = (tmp_path / "benchmarks-b.md").read_text(encoding="utf-8")
    assert page.index("<picture>") < page.index("## ")
    # 32 images in 16 ms on 2 cores.
    assert "ResNet-50: SeeWhy int8 1000.0, forward pass alone 500.0, SeeWhy 400.0, SeeWhy before 8-bit" in page
    assert (
        'srcset="images/benchmarks-b-folder-dark.png"' in page and 'src="images/benchmarks-b-folder-light.png"' in page
    )
    corners = [
        Image.open(tmp_path / "images" / f"benchmarks-b-folder-{theme}.png").convert("L").getpixel((0, 0))
        for theme in ("light", "dark")
    ]
    assert corners[0] == 255 and corners[1] < 32
    assert "| SeeWhy int8 | 4.00 (4.00–7.20), r 0.988 |" in page
    assert "| efficientnet_lite0 | 96 | 0.996 | 0.970 | 0.900 | 0.950 | – | 0.100 |" in page
    assert "| Score-CAM | mobilenet_v2 | pytorch-grad-cam | 3000 (3000–3000; 3.00×) |  |" in page
    assert "| SeeWhy int8 | 256 |" in page, "peak memory"
    # openvino_xai is faster than pytorch-grad-cam, but only in 8 bits.
    assert "| *best rival in float32 ÷ SeeWhy* | 6.40 (pytorch-grad-cam, JPEG) |" in page
    assert page.count("P, 2 cores (avx2, avx512_vnni)") > 5, "the CPU flags are beside each table"


def test_a_file_keeps_results_of_one_kind_of_machine(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    machine = {"processor": "P", "cores": 2, "instructions": ["avx2"], "system": "Linux 6.1"}
    results_file.Results(path, {"machine": machine, "packages": {"a": "1"}, "sources": "one"}, keep=False).add("a", {})
    later = {"machine": {**machine, "system": "Linux 6.2"}, "packages": {"a": "2"}, "sources": "two"}
    with pytest.raises(results_file.OtherConditions, match="its packages is"):
        results_file.Results(path, later, keep=True)
    assert not results_file.Results(path, later, keep=True, earlier=True).has("a")
    before = path.read_bytes()
    other = {**later, "machine": {**machine, "instructions": ["avx2", "avx512_vnni"]}}
    for keep in (True, False):
        with pytest.raises(results_file.OtherConditions, match=r"P, 2 cores \(avx2\), .* choose another .* --results"):
            results_file.Results(path, other, keep=keep, earlier=True)
    assert path.read_bytes() == before


def test_results_of_other_benchmarks_count_on_the_same_kind_of_machine(tmp_path: Path) -> None:
    machine = {"processor": "P", "cores": 2, "instructions": ["avx2"]}
    file = tmp_path / "many_pass.json"
    assert case_files.cases_of(file, machine) == {}
    case_files.add_case(file, {**machine, "onnxruntime": "1"}, "a", {})
    case_files.add_case(file, {**machine, "onnxruntime": "2"}, "b", {"x": 1})
    assert case_files.cases_of(file, machine) == {"a": {}, "b": {"x": 1}}
    other = {**machine, "cores": 4}
    assert case_files.cases_of(file, other) == {}
    before = file.read_bytes()
    with pytest.raises(SystemExit, match=r"measured on P, 2 cores \(avx2\), and this machine is P, 4 cores"):
        case_files.add_case(file, other, "c", {})
    assert file.read_bytes() == before


def test_the_table_of_multi_pass_methods_is_written_between_its_marks(tmp_path: Path) -> None:
    tool = {"ms": 300.0, "ratio": 3.0, "ratio_of_least": 2.5, "core_ratio": 2.0}
    ours, alone = {"ms": 100.0}, {"ratio": 0.97, "ratio_of_least": 1.0}
    case = {"passes": 25, "passes_run": 26, "agreement": {"T": "correlation 1"}}
    cases = {
        "m one": {**case, "rows": {"seewhy": ours, "runs alone": alone, "T": tool}},
        "m two": {**case, "passes": 1280, "agreement": {}, "rows": {"seewhy": ours, "runs alone": alone}},
    }
    machine = {"processor": "P", "cores": 2, "instructions": ["avx2"]}
    versions = dict.fromkeys(("onnxruntime", "torch", "captum", "grad-cam"), "1")
    file, page = tmp_path / "many_pass.json", tmp_path / "page.md"
    file.write_text(json.dumps({"machine": {**machine, **versions}, "cases": cases}))
    page.write_text(f"before\n\n{many_pass_page.BEGIN}old\n{many_pass_page.END}\nafter\n")
    for _ in range(2):
        many_pass_page.write(file, page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert "| m one | 25 | 100 | 0.97 [1] | T | 3 [2.5] | 2 | correlation 1 |" in lines
    assert "| m two | 1,280 | 100 | – | not measured |  |  |  |" in lines
    page.write_text("no marks\n")
    with pytest.raises(SystemExit, match="marks"):
        many_pass_page.write(file, page)
    assert page.read_text() == "no marks\n"
    assert many_pass_page.BEGIN in many_pass_page.PAGE.read_text("utf-8")


def test_quick_ratios_are_compared_with_stored_ones() -> None:
    record = {"rivals": {"SeeWhy": {}, "a": {"to_ours": 1.5}, "b": {"failed": "no"}}}
    question = benchmark_questions.QUESTIONS["scorecam"]
    found = bench_quick.ratios(question, "resnet50", record)
    assert found == {"Score-CAM, resnet50: a ÷ SeeWhy": 1.5, "Score-CAM, resnet50: b ÷ SeeWhy": None}
    printed, differing = bench_quick.compare({"a": 1.1, "b": 1.3, "c": None, "d": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0})
    assert differing == ["b", "c"]
    assert "| a | 1.10 | 1.00 | +10% |" in printed and "| d | 1.00 |  |  |" in printed
    assert "| c | failed | 1.00 |  |" in printed
    printed, differing = bench_quick.compare({"a": 1.0}, {"a": 1.0, "tool that is not installed": 2.0})
    assert differing == ["tool that is not installed"]
    assert "| tool that is not installed | not measured | 2.00 |  |" in printed


@pytest.mark.parametrize(
    ("stored", "message"), [(1.0, "differ by at most 15%"), (2.0, "- x"), (None, "bench_quick.py --store")]
)
def test_bench_quick_reports_differences_without_failing(
    stored: float | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench_quick, "FILE", tmp_path / "quick.json")
    monkeypatch.setattr(bench_quick, "measure", lambda: {"x": 1.0})
    if stored is not None:
        flags = bench_quick.flags_of(machine_facts.describe())
        bench_quick.FILE.write_text(json.dumps({flags: {"ratios": {"x": stored}}, "others": {"ratios": {"x": 9}}}))
    monkeypatch.setattr(sys, "argv", ["bench_quick.py"])
    bench_quick.main()
    assert message in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["bench_quick.py", "--store"])
    bench_quick.main()
    bench_quick.main()
    stored_file = json.loads(bench_quick.FILE.read_text())
    assert stored_file[bench_quick.flags_of(machine_facts.describe())]["ratios"] == {"x": 1.0}
    assert ("others" in stored_file) == (stored is not None)


def test_quick_questions_are_part_of_the_comparison() -> None:
    for name, question in bench_quick.questions().items():
        whole = benchmark_questions.QUESTIONS[name]
        assert all(rival in whole.rivals for rival in question.rivals) and set(question.models) <= set(whole.models)
        assert {question.ours, question.floor or question.ours} <= {rival.name for rival in question.rivals}
        assert set(question.batches) <= set(whole.batches)
    options = bench_quick.questions()["folder"].options(question.rivals[0], Path("inputs"), Path("scratch"))
    assert options["count"] == 8 and Path(options["photographs"]) == Path("inputs/few-photographs")


def test_hard_crops_are_reproducible(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    for name in ("one", "other"):
        images.write_hard_crops(tmp_path / name, 13)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 13
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_an_interruption_leaves_no_part_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "images"
    with pytest.raises(KeyboardInterrupt), images.complete_folder(folder) as unfinished:
        (unfinished / "a.png").touch()
        raise KeyboardInterrupt
    assert not list((tmp_path / "new").iterdir())
    with images.complete_folder(folder) as unfinished:
        (unfinished / "a.png").touch()
        assert not folder.exists()
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["images", "a.png"]
    with pytest.raises(FileExistsError), images.complete_folder(folder):
        raise AssertionError


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
    assert "| torch-cam | failed |" in page and "\nNot measured: SeeWhy int8, PyTorch by hand, " in page
    assert "- gradcam/resnet50/1: torch-cam failed: RuntimeError: &lt;no> reason" in page
    assert page.count("×) † |") == 1 and "- gradcam/resnet50/1: pytorch-grad-cam † was measured apart" in page
    assert "| *best rival in float32 ÷ SeeWhy* | 0.87 (openvino_xai Recipro-CAM) |" in page
    assert "0.25 of a core" in page
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"benchmarks-gradcam.png", "benchmarks-cold.png"}
    assert all(f"(images/{path.name})" in page for path in (tmp_path / "images").iterdir())
    assert "results/peers.json`" in page and "another machine" not in page
    file.rename(tmp_path / "peers-b.json")
    write_page.main(["--results", str(tmp_path / "peers-b.json"), "--page", str(tmp_path / "benchmarks-b.md")])
    other = (tmp_path / "benchmarks-b.md").read_text(encoding="utf-8")
    assert "results/peers-b.json`" in other and "(images/benchmarks-b-cold.png)" in other
    assert "other machines: [benchmarks.md](benchmarks.md)." in other
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page


def test_a_tool_has_one_colour() -> None:
    """Every tool of the plots has a colour, and those of one plot have different ones."""
    for question in ("forward", "gradcam", "guided"):
        rivals = [rival.name for rival in benchmark_questions.QUESTIONS[question].rivals]
        plotted = [name for name in rivals if name != benchmark_questions.QUESTIONS[question].floor]
        styles = [(comparison_plots.color_of(name), comparison_plots.hatch_of(name)) for name in plotted]
        assert len(set(styles)) == len(styles), plotted
    assert comparison_plots.hatch_of("SeeWhy int8, JPEG") and not comparison_plots.hatch_of("SeeWhy")
    for name in ("SeeWhy", "openvino_xai Recipro-CAM", "onnxruntime", "OpenVINO"):
        assert comparison_plots.color_of(f"{name} int8") == comparison_plots.color_of(name)
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
    compiled_record = {"rivals": {**record["rivals"], "torch.compile by hand": rival([2.0])}}
    groups = {"guided/densenet121/1": record, "guided/vgg16/1": record, "guided/alexnet/1": compiled_record}
    printed = comparison_tables.question_table("guided", groups, 1)
    assert "| torch.compile by hand | 2.00 (2.00–2.00) | not measured | – |" in printed
    assert "\nNot measured: SeeWhy, PyTorch by hand, Captum, " in printed
