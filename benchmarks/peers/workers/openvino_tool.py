"""Forward pass in OpenVINO, in float32 with the latency hint."""

from __future__ import annotations

import numpy as np
import openvino
from tool_job import Job, Task


def settings(threads: int) -> dict[str, object]:
    return {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}


def forward(task: Task) -> Job:
    core, images = openvino.Core(), task.images
    model = core.read_model(task.model / "forward.onnx")
    model.reshape(list(images.shape))
    request = core.compile_model(model, "CPU", settings(task.threads)).create_infer_request()
    return Job(lambda: np.array(request.infer([images], share_inputs=True, share_outputs=True)[0]))
