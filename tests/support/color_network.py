"""A network whose attributions are known: each class counts the pixels of one color.

Each map of the target layer is bright at the pixels of one color. The logit of a class is the mean of its map, minus
half of the means of the others. So pixels of its color speak for a class, and pixels of other colors against it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seewhy._shared.arrays import Bytes
from seewhy.contract import checksum
from seewhy.contract.metadata import Preprocessing
from support.tiny_model import Tiny

COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.float64)
"""Color of each class: red, green, blue, yellow."""
SIZE = (32, 32)
"""Height and width of the input."""


def save_color_network(path: Path) -> Path:
    """Write the model file and return its path."""
    tiny = Tiny(
        size=SIZE,
        classes=4,
        labels=("red", "green", "blue", "yellow"),
        preprocessing=Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)),
    )
    weights = {name: np.zeros_like(values) for name, values in tiny.weights().items()}
    first, second = weights["conv1.weight"][:, :, 1, 1], weights["conv2.weight"][:, :, 1, 1]
    first[:] = [(1, -1, 0), (-1, 1, 0), (-0.5, -0.5, 1), (0.5, 0.5, -1)]
    # Red and green pixels, too, are half bright in the map of yellow. The second layer removes that.
    second[:4] = np.eye(4)
    second[3] = (-0.5, -0.5, 0, 1)
    weights["fc.weight"][:, :4] = 1.5 * np.eye(4) - 0.5
    path.write_bytes(checksum.seal(tiny.proto(weights).SerializeToString()))
    return path


def color_image(color: int, seed: int, where: np.ndarray | None = None) -> Bytes:
    """Return an image, uint8 of shape (H, W, 3), in a class's color and of random brightness.

    With a mask `where` of shape (H, W), the other pixels have the color of the next class.
    """
    brightness = np.random.default_rng(seed).uniform(0.5, 1, (*SIZE, 1))
    inside = np.ones(SIZE, np.bool_) if where is None else where
    image = np.where(inside[:, :, None], COLORS[color], COLORS[(color + 1) % 4]) * brightness
    return image.astype(np.uint8)
