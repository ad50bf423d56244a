"""Recipro-CAM by openvino_xai: a forward pass, and one pass of the head for each position of the map."""

from __future__ import annotations

import cv2
import cv2_folder
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


def _request(task: Task) -> openvino.InferRequest:
    """Return a request for one image at a time, because the inserted branch supports no batches."""
    core = openvino.Core()
    model = core.read_model(task.file("forward.onnx"))
    model.reshape([1, *task.images.shape[1:]])
    return core.compile_model(with_maps(model), "CPU", settings(task.threads)).create_infer_request()


def gradcam(task: Task) -> Job:
    images, targets, request = task.images, task.targets, _request(task)
    size = (images.shape[3], images.shape[2])
    cv2.setNumThreads(task.threads)

    def run() -> list[np.ndarray]:
        heatmaps = []
        for i, target in enumerate(targets):
            outputs = request.infer([images[i : i + 1]], share_inputs=True, share_outputs=True)
            heatmaps.append(heatmap(outputs, target, size))
        return heatmaps

    return Job(run, to_array=np.stack, note="Recipro-CAM, one image at a time")


def folder(task: Task) -> Job:
    request, facts = _request(task), task.facts
    mean, std = np.float32(facts["mean"]), np.float32(facts["std"])

    def explain(crop: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(((crop - mean) / std).transpose(2, 0, 1)[None])
        outputs = request.infer([x], share_inputs=True, share_outputs=True)
        return heatmap(outputs, int(outputs[0].argmax()), crop.shape[1::-1])

    return cv2_folder.folder(task, explain, _blend)


def _blend(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend as the tool's visualizer does, with equal weights."""
    colors = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET)[:, :, ::-1]
    return cv2.addWeighted(np.uint8(255 * image), 0.5, colors, 0.5, 0)
