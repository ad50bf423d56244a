"""`torchvision:NAME`: the library's classifiers, with labels and preprocessing from its own metadata."""

from __future__ import annotations

from typing import Any

from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError
from seewhy_export._shared.messages import close_names
from seewhy_export.sources.downloads import own_weights
from seewhy_export.sources.source import Source, Wanted
from seewhy_export.sources.torchvision_import import import_torchvision


def load_torchvision(spec: str, wanted: Wanted) -> Source:
    """Make the classifier that `spec` names.

    Raises:
        ExportError: there is no such classifier, or its weights cannot be had.
        MissingExtraError: torchvision is not installed.
    """
    name = spec.partition(":")[2]
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise ExportError(f"torchvision has no classifier {name!r}{close_names(name, known)}")
    if wanted.channels not in (None, 3):
        raise ExportError(f"{spec}: takes images of 3 channels, and cannot be made for others; leave --channels out")
    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {"weights": weights if wanted.weights == "DEFAULT" else None}
    if name in ("googlenet", "inception_v3") and wanted.weights != "DEFAULT":
        # They otherwise warn that their slow initialisation will become optional.
        options["init_weights"] = True
    if wanted.class_count is not None:
        if wanted.weights == "DEFAULT":
            raise ExportError(
                f"{spec}: its own weights are for {len(weights.meta['categories'])} classes; --classes goes with "
                f"--weights FILE or --weights none"
            )
        options["num_classes"] = wanted.class_count
    module = own_weights(spec, lambda: models.get_model(name, **options))
    transform = weights.transforms()
    return Source(
        module=module,
        name=name,
        labels=tuple(weights.meta["categories"]) if wanted.class_count is None else None,
        preprocessing=Preprocessing(
            resize="shorter-side",
            size=int(transform.resize_size[0]),
            interpolation=str(transform.interpolation.value),
            crop=True,
            mean=tuple(float(value) for value in transform.mean),
            std=tuple(float(value) for value in transform.std),
        ),
        image_size=(int(transform.crop_size[0]),) * 2,
    )
