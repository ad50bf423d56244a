"""`FILE.onnx`: convert an ONNX classifier to PyTorch, and compare the result with onnxruntime."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn

from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.error_measure import TOLERANCE, is_within_bound, relative_error
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.onnx_import.file_reading import ImageInput, OnnxFile, read_onnx
from seewhy_export.sources.onnx_import.graph_module import OnnxModule, check_operators
from seewhy_export.sources.source import Source, SourceRequest

DRAWS = 5
"""Maximum number of random inputs of one kind."""
HALF_TOLERANCE = 2e-2
"""Relative L2 error that is allowed for files in half precision, which round each value by up to 5e-4."""


def load_onnx(spec: str, request: SourceRequest) -> Source:
    """Convert the ONNX file at `spec` to PyTorch, and compare its output with onnxruntime's.

    Args:
        spec: Path of the ONNX file.
        request: What the user requests.

    Returns:
        The converted network, with the names of the ONNX nodes and values as alternative layer names.

    Raises:
        ExportError: If the file cannot be read or converted, or the outputs differ.
    """
    path = Path(spec)
    if request.weights != "DEFAULT":
        raise ExportArgumentError(
            f"--weights {request.weights}: an ONNX file holds its own weights; leave --weights out"
        )
    if request.class_count is not None:
        raise ExportArgumentError(
            f"--classes {request.class_count}: an ONNX file has a fixed number of classes; leave --classes out"
        )
    file = read_onnx(path, request.head)
    channels, size = _channels(path, file.input, request.channels), _size(path, file.input, request.image_size)
    check_operators(file)
    _check_valid(file)
    module = OnnxModule(file, channels, size)
    run = file_runner(file)
    error = compare(file, module, run, channels, size)
    notes = [f"converted from {path.name}; its output differs from onnxruntime's by {error:.1e} (relative L2)"]
    if file.input.batch is not None:
        fixed = "one image" if file.input.batch == 1 else f"{file.input.batch} images"
        notes.append(f"the ONNX file takes {fixed} at a time; the exported file takes any number")
    if file.input.channels_last:
        notes.append("the ONNX file takes images (N, H, W, C); the exported file takes (N, C, H, W)")
    return Source(
        module=module,
        name=path.stem,
        image_size=size,
        channels=channels,
        notes=tuple(notes),
        layer_names=module.layer_names,
    )


def _channels(path: Path, declared: ImageInput, requested: int | None) -> int:
    """Return the number of image channels."""
    if declared.channels is None and requested is None:
        raise ExportError(f"{path}: does not define the number of channels; give --channels")
    if None not in (declared.channels, requested) and declared.channels != requested:
        raise ExportArgumentError(f"--channels {requested}: {path} takes {declared.channels}")
    return declared.channels or requested or 0


def _size(path: Path, declared: ImageInput, requested: tuple[int, int] | None) -> tuple[int, int]:
    """Return (H, W) of the input in pixels."""
    height, width = declared.size
    if requested is None:
        if height is None or width is None:
            raise ExportError(f"{path}: does not define the image size; give --size, for example --size 224")
        return height, width
    if (height or requested[0], width or requested[1]) != requested:
        fixed = "x".join("any" if length is None else str(length) for length in declared.size)
        raise ExportArgumentError(f"--size {requested[0]}x{requested[1]}: {path} is fixed to {fixed}")
    return requested


Run = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) -> logits (N, class count), both float32."""


