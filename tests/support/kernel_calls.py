"""Valid arguments of any image size for every kernel, for tests that apply to all kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy import _core

Arguments = dict[str, Any]


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return normally distributed float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heat(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return uniform float32 numbers in [0, 1)."""
    return np.random.default_rng(seed).random(shape, np.float32)


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return uniform uint8 numbers from 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# Kernel name -> function of batch size, height and width that returns arguments of the kernel.
ARGUMENTS: dict[str, Callable[[int, int, int], Arguments]] = {
    "normalize": lambda n, h, w: {
        "pixels": pixels(n, h, w, 3),
        "mean": np.array([0.485, 0.456, 0.406], np.float32),
        "std": np.array([0.229, 0.224, 0.225], np.float32),
    },
    "channel_means": lambda n, h, w: {"gradients": floats(n, 5, h, w)},
    "weighted_sum": lambda n, h, w: {"activations": floats(n, 5, h, w), "weights": floats(n, 5, seed=1)},
    "gradcam_plus_plus_weights": lambda n, h, w: {
        "activations": heat(n, 5, h, w),
        "gradients": floats(n, 5, h, w, seed=1),
    },
    "xgradcam_weights": lambda n, h, w: {"activations": heat(n, 5, h, w), "gradients": floats(n, 5, h, w, seed=1)},
    "product_sum": lambda n, h, w: {"activations": floats(n, 5, h, w), "gradients": floats(n, 5, h, w, seed=1)},
    "upsample": lambda n, h, w: {"maps": floats(n, 7, 6), "height": h, "width": w},
    "heatmaps": lambda n, h, w: {"maps": floats(n, 7, 6), "relu": True, "height": h, "width": w},
    "minmax": lambda n, h, w: {"maps": floats(n, h, w)},
    "max_abs": lambda n, h, w: {"gradients": floats(n, 3, h, w)},
    "gradient_rgb": lambda n, h, w: {"gradients": floats(n, 3, h, w)},
    "multiply_by_map": lambda n, h, w: {"gradients": floats(n, 3, h, w), "maps": heat(n, h, w)},
    "overlay": lambda n, h, w: {
        "images": pixels(n, h, w, 3),
        "heatmaps": heat(n, h, w),
        "palette": pixels(256, 3, seed=1),
        "alpha": 0.4,
    },
    "overlay_maps": lambda n, h, w: {
        "images": pixels(n, h, w, 3),
        "maps": floats(n, 7, 6),
        "palette": pixels(256, 3, seed=1),
        "alpha": 0.4,
        "relu": True,
    },
}
KERNELS = sorted(ARGUMENTS)
# Array arguments that are shared by all images of the batch.
SHARED = {"mean", "std", "palette"}


def call(name: str, arguments: Arguments, threads: int = 0) -> NDArray[Any]:
    """Call the kernel with this name."""
    result: NDArray[Any] = getattr(_core, name)(**arguments, threads=threads)
    return result


def image(arguments: Arguments, index: int) -> Arguments:
    """Return the arguments for one image of a batch, as a batch of one."""
    return {
        name: value[index : index + 1] if isinstance(value, np.ndarray) and name not in SHARED else value
        for name, value in arguments.items()
    }
