"""Measure the rate of the multi-pass methods: SeeWhy, its runs of the graph alone, Captum, pytorch-grad-cam, torchcam.

    python benchmarks/jobs/many_pass.py --models FOLDER [--case mobilenet_v2 ...] [--rounds 5] [--json FILE]

The rows of the table are:

- `seewhy`: `Explainer.explain` of one preprocessed image and one class, with the default options.
- `runs alone`: the runs of onnxruntime that this call makes, repeated by the same sessions with inputs that are ready
  in memory, on all cores and with nothing between them.
- other tools: the same number of passes with PyTorch, in the fastest of several batch sizes.

All rows take turns in rounds, after a pause in which spinning threads stop. Times are medians of elapsed times, ratios
medians of the rounds' ratios. `core-ms per pass` counts the processor time of all threads.

Agreement is measured: relative L2 error of attributions, with the same noise and the same steps, or Pearson's
correlation of heatmaps. The networks have random weights with fitting batch norm statistics. FOLDER keeps their files.

With `--json benchmarks/results/many_pass.json`, the script also writes the table of docs/performance/multi-pass.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS
from benchmarks.jobs import many_pass_page
from benchmarks.jobs.many_pass_tools import Tool, tools
from benchmarks.shared import case_files, machine_facts, recorded_runs
from benchmarks.shared.images import sample_image
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.round_statistics import ratio
from benchmarks.shared.timing_in_turns import REST, elapsed_and_cpu_seconds, in_turns
from seewhy import Explainer


@dataclass(frozen=True)
class Case:
    """A network, a target layer and a method."""

    network: str
    method: str
    layer: str | None = None
    """Name of the target layer; None is the default."""

    @property
    def name(self) -> str:
        return f"{self.network} {self.layer or ''}".strip() + f" {self.method}"

    @property
    def file(self) -> str:
        """Name of the model file."""
        return f"{self.network}{'' if self.layer is None else f'-{self.layer}'}.onnx"


CASES = (
    Case("mobilenet_v2", "smoothgrad"),
    Case("mobilenet_v2", "integrated-gradients"),
    Case("mobilenet_v2", "scorecam"),
    Case("mobilenet_v2", "ablationcam"),
    Case("resnet50", "smoothgrad"),
    Case("resnet50", "integrated-gradients"),
    Case("resnet50", "ablationcam"),
    # The default layer has 2,048 channels, so Score-CAM would take minutes. The passes of these 256 are the same.
    Case("resnet50", "scorecam", "layer1"),
    Case("resnet50", "ablationcam", "layer1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder that keeps the model files")
    parser.add_argument("--case", nargs="+", default=[""], help="measure only cases whose names contain one of these")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--json", type=_resolved, help="JSON file to which the results are added")
    options = parser.parse_args()
    recorded_runs.record_sessions()
    facts = {**machine_facts.describe(), **machine_facts.versions("onnxruntime", "torch", "captum", "grad-cam")}
    if options.json is not None:
        case_files.refuse_other_machine(options.json, facts)
    for case in CASES:
        if any(part in case.name for part in options.case):
            found = {case.name: measure(case, options.models, options.rounds)}
            print(text(found), flush=True)
            if options.json is not None:
                case_files.add_case(options.json, facts, case.name, found[case.name])
    if options.json == RESULTS / many_pass_page.FILE:
        many_pass_page.write(options.json)


def _resolved(name: str) -> Path:
    return Path(name).resolve()


def measure(case: Case, models: Path, rounds: int) -> dict[str, Any]:
    """Return the times of all rows of a case, and how well the tools agree."""
    module, path = load(case, models)
    explainer = Explainer(path)
    height, width = explainer.metadata.image_size
    pixels = explainer.preprocess(sample_image(0).resize((width, height)))
    target = int(explainer.predict(pixels).classes[0])
    explain = partial(explainer.explain, pixels, case.method, target=target)
    ours = explain()
    runs = recorded_runs.runs_of(explain)
    calls: dict[str, Callable[[], Any]] = {"seewhy": explain, "runs alone": partial(recorded_runs.repeat, runs)}
    agreement = {}
    for tool in tools(case.method, module, explainer.metadata.layer.name, pixels, target):
        agreement[tool.name] = tool.agreement(ours)
        calls[tool.name] = fastest(tool)
    passes = passes_of(explain, explainer, pixels, case.method, target)
    times = in_turns({name: partial(after_pause, call) for name, call in calls.items()}, rounds)
    elapsed = {name: [pair[0] for pair in pairs] for name, pairs in times.items()}
    rows = {
        name: {
            "ms": round(1000 * statistics.median(elapsed[name]), 1),
            "core_ms_a_pass": round(1000 * statistics.median(pair[1] for pair in pairs) / passes, 3),
            "ratio": round(ratio(elapsed[name], elapsed["seewhy"]), 3),
            "ratio_of_least": round(min(elapsed[name]) / min(elapsed["seewhy"]), 3),
            "core_ratio": round(ratio([pair[1] for pair in pairs], [pair[1] for pair in times["seewhy"]]), 3),
        }
        for name, pairs in times.items()
    }
    # The rows of the inputs are counted, because one run can take several passes.
    return {"passes": passes, "passes_run": sum(run.rows for run in runs), "rows": rows, "agreement": agreement}


def load(case: Case, models: Path) -> tuple[Any, Path]:
    """Return the network in evaluation mode and its model file, which is exported if it does not exist."""
    from benchmarks.shared.random_networks import calibrated_network

    module, size = calibrated_network(f"torchvision:{case.network}")
    path = models / case.file
    if not path.exists():
        from seewhy_export import Preprocessing, export

        normalization = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        path.parent.mkdir(parents=True, exist_ok=True)
        export(module, path, image_size=size, layer=case.layer, preprocessing=normalization, name=case.network)
    return module, path


def passes_of(explain: Any, explainer: Explainer, pixels: Any, method: str, target: int) -> int:
    """Return the number of passes that the method counts."""
    counted = [1]
    explainer.explain(pixels, method, target=target, progress=lambda done, total: counted.append(total))
    return counted[-1]


def after_pause(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the elapsed seconds and the CPU seconds of one call, after a pause."""
    time.sleep(REST)
    return elapsed_and_cpu_seconds(call)


def fastest(tool: Tool) -> Callable[[], Any]:
    """Return the call of a tool with the batch size that takes the least time in one warm call."""
    if len(tool.batch_sizes) == 1:
        return partial(tool.run, tool.batch_sizes[0])
    best = None
    for size in tool.batch_sizes:
        call = partial(tool.run, size)
        call()
        seconds = after_pause(call)[0]
        if best is None or seconds < best[0]:
            best = seconds, call
    assert best is not None
    return best[1]


def text(cases: dict[str, Any]) -> str:
    """Return the results as a table."""
    head = ("case", "passes", "", "ms", "core-ms per pass", "time / seewhy", "of minimums", "CPU / seewhy", "agreement")
    lines = (
        (
            name,
            case["passes"],
            tool,
            row["ms"],
            row["core_ms_a_pass"],
            row["ratio"],
            row["ratio_of_least"],
            row["core_ratio"],
            case["agreement"].get(tool, ""),
        )
        for name, case in cases.items()
        for tool, row in case["rows"].items()
    )
    return table(head, lines)


if __name__ == "__main__":
    main()
