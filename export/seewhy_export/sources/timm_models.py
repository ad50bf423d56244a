"""`timm:NAME`: timm's models, with labels and preprocessing from its own configuration."""

from __future__ import annotations

import math
from typing import Any

from seewhy._shared.suggestions import closest_name
from seewhy.contract.constants import INTERPOLATIONS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportArgumentError, ExportError, MissingExtraError
from seewhy_export.sources.downloads import build_with_weights
from seewhy_export.sources.source import Source, SourceRequest
from seewhy_export.sources.torchvision_import import import_torchvision


def load_timm(spec: str, request: SourceRequest) -> Source:
    """Build the model that `spec` names.

    Args:
        spec: `timm:NAME`.
        request: What the user requests.

    Returns:
        The model with the labels and the preprocessing of its configuration.

    Raises:
        ExportError: If the model is unknown, its weights cannot be loaded, or a model file cannot record its
            preprocessing.
        MissingExtraError: If timm is not installed.
    """
    name = spec.partition(":")[2]
    timm = _import_timm()
    if not timm.is_model(name):
        match = closest_name(name.partition(".")[0], timm.list_models())
        hint = "" if match is None else f" Did you mean 'timm:{match}'?"
        raise ExportArgumentError(f"Unknown timm model {name!r}.{hint}")
    options: dict[str, Any] = {"pretrained": request.weights == "DEFAULT"}
    if request.class_count is not None:
        options["num_classes"] = request.class_count
    if request.channels is not None:
        options["in_chans"] = request.channels
    module = build_with_weights(spec, lambda: timm.create_model(name, **options))
    data: Any = timm.data
    config = data.resolve_model_data_config(module)
    subset = None if request.class_count is not None else data.infer_imagenet_subset(module)
    height, width = (int(size) for size in config["input_size"][1:])
    own = contract_preprocessing(spec, config, (height, width), request.resize_given)
    preprocessing: Preprocessing | None = own
    notes: tuple[str, ...] = ()
    if request.channels not in (None, len(own.mean)):
        preprocessing = None
        notes = (f"{name}: its mean and std are for three channels and were left out; set them with --mean and --std",)
    return Source(
        module=module,
        name=name,
        labels=None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions()),
        preprocessing=preprocessing,
        image_size=(height, width),
        channels=request.channels,
        notes=notes,
    )


def contract_preprocessing(
    spec: str, config: dict[str, Any], size: tuple[int, int], resize_given: bool
) -> Preprocessing:
    """Express what `timm.data.create_transform` does for evaluation in the terms of the file contract.

    The contract can express `center` for square inputs (resize the shorter side to size / crop_pct, then crop the
    centre) and `squash` to the whole input. It cannot express a squash that is cropped afterwards, letterboxing
    (`border`), or `center` if H and W differ, because timm then resizes by the side that needs more.

    Args:
        spec: Source to name in error messages.
        config: timm's data configuration of the model.
        size: (H, W) of the input in pixels.
        resize_given: True if the user chooses the resize mode, which then replaces the returned one.

    Returns:
        The preprocessing.

    Raises:
        ExportError: If the contract cannot express the preprocessing, unless `resize_given`.
    """
    mode, share, interpolation = config["crop_mode"], float(config["crop_pct"]), config["interpolation"]
    if interpolation not in INTERPOLATIONS:
        raise ExportError(f"{spec}: interpolation must be one of {', '.join(INTERPOLATIONS)}, not {interpolation!r}")
    height, width = size
    common: dict[str, Any] = {
        "interpolation": interpolation,
        "mean": tuple(float(value) for value in config["mean"]),
        "std": tuple(float(value) for value in config["std"]),
    }
    if mode == "squash" and (share == 1 or resize_given):
        return Preprocessing(resize="squash", size=None, crop=False, **common)
    if (mode == "center" and height == width) or resize_given:
        return Preprocessing(resize="shorter-side", size=math.floor(min(size) / share), crop=True, **common)
    raise ExportError(
        f"{spec}: a model file cannot record timm's crop mode {mode!r} at {share:.1%} for {height}x{width} pixels; "
        f"choose another with --resize squash or --resize shorter-side"
    )


def list_timm_models() -> list[str]:
    """List timm's models.

    Returns:
        Their names, as timm gives them.

    Raises:
        MissingExtraError: If timm is not installed.
    """
    return list(_import_timm().list_models())


def _import_timm() -> Any:
    """Return timm with its submodule `data`."""
    import_torchvision()
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError('timm is not installed; run: pip install "seewhy[timm]"') from error
    return timm
