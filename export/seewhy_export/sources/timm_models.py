"""`timm:NAME`: the library's models, with labels and preprocessing from its own configuration."""

from __future__ import annotations

import math
from typing import Any

from seewhy.contract.constants import INTERPOLATIONS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError, MissingExtraError
from seewhy_export._shared.messages import close_names
from seewhy_export.sources.downloads import own_weights
from seewhy_export.sources.source import Source, Wanted
from seewhy_export.sources.torchvision_import import import_torchvision


def load_timm(spec: str, wanted: Wanted) -> Source:
    """Make the model that `spec` names.

    Raises:
        ExportError: there is no such model, its weights cannot be had, or a model file cannot say how it shows
            photographs to itself.
        MissingExtraError: timm is not installed.
    """
    name = spec.partition(":")[2]
    import_torchvision()
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise MissingExtraError('timm is not installed; run: pip install "seewhy[timm]"') from error
    if not timm.is_model(name):
        raise ExportError(f"timm has no model {name!r}{close_names(name.partition('.')[0], timm.list_models())}")
    options: dict[str, Any] = {"pretrained": wanted.weights == "DEFAULT"}
    if wanted.class_count is not None:
        options["num_classes"] = wanted.class_count
    if wanted.channels is not None:
        options["in_chans"] = wanted.channels
    module = own_weights(spec, lambda: timm.create_model(name, **options))
    data: Any = timm.data
    config = data.resolve_model_data_config(module)
    subset = None if wanted.class_count is not None else data.infer_imagenet_subset(module)
    height, width = (int(size) for size in config["input_size"][1:])
    how = preprocessing_of(spec, config, (height, width), wanted.resize_given)
    preprocessing: Preprocessing | None = how
    notes: tuple[str, ...] = ()
    if wanted.channels not in (None, len(how.mean)):
        preprocessing = None
        notes = (f"{name}'s mean and std are for three channels and left out; --mean and --std give others",)
    return Source(
        module=module,
        name=name,
        labels=None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions()),
        preprocessing=preprocessing,
        image_size=(height, width),
        channels=wanted.channels,
        notes=notes,
    )


def preprocessing_of(spec: str, config: dict[str, Any], size: tuple[int, int], overridden: bool) -> Preprocessing:
    """What `timm.data.create_transform` does for evaluation, in the words of the file contract.

    It can say `center` for square inputs (the shorter side to size / crop_pct, then a centre crop) and `squash` to the
    whole input. It cannot say a squash that is then cropped, letterboxing (`border`), or `center` where H and W differ:
    there timm resizes by whichever side needs more.
    """
    mode, share, interpolation = config["crop_mode"], float(config["crop_pct"]), config["interpolation"]
    if interpolation not in INTERPOLATIONS:
        raise ExportError(f"{spec}: interpolation {interpolation!r} is not one of {', '.join(INTERPOLATIONS)}")
    height, width = size
    common: dict[str, Any] = {
        "interpolation": interpolation,
        "mean": tuple(float(value) for value in config["mean"]),
        "std": tuple(float(value) for value in config["std"]),
    }
    if mode == "squash" and (share == 1 or overridden):
        return Preprocessing(resize="squash", size=None, crop=False, **common)
    if (mode == "center" and height == width) or overridden:
        return Preprocessing(resize="shorter-side", size=math.floor(min(size) / share), crop=True, **common)
    raise ExportError(
        f"{spec}: timm shows it photographs in crop mode {mode!r} at {share:.1%} for {height}x{width} pixels, and a "
        f"model file cannot say so; choose a way with --resize squash or --resize shorter-side"
    )
