"""SeeWhy, and the plain forward pass in onnxruntime that is the baseline of all tools."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tool_job import Job, Task

import seewhy
from seewhy import _core
from seewhy.visualization.colormaps import palette

_FORMS = {"jpeg": ("jpg", "model"), "png": ("png", "model"), "original": ("png", "original")}


def _explainer(task: Task) -> seewhy.Explainer:
    return seewhy.Explainer(task.file("seewhy.onnx"), threads=task.threads)


def _session(task: Task, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(task.file("forward.onnx"), options, providers=["CPUExecutionProvider"])


def forward(task: Task) -> Job:
    """Run a plain export of the unchanged model with onnxruntime's default optimization."""
    session = _session(task, task.threads)
    feeds = {session.get_inputs()[0].name: task.images}
    return Job(lambda: session.run(None, feeds)[0])


def forward_pieces(task: Task) -> Job:
    """Run the same model with one thread per part of the batch, as SeeWhy runs some batches."""
    session = _session(task, 1)
    name = session.get_inputs()[0].name
    parts = np.array_split(task.images, task.threads)
    pool = ThreadPoolExecutor(task.threads)
    return Job(lambda: np.concatenate(list(pool.map(lambda part: session.run(None, {name: part})[0], parts))))


def forward_all(task: Task) -> Job:
    """Run the same model for as many images as the folder has, in batches."""
    job = forward(task)
    batches, rest = divmod(task.options["count"], task.batch)
    if rest:
        raise ValueError(f"{task.options['count']} images are not a multiple of the batch size {task.batch}")
    return Job(lambda: [job.run() for _ in range(batches)][-1], warm=job.run)


def gradcam(task: Task) -> Job:
    explainer, images, targets = _explainer(task), task.images, task.targets
    return Job(lambda: explainer.explain(images, "gradcam", target=targets).heatmaps)


def guided(task: Task) -> Job:
    """Time the heatmaps too, although the other tools stop at the gradient."""
    explainer, images, targets = _explainer(task), task.images, task.targets

    def run() -> seewhy.Explanation:
        result = explainer.explain(images, "guided-backprop", target=targets)
        _ = result.heatmaps
        return result

    return Job(run, to_array=lambda result: result.attributions)


def multi_pass(task: Task) -> Job:
    """Run a multi-pass method; `method` names it, and the other options are its own."""
    explainer, images, targets = _explainer(task), task.images, task.targets
    options = dict(task.options)
    method = options.pop("method")

    def run() -> seewhy.Explanation:
        result = explainer.explain(images, method, target=targets, options={method: options} if options else None)
        _ = result.heatmaps
        return result

    return Job(run, to_array=lambda result: result.heatmaps if result.maps is not None else result.attributions)


def overlays(task: Task) -> Job:
    maps, images = np.load(task.options["maps"])[: task.batch], np.load(task.options["photographs"])[: task.batch]
    colors = palette("jet")

    def run() -> np.ndarray:
        return _core.overlay_maps(images, maps, colors, 0.5, relu=True, threads=task.threads)

    return Job(run)


def folder(task: Task) -> Job:
    explainer = _explainer(task)
    source, out = Path(task.options["photographs"]), Path(task.options["out"])
    kind, canvas = _FORMS[task.options["form"]]
    settings = seewhy.Settings(batch_size=task.batch, canvas=canvas, format=kind, plain=True)
    first_batch = sorted(source.iterdir())[: task.batch]

    def run(paths: list[Path]) -> int:
        shutil.rmtree(out, ignore_errors=True)
        return seewhy.explain_folder(explainer, paths, out, settings).done

    return Job(lambda: run([source]), to_array=lambda count: [count], warm=lambda: run(first_batch))
