"""Tests of benchmarks/cuda.py without a GPU: its error message, its statistics, and the tools that it compares."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from support.repository import ROOT

SCRIPT = ROOT / "benchmarks" / "cuda.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not installed")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_cuda_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses need the module in sys.modules
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is available")
def test_without_a_gpu_it_refuses(cuda: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cuda.main([])
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("cuda.py: error: not measured: this onnxruntime has no CUDAExecutionProvider")
    assert output.err.count("\n") == 1


def test_rows_summarize_the_times_of_rounds(cuda: ModuleType) -> None:
    runs: list[str] = []
    names = [("forward", cuda.FORWARD), ("gradcam", "SeeWhy"), ("gradcam", "torch.compile")]
    contenders = [cuda.Contender(task, name, lambda name=name: runs.append(name)) for task, name in names]
    # Each measurement reads the clock two times: at 0 and after these seconds.
    seconds = iter([second for duration in (2, 1, 4, 3, 6, 8, 4, 4, 6) for second in (0, duration)])
    times = cuda.measure(contenders, 3, clock=lambda: next(seconds))
    assert times == [[2, 3, 4], [1, 6, 4], [4, 8, 6]]
    assert len(runs) == 3 + 3 * 3 * 2  # one first call each, and one unmeasured call per measurement

    rows = cuda.rows(contenders, times, model="net", batch=8)
    assert [(row["ms"], row["quickest_ms"], row["slowest_ms"]) for row in rows] == [
        (3000, 2000, 4000),
        (4000, 1000, 6000),
        (6000, 4000, 8000),
    ]
    assert [row["ratio"] for row in rows] == [1, 1, 2]  # medians of 0.5, 2, 1 and of 2, 2.667, 1.5
    assert cuda.verdicts(rows) == [
        "net, batch 8, gradcam: 1.000 x forward, within the aim of 1.05; torch.compile takes 1.50 times as long"
    ]
    table = cuda.table(rows).splitlines()
    assert len({line.count("|") for line in table}) == 1 and len(table) == 5
    assert table[3] == "| net | 8 | gradcam | SeeWhy | 4000 | 1000 | 6000 | 1.0 |"


def test_a_different_result_is_detected(cuda: ModuleType) -> None:
    ours = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    contenders = [
        cuda.Contender("gradcam", "SeeWhy", lambda: ours),
        cuda.Contender("gradcam", "same", lambda: 7 * ours - 3),  # scaling removes this difference
        cuda.Contender("gradcam", "other", lambda: ours[:, ::-1]),
        cuda.Contender("forward", cuda.FORWARD, lambda: None),
    ]
    differences = cuda.agreement(contenders)
    assert list(differences) == ["gradcam: same", "gradcam: other"]
    assert differences["gradcam: same"] < 1e-5 < 0.5 < differences["gradcam: other"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch warns when it exports the plain network
def test_on_the_cpu(cuda: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """All tools compute the same results as SeeWhy, so that only their speed differs."""
    # Do not import them here: the exporter must import torchvision first, and grad-cam imports torchvision.
    for name in ("torch", "torchvision", "pytorch_grad_cam", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    options = ["--model", "resnet18", "--batch", "2", "--size", "64", "--rounds", "1", "--no-compile", "--json"]
    cuda.main(["--device", "cpu", *options])
    text = capsys.readouterr().out
    output = json.loads(text[text.index("\n{") + 1 if not text.startswith("{") else 0 :])
    assert {(row["task"], row["what"]) for row in output["rows"]} == {
        ("forward", cuda.FORWARD),
        ("forward", "PyTorch"),
        ("gradcam", "SeeWhy"),
        ("gradcam", "PyTorch, to the layer only"),
        ("gradcam", "pytorch-grad-cam"),
        ("guided-backprop", "SeeWhy"),
        ("guided-backprop", "PyTorch, rule by hand"),
        ("guided-backprop", "pytorch-grad-cam"),
    }
    ours = {what: difference for what, difference in output["differences"].items() if "PyTorch" in what}
    assert len(ours) == 2 and max(ours.values()) < 0.02  # rounding may flip a rectifier, which changes a gradient
