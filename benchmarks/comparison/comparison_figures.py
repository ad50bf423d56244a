"""The picture of docs/comparison.md: maps of several methods for two classes of a grid of photographs."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import seewhy
from benchmarks import ROOT
from seewhy.visualization.figure_style import FigureStyle

PICTURE = ROOT / "docs" / "images" / "comparison.jpg"
GRID = ("motorcycle_left", "chelsea", "coffee", "camera")
SHOWN = (0, 2)
METHODS = ("backprop", "guided-backprop", "cam", "gradcam", "guided-gradcam")


def draw(model: Path, crops: Path) -> None:
    """Draw the picture."""
    explainer = seewhy.Explainer(model)
    height, width = explainer.metadata.image_size
    paths = [crops / name / "whole.png" for name in GRID]
    prediction = explainer.predict(paths)
    grid = Image.new("RGB", (width, height))
    corners = [(x, y) for y in (0, height // 2) for x in (0, width // 2)]
    for view, corner in zip(prediction.images, corners, strict=True):
        grid.paste(Image.fromarray(view.view).resize((width // 2, height // 2), Image.Resampling.BILINEAR), corner)
    figure, axes = plt.subplots(len(SHOWN), 1 + len(METHODS), figsize=(2 * (1 + len(METHODS)), 2.35 * len(SHOWN)))
    for row, index in zip(axes, SHOWN, strict=True):
        target, (left, top) = int(prediction.classes[index]), corners[index]
        results = explainer.explain(grid, list(METHODS), target=target)
        row[0].imshow(grid)
        row[0].add_patch(plt.Rectangle((left, top), width // 2 - 1, height // 2 - 1, fill=False, color="#ffd400", lw=2))
        label = prediction.labels[index].split(",")[0]
        row[0].set_title(f"“{label}”", fontsize=9)
        for axis, name in zip(row[1:], METHODS, strict=True):
            result = results[name]
            axis.imshow(next(result.draw(FigureStyle())).image if result.maps is None else result.overlays()[0])
            values = result.attributions[0]
            strength = np.maximum(values if values.ndim == 2 else np.abs(values).max(axis=0), 0)
            share = strength[top : top + height // 2, left : left + width // 2].sum() / strength.sum()
            axis.set_title(result.request.method.title, fontsize=9)
            axis.set_xlabel(f"{share:.0%} in the quarter", fontsize=8)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.tight_layout(pad=0.4)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)
