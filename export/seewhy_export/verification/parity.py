"""Comparison of a model file with PyTorch autograd in float64.

The relative L2 error of each output may be at most the larger of 1e-4 and four times PyTorch's own float32 error on the
same input, and never more than 0.1. It is measured on noise, and on a synthetic scene with constant areas, in which
most neighbouring pixels tie.

A network has millions of rectifiers, and on most inputs one of them is within rounding of zero. Float32 may then switch
it the other way than float64, in PyTorch as often as here, and the gradient moves by 1e-4 to 1e-2. Chance decides which
kernels flip. Two steps allow for this. If an input alone does not decide, PyTorch's own error is the largest over the
input and its neighbours within one rounding. If the file still disagrees, another input is drawn, up to five times: a
flip disappears, and a fault remains.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import onnxruntime
import torch
from torch import Tensor, nn
from torch.fx import Interpreter

from seewhy.contract import constants as contract
from seewhy.errors import ExportError
from seewhy_export._shared.error_measure import error_bound, is_within_bound, relative_error
from seewhy_export._shared.messages import one_line
from seewhy_export.capture.forward_graph import ForwardGraph
from seewhy_export.capture.unsupported_networks import DEPENDENT
from seewhy_export.target_layer.selection import TargetLayer
from seewhy_export.verification.reference import (
    eager_output_and_gradient,
    reference_outputs,
    traced_output_and_gradient,
)

Errors = dict[str, float | None]
"""`error` of the file, `torch_float32`, which is PyTorch's own error, and `draw`, the number of the input."""
Parity = dict[str, dict[str, Errors]]
"""Errors by output and input kind."""

INPUT_KINDS = ("noise", "picture")
"""Kinds of test inputs; model files store these names."""
MAX_DRAWS = 5
"""Number of inputs of a kind that are tried before the file counts as wrong."""
NEIGHBOURS = 3
"""Number of neighbours of an input on which PyTorch's own error is measured."""

OutputFunction = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Function from images and targets to the outputs by name."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: on a busy machine, waiting for each other slows its threads up to 100 times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def check_traced_graph(module: nn.Module, forward: ForwardGraph) -> None:
    """Compare the traced graph with the module itself, which runs eagerly in float64.

    Args:
        module: Prepared network.
        forward: Forward graph traced from it.

    Raises:
        ExportError: If they differ, which happens where a module defines its own backward pass or depends on the batch
            size; or if an image's result depends on the other images of its batch.
    """
    images = draw_input("noise", 1, forward, (0.5,), (0.25,))
    try:
        _check_independence(forward, images)
        compared, eager = _run_eagerly(copy.deepcopy(module).double(), images.double())
        traced = traced_output_and_gradient(forward, compared)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"PyTorch itself cannot run the network's forward or backward pass: {one_line(error)}"
        ) from error
    for name, exact in eager.items():
        difference = relative_error(traced[name], exact)
        # Both are float64, so only another order of summation is allowed for.
        if difference is not None and not difference <= 1e-6:
            raise ExportError(
                f"the traced graph differs from the module it was traced from: {name} by {difference:.1e}; a module "
                f"with a backward pass of its own, or one that depends on the batch size, cannot be exported"
            )


