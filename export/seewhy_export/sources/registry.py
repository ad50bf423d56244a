"""Table of the loaders of networks, and the changes that a user may make to what they load."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from seewhy.errors import ExportError
from seewhy_export.sources.checkpoint_matching import load_checkpoint
from seewhy_export.sources.onnx_import.loader import load_onnx
from seewhy_export.sources.preprocessing_overrides import Overrides, with_overrides
from seewhy_export.sources.python_factory import load_factory
from seewhy_export.sources.source import Source, Wanted
from seewhy_export.sources.timm_models import load_timm
from seewhy_export.sources.torchvision_models import load_torchvision

__all__ = ["Source", "is_onnx", "load_source"]

Loader = Callable[[str, Wanted], Source]
_LOADERS: dict[str, Loader] = {"torchvision": load_torchvision, "timm": load_timm}
_FORMS = "write torchvision:NAME, timm:NAME, package.module:factory or FILE.onnx"


def load_source(
    spec: str,
    weights: str = "DEFAULT",
    size: tuple[int, int] | None = None,
    seed: int = 0,
    *,
    weights_key: str | None = None,
    overrides: Overrides | None = None,
    channels: int | None = None,
    classes: int | None = None,
    head: str | int | None = None,
) -> Source:
    """Make the network that `spec` names.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `package.module:factory` or the path of an ONNX file.
        weights: `DEFAULT` (the source's own, perhaps downloaded), `none` (random, from `seed`) or a checkpoint's path.
        size: (H, W) of the input in place of the source's own.
        seed: for random weights.
        weights_key: which of a checkpoint's weights to take, where several fit.
        overrides: preprocessing in place of the source's own, field by field.
        channels: of the images, where the source leaves that open.
        classes: how many classes to make a torchvision or timm network for.
        head: which of an ONNX file's outputs holds the logits.

    Raises:
        ExportError: there is no such network, or its weights cannot be had.
        MissingExtraError: the library that it comes from is not installed.
    """
    overrides = overrides or Overrides()
    load = _loader(spec)
    checkpoint = None if weights in ("DEFAULT", "none") else Path(weights)
    if weights_key is not None and checkpoint is None:
        raise ExportError(f"--weights-key {weights_key} goes with --weights FILE")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Advice about initialisation and deprecations is for those who write these networks.
        warnings.simplefilter("ignore")
        source = load(spec, Wanted(weights, size, channels, classes, head, overrides.resize is not None))
    if checkpoint is not None:
        notes = load_checkpoint(source.module, checkpoint, weights_key)
        source = replace(source, notes=(*source.notes, *notes))
    return with_overrides(source, size, overrides)


def is_onnx(spec: str) -> bool:
    """Whether a source is the path of an ONNX file."""
    return Path(spec).suffix.lower() == ".onnx"


def _loader(spec: str) -> Loader:
    path = Path(spec)
    if is_onnx(spec):
        return load_onnx
    scheme, colon, name = spec.partition(":")
    if colon and name:
        return load_factory if scheme not in _LOADERS else _LOADERS[scheme]
    if path.is_file():
        raise ExportError(
            f"{spec}: a file that is not FILE.onnx is no source; a checkpoint goes with the network that it belongs "
            f"to: seewhy export package.module:factory --weights {spec}"
        )
    raise ExportError(f"{spec!r} is no source; {_FORMS}")
