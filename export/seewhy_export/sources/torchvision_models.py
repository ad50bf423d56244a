"""`torchvision:NAME`: torchvision's classifiers, with labels and preprocessing from its own metadata."""

from __future__ import annotations

from typing import Any

from seewhy._shared.suggestions import closest_name
from seewhy.errors import ExportArgumentError
from seewhy_export.sources.downloads import build_with_weights
from seewhy_export.sources.measured_preprocessing import source_preprocessing
from seewhy_export.sources.source import Source, SourceRequest
from seewhy_export.sources.torchvision_import import import_torchvision


def load_torchvision(spec: str, request: SourceRequest) -> Source:
    """Build the classifier that `spec` names.

    Args:
        spec: `torchvision:NAME`.
        request: What the user requests.

    Returns:
        The classifier with the labels and the preprocessing of its default weights.

    Raises:
        ExportError: If the classifier is unknown or its weights cannot be loaded.
        MissingExtraError: If torchvision is not installed.
    """
    name = spec.partition(":")[2]
    models = import_torchvision().models
    known = list_torchvision_models()
    if name not in known:
        match = closest_name(name, known)
        hint = "" if match is None else f" Did you mean 'torchvision:{match}'?"
        raise ExportArgumentError(f"Unknown torchvision classifier {name!r}.{hint}")
    if request.channels not in (None, 3):
        raise ExportArgumentError(
            f"{spec}: takes images of 3 channels and cannot be built for others; leave --channels out"
        )
    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {"weights": weights if request.weights == "DEFAULT" else None}
    if name in ("googlenet", "inception_v3") and request.weights != "DEFAULT":
        # Without this option, both warn that their slow initialisation will become optional.
        options["init_weights"] = True
    if request.class_count is not None:
        if request.weights == "DEFAULT":
            raise ExportArgumentError(
                f"{spec}: its own weights are for {len(weights.meta['categories'])} classes; --classes requires "
                f"--weights FILE or --weights none"
            )
        options["num_classes"] = request.class_count
    module = build_with_weights(spec, lambda: models.get_model(name, **options))
    transform = weights.transforms()
    preprocessing, size = source_preprocessing(spec, transform, [transform.interpolation.value], request.resize_given)
    return Source(
        module=module,
        name=name,
        labels=tuple(weights.meta["categories"]) if request.class_count is None else None,
        preprocessing=preprocessing,
        image_size=size or (224, 224),
    )


def list_torchvision_models() -> list[str]:
    """List torchvision's classifiers.

    Returns:
        Their names, as torchvision gives them.

    Raises:
        MissingExtraError: If torchvision is not installed.
    """
    models = import_torchvision().models
    return list(models.list_models(module=models))
