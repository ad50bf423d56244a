"""Chart at the top of docs/performance/benchmarks.md: images per second and core, from a folder to overlays."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path

from benchmarks.peers.benchmark_questions import FLOOR, FORMS, QUESTIONS
from benchmarks.peers.input_files import IMAGE_COUNT
from benchmarks.peers.page import comparison_tables
from benchmarks.peers.page.comparison_plots import color_of, hatch_of, pyplot, save
from benchmarks.peers.page.performance_aims import Records
from benchmarks.peers.results_file import key

MODELS = {"resnet50": "ResNet-50", "mobilenet_v2": "MobileNet v2", "efficientnet_lite0": "EfficientNet-Lite0"}
THEMES = {"light": ("#ffffff", "#1f2328", "#59636e"), "dark": ("#0d1117", "#f0f6fc", "#9198a1")}
"""Theme -> colours of the background, of the text, and of quiet text."""
_FLOOR_TITLE = "forward pass alone"


def rates(records: Records, model: str, cores: int) -> dict[str, float]:
    """Return images per second and core of each tool with JPEG overlays, and of the baseline; the fastest first."""
    (batch,) = QUESTIONS["folder"].batches
    rivals = records.get(key("folder", model, batch), {}).get("rivals", {})
    form = f", {FORMS['jpeg']}"
    found = {
        _FLOOR_TITLE if name == FLOOR else name.removesuffix(form).replace(" Recipro-CAM", ""): record["rounds_ms"]
        for name, record in rivals.items()
        if "rounds_ms" in record and (name == FLOOR or name.endswith(form))
    }
    values = {name: IMAGE_COUNT / statistics.median(times) * 1e3 / cores for name, times in found.items()}
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def markdown(records: Records, kind: str, stem: Path, cores: int) -> str:
    """Draw the chart once for each theme beside `stem`, and return the Markdown that shows it, or nothing."""
    found = {title: values for model, title in MODELS.items() if (values := rates(records, model, cores))}
    if not found:
        return ""
    for theme in THEMES:
        _draw(found, kind, theme, stem.with_name(f"{stem.name}-{theme}.png"))
    text = "Images per second and core, from a folder of JPEG files to overlays: " + "; ".join(
        f"{title}: " + ", ".join(f"{name} {value:.1f}" for name, value in values.items())
        for title, values in found.items()
    )
    return (
        "\n<picture>\n"
        f'<source media="(prefers-color-scheme: dark)" srcset="images/{stem.name}-dark.png">\n'
        f'<img alt="{text}" src="images/{stem.name}-light.png" width="640">\n'
        "</picture>\n"
    )


def _draw(found: dict[str, dict[str, float]], kind: str, theme: str, path: Path) -> None:
    background, text, quiet = THEMES[theme]
    heights = [len(values) + 1.0 for values in found.values()]
    figure, panels = pyplot().subplots(
        len(found),
        1,
        figsize=(6.4, 0.33 * sum(heights) + 1.5),
        height_ratios=heights,
        squeeze=False,
        facecolor=background,
        layout="constrained",
    )
    for panel, (title, values) in zip(panels[:, 0], found.items(), strict=True):
        tools = ["onnxruntime" if name == _FLOOR_TITLE else name for name in values]
        bars = panel.barh(
            list(values), list(values.values()), 0.74, color=[color_of(tool) for tool in tools], edgecolor=background
        )
        for bar, tool in zip(bars, tools, strict=True):
            bar.set_hatch(hatch_of(tool))
            bar.set(linewidth=0, hatch_linewidth=0.7)
        panel.bar_label(bars, fmt=comparison_tables.number, padding=4, fontsize=12, color=text)
        panel.set_title(title, x=0, ha="left", fontsize=13, fontweight="bold", color=text)
        panel.set_facecolor(background)
        panel.invert_yaxis()
        panel.set_xticks([])
        panel.set_xlim(right=1.16 * max(values.values()))
        panel.tick_params(axis="y", length=0, labelsize=12, labelcolor=text)
        panel.spines[:].set_visible(False)
        for label in panel.get_yticklabels():
            if label.get_text() == _FLOOR_TITLE:
                label.set_color(quiet)
    figure.suptitle(
        "Images per second and core, JPEG files in, overlays out", x=0.01, ha="left", fontsize=13.5, color=text
    )
    shown = {name for values in found.values() for name in values}
    notes = ["Forward pass: onnxruntime, float32, no files."]
    notes += ["Hatched: 8 bits."] * any(map(hatch_of, shown))
    notes += ["openvino_xai: Recipro-CAM."] * any(name.startswith("openvino_xai") for name in shown)
    note = "\n".join(textwrap.wrap(kind, 70) + textwrap.wrap(" ".join(notes), 70))
    figure.supxlabel(note, x=0.01, ha="left", fontsize=10.5, color=quiet)
    save(figure, path, dpi=150)
