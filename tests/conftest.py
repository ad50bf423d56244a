"""Fixtures of all tests: the tiny model file, an Explainer for it, synthetic images, and exported networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from seewhy import Explainer
from support.tiny_model import Tiny

# Tests run side by side on few cores, so the time of one example says nothing.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def model_path(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def explainer(model_path: Path) -> Explainer:
    return Explainer(model_path, threads=1)


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Image.Image]:
    """Return a function that makes an image of smooth colors with some noise: (width, height, seed) -> PIL image."""

    def make(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + random.integers(-20, 21, smooth.shape)
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports each named network once: (name, module, **options) -> path."""
    from seewhy_export import export

    folder = tmp_path_factory.mktemp("exported")

    def make(name: str, module: object, **options: object) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            export(module, path, **options)
        return path

    return make
