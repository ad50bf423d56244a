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
from benchmarks.peers import results_file
from benchmarks.peers.benchmark_questions import QUESTIONS
from benchmarks.peers.page import comparison_plots, comparison_tables
from benchmarks.peers.results_file import SOURCES
from benchmarks.shared import markdown_tables

PLOTTED = ("forward", "gradcam", "guided")

HEAD = """# Benchmarks

Written by `make bench`, not by hand: every number below comes from `benchmarks/results/{source}`. The aims are from
before the work began; where one is missed, the table says so, and
[optimizations.md](optimizations.md#bars-that-were-missed) why.{elsewhere}

{machine}

## The bar

{bar}
## How it was measured

- Each tool runs in a process and a virtual environment of its own, with the same weights, input and number of threads
  ({threads}). One works at a time, in rounds whose order changes; before each measurement all rest for 150 ms, since
  idle thread pools go on spinning for a while, and one call goes unmeasured (but not where a call takes longer than
  half a second).
- What is held to the bar is the median of the rounds' ratios; beside it stand their tenth and ninetieth percentile, and
  in *least ÷ least* the quotient of the quickest rounds, which others on the machine disturb least. In the tables
  below, a cell is the median of the rounds and, in brackets, the tenth and ninetieth percentile and the median of the
  rounds' ratios to the floor.
- The floor is `torch.onnx.export` of the untouched model under onnxruntime with its default optimisation, all threads
  in one run. SeeWhy gives each thread a piece of the batch where that is quicker, which a forward pass can do as well:
  the row *a thread for each piece* below says what it gains. That is how Grad-CAM can take less than the floor.
- SeeWhy's time is `Explainer.explain`: an array in, heatmaps out, everything between included. For guided
  backpropagation it makes a heatmap too, where the others stop at the gradient.
- Weights are random, but of the sizes that trained ones have, and no branch is switched off. All are told which class
  to explain: the predicted one.
- Each tool is used as its documentation says is fastest: no graph where none is needed, evaluation mode,
  `channels_last` where that is quicker (tried for each that is a PyTorch module, and told in the last section), frozen
  weights and one compilation for each batch size for `torch.compile`, the latency hint and float32 for OpenVINO.
  `weights frozen` is what no documentation mentions: pytorch-grad-cam on a network whose parameters take no gradients
  up to the target layer.
- A dash marks what was left out to save time: `torch.compile` of a forward and backward pass takes minutes for each
  network and batch size, and `weights frozen` says nothing new at batch 32.
- Answers are compared before the clock runs. ≠ marks one that is not SeeWhy's; the last section says by how much.
- All tools of a group are loaded together. † marks one that the system ended for want of memory: it was measured again,
  beside the floor and SeeWhy alone, and its ratios are to those.
- Processor time that went to anything but the tool being measured: {others}.
{earlier}
"""

TEXTS = {
    "forward": "",
    "gradcam": """
Preprocessed pixels in, heatmaps of the input's size out. *PyTorch by hand* keeps no graph up to the target layer.
*torch.compile by hand* is the same with that part compiled; it counts as a rival in the bar, which was set
before anybody had tried it. Recipro-CAM is another method, without a gradient: the head runs once
for each place of the map, and of a batch one image after the other, since it takes no more. DenseNet's target layer
is followed by a ReLU in place, which changes the activations that Captum and pytorch-grad-cam hold.
""",
    "guided": """
EfficientNet and ConvNeXt have no rectifiers: there the guided gradient is the plain one. Captum and pytorch-grad-cam
guide modules of class `nn.ReLU` alone: for MobileNet v2 (ReLU6) they give the plain gradient, and in DenseNet they miss
the last rectifier, a function. pytorch-grad-cam runs a batch one image after the other: it returns the first one's
gradient alone.
""",
    "overlays": """
Maps of 7×7 and photographs of 224×224 in, pictures out: upsampled, scaled, coloured, blended. Ratios are to SeeWhy on
one thread. SeeWhy's is the kernel that `Explanation.overlays` calls, without Pillow's images around it.
""",
    "folder": """
32 JPEGs of 640×480; the overlays show the model's view of 224×224, or the whole photograph. SeeWhy runs batches of 8,
the others the loop of their README, a photograph at a time. PNGs are packed as little by all (level 1). SeeWhy has what
it writes safe on the disk (fsync) before it counts as done. The floor is the forward passes alone, on arrays.
""",
    "cold": """
From the start of a fresh process to its first heatmap of a photograph, files in the system's cache; peak memory of that
process; size of `site-packages` with that tool, what it needs, and torchvision for those that need a module. PyTorch is
its build without CUDA.
""",
}


