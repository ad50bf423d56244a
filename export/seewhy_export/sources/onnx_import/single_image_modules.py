"""Convert a module that takes one image at a time to one that takes any number, through an ONNX file of one image.

The conversion of ONNX files replaces the batch size in constant shapes by the actual one, which a trace of the module's
own code cannot do.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.error_measure import TOLERANCE, relative_error
from seewhy_export._shared.messages import one_line, quiet
from seewhy_export.sources.onnx_import.file_reading import OnnxFile, read_onnx
from seewhy_export.sources.onnx_import.graph_module import OnnxModule, check_operators
from seewhy_export.sources.onnx_import.loader import compare

# Key of a node's metadata under which torch.onnx stores the module paths around the node, outermost first.
_SCOPES = "pkg.torch.onnx.name_scopes"


def for_any_batch(
    module: nn.Module, channels: int, image_size: tuple[int, int]
) -> tuple[OnnxModule, Mapping[str, str]]:
    """Convert a module that takes one image at a time.

    Args:
        module: Prepared module that returns logits (1, class count) for images (1, C, H, W).
        channels: Number of image channels.
        image_size: (H, W) of the images in pixels.

    Returns:
        A module that takes images (N, C, H, W), and the path in it of the last operator of each module of the original.

    Raises:
        ExportError: If the module cannot be converted, or the result for several images differs from those of the
            original for each of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one_image.onnx"
        try:
            with quiet():
                torch.onnx.export(module, (torch.zeros(1, channels, *image_size),), path, dynamo=True, verbose=False)
        except Exception as error:
            raise ExportError(f"the network cannot be exported for one image: {one_line(error)}") from error
        file = read_onnx(path, None)
        check_operators(file)
        converted = OnnxModule(file, channels, image_size)

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([module(image[None]) for image in images])

    _check_batch(module, run, channels, image_size)
    compare(file, converted, run, channels, image_size, count=3)
    return converted, _module_ends(file, converted)


def _check_batch(
    module: nn.Module, run: Callable[[Tensor], Tensor], channels: int, image_size: tuple[int, int]
) -> None:
    """Raise an ExportError if the module accepts two images, and their results differ from those of each alone."""
    images = torch.randn(2, channels, *image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            together = module(images)
    except Exception:  # noqa: BLE001  the code of a network may raise anything
        return
    alone = run(images)
    error = relative_error(together, alone) if together.shape == alone.shape else None
    if error is not None and error > TOLERANCE:
        raise ExportError("the network's results for two images differ from those for each image alone")


def _module_ends(file: OnnxFile, converted: OnnxModule) -> dict[str, str]:
    """Return the path of the last operator of each module of the original."""
    ends: dict[str, str] = {}
    for node in file.model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        own = converted.layer_names.get(node.output[0])
        if own is not None:
            ends.update(dict.fromkeys(filter(None, ast.literal_eval(scopes)[:-1]), own))
    return ends
