"""Write the files that all tools share: weights, plain exports, SeeWhy's exports, input arrays and image files.

    python benchmarks/peers/input_files.py FOLDER MODEL

writes the files of one model below FOLDER with the exporter of this checkout. `prepare` runs it in a child process.
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
from benchmarks.shared.images import sample_image

MODELS = ("alexnet", "vgg16", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny")
LARGEST_BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_COUNT = 32


def prepare(folder: Path, name: str, sources: str) -> Path:
    """Return the folder of a model, after writing its files if they are missing or the exporter has changed.

    Raises:
        RuntimeError: If the export fails. The message is the last line of its output.
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
    """Write image files, and the maps, images and palette for the questions that need no network."""
    from seewhy.visualization.colormaps import palette

    maps = folder / "maps.npy"
    if maps.exists():
        return
    image_folder = folder / "photographs"
    image_folder.mkdir(parents=True, exist_ok=True)
    crops = [_write_image(image_folder, i) for i in range(IMAGE_COUNT)]
    generator = np.random.default_rng(0)
    np.save(folder / "views.npy", np.stack(crops))
    np.save(folder / "palette.npy", palette("jet"))
    np.save(maps, generator.standard_normal((IMAGE_COUNT, 7, 7)).astype(np.float32))


def _write_image(folder: Path, index: int) -> np.ndarray:
    """Write a sample image as a JPEG file and return a 224x224 crop of it."""
    image = sample_image(index)
    image.save(folder / f"photograph{index:02}.jpg", quality=92)
    return np.asarray(image)[128 : 128 + 224, 208 : 208 + 224]


def _write(folder: Path, name: str) -> None:
    import torch

    from benchmarks.shared.random_networks import calibrated_network, noise_images
    from seewhy.contract.metadata import Preprocessing
    from seewhy_export import export

    torch.set_num_threads(os.cpu_count() or 1)
    module, size = calibrated_network(f"torchvision:{name}")
    images = noise_images(LARGEST_BATCH, size)
    with torch.no_grad():
        targets = torch.cat([module(part).argmax(1) for part in images.split(8)]).tolist()
    model_folder = folder / name
    model_folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images.numpy())
    torch.save(module.state_dict(), model_folder / "weights.pt")
    export_forward(module, model_folder / "forward.onnx", size)
    preprocessing = Preprocessing("shorter-side", 256, "bilinear", True, MEAN, STD, "RGB")
    # The export skips its verification, because the comparison of the tools' results covers it.
    report = export(module, model_folder / "seewhy.onnx", size, preprocessing=preprocessing, name=name, verify=False)
    modules = dict(module.named_modules())
    facts = {
        "layer": report.layer,
        # DenseNet's last rectifier is a function, so libraries get the module before it.
        "module": report.layer if report.layer in modules else "features",
        "activations": report.activations,
        "targets": targets,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "rectifiers": dict(report.rectifiers.kinds),
    }
    (model_folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.argv[2])
