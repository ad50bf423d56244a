"""openvino_xai's Recipro-CAM: a forward pass, and the head once for each place of the map."""

from __future__ import annotations

import cv2
import numpy as np
import openvino
import openvino_xai
from openvino_tool import settings
from openvino_xai.common.parameters import Method
from openvino_xai.common.parameters import Task as Kind
from tool_job import Job, Task


def with_maps(model: openvino.Model) -> openvino.Model:
    return openvino_xai.insert_xai(model, Kind.CLASSIFICATION, Method.RECIPROCAM)


def heatmap(outputs: openvino.OVDict, target: int, size: tuple[int, int]) -> np.ndarray:
    """Maps of all classes, already scaled to 0..255, come back; one of them is enlarged."""
    return cv2.resize(outputs["saliency_map"][0, target], size) * np.float32(1 / 255)


def gradcam(task: Task) -> Job:
    """One image at a time: the branch that it inserts takes no batch."""
    core, images, targets = openvino.Core(), task.images, task.targets
    model = core.read_model(task.model / "forward.onnx")
    model.reshape([1, *images.shape[1:]])
    request = core.compile_model(with_maps(model), "CPU", settings(task.threads)).create_infer_request()
    size = (images.shape[3], images.shape[2])
    cv2.setNumThreads(task.threads)

    def run() -> list[np.ndarray]:
        found = []
        for i, target in enumerate(targets):
            outputs = request.infer([images[i : i + 1]], share_inputs=True, share_outputs=True)
            found.append(heatmap(outputs, target, size))
        return found

    return Job(run, answer=np.stack, note="Recipro-CAM, one image at a time")
