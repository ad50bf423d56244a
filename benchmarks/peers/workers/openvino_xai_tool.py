"""Recipro-CAM by openvino_xai: a forward pass, and one pass of the head for each position of the map."""

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
    """Return the resized map of one class; the output has maps of all classes, scaled to 0..255."""
    return cv2.resize(outputs["saliency_map"][0, target], size) * np.float32(1 / 255)


def gradcam(task: Task) -> Job:
    """Run one image at a time, because the inserted branch supports no batches."""
    core, images, targets = openvino.Core(), task.images, task.targets
    model = core.read_model(task.model / "forward.onnx")
    model.reshape([1, *images.shape[1:]])
    request = core.compile_model(with_maps(model), "CPU", settings(task.threads)).create_infer_request()
    size = (images.shape[3], images.shape[2])
    cv2.setNumThreads(task.threads)

    def run() -> list[np.ndarray]:
        heatmaps = []
        for i, target in enumerate(targets):
            outputs = request.infer([images[i : i + 1]], share_inputs=True, share_outputs=True)
            heatmaps.append(heatmap(outputs, target, size))
        return heatmaps

    return Job(run, to_array=np.stack, note="Recipro-CAM, one image at a time")
