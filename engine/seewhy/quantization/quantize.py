"""Write a model file whose backbone computes in 8 bits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from seewhy._shared import checks
from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.contract.metadata import Metadata
from seewhy.contract.quantization import Drift, Quantization
from seewhy.errors import ArgumentError, ModelFileError, OutputError, SeewhyError
from seewhy.explainer.derived_models import check_destination, derived_metadata, write_model
from seewhy.explainer.explainer import Explainer, Images
from seewhy.quantization.backbone import Backbone, read_backbone
from seewhy.quantization.drift import measure_drift
from seewhy.quantization.float_layers import Candidates, search
from seewhy.quantization.image_split import split
from seewhy.runtime.model_file import ModelFile

METHOD = "weights by GPTQ, ranges by least squared error"
"""Calibration as the metadata names it."""
# Layers stay in float32 until the drift of the calibration images is at most this share of `max_drift`. The held-out
# images then stay below `max_drift`.
_TARGET = 1 / 3

Progress = Callable[[str, int, int], object]


def quantize(
    model: str | os.PathLike[str],
    images: Images,
    output: str | os.PathLike[str],
    *,
    lists: Sequence[str | os.PathLike[str]] = (),
    max_drift: float = 0.02,
    keep_float: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    skipped: Callable[[SeewhyError], object] | None = None,
) -> Quantization:
    """Write a model file whose backbone, the part up to the target layer, computes in 8 bits.

    The new file gives nearly the same maps and classes in a fraction of the time. Head, gradients and maps stay in
    float32. It serves all methods that need no gradient of the image.

    Two fifths of the images, at most 64, calibrate. At most 96 of the others measure the drift. The choice is random,
    but the same for the same list of images.

    Args:
        model: Path of a float32 model file. It is not changed.
        images: Images like those that will be explained, at least 20: files, folders, patterns or tar archives as
            `explain_folder` takes them, or a list or array as `Explainer.explain` takes it.
        output: Path of the new model file. Large weights go to the file `OUTPUT.data` beside it.
        lists: Files that list images, as for `explain_folder`.
        max_drift: Largest allowed drift, from 0 to 1: 1 minus the 5th percentile of the correlation of Grad-CAM maps
            with those of the float32 file. 1 accepts every file. It also decides how many layers stay in float32.
        keep_float: Number of layers to keep in float32: those that cost the maps most, found by measuring. None keeps
            as few as reach a third of `max_drift` on the calibration images.
        threads: Maximum number of threads; None is one for each usable core.
        progress: Function called as progress(phase, done, total).
        skipped: Function called with the error of each file that does not exist, and of each chosen image that cannot
            be read. Another image then takes its place. None raises the error.

    Returns:
        The precision and the measured drift, as the new file records them.

    Raises:
        ArgumentError: If an argument is not valid, there are fewer than 20 images, or `keep_float` leaves no layer in
            8 bits.
        ImageError: If one of the chosen images cannot be read or does not exist and `skipped` is None, or fewer than 20
            images can be read.
        MissingExtraError: If one of the chosen images needs an extra and `skipped` is None.
        ModelFileError: If the model file is not valid, is quantised, or has nothing to quantise.
        OutputError: If the drift exceeds `max_drift`, or the file cannot be written. Nothing is written then.
    """
    path = Path(checks.path("output", output))
    if isinstance(max_drift, bool) or not isinstance(max_drift, (int, float)) or not 0 <= max_drift <= 1:
        raise ArgumentError(f"max_drift must be a number from 0 to 1, not {brief(max_drift)}")
    if keep_float is not None and (not is_integer(keep_float) or keep_float < 0):
        raise ArgumentError(f"keep_float must be an integer of at least 0, or None, not {brief(keep_float)}")
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress must be a function of three arguments, not {brief(progress)}")
    if skipped is not None and not callable(skipped):
        raise ArgumentError(f"skipped must be a function of one argument, not {brief(skipped)}")
    float32 = Explainer(model, providers=["cpu"], threads=threads)
    file = ModelFile.read(float32.path)
    if file.sha256 != float32.sha256:
        raise ModelFileError(f"{file.path}: was replaced while it was read; quantise it again")
    check_destination(path, file)
    backbone = read_backbone(file)
    if keep_float is not None and keep_float >= len(backbone.layers):
        raise ArgumentError(
            f"keep_float={keep_float} leaves nothing to quantise: {file.name} has {len(backbone.layers)} layers up to "
            f"the target layer; give a smaller number"
        )
    calibration, held_out = split(images, lists, path, float32, skipped)
    show = progress or (lambda phase, done, total: None)
    with tempfile.TemporaryDirectory(prefix="seewhy-") as folder:
        candidates = Candidates(file, backbone, float32, calibration, Path(folder), show)
        kept, trades = search(candidates, keep_float, max_drift * _TARGET)
        small, graph, arrays = candidates.file(kept)
        show("measuring drift", 0, 1)
        drift = measure_drift(float32, small, held_out)
        show("measuring drift", 1, 1)
    _check_drift(path, drift, max_drift, len(kept), len(calibration))
    found = Quantization(
        float32_file=file.name,
        float32_sha256=file.sha256,
        weight_type="int8",
        activation_type="uint8",
        calibration=METHOD,
        calibration_images=len(calibration),
        int8_layers=len(backbone.layers) - len(kept),
        kept_float=_module_names(file.metadata, backbone, kept),
        drift=drift,
        trades=trades,
    )
    outputs = [value.name for value in graph.graph.output]
    metadata = derived_metadata(file, outputs, graph.graph, arrays)
    # Figures show the name of the model.
    named = replace(metadata.model, name=f"{metadata.model.name} int8")
    metadata = replace(metadata, model=named, parity={}, quantization=found)
    write_model(path, graph, metadata, arrays)
    return found


def _module_names(metadata: Metadata, backbone: Backbone, kept: Sequence[str]) -> tuple[str, ...]:
    """Return the modules of layers, or the names of their outputs where the file does not tell the module."""
    modules = {tensor: group.module for group in metadata.parameters or () for tensor in group.tensors}
    names = {layer.name: modules.get(layer.node.input[1]) or layer.name for layer in backbone.layers}
    # A module may have several layers.
    return tuple(name if list(names.values()).count(names[name]) > 1 else names[name] for name in kept)


def _check_drift(path: Path, drift: Drift, limit: float, kept: int, calibrated: int) -> None:
    """Raise an OutputError if the drift is too large."""
    if drift.value is None and limit < 1:
        raise OutputError(
            f"{path}: not written: every map of the {drift.images} held-out images is constant, so the drift is not "
            f"known; give other images, or accept every file with --max-drift 1"
        )
    if limit < 1 and drift.value is not None and drift.value > limit:
        raise OutputError(
            f"{path}: not written: its maps drift by {drift.value:.4f}, more than {limit:g} (the correlation with "
            f"float32's maps has the median {drift.correlation_median:.4f} and the 5th percentile "
            f"{drift.correlation_p5:.4f}, with {kept} layers in float32 and {calibrated} calibration images); give "
            f"more images, keep more than {kept} layers in float32 with --keep-float, or accept it with --max-drift"
        )
