"""Reasons for which a network's forward pass fails or cannot be traced, in the terms of its author."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback

import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line
from seewhy_export._shared.trial_run import trial_run

_FIXED_BATCH = "its code fixes the batch size"


class FixedBatchError(ExportError):
    """A network that cannot be traced for any number of images, because its code fixes their number."""


_ANY_BATCH = (
    "a model file takes any number of images; use x.shape[0] or -1 instead of a fixed number of images, len(x), "
    "int(x.shape[0]) or a loop over the images"
)

_TRACE_REASONS = {
    "specialized it to be a constant": f"{_FIXED_BATCH}, and {_ANY_BATCH}",
    "data-dependent expression": "its code depends on the values of a tensor (in an if, a loop or an index), and a "
    "graph cannot; use torch.where or a mask",
    "data-dependent": "its code reads a size or a number from the values of a tensor, and a graph cannot",
}

_REMEDIES = {
    r"to have \d+ channels?, but got|should contain \d+ elements": "check the number of image channels (`channels`, "
    "--channels)",
    r"cannot be multiplied|must match the size|is invalid for input|greater than actual input|too small|"
    r"match model|normalized_shape": "check the image size (`image_size`, --size) and the number of image channels "
    "(`channels`, --channels)",
    r"dtype|scalar type|should be the same": "check the dtypes fixed in its code; the export runs in float32",
    r"missing \d+ required (positional|keyword)": "the network must take images alone, so export a wrapper module that "
    "passes the other arguments",
}
"""Pattern in the message of an exception that a forward pass raised -> what to check."""

_INPUTS: dict[type[nn.Module], str] = {
    nn.Conv3d: "volumes or videos",
    nn.Conv1d: "signals or sequences",
    nn.RNNBase: "sequences",
    nn.Embedding: "text or other sequences of indices",
}
"""Kind of a layer -> input of a network that starts with such a layer and has no two-dimensional convolution."""


def trace_failure(module: nn.Module, images: Tensor, error: BaseException) -> ExportError:
    """Return the error for a failed trace: torch.export's reason in the user's terms, and the line of the user's code.

    Args:
        module: Network that cannot be traced.
        images: Images (N, C, H, W) that it was traced with.
        error: What torch.export raised.

    Returns:
        The error to raise: a `FixedBatchError` if the network's code fixes the batch size.
    """
    reason = next((reason for text, reason in _TRACE_REASONS.items() if text in str(error)), None)
    shape = ", ".join(map(str, images.shape[1:]))
    kind = FixedBatchError if reason is not None and _FIXED_BATCH in reason else ExportError
    return kind(
        f"{type(module).__name__} cannot be traced with images of shape (N, {shape}): {reason or one_line(error)}"
        f"{_at_user_code(error)}"
    )


def run_failure(module: nn.Module, channels: int, image_size: tuple[int, int], error: BaseException) -> ExportError:
    """Return the error for a forward pass that failed, with what to check if the cause is known.

    Args:
        module: Network that failed.
        channels: Number of image channels.
        image_size: (H, W) of the images in pixels.
        error: What the network raised.

    Returns:
        The error to raise: a `FixedBatchError` if the network accepts one image.
    """
    name = type(module).__name__
    kind = _input_kind(module)
    if kind is not None:
        layer, taken = kind
        return ExportError(
            f"{name} is a network for {taken}: its first layer is {layer}. Only networks for images (N, C, H, W) are "
            f"supported; it fails on them with {one_line(error)}"
        )
    if _runs_on_one_image(module, channels, image_size):
        return FixedBatchError(
            f"{name} runs on one image, but fails on two with {one_line(error)}{_at_user_code(error)}: {_FIXED_BATCH}, "
            f"and {_ANY_BATCH}"
        )
    remedy = next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, str(error))), None)
    return ExportError(
        f"{name} fails on float32 images of shape (N, {channels}, {image_size[0]}, {image_size[1]}): {one_line(error)}"
        + _at_user_code(error)
        + (f"; {remedy}" if remedy else "")
    )


def _runs_on_one_image(module: nn.Module, channels: int, image_size: tuple[int, int]) -> bool:
    """Tell whether a network that fails on a batch of two images accepts one."""
    try:
        trial_run(module, channels, image_size, count=1)
    except Exception:  # noqa: BLE001  the code of a network may raise anything
        return False
    return True


def _input_kind(module: nn.Module) -> tuple[str, str] | None:
    """Return the first layer and the input of a network that does not take images, or None."""
    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear, *_INPUTS))]
    if not layers or any(isinstance(layer, nn.Conv2d) for layer in layers):
        return None
    taken = next((taken for kind, taken in _INPUTS.items() if isinstance(layers[0], kind)), None)
    return None if taken is None else (type(layers[0]).__name__, taken)


def _at_user_code(error: BaseException) -> str:
    """Return the innermost line of a traceback that is the user's code, such as ` (at net.py:7)`, or no text."""
    own = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)), os.path.dirname(os.__file__))
    packages = sysconfig.get_path("purelib")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(packages) and not frame.filename.startswith(own[:2]):
            return f" (at {os.path.relpath(frame.filename, packages)}:{frame.lineno})"
        if not frame.filename.startswith((*own[:2], own[2] + os.sep, "<")):
            return f" (at {os.path.basename(frame.filename)}:{frame.lineno})"
    return ""
