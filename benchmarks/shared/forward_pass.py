"""Export and run the forward pass of an unchanged network, the baseline of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime


def export_forward(module: Any, path: Path, image_size: tuple[int, int]) -> None:
    """Export a network in evaluation mode to a plain ONNX file with a dynamic batch size."""
    import torch

    torch.onnx.export(
        module,
        (torch.zeros(2, 3, *image_size),),
        path,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        external_data=False,
        verbose=False,
    )


def cpu_session(
    model: Path | bytes, threads: int = 0, config: Mapping[str, str] | None = None, **settings: Any
) -> onnxruntime.InferenceSession:
    """Start a session on the CPU.

    Args:
        model: Path of an ONNX file, or its content.
        threads: Number of threads of one run; 0 means onnxruntime's default.
        config: Entries of the session's configuration.
        settings: Attributes of `onnxruntime.SessionOptions`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    for name, value in (config or {}).items():
        options.add_session_config_entry(name, value)
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
