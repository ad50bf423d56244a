"""Write docs/performance/benchmarks.md and its plots from benchmarks/results/peers.json.

python benchmarks/peers/page/write_page.py [--results FILE] [--page FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks import RESULTS, ROOT
from benchmarks.peers import benchmark_questions, results_file
from benchmarks.peers.benchmark_questions import QUESTIONS
from benchmarks.peers.page import comparison_plots, comparison_tables, folder_chart, performance_aims
from benchmarks.peers.page.performance_aims import earlier_aims
from benchmarks.peers.results_file import SOURCES
from benchmarks.shared import markdown_tables
from benchmarks.shared.case_files import cases_of
from benchmarks.shared.machine_facts import kind_text

PLOTTED = ("forward", "gradcam", "guided")

HEAD = """# Benchmarks

This page compares SeeWhy with other tools on one machine: {kind}. `make bench` writes it from
`benchmarks/results/{source}`. [How it was measured](#how-it-was-measured) explains the tables, and
[the last section](#aims) compares the results with the aims.{elsewhere}
{chart}
In each table, a cell is the median of the rounds in milliseconds. In brackets are the 10th and 90th percentile, and the
median of the rounds' ratios to the baseline. The baseline is onnxruntime's forward pass of the same network, unless
the section names another. ≠ marks a tool whose result differs from SeeWhy's, a dash marks what was left out to save
time, and † marks a tool that was measured apart because memory ran out. The results of a tool that computes in 8 or 16
bits cannot be equal: r is the correlation of its heatmaps or logits with those of float32, the median over the images.
Peak memory is that of the tool's process while it was measured, with all its libraries.
"""

MEASURED = """## How it was measured

{machine}

- Each tool runs in its own process and virtual environment, with the same weights, input and number of threads
  ({threads}). Only one tool works at a time, in rounds whose order changes. Before each measurement all tools rest for
  150 ms, because idle thread pools keep spinning for a while, and one call is not counted (except where a call takes
  longer than half a second).
- The baseline is `torch.onnx.export` of the unchanged model under onnxruntime with its default optimisation, with all
  threads in one run. SeeWhy gives each thread a part of the batch where that is faster. A forward pass can do the same:
  the row *a thread for each piece* shows the gain. For this reason Grad-CAM can take less time than the baseline.
- SeeWhy's time is that of `Explainer.explain`, from an array to heatmaps, with everything in between. For guided
  backpropagation it computes a heatmap, too, while the other tools stop at the gradient.
- Weights are random, but as large as trained ones, and no branch is switched off. All tools explain the same class, the
  predicted one.
- Each tool is used as its documentation recommends for speed: no graph where none is needed, evaluation mode,
  `channels_last` where that is faster (tried for each tool that takes a PyTorch module; the choices are listed under
  [Differences and failures](#differences-and-failures)), frozen weights and one compilation per batch size for
  `torch.compile`, the latency hint and float32 for OpenVINO. `weights frozen` is not in any documentation: it is
  pytorch-grad-cam on a network whose parameters need no gradients up to the target layer.
- Left out to save time: `torch.compile` of a forward and backward pass takes minutes for each network and batch size,
  and `weights frozen` shows nothing new at batch 32.
- Results are compared before times are measured.
- All tools of a group are in memory together. If the system ended a tool because memory ran out, the tool was measured
  again beside the baseline and SeeWhy alone, and its ratios are relative to those.
- Processor time of other work during a measurement: {others}.
{earlier}
"""

AIMS = """## Aims

The aims were set before the work began. The compared value is the median of the rounds' ratios. Beside it are the 10th
and 90th percentile, and in *fastest ÷ fastest* the ratio of the fastest rounds, which other load on the machine
disturbs least. The aims of 8-bit files hold for two cores with AVX-512 VNNI. This machine: {kind}.

{aims}
### Aims for float32

These aims were set for float32 files, before 8-bit files existed. [Aims that were
missed](optimizations.md#aims-that-were-missed) explains the causes.

{earlier}"""

DRIFT = """The quantised files of networks with trained weights state how far their maps differ from float32's. They are
quantised with the defaults. Of 160 crops of twelve photographs, 64 calibrate and 96 others measure the drift. Crops of
one photograph can be among both, so the drift on new photographs is larger.
"""

# The sections in their order; `cold` and `cuda` are not among the questions.
SECTIONS = ("gradcam", "guided", "folder", "multi-pass", "cold", "overlays", "forward", "cuda")

TEXTS = {
    "forward": """
The forward pass without an explanation: the baseline, and how other runtimes compare with it.
""",
    "gradcam": """
From preprocessed pixels to heatmaps of the input's size.

- *PyTorch by hand* records no graph up to the target layer.
- *torch.compile by hand* is the same with that part compiled. It counts as a rival in the aims, which were set before
  anybody had tried it.
- Recipro-CAM is a different method, without gradients: it runs the head once for each place of the map. It takes one
  image at a time.
- The networks of torchvision have random weights and get noise, so their maps have no structure that 8 bits could
  keep: r is low. Their 8-bit files keep no layer in float32. If networks with trained weights were measured, a table
  below shows the drift of their maps.
- DenseNet's target layer is followed by an in-place ReLU, which changes the activations that Captum and
  pytorch-grad-cam hold.
""",
    "guided": """
EfficientNet and ConvNeXt have no rectifiers, so their guided gradient is the plain one. Captum and pytorch-grad-cam
guide only modules of class `nn.ReLU`: for MobileNet v2 (ReLU6) they return the plain gradient, and in DenseNet they
miss the last rectifier, which is a function. pytorch-grad-cam runs the images of a batch one after the other, because
it returns the gradient of the first image alone.
""",
    "multi-pass": """
Methods that run the network many times for one image: SmoothGrad with {samples} samples, integrated gradients with
{steps} steps, and Score-CAM and Ablation-CAM, which mask or remove each channel of the target layer. SeeWhy's
Ablation-CAM of MobileNet v2 needs no run for a channel, because the head is average pooling and one linear layer
([Semantics](../concepts/semantics.md)). Each tool draws other noise for SmoothGrad, so its results are not compared
here. pytorch-grad-cam's Score-CAM upsamples with aligned corners, SeeWhy's with half-pixel centers.
""",
    "overlays": """
From maps of 7×7 and images of 224×224 to overlays: upsampled, scaled, coloured and blended. The baseline is SeeWhy on
one thread. SeeWhy's time is that of the kernel that `Explanation.overlays` calls, without the conversion to Pillow
images.
""",
    "folder": """
32 JPEG files of 640×480. The overlays show the model's view of 224×224, or the whole image. SeeWhy runs batches of 8;
the other tools run the loop of their README, one image at a time; *before 8-bit files* is SeeWhy's last commit without
them. All tools compress PNG files with level 1. SeeWhy flushes its results to the disk (fsync) before they count as
done. The baseline is the forward passes alone, on arrays.
""",
    "cold": """
The time from the start of a new process to its first heatmap of an image, with files in the system's cache; the peak
memory of that process; and the size of `site-packages` with the tool, its dependencies, and torchvision for tools that
need a module. PyTorch is its build without CUDA.
""",
}


def page(data: dict[str, Any], source: str, path: Path, cuda: Path) -> str:
    """Return the page at `path` about the results in `source`.

    Plots go to the folder `images` beside the page, and their names begin with that of the page.
    """
    records, kind = data["records"], kind_text(data["machine"])
    elsewhere = {name: cases_of(RESULTS / file, data["machine"]) for name, file in performance_aims.FILES.items()}
    folder = path.parent / "images"
    chart = folder_chart.markdown(records, kind, folder / f"{path.stem}-folder", data["threads"])
    sections = [HEAD.format(source=source, kind=kind, chart=chart, elsewhere=_elsewhere(path))]
    for name in SECTIONS:
        if name == "cold":
            sections.append(f"## Cold start\n{TEXTS['cold']}")
            if comparison_plots.cold_plot(records, kind, folder / f"{path.stem}-cold.png"):
                sections.append(f"![Cold start](images/{path.stem}-cold.png)\n")
            sections.append(f"Measured on {kind}:\n\n{comparison_tables.cold_table(records)}")
        elif name == "cuda":
            sections.append(f"## CUDA\n\n{cuda_table(cuda)}")
        elif name == "multi-pass":
            text = TEXTS[name].format(**benchmark_questions.SMOOTHGRAD, **benchmark_questions.STEPS)
            sections.append(f"## Multi-pass methods\n{text}")
            sections.append(f"Batch 1, {kind}:\n\n{comparison_tables.multi_pass_table(records)}")
        else:
            sections += _question_section(name, records, kind, path)
    measured = MEASURED.format(
        machine=_machine(data),
        threads=data["threads"],
        others=_others(records),
        earlier=earlier_results(records, data.get(SOURCES)),
    )
    sections.append(measured.rstrip("\n") + "\n")
    sections.append(f"## Differences and failures\n\n{comparison_tables.differences(records)}")
    tables = (
        comparison_tables.aims_table(aims, {**records, **elsewhere})
        for aims in (performance_aims.aims(), earlier_aims())
    )
    sections.append(AIMS.format(kind=kind, **dict(zip(("aims", "earlier"), tables, strict=True))))
    return "\n".join(sections)


def _question_section(name: str, records: dict[str, Any], kind: str, path: Path) -> list[str]:
    """Return the heading, text, plot and tables of one question."""
    question = QUESTIONS[name]
    sections = [f"## {question.title}\n{TEXTS[name]}"]
    plot = f"images/{path.stem}-{name}.png"
    if name in PLOTTED and comparison_plots.question_plot(name, records, kind, path.parent / plot):
        sections.append(f"![{question.title}, time over the forward pass]({plot})\n")
    tables = {batch: comparison_tables.question_table(name, records, batch) for batch in question.batches}
    sections += [f"Batch {batch}, {kind}:\n\n{table}" for batch, table in tables.items() if table]
    missing = [str(batch) for batch, table in tables.items() if not table]
    if missing:
        sections.append(f"Not measured: batch {', '.join(missing)}.\n")
    if memory := comparison_tables.memory_table(name, records):
        sections.append(f"Peak memory, {kind}:\n\n{memory}")
    if name == "gradcam" and (drift := comparison_tables.drift_table(records)):
        sections.append(f"{DRIFT}\n{drift}")
    return sections


def _elsewhere(path: Path) -> str:
    """Return a sentence with links to the pages of other machines, whose names begin with `benchmarks`, or nothing."""
    others = [other.name for other in sorted(path.parent.glob("benchmarks*.md")) if other.name != path.name]
    links = ", ".join(f"[{name}]({name})" for name in others)
    return f"\nMeasured on other machines: {links}." if others else ""


def _machine(data: dict[str, Any]) -> str:
    machine = data["machine"]
    lines = [
        f"- machine: {kind_text(machine)}, "
        f"{machine['memory_gib']} GiB, {machine['distribution']}, Python {machine['python']}"
    ]
    shown = "seewhy onnxruntime torch grad-cam torchcam captum openvino openvino-xai openvino_xai".split()
    for name, packages in data["packages"].items():
        versions = ", ".join(f"{package} {packages[package]}" for package in shown if package in packages)
        other = ", ".join(f"{p} {packages[p]}" for p in ("opencv-python-headless", "numpy", "pillow") if p in packages)
        lines.append(f"- environment `{name}`: {', '.join(filter(None, (versions, other)))}")
    return "\n".join(lines)


def cuda_table(path: Path) -> str:
    """Return the table of the results of `benchmarks/cuda.py`: `device`, and `rows`, dicts with the same keys."""
    data = results_file.read(path)
    if not data:
        return "Not measured.\n"
    rows = [[_text(value) for value in row.values()] for row in data["rows"]]
    return f"{data['device']}\n\n{markdown_tables.table(list(data['rows'][0]), rows)}"


def _text(value: Any) -> str:
    return comparison_tables.number(value) if isinstance(value, float) else str(value)


def earlier_results(records: dict[str, Any], sources: str | None) -> str:
    """Return a line that names results of another commit than the latest, or nothing."""
    old = [key for key, record in records.items() if record.get(SOURCES, sources) != sources]
    return f"- Measured with an earlier commit and not repeated since: {', '.join(old)}.\n" if old else ""


def _others(records: dict[str, Any]) -> str:
    shares = {key: record["others_share"] for key, record in records.items() if record.get("others_share") is not None}
    if not shares:
        return "unknown"
    worst = max(shares, key=lambda key: shares[key])
    middle = sorted(shares.values())[len(shares) // 2]
    text = f"{middle:.2f} of a core (median of the groups), {shares[worst]:.2f} at most ({worst})"
    limits = {record["quiet"] for record in records.values() if "quiet" in record}
    if limits:
        again = sum(record.get("made_again", 0) for record in records.values())
        text += f". Turns that other work disturbed by more than {max(limits)} of a core were repeated ({again} turns)"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("--page", type=Path, help="page to write, by default the one in docs/performance that belongs")
    options = parser.parse_args(arguments)
    page_path = options.page or ROOT / "docs/performance" / f"{options.results.stem.replace('peers', 'benchmarks')}.md"
    data = results_file.read(options.results)
    if not data:
        raise SystemExit(f"write_page: {options.results}: no results; run `make bench`")
    page_path.parent.mkdir(parents=True, exist_ok=True)
    page_path.write_text(page(data, options.results.name, page_path, RESULTS / "cuda.json"), encoding="utf-8")
    print(f"wrote {page_path}")


if __name__ == "__main__":
    main()
