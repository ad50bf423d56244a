"""List of the layers that can be the target layer of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.trial_run import trial_run
from seewhy_export.capture.forward_graph import example_images, trace_forward
from seewhy_export.capture.module_preparation import prepare, traceable
from seewhy_export.capture.network_outputs import find_output, returning
from seewhy_export.sources.argument_forms import as_image_size
from seewhy_export.sources.image_channels import find_channels
from seewhy_export.target_layer.selection import target_layer


@dataclass(frozen=True)
class LayerInfo:
    """Layer of a network whose output has places, so that an export can name it as target layer."""

    name: str
    """Module path, the value of the argument `layer`."""
    type: str
    """Class name of the module."""
    shape: tuple[int, ...]
    """Shape of its last output for one image, without the batch dimension, such as (512, 7, 7) or (197, 768)."""
    is_default: bool
    """True for the layer that an export chooses if no layer is named."""


def list_layers(
    module: nn.Module,
    image_size: int | tuple[int, int] = (224, 224),
    channels: int | None = None,
    head: str | int | None = None,
) -> tuple[LayerInfo, ...]:
    """List the layers of a classifier that `seewhy_export.export` can use as target layer.

    Args:
        module: Classifier that takes images (N, C, H, W), float32. It stays unchanged.
        image_size: (H, W) of the images in pixels, or one side of a square.
        channels: Number of image channels. None finds a number with which the module runs.
        head: Output that holds the logits, if the module returns several tensors.

    Returns:
        The modules that are called in the forward pass and return one tensor of at least two dimensions for each
        image, in the order of their last calls. An export refuses those whose output is neither a map nor tokens.

    Raises:
        ExportError: If the module cannot be traced or is not a classifier.
    """
    size = as_image_size(image_size)
    prepared = prepare(module)
    channels = find_channels(prepared, size) if channels is None else channels
    output = find_output(prepared, channels, size, head)
    converted = traceable(prepared, example_images(size, channels))
    shapes = _output_shapes(converted, channels, size)
    forward = trace_forward(returning(converted, output), size, channels, None)
    try:
        default = target_layer(forward, None).name
    except ExportError:  # the network has no map
        default = None
    modules = dict(converted.named_modules())
    return tuple(
        LayerInfo(name, type(modules[name]).__name__, shape, name == default)
        for name, shape in shapes.items()
        if len(shape) > 1
    )


def _output_shapes(module: nn.Module, channels: int, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of the last output of every module that returns one tensor, without the batch dimension."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            shapes.pop(name, None)  # so that the order is that of the last calls
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    handles = [part.register_forward_hook(record(name)) for name, part in module.named_modules() if name]
    try:
        trial_run(module, channels, image_size)
    finally:
        for handle in handles:
            handle.remove()
    return shapes
