"""`timm:NAME`: timm's models, also from the Hugging Face hub or a folder, with their labels and preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seewhy._shared.extras import missing_extra
from seewhy._shared.suggestions import closest_name
from seewhy.contract.constants import INTERPOLATIONS
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export.sources.downloads import build_with_weights
from seewhy_export.sources.measured_preprocessing import source_preprocessing
from seewhy_export.sources.source import Source, SourceRequest
from seewhy_export.sources.torchvision_import import import_torchvision

_HUB = ("hf_hub:", "hf-hub:")
"""Prefixes of names of repositories on the Hugging Face hub, as timm writes them."""


def load_timm(spec: str, request: SourceRequest) -> Source:
    """Build the model that `spec` names.

    Args:
        spec: `timm:NAME`, `timm:hf_hub:ORG/NAME` for a repository of the Hugging Face hub, or `timm:FOLDER` for a
            folder that timm's `save_for_hf` wrote.
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
    model = _model_name(timm, spec)
    options: dict[str, Any] = {"pretrained": request.weights == "DEFAULT"}
    if request.class_count is not None:
        options["num_classes"] = request.class_count
    if request.channels is not None:
        options["in_chans"] = request.channels
    module = build_with_weights(spec, lambda: timm.create_model(model, **options))
    config = timm.data.resolve_model_data_config(module)
    channels = request.channels or int(config["input_size"][0])
    preprocessing, size = timm_preprocessing(spec, config, request.resize_given, channels)
    height, width = size or config["input_size"][1:]
    notes: tuple[str, ...] = ()
    if preprocessing is None:
        notes = (
            f"{name}: its mean and std are not for {channels} channels and were left out; set them with --mean and "
            f"--std",
        )
    return Source(
        module=module,
        name=Path(name).name if Path(name).is_dir() else name,
        labels=None if request.class_count is not None else _labels(timm.data, module),
        preprocessing=preprocessing,
        image_size=(int(height), int(width)),
        channels=channels,
        notes=notes,
    )


def _model_name(timm: Any, spec: str) -> str:
    """Return the name by which timm builds the model of a source."""
    name = spec.partition(":")[2]
    if name.startswith(_HUB):
        return name
    folder = Path(name)
    if folder.is_dir():
        # timm would also read a pickled checkpoint.
        if not (folder / "model.safetensors").is_file():
            raise ExportError(f"{spec}: the folder holds no model.safetensors; save the model with timm's save_for_hf")
        return f"local-dir:{name}"
    if not timm.is_model(name):
        match = closest_name(name.partition(".")[0], timm.list_models())
        hint = "" if match is None else f" Did you mean 'timm:{match}'?"
        raise ExportArgumentError(f"Unknown timm model {name!r}.{hint}")
    return name


def _labels(data: Any, module: Any) -> tuple[str, ...] | None:
    """Return the labels of a model: those of its configuration, or ImageNet's if it was trained on ImageNet."""
    config = module.pretrained_cfg
    names, descriptions = config.get("label_names"), config.get("label_descriptions") or {}
    if names:
        return tuple(str(descriptions.get(name, name)) for name in names)
    subset = data.infer_imagenet_subset(module)
    return None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions())


def timm_preprocessing(
    spec: str, config: dict[str, Any], resize_given: bool, channels: int = 3
) -> tuple[Preprocessing | None, tuple[int, int] | None]:
    """Express what `timm.data.create_transform` does for evaluation in the terms of the file contract.

    Args:
        spec: Source to name in error messages.
        config: timm's data configuration of the model.
        resize_given: True if the user chooses the resize mode, which then replaces the returned one.
        channels: Number of channels that the model takes.

    Returns:
        The preprocessing, or None if it is not for this number of channels. And (H, W) of the input in pixels, or None.

    Raises:
        ExportError: If the contract cannot express the preprocessing, unless `resize_given`.
    """
    transform = _import_timm().data.create_transform(**config)
    own = config["interpolation"]
    interpolations = [own] if own in INTERPOLATIONS else INTERPOLATIONS
    return source_preprocessing(spec, transform, interpolations, resize_given, channels)


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
        raise missing_extra("timm is not installed", "timm") from error
    return timm