def _run_eagerly(module: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the module on the first image alone, since the graph was traced with two, and return image and result."""
    try:
        return images[:1], eager_output_and_gradient(module, images[:1])
    except Exception:  # noqa: BLE001  squeeze() drops a batch dimension of 1, and then anything may fail
        return images, eager_output_and_gradient(module, images)


def _check_independence(forward: ForwardGraph, images: Tensor) -> None:
    """Check that an image's logits do not depend on the batch, as they do with a norm over batch statistics."""
    run = Interpreter(forward.graph_module)
    with torch.no_grad():
        in_batch, alone = (
            run.run(*forward.weights.values(), batch, enable_io_processing=False)[-1] for batch in (images, images[:1])
        )
    if not in_batch.isfinite().all():
        raise ExportError("the network itself computes NaN or infinity for images of noise; check its weights and code")
    difference = relative_error(alone, in_batch[:1])
    # Kernels for another batch size round differently. 1 % is far above that, and far below the effect of such a norm.
    if difference is not None and not difference <= 0.01:
        raise ExportError(f"{DEPENDENT} (the difference is {difference:.1%})")


@_one_thread()
def measure_parity(
    path: str | os.PathLike[str],
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    scope: tuple[str, ...] | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Parity:
    """Run a model file with onnxruntime and compare its outputs with PyTorch's.

    Args:
        path: Model file.
        forward: Forward graph of the network.
        layer: Target layer; None if no output needs one.
        outputs: Names of the file's outputs, in the file's order.
        scope: Module path prefixes inside which the guided and deconvnet rules apply; None applies them everywhere.
        mean: Per-channel mean of the preprocessing, or one value for all channels.
        std: Per-channel standard deviation of the preprocessing, or one value for all channels.

    Returns:
        The errors of each output and input kind, as relative L2 errors against float64. An error is None if the
        reference is zero: such an input tests nothing.

    Raises:
        ExportError: If the file disagrees on every draw, or if the target layer's gradient is zero on every input.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"onnxruntime cannot load the exported file: {one_line(error)}") from error

    def run_file(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        try:
            values = session.run(list(outputs), {contract.IMAGES: images.numpy(), contract.TARGETS: targets.numpy()})
        except Exception as error:
            raise ExportError(f"onnxruntime cannot run the exported file: {one_line(error)}") from error
        return {name: torch.from_numpy(value) for name, value in zip(outputs, values, strict=True)}

    # Without this gradient there is nothing to explain.
    decisive = contract.INPUT_GRADIENTS if layer is None else contract.GRADIENTS
    run_pytorch = partial(_run_reference, forward, layer, tuple(dict.fromkeys([*outputs, decisive])), scope)
    draw = partial(draw_input, forward=forward, mean=mean, std=std)
    parity: Parity = {name: {} for name in outputs}
    nonzero = []
    for kind in INPUT_KINDS:
        errors, exact = _measure_kind(kind, draw, run_file, run_pytorch, forward.class_count)
        nonzero.append(bool(exact[decisive].any()))
        for name in outputs:
            parity[name][kind] = errors[name]
    if not any(nonzero):
        raise ExportError(
            "the gradient of the images is identically zero on every test input, so there is nothing to explain"
            if layer is None
            else f"layer {layer.name!r}: its gradient is identically zero on every test input; name another layer"
        )
    return parity


def _measure_kind(
    kind: str,
    draw: Callable[[str, int], Tensor],
    run_file: OutputFunction,
    run_pytorch: OutputFunction,
    class_count: int,
) -> tuple[dict[str, Errors], dict[str, Tensor]]:
    """Return the errors on the first draw on which all outputs agree, and the exact values of that draw."""
    for number in range(1, MAX_DRAWS + 1):
        images = draw(kind, number)
        # The first image explains its predicted class, the second another class.
        targets = torch.tensor([contract.PREDICTED, class_count // 2][: images.shape[0]])
        ours, exact = run_file(images, targets), run_pytorch(images.double(), targets)
        errors: dict[str, Errors] = {
            name: {"error": relative_error(value, exact[name]), "torch_float32": None, "draw": number}
            for name, value in ours.items()
        }
        for neighbour in range(1 + NEIGHBOURS):
            float32 = run_pytorch(_neighbour_within_rounding(images, neighbour) if neighbour else images, targets)
            for name, values in errors.items():
                values["torch_float32"] = _larger(values["torch_float32"], relative_error(float32[name], exact[name]))
            wrong = [name for name, values in errors.items() if not agrees(values)]
            if not wrong:
                return errors, exact
    disagreements = [f"{name} on {kind}: {_describe_disagreement(errors[name])}" for name in wrong]
    raise ExportError(f"the exported file disagrees with PyTorch and was not kept: {'; '.join(disagreements)}")


def _describe_disagreement(errors: Errors) -> str:
    return f"relative error {errors['error']:.1e}, allowed {error_bound(errors['torch_float32']):.1e}"


def _neighbour_within_rounding(images: Tensor, steps: int) -> Tensor:
    """Scale images by a few float32 roundings. Equal pixels stay equal, so ties stay ties."""
    return images * (1 + steps * torch.finfo(images.dtype).eps)


def agrees(errors: Errors) -> bool:
    """Tell whether errors keep their bound. An error of None (zero reference) passes; see `untested_outputs`."""
    return is_within_bound(errors["error"], errors["torch_float32"])


def _larger(one: float | None, other: float | None) -> float | None:
    """Return the larger of two errors, of which None are unknown."""
    known = [error for error in (one, other) if error is not None]
    return max(known) if known else None


def _run_reference(
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    scope: tuple[str, ...] | None,
    images: Tensor,
    targets: Tensor,
) -> dict[str, Tensor]:
    """Compute the reference in the dtype of `images`."""
    try:
        return reference_outputs(forward, layer, outputs, images, targets, scope)
    except Exception as error:
        raise ExportError(f"PyTorch itself cannot run the reference in {images.dtype}: {one_line(error)}") from error


def draw_input(kind: str, draw: int, forward: ForwardGraph, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Draw test images as they look after preprocessing.

    Args:
        kind: `noise` for two images of Gaussian noise, `picture` for one synthetic scene with constant areas.
        draw: Seed; each draw gives other images.
        forward: Forward graph, whose image size and channels are used.
        mean: Per-channel mean of the preprocessing, or one value for all channels.
        std: Per-channel standard deviation of the preprocessing, or one value for all channels.

    Returns:
        Images, float32 of shape (N, C, H, W).
    """
    generator = torch.Generator().manual_seed(draw)
    shape = (forward.channels, *forward.image_size)
    if kind == "noise":
        # Two images, so that the batch dimension is tested too.
        return torch.randn(2, *shape, generator=generator)
    pixels = _draw_scene(shape, generator)
    shift, scale = (torch.tensor(_for_channels(values, shape[0])).reshape(-1, 1, 1) for values in (mean, std))
    return ((pixels - shift) / scale)[None]


def _draw_scene(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Draw a smooth 8-bit scene with a white border and a black rectangle, which are large areas of one value."""
    channels, height, width = shape
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)[None, :]
    phases = 6.3 * torch.rand(channels, 2, generator=generator)
    planes = [0.5 + 0.4 * torch.sin(7 * x + a) * torch.cos(5 * y + b) for a, b in phases.tolist()]
    pixels = (torch.stack(planes) * 255).round() / 255
    rows, columns = max(1, height // 8), max(1, width // 8)
    pixels[:, height // 2 : height // 2 + rows, width // 4 : width // 2] = 0.0
    for border in (pixels[:, :rows], pixels[:, -rows:], pixels[:, :, :columns], pixels[:, :, -columns:]):
        border.fill_(1.0)
    return pixels


def _for_channels(values: Sequence[float], channels: int) -> list[float]:
    """Return one value per channel; if there are too many or too few, repeat the first."""
    return list(values) if len(values) == channels else [float(values[0])] * channels


def redrawn_kinds(parity: Parity) -> list[str]:
    """Return the input kinds whose first draw disagreed, so that a later draw decided."""
    return sorted({kind for kinds in parity.values() for kind, errors in kinds.items() if (errors["draw"] or 1) > 1})


def untested_outputs(parity: Parity) -> list[str]:
    """Return the outputs whose reference was zero on every input, which tests nothing."""
    return [name for name, kinds in parity.items() if all(errors["error"] is None for errors in kinds.values())]


def largest_error(parity: Parity) -> float:
    """Return the largest relative L2 error of any output on any input kind; outputs that were not tested have none."""
    return max((errors["error"] or 0.0 for kinds in parity.values() for errors in kinds.values()), default=0.0)


def parity_table(parity: Parity) -> str:
    """Format the errors as a text table with one line per output."""
    kinds = list(next(iter(parity.values()), {}))
    lines = ["  ".join([f"{'relative L2 error':<18}", *(f"{kind:>8} (torch f32)" for kind in kinds)])]
    for name, values in parity.items():
        cells = [f"{_number(v['error']):>8} {'(' + _number(v['torch_float32']) + ')':>11}" for v in values.values()]
        lines.append("  ".join([f"{name:<18}", *cells]))
    return "\n".join(lines)


def _number(error: float | None) -> str:
    return "untested" if error is None else f"{error:.1e}"