def page(data: dict[str, Any], source: str, path: Path, cuda: Path) -> str:
    """The page at `path` of what `source` holds; plots go to the folder `images` beside it, and begin with its name."""
    records = data["records"]
    folder = path.parent / "images"
    parts = [
        HEAD.format(
            source=source,
            elsewhere=_elsewhere(path),
            machine=_machine(data),
            bar=comparison_tables.bar_table(records),
            threads=data["threads"],
            others=_others(records),
            earlier=earlier_results(records, data.get(SOURCES)),
        )
    ]
    for name, question in QUESTIONS.items():
        parts.append(f"## {question.title}\n\n{TEXTS[name].lstrip()}")
        if name in PLOTTED and comparison_plots.question_plot(name, records, folder / f"{path.stem}-{name}.png"):
            parts.append(f"![{question.title}, time over the forward pass](images/{path.stem}-{name}.png)\n")
        for batch in question.batches:
            parts.append(f"Batch {batch}:\n\n{comparison_tables.question_table(name, records, batch)}")
    parts.append(f"## Cold start\n{TEXTS['cold']}")
    if comparison_plots.cold_plot(records, folder / f"{path.stem}-cold.png"):
        parts.append(f"![Cold start](images/{path.stem}-cold.png)\n")
    parts.append(comparison_tables.cold_table(records))
    parts.append(f"## CUDA\n\n{cuda_table(cuda)}")
    parts.append(f"## Where answers differ, and what failed\n\n{comparison_tables.differences(records)}")
    return "\n".join(parts)


def _elsewhere(path: Path) -> str:
    """Pages of other machines, by their names: `benchmarks.md` and `benchmarks-....md`."""
    others = [other.name for other in sorted(path.parent.glob("benchmarks*.md")) if other.name != path.name]
    return f"\nMeasured on another machine: {', '.join(f'[{name}]({name})' for name in others)}." if others else ""


def _machine(data: dict[str, Any]) -> str:
    machine = data["machine"]
    lines = [
        f"- machine: {machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])}), "
        f"{machine['memory_gib']} GiB, {machine['distribution']}, Python {machine['python']}"
    ]
    shown = "seewhy onnxruntime torch grad-cam torchcam captum openvino openvino-xai openvino_xai".split()
    for name, packages in data["packages"].items():
        versions = ", ".join(f"{package} {packages[package]}" for package in shown if package in packages)
        other = ", ".join(f"{p} {packages[p]}" for p in ("opencv-python-headless", "numpy", "pillow") if p in packages)
        lines.append(f"- environment `{name}`: {', '.join(filter(None, (versions, other)))}")
    return "\n".join(lines)


def cuda_table(path: Path) -> str:
    """Return a table of what `benchmarks/cuda.py` wrote: `device`, and `rows`, dicts that all have the same keys."""
    data = results_file.read(path)
    if not data:
        return "Not measured.\n"
    rows = [[_text(value) for value in row.values()] for row in data["rows"]]
    return f"{data['device']}\n\n{markdown_tables.table(list(data['rows'][0]), rows)}"


def _text(value: Any) -> str:
    return comparison_tables.number(value) if isinstance(value, float) else str(value)


def earlier_results(records: dict[str, Any], sources: str | None) -> str:
    """Return a line that names the results of another commit than most, or nothing."""
    old = [key for key, record in records.items() if record.get(SOURCES, sources) != sources]
    return f"- Measured with an earlier commit, and not again since: {', '.join(old)}.\n" if old else ""


def _others(records: dict[str, Any]) -> str:
    shares = {key: record["others_share"] for key, record in records.items() if record.get("others_share") is not None}
    if not shares:
        return "not known"
    worst = max(shares, key=lambda key: shares[key])
    middle = sorted(shares.values())[len(shares) // 2]
    text = f"{middle:.2f} of a core (median of the groups), {shares[worst]:.2f} at most ({worst})"
    limits = {record["quiet"] for record in records.values() if "quiet" in record}
    if limits:
        again = sum(record.get("made_again", 0) for record in records.values())
        text += f". Turns that others disturbed by more than {max(limits)} of a core were made again ({again} of them)"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "peers.json")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs/performance/benchmarks.md", help="plots go to images/ beside it"
    )
    chosen = parser.parse_args(arguments)
    data = results_file.read(chosen.results)
    if not data:
        raise SystemExit(f"write_page: {chosen.results}: no results; run `make bench`")
    chosen.page.parent.mkdir(parents=True, exist_ok=True)
    chosen.page.write_text(page(data, chosen.results.name, chosen.page, RESULTS / "cuda.json"), encoding="utf-8")
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
