"""Forward pass in OpenVINO with the latency hint: in float32, in bf16, or of a file in 8 bits."""

from __future__ import annotations

import numpy as np
import openvino
from tool_job import Job, Task


def settings(threads: int, precision: str = "f32") -> dict[str, object]:
    """Return the settings of a model; a file in 8 bits keeps them, and only its other layers have the precision."""
    return {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}


def forward(task: Task) -> Job:
    core, images = openvino.Core(), task.images
    model = core.read_model(task.file("forward.onnx"))
    model.reshape(list(images.shape))
    request = core.compile_model(
        model, "CPU", settings(task.threads, task.options.get("precision", "f32"))
    ).create_infer_request()
    return Job(lambda: np.array(request.infer([images], share_inputs=True, share_outputs=True)[0]))