def compare(
    file: OnnxFile, module: OnnxModule, run: Run, channels: int, size: tuple[int, int], count: int | None = None
) -> float:
    """Compare the module's output with that of the original, on noise and on a picture.

    The sigmoid of onnxruntime and some other functions stop at a small value, and large activations magnify that
    difference. If the outputs differ on an input, another input is drawn, up to 5 of each kind: such a difference goes
    away, and a fault stays.

    Args:
        file: The pruned ONNX file.
        module: The converted network.
        run: Function that runs the original: the file with onnxruntime, or the module that it came from.
        channels: Number of image channels.
        size: (H, W) of the images in pixels.
        count: Number of images. None takes the batch size of the file, or 2 if it accepts any.

    Returns:
        The larger of the two relative L2 errors.

    Raises:
        ExportError: If the outputs differ on every draw, or onnxruntime cannot run the file.
    """
    shape = (count or file.input.batch or 2, channels, *size)
    worst = 0.0
    for kind, draw in _KINDS.items():
        errors = []
        for seed in range(DRAWS):
            error, agrees = _compared(file, module, run, draw(shape, torch.Generator().manual_seed(seed)), kind)
            errors.append(error)
            if agrees:
                break
        else:
            raise ExportError(
                f"{file.path}: the converted network's output differs from the original's by {min(errors):.1e} "
                f"(relative L2) on {kind}, so it was not converted rightly; please report the file's operators"
            )
        worst = max(worst, errors[-1])
    return worst


def _compared(file: OnnxFile, module: OnnxModule, run: Run, images: Tensor, kind: str) -> tuple[float, bool]:
    """Return the relative L2 error on these images, and True if rounding can explain it."""
    exact = _run_for(file.input.batch, run, images)
    if not exact.isfinite().all():
        raise ExportError(f"{file.path}: onnxruntime computes NaN or infinity from it on {kind}; it is damaged")
    value = _answer(module, images)
    error = relative_error(value, exact)
    if error is None:  # No error is relative to zero, and only zeros agree with it.
        return (math.inf, False) if value.any() else (0.0, True)
    tolerance = HALF_TOLERANCE if file.half else TOLERANCE
    if error <= tolerance:
        return error, True
    float32_error = relative_error(value, _answer(copy.deepcopy(module).double(), images.double()))
    return error, is_within_bound(error, float32_error, tolerance)


def _noise(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Return images of Gaussian noise."""
    return torch.randn(*shape, generator=generator)


def _picture(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Return images of large constant areas, with values as after preprocessing."""
    patches = torch.randint(0, 256, (*shape[:2], 5, 4), generator=generator) / 255
    rows, columns = ((torch.arange(length) * count) // length for length, count in zip(shape[2:], (5, 4), strict=True))
    return (patches[:, :, rows][..., columns] - 0.45) / 0.25


_KINDS = {"noise": _noise, "a picture": _picture}


def _run_for(fixed: int | None, run: Run, images: Tensor) -> Tensor:
    """Return the logits for the images, one by one if the file cannot run them together."""
    try:
        return run(images)
    except ExportError:
        if fixed is not None or len(images) == 1:
            raise
        # Some files declare any batch size but hold shapes for one image.
        return torch.cat([run(image[None]) for image in images])


def file_runner(file: OnnxFile) -> Run:
    """Load the file in onnxruntime.

    Args:
        file: The pruned ONNX file.

    Returns:
        Function from images (N, C, H, W) to logits (N, class count), both float32.

    Raises:
        ExportError: If onnxruntime cannot load the file.
    """
    session = _session(file, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    dtype = helper.tensor_dtype_to_np_dtype(file.input.element_type)

    def run(images: Tensor) -> Tensor:
        in_layout = images.permute(0, 2, 3, 1) if file.input.channels_last else images
        try:
            (value,) = session.run([file.output], {file.input.name: in_layout.contiguous().numpy().astype(dtype)})
        except Exception as error:
            raise ExportError(f"{file.path}: onnxruntime cannot run it: {one_line(error)}") from error
        return torch.from_numpy(value.astype("float32")).flatten(1)

    return run


def _check_valid(file: OnnxFile) -> None:
    """Check that the graph is valid ONNX, and raise an ExportError if onnxruntime cannot load it.

    Optimisations are off, because they may compute constants whose sizes have not been checked yet.
    """
    _session(file, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def _session(file: OnnxFile, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    """Return a session of the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    folder = str(file.path.resolve().parent)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        content = file.model.SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{file.path}: onnxruntime cannot load it: {one_line(error)}") from error


def _answer(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = module(images)
    return answer
