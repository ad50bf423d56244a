"""Importing torchvision beside a PyTorch without CUDA."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from seewhy.errors import MissingExtraError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# The definitions last as long as this object does.
_definitions: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Return torchvision, imported. Whatever imports torchvision, directly or through timm, calls this first.

    torchvision's compiled operators need the CUDA libraries of the PyTorch that it was built with. Where they do not
    load, its import fails on the first operator that it looks up by name, though no classifier uses any. Defining the
    two names is enough.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    if "torchvision" not in sys.modules and not _operators_load():
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _definitions.append(library)
    import torchvision

    return torchvision  # type: ignore[no-any-return]


def _operators_load() -> bool:
    """Load torchvision's shared library, as its own import will, and say whether that works."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError('torchvision is not installed; run: pip install "seewhy[export]"')
    try:
        for library in Path(spec.submodule_search_locations[0]).glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
