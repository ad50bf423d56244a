"""Plots of docs/performance/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.benchmark_questions import COLD, QUESTIONS
from benchmarks.peers.cold_start import TOOLS as COLD_TOOLS
from benchmarks.peers.page.performance_aims import Records
from benchmarks.peers.results_file import key

# Colour of each tool in every plot, by the longest beginning of the tool's name. Other variants of a tool are lighter,
# and those that compute in 8 or 16 bits are hatched.
COLORS = {
    "SeeWhy": "#d7263d",
    "SeeWhy before": "#eb9aa5",
    "onnxruntime": "#8c8c8c",
    "onnxruntime, a thread": "#c2c2c2",
    "PyTorch": "#1f5fa8",
    "torch.compile": "#3f9c6b",
    "torch-cam": "#d98b19",
    "Captum": "#7a5195",
    "pytorch-grad-cam": "#a9744f",
    "pytorch-grad-cam, weights frozen": "#d3b49c",
    "OpenVINO": "#4bb3c4",
    "openvino_xai": "#4bb3c4",
}


_HATCHES = {"int8": "////", "bf16": "...."}


def hatch_of(tool: str) -> str | None:
    """Return the hatching of a tool that computes in fewer bits, or None."""
    return next((hatch for word, hatch in _HATCHES.items() if word in tool.replace(",", " ").split()), None)


def color_of(tool: str) -> str:
    """Return the colour of a tool, which is the same in every plot."""
    return COLORS[max((name for name in COLORS if tool.startswith(name)), key=len)]


def question_plot(name: str, records: Records, kind: str, path: Path) -> bool:
    """Plot time / baseline time of every model and rival, one panel per batch size; return False without results."""
    question = QUESTIONS[name]
    batches = [batch for batch in question.batches if any(key(name, m, batch) in records for m in question.models)]
    if not batches:
        return False
    plt = pyplot()
    figure, panels = plt.subplots(len(batches), 1, figsize=(10, 2.6 * len(batches) + 0.6), squeeze=False)
    groups = [record["rivals"] for group, record in records.items() if group.startswith(f"{name}/")]
    rivals = [rival.name for rival in question.rivals if any("to_floor" in g.get(rival.name, {}) for g in groups)]
    for panel, batch in zip(panels[:, 0], batches, strict=True):
        models = [model for model in question.models if key(name, model, batch) in records]
        width = 0.84 / len(rivals)
        for i, rival in enumerate(rivals):
            values = [records[key(name, m, batch)]["rivals"].get(rival, {}).get("to_floor", 0) for m in models]
            positions = [m + (i - (len(rivals) - 1) / 2) * width for m in range(len(models))]
            style = {"color": color_of(rival), "hatch": hatch_of(rival), "edgecolor": "white", "linewidth": 0}
            panel.bar(positions, values, width * 0.92, label=rival, zorder=2, **style)
        panel.axhline(1, color="black", linewidth=1, zorder=3)
        panel.set_yscale("log", base=2)
        panel.set_ylim(bottom=0.25)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        panel.set_xticks(range(len(models)), models)
        panel.set_ylabel(f"batch {batch}")
        panel.grid(axis="y", linewidth=0.4, zorder=0)
    panels[0, 0].set_title(
        f"{question.title}: time ÷ onnxruntime's forward pass (the line), lower is better\n{kind}",
        loc="left",
        fontsize=10,
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.16 / len(batches) + 0.02, 1, 1))
    save(figure, path)
    return True


def cold_plot(records: Records, kind: str, path: Path) -> bool:
    """Plot seconds, memory and installed size, one bar per tool; return False without results."""
    found = [(k, record) for k, record in records.items() if k.startswith(f"{COLD}/")]
    if not found:
        return False
    group, record = next((pair for pair in found if "resnet50" in pair[0]), found[0])
    tools = [name for name in COLD_TOOLS if "ms" in record["rivals"].get(name, {})]
    measures = {
        "seconds to the first heatmap": lambda rival: rival["ms"]["median"] / 1e3,
        "peak memory, MiB": lambda rival: rival["peak_bytes"] / 2**20,
        "installed, MiB": lambda rival: rival["installed_bytes"] / 2**20,
    }
    plt = pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(10, 0.4 * len(tools) + 1.1), sharey=True)
    for panel, (title, value) in zip(panels, measures.items(), strict=True):
        values = [value(record["rivals"][name]) for name in tools]
        colors = [color_of(name) for name in tools]
        bars = panel.barh(tools, values, color=colors, zorder=2)
        panel.bar_label(bars, fmt=lambda v: f"{v:.2f}" if v < 100 else f"{v:.0f}", padding=3, fontsize=8)
        panel.set_title(title, loc="left", fontsize=10)
        panel.margins(x=0.25)
        panel.grid(axis="x", linewidth=0.4, zorder=0)
    panels[0].invert_yaxis()
    figure.suptitle(f"Cold start, {group.split('/')[1]}: lower is better; {kind}", x=0.01, ha="left", fontsize=11)
    figure.tight_layout()
    save(figure, path)
    return True


def pyplot():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def save(figure, path: Path, dpi: int = 110) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Leave out the version of matplotlib, so that the same results give the same file.
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    pyplot().close(figure)
