"""Write the files that all tools share: weights, plain exports, SeeWhy's exports, input arrays and image files.

    python benchmarks/peers/input_files.py FOLDER MODEL

writes the files of one model below FOLDER with the exporter of this checkout. `prepare` runs it in a child process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.child_processes import last_line
from benchmarks.shared.forward_pass import export_forward
from benchmarks.shared.images import sample_image, write_hard_crops

TORCHVISION = ("alexnet", "vgg16", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny")
LITE0 = "efficientnet_lite0"
"""A network with trained weights. Only tools that read ONNX files get it, because torchvision does not have it."""
MODELS = (*TORCHVISION, LITE0)
LITE_MODELS = (LITE0, "efficientnet_lite1", "efficientnet_lite2")
"""Networks with trained weights whose drift is measured."""
PREPARED = (*TORCHVISION, *LITE_MODELS)
INT8_MODELS = ("resnet50", "mobilenet_v2", LITE0)
"""Networks that are quantised, too."""
LARGEST_BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_COUNT = 32
CROP_COUNT = 160
"""Number of images for the quantisation: 64 to calibrate, and 96 to measure the drift."""


def prepare(folder: Path, name: str, sources: str) -> Path:
    """Return the folder of a model, after writing its files if they are missing or the exporter has changed.

    Raises:
        RuntimeError: If the export fails. The message is the last line of its output.
    """
    stamp = folder / name / "made.txt"
    expected = f"{sources} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}"
    if not stamp.exists() or stamp.read_text() != expected:
        stamp.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).resolve()), str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {last_line(done.stderr, 'export failed')}")
        stamp.write_text(expected)
    return folder / name


def write_inputs(folder: Path) -> None:
    """Write image files, and the maps, images and palette for the questions that need no network."""
    from seewhy.visualization.colormaps import palette

    maps = folder / "maps.npy"
    if maps.exists():  # it is written last, and complete
        return
    image_folder = folder / "photographs"
    image_folder.mkdir(parents=True, exist_ok=True)
    crops = [_write_image(image_folder, i) for i in range(IMAGE_COUNT)]
    generator = np.random.default_rng(0)
    np.save(folder / "views.npy", np.stack(crops))
    np.save(folder / "palette.npy", palette("jet"))
    unfinished = folder / "unfinished.npy"
    np.save(unfinished, generator.standard_normal((IMAGE_COUNT, 7, 7)).astype(np.float32))
    unfinished.replace(maps)


def _write_image(folder: Path, index: int) -> np.ndarray:
    """Write a sample image as a JPEG file and return a 224x224 crop of it."""
    image = sample_image(index)
    image.save(folder / f"photograph{index:02}.jpg", quality=92)
    return np.asarray(image)[128 : 128 + 224, 208 : 208 + 224]


def _write(folder: Path, name: str) -> None:
    import torch

    from seewhy_export import export

    torch.set_num_threads(os.cpu_count() or 1)
    module, size, preprocessing, images = _lite(name) if name in LITE_MODELS else _torchvision(name)
    with torch.no_grad():
        targets = torch.cat([module(part).argmax(1) for part in images.split(8)]).tolist()
    model_folder = folder / name
    model_folder.mkdir(parents=True, exist_ok=True)
    np.save(model_folder / "images.npy", images.numpy())
    torch.save(module.state_dict(), model_folder / "weights.pt")
    export_forward(module, model_folder / "forward.onnx", size)
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
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    if name in (*INT8_MODELS, *LITE_MODELS):
        facts["drift"] = _quantize(model_folder, images.numpy())
    (model_folder / "facts.json").write_text(json.dumps(facts))


def _torchvision(name: str) -> tuple[Any, Any, Any, Any]:
    """Return a network with random weights, its size and preprocessing, and a batch of noise images."""
    from benchmarks.shared.random_networks import calibrated_network, noise_images
    from seewhy.contract.metadata import Preprocessing

    module, size = calibrated_network(f"torchvision:{name}")
    preprocessing = Preprocessing("shorter-side", 256, "bilinear", True, MEAN, STD, "RGB")
    return module, size, preprocessing, noise_images(LARGEST_BATCH, size)


def _lite(name: str) -> tuple[Any, Any, Any, Any]:
    """Return an EfficientNet-Lite with its weights, its size and preprocessing, and a batch of sample images."""
    import torch

    from benchmarks.shared.lite_networks import lite_network

    module, size, preprocessing = lite_network(name.removeprefix("efficientnet_"))
    views = np.stack([np.asarray(sample_image(i).crop((80, 0, 560, 480)).resize(size)) for i in range(LARGEST_BATCH)])
    pixels = (views / np.float32(255) - preprocessing.mean) / preprocessing.std
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    return module, size, preprocessing, torch.from_numpy(images)


def _quantize(folder: Path, images: np.ndarray) -> dict[str, Any]:
    """Write seewhy-int8.onnx by `seewhy.quantize` and forward-int8.onnx by onnxruntime's tool, and return the drift.

    Trained networks are quantised with the defaults. For random weights, whose maps have no structure to keep, every
    drift is accepted and no layer stays in float32.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    import seewhy

    crops = folder.parent / "crops"
    if not crops.exists():
        write_hard_crops(crops, CROP_COUNT)
    settings = {} if folder.name in LITE_MODELS else {"max_drift": 1, "keep_float": 0}
    quantization = seewhy.quantize(folder / "seewhy.onnx", crops, folder / "seewhy-int8.onnx", **settings)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = ({name: part} for part in np.split(images, 8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    forward = folder / "forward.onnx"
    name = onnxruntime.InferenceSession(forward, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    quantize_static(
        forward,
        folder / "forward-int8.onnx",
        Reader(name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return dataclasses.asdict(quantization.drift)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), sys.argv[2])
