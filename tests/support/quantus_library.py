"""Import Quantus, which only the Makefile installs: its dependencies hold a second build of OpenCV."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

import support.exporting.torch_setup  # noqa: F401  prepares torchvision, which Quantus imports


def import_quantus() -> ModuleType:
    """Return the package, or skip the tests of a module if it is not installed; with CI=true, they fail instead."""
    if os.environ.get("CI") == "true":
        import quantus

        return quantus
    found: ModuleType = pytest.importorskip("quantus")
    return found
