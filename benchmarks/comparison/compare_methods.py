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
from benchmarks.shared.images import PHOTOGRAPHS, complete_folder
from benchmarks.shared.lite_networks import SIZES as NETWORKS
from benchmarks.shared.lite_networks import lite_network
from benchmarks.shared.machine_facts import versions

FILE = RESULTS / "comparison.json"
WORK = ROOT / "build" / "comparison"
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
        from seewhy_export import export
        from seewhy_export.sources.torchvision_import import import_torchvision

        network, size, preprocessing = lite_network(name)
        export(
            network,
            path,
            size,
            name=f"efficientnet_{name}",
            labels=tuple(import_torchvision().models.ResNet18_Weights.DEFAULT.meta["categories"]),
            preprocessing=preprocessing,
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
        with complete_folder(target) as unfinished:
            image.save(unfinished / "whole.png")
            for crop in range(CROPS):
                side = int(min(image.size) * rng.uniform(0.5, 0.9))
                left, top = (int(rng.integers(length - side + 1)) for length in image.size)
                image.crop((left, top, left + side, top + side)).save(unfinished / f"crop{crop}.png")


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
