"""The files that all tools share: weights, plain exports, SeeWhy's exports, inputs, photographs.

    python input_files.py FOLDER MODEL

writes one model's files, in a process of its own, with the exporter of this checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.child_processes import last_line
from benchmarks.shared.forward_pass import export_forward
from benchmarks.shared.images import cut_photograph

MODELS = ("alexnet", "vgg16", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny")
LARGEST_BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPHS = 32


def prepare(folder: Path, name: str, sources: str) -> Path:
    """The model's folder, its files written again where the exporter has changed.

    Raises:
        RuntimeError: the export failed; the message is its last line.
    """
    stamp = folder / name / "made.txt"
    if not stamp.exists() or stamp.read_text() != sources:
        stamp.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).resolve()), str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {last_line(done.stderr, 'export failed')}")
        stamp.write_text(sources)
    return folder / name


def write_inputs(folder: Path) -> None:
    """Photographs, and maps and photographs to lay over each other, for the questions without a network or weights."""
    from seewhy.visualization.colormaps import palette

    maps = folder / "maps.npy"
    if maps.exists():
        return
    photographs = folder / "photographs"
    photographs.mkdir(parents=True, exist_ok=True)
    views = [_photograph(photographs, i) for i in range(PHOTOGRAPHS)]
    generator = np.random.default_rng(0)
    np.save(folder / "views.npy", np.stack(views))
    np.save(folder / "palette.npy", palette("jet"))
    np.save(maps, generator.standard_normal((PHOTOGRAPHS, 7, 7)).astype(np.float32))


def _photograph(folder: Path, index: int) -> np.ndarray:
    """Write a photograph as JPEG, and return a 224x224 part of it."""
    image = cut_photograph(index)
    image.save(folder / f"photograph{index:02}.jpg", quality=92)
    return np.asarray(image)[128 : 128 + 224, 208 : 208 + 224]


def _write(folder: Path, name: str) -> None:
    import torch

    from benchmarks.shared.random_networks import scenes, settled_network
    from seewhy.contract.metadata import Preprocessing
    from seewhy_export import export

    torch.set_num_threads(os.cpu_count() or 1)
    module, size = settled_network(f"torchvision:{name}")
    images = scenes(LARGEST_BATCH, size)
    with torch.no_grad():
        targets = torch.cat([module(part).argmax(1) for part in images.split(8)]).tolist()
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images.numpy())
    torch.save(module.state_dict(), place / "weights.pt")
    export_forward(module, place / "forward.onnx", size)
    preprocessing = Preprocessing("shorter-side", 256, "bilinear", True, MEAN, STD, "RGB")
    # Held to PyTorch below, by the comparison of every tool's answers.
    report = export(module, place / "seewhy.onnx", size, preprocessing=preprocessing, name=name, verify=False)
    modules = dict(module.named_modules())
    facts = {
        "layer": report.layer,
        # DenseNet's last rectifier is a function; libraries can only be given the module before it.
        "module": report.layer if report.layer in modules else "features",
        "activations": report.activations,
        "targets": targets,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "rectifiers": dict(report.rectifiers.kinds),
    }
    (place / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.argv[2])
