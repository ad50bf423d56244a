"""Where a network comes from: `torchvision:NAME`, `timm:NAME` or `package.module:factory`.

Each source gives the module, its labels and its preprocessing, from its own metadata.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.contract import INTERPOLATIONS, Preprocessing
from seewhy.errors import ExportError, MissingExtraError

from .forward import one_line
from .torchvision_import import import_torchvision


@dataclass(frozen=True)
class Source:
    """A network and what it takes to use it. A `package.module:factory` may return one, or just the module."""

    module: nn.Module
    name: str | None = None
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    image_size: tuple[int, int] = (224, 224)
    """(H, W) in pixels."""
    score: str = "softmax"


def load_source(
    spec: str,
    weights: str = "DEFAULT",
    size: tuple[int, int] | None = None,
    resize: str | None = None,
    seed: int = 0,
) -> Source:
    """Make the network that `spec` names.

    Args:
        spec: `torchvision:NAME`, `timm:NAME` or `package.module:factory`.
        weights: `DEFAULT` (the source's own, perhaps downloaded), `none` (random, from `seed`) or a checkpoint's path.
        size: (H, W) of the input in place of the source's own.
        resize: a mode of the file contract in place of the source's own.
        seed: for random weights.

    Raises:
        ExportError: there is no such network, or its weights cannot be had.
        MissingExtraError: the library that it comes from is not installed.
    """
    scheme, colon, name = spec.partition(":")
    if not colon or not name:
        raise ExportError(f"{spec!r} is no source; write torchvision:NAME, timm:NAME or package.module:factory")
    load = _LOADERS.get(scheme, _load_factory)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Advice about initialisation and deprecations is for those who write these networks.
        warnings.simplefilter("ignore")
        source = load(spec, weights)
    if weights not in ("DEFAULT", "none"):
        load_checkpoint(source.module, Path(weights))
    return _with_size(source, size, resize)


def _with_size(source: Source, size: tuple[int, int] | None, resize: str | None) -> Source:
    """Another input size keeps the share of the picture that a centre crop shows."""
    preprocessing = source.preprocessing
    if preprocessing is not None and size is not None and preprocessing.size is not None:
        scaled = round(preprocessing.size * min(size) / min(source.image_size))
        preprocessing = replace(preprocessing, size=scaled)
    if resize is not None:
        if preprocessing is None:
            raise ExportError(f"--resize {resize} needs a source that says how pixels are normalised")
        shorter = min(size or source.image_size) if resize == "shorter-side" else None
        preprocessing = replace(
            preprocessing,
            resize=resize,
            size=preprocessing.size or shorter if shorter else None,
            crop=shorter is not None,
        )
    return replace(source, preprocessing=preprocessing, image_size=size or source.image_size)


# torchvision


def _load_torchvision(spec: str, weights: str) -> Source:
    name = spec.partition(":")[2]
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise ExportError(f"torchvision has no classifier {name!r}{_close(name, known)}")
    default = models.get_model_weights(name).DEFAULT
    # GoogLeNet and Inception otherwise warn that their slow initialisation will become optional.
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") and weights != "DEFAULT" else {}
    module = _own_weights(
        spec, lambda: models.get_model(name, weights=default if weights == "DEFAULT" else None, **options)
    )
    transform = default.transforms()
    return Source(
        module=module,
        name=name,
        labels=tuple(default.meta["categories"]),
        preprocessing=Preprocessing(
            resize="shorter-side",
            size=int(transform.resize_size[0]),
            interpolation=_interpolation(transform.interpolation.value),
            crop=True,
            mean=tuple(float(value) for value in transform.mean),
            std=tuple(float(value) for value in transform.std),
        ),
        image_size=(int(transform.crop_size[0]),) * 2,
    )


# timm


def _load_timm(spec: str, weights: str) -> Source:
    name = spec.partition(":")[2]
    import_torchvision()
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError('timm is not installed; run: pip install "seewhy[timm]"') from error
    if not timm.is_model(name):
        raise ExportError(f"timm has no model {name!r}{_close(name.partition('.')[0], timm.list_models())}")
    module = _own_weights(spec, lambda: timm.create_model(name, pretrained=weights == "DEFAULT"))
    data: Any = timm.data
    config = data.resolve_model_data_config(module)
    subset = data.infer_imagenet_subset(module)
    labels = None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions())
    height, width = (int(size) for size in config["input_size"][1:])
    squash = config["crop_mode"] == "squash"
    if config["crop_mode"] not in ("center", "squash") or (squash and config["crop_pct"] != 1):
        raise ExportError(
            f"{spec}: it shows {config['crop_pct']:.1%} in mode {config['crop_mode']!r}, and a model file cannot say "
            f"so; wrap timm.create_model in a factory of your own that returns a seewhy_export.Source"
        )
    return Source(
        module=module,
        name=name,
        labels=labels,
        preprocessing=Preprocessing(
            resize="squash" if squash else "shorter-side",
            size=None if squash else math.floor(min(height, width) / config["crop_pct"]),
            interpolation=_interpolation(config["interpolation"]),
            crop=not squash,
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
        ),
        image_size=(height, width),
    )


# package.module:factory


def _load_factory(spec: str, weights: str) -> Source:
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ExportError(f"{spec}: no module named {error.name!r}") from error
    except Exception as error:
        raise ExportError(f"{spec}: importing {module_name} failed: {one_line(error)}") from error
    if not callable(factory):
        raise ExportError(f"{spec}: {module_name} has no function {attribute!r}")
    try:
        made = factory()
    except (ExportError, MissingExtraError):
        raise
    except Exception as error:
        raise ExportError(f"{spec}: calling {attribute}() failed: {one_line(error)}") from error
    source = made if isinstance(made, Source) else Source(made)
    if not isinstance(source.module, nn.Module):
        raise ExportError(
            f"{spec}: it gave {type(made).__name__}; a torch.nn.Module or a seewhy_export.Source is needed"
        )
    return source if source.name is not None else replace(source, name=attribute)


_LOADERS: dict[str, Callable[[str, str], Source]] = {"torchvision": _load_torchvision, "timm": _load_timm}


# Weights


def _own_weights(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except Exception as error:
        # Hubs raise their own kinds: URLError, HfHubHTTPError, RuntimeError for a wrong hash.
        raise ExportError(
            f"{spec} cannot be made: {one_line(error)}; give --weights FILE, or --weights none for random ones"
        ) from error


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Load a state dict into `module`, without unpickling anything but tensors.

    Raises:
        ExportError: the file is missing, needs code to load, or does not fit the module.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path}: holds more than tensors, and loading that could run its code; save model.state_dict() instead"
        ) from error
    except Exception as error:
        raise ExportError(f"{path}: not a PyTorch checkpoint: {one_line(error)}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ExportError(f"{path}: not a state dict (a name for each tensor); save model.state_dict()")
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ExportError(f"{path}: does not fit the network: {' '.join(str(error).split())[:300]}") from error
    if missing or unexpected:
        parts = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has unknown", unexpected)) if names]
        raise ExportError(f"{path}: does not fit the network: it {' and '.join(parts)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _interpolation(name: Any) -> str:
    if name not in INTERPOLATIONS:
        raise ExportError(f"interpolation {name!r} is not supported; one of {', '.join(INTERPOLATIONS)} is needed")
    return str(name)


def _close(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"; close names: {', '.join(close)}" if close else ""
