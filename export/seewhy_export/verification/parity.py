"""The file's answers against PyTorch autograd in float64.

The measure, for each output: relative L2 error at most the larger of 1e-4 and four times PyTorch's own float32 error on
the same input, and never more than 0.1. It is taken on noise, and on a picture with constant areas, where ties between
neighbours are the rule.

A network has millions of rectifiers, and on most inputs one of them sits within rounding of zero: float32 then switches
it the other way than float64, in PyTorch as often as here, and the gradient moves by 1e-4 to 1e-2. Which kernels flip
is chance. So PyTorch's own error is the worst over an input and its neighbours within one rounding, where the input
alone does not settle it; and an input on which the file still disagrees is drawn again, a few times: a flip goes away,
a fault stays.
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
from seewhy_export.target_layer.selection import TargetLayer
from seewhy_export.verification.reference import eager_reference, reference, traced_reference

Errors = dict[str, float | None]
Parity = dict[str, dict[str, Errors]]

KINDS = ("noise", "picture")
DRAWS = 5
NEIGHBOURS = 3


Compute = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""(images, targets) -> outputs."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: on a busy machine its threads wait for each other, up to a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def check_graph(module: nn.Module, forward: ForwardGraph) -> None:
    """Hold the traced graph to the module itself, run eagerly in float64.

    Raises:
        ExportError: they differ, as where a module has a derivative of its own or depends on the batch size; or the
            answer for an image depends on the others of its batch.
    """
    images = draw_input("noise", 1, forward, (0.5,), (0.25,))
    try:
        _check_independence(forward, images)
        compared, eager = _eager(copy.deepcopy(module).double(), images.double())
        traced = traced_reference(forward, compared)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"PyTorch itself cannot run the network's forward or backward pass: {one_line(error)}"
        ) from error
    for name, exact in eager.items():
        difference = relative_error(traced[name], exact)
        # Both are float64, so this leaves room for another order of summation and nothing else.
        if difference is not None and not difference <= 1e-6:
            raise ExportError(
                f"the traced graph differs from the module it was traced from: {name} by {difference:.1e}; a module "
                f"with a backward pass of its own, or one that depends on the batch size, cannot be exported"
            )


def _eager(module: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The images that a module was run on, and its answer: for one alone, since the graph was traced with two."""
    try:
        return images[:1], eager_reference(module, images[:1])
    except Exception:  # noqa: BLE001  squeeze() and the like lose the batch of one, and then anything may fail
        return images, eager_reference(module, images)


def _check_independence(forward: ForwardGraph, images: Tensor) -> None:
    """An image's logits are its own. A norm by the statistics of the batch, for one, would make them everyone's."""
    run = Interpreter(forward.graph_module)
    with torch.no_grad():
        together, alone = (
            run.run(*forward.weights.values(), batch, enable_io_processing=False)[-1] for batch in (images, images[:1])
        )
    if not together.isfinite().all():
        raise ExportError("the network itself computes NaN or infinity for images of noise; check its weights and code")
    difference = relative_error(alone, together[:1])
    # Other kernels for another batch size round otherwise; 1 % is far above that and far below such a norm's effect.
    if difference is not None and not difference <= 0.01:
        raise ExportError(
            f"the network's answer for an image depends on the other images of the batch (by {difference:.1%}), so it "
            f"has no explanation of its own; look for operations over dimension 0, or a norm without running statistics"
        )


