"""Table of the loaders, and the function that loads any source and applies the user's changes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from seewhy._shared.suggestions import closest_name
from seewhy.errors import ExportArgumentError, ExportError, MissingExtraError
from seewhy_export.sources.checkpoint_matching import load_checkpoint
from seewhy_export.sources.onnx_import.loader import load_onnx
from seewhy_export.sources.preprocessing_overrides import PreprocessingOverrides, with_overrides
from seewhy_export.sources.python_factory import load_factory
from seewhy_export.sources.source import Source, SourceRequest
from seewhy_export.sources.timm_models import list_timm_models, load_timm
from seewhy_export.sources.torchvision_models import list_torchvision_models, load_torchvision
from seewhy_export.sources.transformers_models import load_transformers

__all__ = ["Source", "is_onnx", "load_source", "recorded_source"]

Loader = Callable[[str, SourceRequest], Source]
_LOADERS: dict[str, Loader] = {
    "torchvision": load_torchvision,
    "timm": load_timm,
    "transformers": load_transformers,
}
_NAME_LISTS: dict[str, Callable[[], list[str]]] = {"torchvision": list_torchvision_models, "timm": list_timm_models}
_FORMS = "Write torchvision:NAME, timm:NAME, transformers:ID_OR_FOLDER, package.module:factory or FILE.onnx."


def load_source(
    spec: str,
    weights: str = "DEFAULT",
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    *,
    weights_key: str | None = None,
    overrides: PreprocessingOverrides | None = None,
    channels: int | None = None,
    class_count: int | None = None,
    head: str | int | None = None,
) -> Source:
    """Load the network that `spec` names.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `transformers:ID_OR_FOLDER`, `package.module:factory` or the path of an
            ONNX file.
        weights: `DEFAULT` (the source's own weights, which may be downloaded), `none` (random weights) or the path of
            a checkpoint.
        image_size: (H, W) of the input in pixels. None keeps the size of the source.
        seed: Seed of random weights.
        weights_key: Set of weights to load from the checkpoint, if several sets fit.
        overrides: Preprocessing values that replace those of the source.
        channels: Number of image channels, if the source does not define it.
        class_count: Number of classes to build a network of torchvision, timm or transformers for.
        head: Output of an ONNX file that holds the logits: a name or an index.

    Returns:
        The network with the requested changes.

    Raises:
        ExportError: If the source is unknown, its weights cannot be loaded, or an argument does not apply to it.
        MissingExtraError: If the library that the source needs is not installed.
    """
    overrides = overrides or PreprocessingOverrides()
    load = _loader(spec)
    checkpoint = None if weights in ("DEFAULT", "none") else Path(weights)
    if weights_key is not None and checkpoint is None:
        raise ExportArgumentError(f"--weights-key {weights_key} requires --weights FILE")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Warnings about initialisation and deprecations are meant for the authors of the networks.
        warnings.simplefilter("ignore")
        request = SourceRequest(weights, image_size, channels, class_count, head, overrides.resize is not None)
        source = load(spec, request)
    if checkpoint is not None:
        notes = load_checkpoint(source.module, checkpoint, weights_key)
        source = replace(source, notes=(*source.notes, *notes))
    return with_overrides(source, image_size, overrides)


def is_onnx(spec: str) -> bool:
    """Return True if a source is the path of an ONNX file."""
    return Path(spec).suffix.lower() == ".onnx"


def recorded_source(spec: str) -> str:
    """Return the text that names a source in a model file, without folders of this machine."""
    if is_onnx(spec):
        return Path(spec).name
    scheme, _, name = spec.partition(":")
    return f"{scheme}:{Path(name).resolve().name}" if scheme in _LOADERS and Path(name).is_dir() else spec


def _loader(spec: str) -> Loader:
    """Return the loader of a source."""
    if is_onnx(spec):
        return load_onnx
    scheme, colon, name = spec.partition(":")
    if colon and name:
        return _LOADERS.get(scheme, _load_factory)
    if Path(spec).is_dir():
        raise ExportArgumentError(
            f"{spec}: is a folder; write transformers:{spec} for one that save_pretrained wrote, or timm:{spec} for "
            f"one that timm's save_for_hf wrote"
        )
    if Path(spec).is_file():
        raise ExportArgumentError(
            f"{spec}: is not an ONNX file; if it is a checkpoint, load it into its network: seewhy export "
            f"package.module:factory --weights {spec}"
        )
    matches = [f"{library}:{match}" for library in _LOADERS if (match := closest_name(spec, _model_names(library)))]
    # A name that is exactly right in one library is better than a similar name in the other.
    match = closest_name(spec, [match.partition(":")[2] for match in matches])
    hint = next((f" Did you mean {full!r}?" for full in matches if full.partition(":")[2] == match), "")
    raise ExportArgumentError(f"Unknown source {spec!r}.{hint} {_FORMS}")


def _load_factory(spec: str, request: SourceRequest) -> Source:
    """Load a Python factory. If its module does not exist, suggest the library with a similar name."""
    try:
        return load_factory(spec, request)
    except ExportError as error:
        scheme, _, name = spec.partition(":")
        library = closest_name(scheme, _LOADERS)
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if library is None or missing != scheme:
            raise
        match = closest_name(name, _model_names(library)) or name
        raise ExportArgumentError(f"Unknown source {spec!r}. Did you mean '{library}:{match}'?") from error


def _model_names(library: str) -> list[str]:
    """Return the models of a library, or none if it is not installed or has no list."""
    try:
        return _NAME_LISTS[library]() if library in _NAME_LISTS else []
    except MissingExtraError:
        return []
