"""`FILE.onnx`: for a network whose PyTorch source nobody has. Converted, and held to the file itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.error_measure import TOLERANCE, is_within_bound, relative_error
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.onnx_import.file_reading import Input, OnnxFile, read_onnx
from seewhy_export.sources.onnx_import.graph_module import OnnxModule, refuse_unknown
from seewhy_export.sources.source import Source, Wanted

DRAWS = 5
HALF_TOLERANCE = 2e-2
"""A file that computes in half precision rounds each value by up to 5e-4."""


def load_onnx(spec: str, wanted: Wanted) -> Source:
    """Convert the ONNX file at `spec`, and compare what comes out with what onnxruntime computes from the file.

    Raises:
        ExportError: the file cannot be read or converted, or its answers are others.
    """
    path = Path(spec)
    if wanted.weights != "DEFAULT":
        raise ExportError(f"--weights {wanted.weights}: an ONNX file holds its own weights")
    if wanted.class_count is not None:
        raise ExportError(f"--classes {wanted.class_count}: an ONNX file has its own")
    file = read_onnx(path, wanted.head)
    channels, size = _channels(path, file.input, wanted.channels), _size(path, file.input, wanted.size)
    refuse_unknown(file)
    _check_valid(file)
    module = OnnxModule(file, channels, size)
    run = original(file)
    error = compare(file, module, run, channels, size)
    notes = [f"converted from {path.name}; its output differs from onnxruntime's by {error:.1e} (relative L2)"]
    if file.input.batch is not None:
        fixed = "one image" if file.input.batch == 1 else f"{file.input.batch} images"
        notes.append(f"the file is for {fixed} at a time, the exported one for any number")
    if file.input.channels_last:
        notes.append("the file takes images (N, H, W, C), the exported one (N, C, H, W)")
    return Source(
        module=module,
        name=path.stem,
        image_size=size,
        channels=channels,
        notes=tuple(notes),
        layer_names=module.layer_names,
    )


def _channels(path: Path, declared: Input, wanted: int | None) -> int:
    if declared.channels is None and wanted is None:
        raise ExportError(f"{path}: leaves the number of channels open; give --channels")
    if None not in (declared.channels, wanted) and declared.channels != wanted:
        raise ExportError(f"--channels {wanted}: {path} takes {declared.channels}")
    return declared.channels or wanted or 0


def _size(path: Path, declared: Input, wanted: tuple[int, int] | None) -> tuple[int, int]:
    height, width = declared.size
    if wanted is None:
        if height is None or width is None:
            raise ExportError(f"{path}: leaves the image size open; give --size, for example --size 224")
        return height, width
    if (height or wanted[0], width or wanted[1]) != wanted:
        fixed = "x".join("any" if length is None else str(length) for length in declared.size)
        raise ExportError(f"--size {wanted[0]}x{wanted[1]}: {path} is fixed to {fixed}")
    return wanted


Run = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> (N, classes), both float32."""


def compare(file: OnnxFile, module: OnnxModule, run: Run, channels: int, size: tuple[int, int]) -> float:
    """The larger relative L2 error of the module's output against onnxruntime's for the file, on noise and a picture.

    onnxruntime's sigmoid and others stop at a small value, which large activations make larger, so an input on which
    the two disagree is drawn again: that goes away, and a fault stays.

    Raises:
        ExportError: they disagree on every draw, or onnxruntime cannot run the file.
    """
    shape = (file.input.batch or 2, channels, *size)
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
                f"{file.path}: the converted network's output differs from onnxruntime's by {min(errors):.1e} "
                f"(relative L2) on {kind}, so it was not converted rightly; please report the file's operators"
            )
        worst = max(worst, errors[-1])
    return worst


def _compared(file: OnnxFile, module: OnnxModule, run: Run, images: Tensor, kind: str) -> tuple[float, bool]:
    """The error on these images, and whether rounding can explain it."""
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
    return torch.randn(*shape, generator=generator)


def _picture(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Large areas of one value each, as they look after preprocessing."""
    patches = torch.randint(0, 256, (*shape[:2], 5, 4), generator=generator) / 255
    rows, columns = ((torch.arange(length) * count) // length for length, count in zip(shape[2:], (5, 4), strict=True))
    return (patches[:, :, rows][..., columns] - 0.45) / 0.25


_KINDS = {"noise": _noise, "a picture": _picture}


def _run_for(fixed: int | None, run: Run, images: Tensor) -> Tensor:
    try:
        return run(images)
    except ExportError:
        if fixed is not None or len(images) == 1:
            raise
        # Some files say that any batch will do, and hold shapes for one image.
        return torch.cat([run(image[None]) for image in images])


def original(file: OnnxFile) -> Run:
    """The file under onnxruntime.

    Raises:
        ExportError: onnxruntime cannot load it.
    """
    session = _session(file, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    dtype = helper.tensor_dtype_to_np_dtype(file.input.element_type)

    def run(images: Tensor) -> Tensor:
        given = images.permute(0, 2, 3, 1) if file.input.channels_last else images
        try:
            (value,) = session.run([file.output], {file.input.name: given.contiguous().numpy().astype(dtype)})
        except Exception as error:
            raise ExportError(f"{file.path}: onnxruntime cannot run it: {one_line(error)}") from error
        return torch.from_numpy(value.astype("float32")).flatten(1)

    return run


def _check_valid(file: OnnxFile) -> None:
    """Check that the graph is valid ONNX.

    Optimisations may compute constants, whose sizes have not been checked yet, so they are off.

    Raises:
        ExportError: onnxruntime cannot load it.
    """
    _session(file, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def _session(file: OnnxFile, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
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