@_one_thread()
def measure(
    path: str | os.PathLike[str],
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    scope: tuple[str, ...] | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Parity:
    """Run the file under onnxruntime, and compare.

    Returns:
        output -> input kind -> `error` (ours) and `torch_float32` (PyTorch's own), relative L2 against float64, and
        `draw`, which input of that kind they were taken on. The errors are None where the reference is zero: such an
        input tests nothing.

    Raises:
        ExportError: the file disagrees on every draw, or the target layer's gradient is identically zero.
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

    # The gradient that has to be there for anything to be explained.
    telling = contract.INPUT_GRADIENTS if layer is None else contract.GRADIENTS
    run_pytorch = partial(_reference, forward, layer, tuple(dict.fromkeys([*outputs, telling])), scope)
    draw = partial(draw_input, forward=forward, mean=mean, std=std)
    parity: Parity = {name: {} for name in outputs}
    live = []
    for kind in KINDS:
        errors, exact = _measure_kind(kind, draw, run_file, run_pytorch, forward.class_count)
        live.append(bool(exact[telling].any()))
        for name in outputs:
            parity[name][kind] = errors[name]
    if not any(live):
        raise ExportError(
            "the gradient of the images is identically zero on every test input, so there is nothing to explain"
            if layer is None
            else f"layer {layer.name!r}: its gradient is identically zero on every test input; name another layer"
        )
    return parity


def _measure_kind(
    kind: str, draw: Callable[[str, int], Tensor], run_file: Compute, run_pytorch: Compute, classes: int
) -> tuple[dict[str, Errors], dict[str, Tensor]]:
    """The errors of each output on the first draw on which all agree, and the exact values there."""
    for number in range(1, DRAWS + 1):
        images = draw(kind, number)
        # The predicted class, and another one.
        targets = torch.tensor([contract.PREDICTED, classes // 2][: images.shape[0]])
        ours, exact = run_file(images, targets), run_pytorch(images.double(), targets)
        errors: dict[str, Errors] = {
            name: {"error": relative_error(value, exact[name]), "torch_float32": None, "draw": number}
            for name, value in ours.items()
        }
        for neighbour in range(1 + NEIGHBOURS):
            single = run_pytorch(_one_rounding_away(images, neighbour) if neighbour else images, targets)
            for name, values in errors.items():
                values["torch_float32"] = _worse(values["torch_float32"], relative_error(single[name], exact[name]))
            wrong = [name for name, values in errors.items() if not agrees(values)]
            if not wrong:
                return errors, exact
    found = [
        f"{n} on {kind}: relative error {errors[n]['error']:.1e}, allowed {error_bound(errors[n]['torch_float32']):.1e}"
        for n in wrong
    ]
    raise ExportError(f"the exported file disagrees with PyTorch, and was not kept: {'; '.join(found)}")


def _one_rounding_away(images: Tensor, steps: int) -> Tensor:
    """An input that float32 can hardly tell from the first. Equal pixels stay equal, so that ties stay ties."""
    return images * (1 + steps * torch.finfo(images.dtype).eps)


def agrees(errors: Errors) -> bool:
    """The measure. A zero reference (None) is no disagreement, and no agreement either: see `untested`."""
    return is_within_bound(errors["error"], errors["torch_float32"])


def _worse(one: float | None, other: float | None) -> float | None:
    known = [error for error in (one, other) if error is not None]
    return max(known) if known else None


def _reference(
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    scope: tuple[str, ...] | None,
    images: Tensor,
    targets: Tensor,
) -> dict[str, Tensor]:
    try:
        return reference(forward, layer, outputs, images, targets, scope)
    except Exception as error:
        raise ExportError(f"PyTorch itself cannot run the reference in {images.dtype}: {one_line(error)}") from error


def draw_input(kind: str, draw: int, forward: ForwardGraph, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float32 images (N, C, H, W) as they look after preprocessing; another `draw` gives others of the same kind."""
    generator = torch.Generator().manual_seed(draw)
    shape = (forward.channels, *forward.image_size)
    if kind == "noise":
        # Two, so that the batch dimension is tested as well.
        return torch.randn(2, *shape, generator=generator)
    pixels = _picture(shape, generator)
    shift, scale = (torch.tensor(_for_channels(values, shape[0])).reshape(-1, 1, 1) for values in (mean, std))
    return ((pixels - shift) / scale)[None]


def _picture(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """A smooth scene in 8 bits with a white border and a black rectangle: large areas of one value."""
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
    return list(values) if len(values) == channels else [float(values[0])] * channels


def redrawn(parity: Parity) -> list[str]:
    """Kinds of input that agreed on a later draw only."""
    return sorted({kind for kinds in parity.values() for kind, errors in kinds.items() if (errors["draw"] or 1) > 1})


def untested(parity: Parity) -> list[str]:
    """Outputs whose reference was zero on every input, so that nothing is known of them."""
    return [name for name, kinds in parity.items() if all(errors["error"] is None for errors in kinds.values())]


def table(parity: Parity) -> str:
    """The parity as text, a line an output."""
    kinds = list(next(iter(parity.values()), {}))
    lines = ["  ".join([f"{'relative L2 error':<18}", *(f"{kind:>8} (torch f32)" for kind in kinds)])]
    for name, values in parity.items():
        cells = [f"{_number(v['error']):>8} {'(' + _number(v['torch_float32']) + ')':>11}" for v in values.values()]
        lines.append("  ".join([f"{name:<18}", *cells]))
    return "\n".join(lines)


def _number(error: float | None) -> str:
    return "untested" if error is None else f"{error:.1e}"
