"""Import of torchvision together with a PyTorch that lacks CUDA."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

from seewhy._shared.extras import missing_extra

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# PyTorch drops the definitions when this object is freed.
_definitions: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision.

    Call this before any import of torchvision, also before imports of timm, which imports it.

    The compiled operators of torchvision need the CUDA libraries of the PyTorch that it was built with. If they do
    not load, the import fails at the first operator that torchvision looks up by name, although no classifier uses
    these operators. Defining the two names is enough.

    Returns:
        The module torchvision.

    Raises:
        MissingExtraError: If torchvision is not installed.
    """
    define_missing_operators()
    try:
        import torchvision
    except ImportError:
        raise missing_extra("torchvision is not installed", "export") from None
    return torchvision  # type: ignore[no-any-return]


def define_missing_operators() -> None:
    """Define the names of torchvision's operators if its compiled ones do not load and it is not imported yet.

    `import seewhy_export` calls this, so that code of users that imports torchvision afterwards works, too.
    """
    if "torchvision" in sys.modules or _definitions or _operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _definitions.append(library)


def _operators_load() -> bool:
    """Load the shared library of torchvision, as its import does; return True on success, or if it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    try:
        for library in Path(spec.submodule_search_locations[0]).glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
