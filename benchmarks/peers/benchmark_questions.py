"""Questions of the comparison, and the tools that are measured for each question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import result_agreement
from benchmarks.peers.input_files import IMAGE_COUNT, MEAN, MODELS, STD
from benchmarks.peers.measurement_rounds import Rival

OURS, FLOOR, COMPILED = "SeeWhy", "onnxruntime forward", "torch.compile by hand"
_FLOOR = Rival(FLOOR, "seewhy", "seewhy_tool:forward", compare=False)


@dataclass(frozen=True)
class Question:
    """A task that several tools solve, such as Grad-CAM, and how to measure and compare them."""

    title: str
    rivals: Sequence[Rival]
    ours: str
    """Name of the rival whose result the other results are compared with."""
    floor: str | None
    """Name of the rival that is the baseline, or None."""
    compare: Callable[..., Mapping[str, Any]]
    """Function of `result_agreement` that compares two results."""
    models: Sequence[str] = MODELS
    batches: Sequence[int] = (1, 8, 32)
    rounds: Mapping[int, int] | None = None
    """Batch size -> number of rounds, or None for the default ROUNDS."""

    def options(self, rival: Rival, inputs: Path, scratch: Path) -> dict[str, Any]:
        """Return the task options of a rival: paths and settings besides model and batch size."""
        return {}


@dataclass(frozen=True)
class _Overlays(Question):
    def options(self, rival: Rival, inputs: Path, scratch: Path) -> dict[str, Any]:
        names = {"maps": "maps.npy", "photographs": "views.npy", "palette": "palette.npy"}
        return {key: str(inputs / name) for key, name in names.items()}


@dataclass(frozen=True)
class _Folder(Question):
    def options(self, rival: Rival, inputs: Path, scratch: Path) -> dict[str, Any]:
        out = scratch / rival.name.replace(" ", "-").replace(",", "")
        paths = {"photographs": str(inputs / "photographs"), "out": str(out), "count": IMAGE_COUNT}
        return {**paths, "mean": MEAN, "std": STD, **rival.options}


# Only the networks in the aims, because compiling a forward and backward pass takes minutes per batch size.
_COMPILED = ("alexnet", "vgg16", "resnet50", "mobilenet_v2")
FORMS = {"jpeg": "JPEG", "png": "PNG", "original": "PNG, original size"}

QUESTIONS: Mapping[str, Question] = {
    "forward": Question(
        "The forward pass alone",
        (
            Rival(FLOOR, "seewhy", "seewhy_tool:forward"),
            Rival("onnxruntime, a thread for each piece", "seewhy", "seewhy_tool:forward_pieces", batches=(8, 32)),
            Rival("PyTorch eager", "torch", "torch_tool:forward"),
            Rival("torch.compile", "torch", "torch_tool:forward_compiled", batches=(1, 8)),
            Rival("OpenVINO", "openvino", "openvino_tool:forward"),
        ),
        FLOOR,
        FLOOR,
        result_agreement.logits,
    ),
    "gradcam": Question(
        "Grad-CAM",
        (
            _FLOOR,
            Rival(OURS, "seewhy", "seewhy_tool:gradcam"),
            Rival("PyTorch by hand", "torch", "torch_tool:gradcam"),
            Rival(COMPILED, "torch", "torch_tool:gradcam_compiled", models=_COMPILED, batches=(1, 8)),
            Rival("torch-cam", "torchcam", "torchcam_tool:gradcam"),
            Rival("Captum", "captum", "captum_tool:gradcam"),
            Rival("pytorch-grad-cam", "grad-cam", "gradcam_tool:gradcam"),
            Rival("pytorch-grad-cam, weights frozen", "grad-cam", "gradcam_tool:gradcam_frozen", batches=(1, 8)),
            Rival("openvino_xai Recipro-CAM", "openvino_xai", "openvino_xai_tool:gradcam", compare=False),
        ),
        OURS,
        FLOOR,
        result_agreement.heatmaps,
    ),
    "guided": Question(
        "Guided backpropagation",
        (
            _FLOOR,
            Rival(OURS, "seewhy", "seewhy_tool:guided"),
            Rival("PyTorch by hand", "torch", "torch_tool:guided"),
            Rival(COMPILED, "torch", "torch_tool:guided_compiled", models=_COMPILED, batches=(1, 8)),
            Rival("Captum", "captum", "captum_tool:guided"),
            Rival("pytorch-grad-cam", "grad-cam", "gradcam_tool:guided"),
            Rival("pytorch-grad-cam, weights frozen", "grad-cam", "gradcam_tool:guided_frozen", batches=(1, 8)),
        ),
        OURS,
        FLOOR,
        result_agreement.gradients,
    ),
    "overlays": _Overlays(
        "Maps and images to overlays",
        (
            Rival("SeeWhy, 1 thread", "seewhy", "seewhy_tool:overlays", threads=1),
            Rival("SeeWhy, 2 threads", "seewhy", "seewhy_tool:overlays", threads=2),
            Rival("OpenCV, 1 thread", "opencv", "opencv_numpy_tool:opencv", threads=1),
            Rival("OpenCV, 2 threads", "opencv", "opencv_numpy_tool:opencv", threads=2),
            Rival("NumPy", "opencv", "opencv_numpy_tool:numpy", threads=1),
            Rival("PyTorch, 1 thread", "torch", "torch_tool:overlays", threads=1),
            Rival("PyTorch, 2 threads", "torch", "torch_tool:overlays", threads=2),
        ),
        "SeeWhy, 1 thread",
        None,
        result_agreement.figures,
        models=("any",),
        rounds={1: 15, 8: 15, 32: 15},
    ),
    "folder": _Folder(
        "A folder of images to a folder of overlays",
        (
            Rival(FLOOR, "seewhy", "seewhy_tool:forward_all", compare=False),
            *(
                Rival(f"{name}, {title}", environment, f"{module}:folder", options={"form": form})
                for form, title in FORMS.items()
                for name, environment, module in (
                    (OURS, "seewhy", "seewhy_tool"),
                    ("torch-cam", "torchcam", "torchcam_tool"),
                    ("pytorch-grad-cam", "grad-cam", "gradcam_tool"),
                )
            ),
        ),
        f"{OURS}, {FORMS['jpeg']}",
        FLOOR,
        result_agreement.counts,
        models=("resnet50", "mobilenet_v2"),
        batches=(8,),
        rounds={8: 5},
    ),
}
# `compare_tools.py` also has the question `cold`, which starts a new process for each measurement.
COLD = "cold"
ALL = (*QUESTIONS, COLD)
ROUNDS = {1: 11, 8: 5, 32: 3}
