"""Questions of the comparison, and the tools that are measured for each question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import result_agreement
from benchmarks.peers.input_files import IMAGE_COUNT, INT8_MODELS, LITE0, MODELS, TORCHVISION
from benchmarks.peers.measurement_rounds import Rival

OURS, FLOOR, COMPILED = "SeeWhy", "onnxruntime forward", "torch.compile by hand"
OURS_INT8, GRADCAM, RECIPROCAM = "SeeWhy int8", "pytorch-grad-cam", "openvino_xai Recipro-CAM"
RECIPROCAM_INT8 = f"{RECIPROCAM} int8"
OURS_BEFORE = "SeeWhy before 8-bit files"
_FLOOR = Rival(FLOOR, "seewhy", "seewhy_tool:forward", compare=False)


def _torch(name: str, environment: str, job: str, **settings: Any) -> Rival:
    """Return a rival that needs a network of torchvision."""
    return Rival(name, environment, job, **{"models": TORCHVISION, **settings})


def _int8(name: str, environment: str, job: str, file: str, **settings: Any) -> Rival:
    """Return a rival that runs a file in 8 bits."""
    settings["options"] = {"file": file, **settings.get("options", {})}
    return Rival(name, environment, job, models=INT8_MODELS, approximate=True, **settings)


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
        return dict(rival.options)


@dataclass(frozen=True)
class _Overlays(Question):
    def options(self, rival: Rival, inputs: Path, scratch: Path) -> dict[str, Any]:
        names = {"maps": "maps.npy", "photographs": "views.npy", "palette": "palette.npy"}
        return {key: str(inputs / name) for key, name in names.items()}


@dataclass(frozen=True)
class _Folder(Question):
    images: str = "photographs"
    """Folder of the images, below that of the input files."""
    count: int = IMAGE_COUNT
    """Number of images in the folder."""

    def options(self, rival: Rival, inputs: Path, scratch: Path) -> dict[str, Any]:
        out = scratch / rival.name.replace(" ", "-").replace(",", "")
        paths = {"photographs": str(inputs / self.images), "out": str(out), "count": self.count}
        return {**paths, **rival.options}


# Only the networks in the aims, because compiling a forward and backward pass takes minutes per batch size.
_COMPILED = ("alexnet", "vgg16", "resnet50", "mobilenet_v2")
FORMS = {"jpeg": "JPEG", "png": "PNG", "original": "PNG, original size"}
FOLDER_TOOLS = {
    OURS: "seewhy_tool",
    "torch-cam": "torchcam_tool",
    "Captum": "captum_tool",
    GRADCAM: "gradcam_tool",
    RECIPROCAM: "openvino_xai_tool",
}
_ENVIRONMENTS = {"seewhy_tool": "seewhy", "gradcam_tool": "grad-cam"}


def _folder_rivals(form: str) -> list[Rival]:
    """Return the tools for one form of overlays. Captum, openvino_xai and files in 8 bits only write JPEG files."""
    title, slow = FORMS[form], form != "jpeg"
    rivals = []
    for name, module in FOLDER_TOOLS.items():
        if slow and name in ("Captum", RECIPROCAM):
            continue
        make = Rival if name in (OURS, RECIPROCAM) else _torch
        environment = _ENVIRONMENTS.get(module, module.removesuffix("_tool"))
        rivals.append(make(f"{name}, {title}", environment, f"{module}:folder", options={"form": form}, slow=slow))
    if not slow:
        before = f"{OURS_BEFORE}, {title}"
        rivals.append(Rival(before, "seewhy-before", "seewhy_tool:folder", options={"form": form}, models=(LITE0,)))
        int8 = {
            OURS_INT8: ("seewhy", "seewhy_tool:folder", "seewhy-int8.onnx"),
            RECIPROCAM_INT8: ("openvino_xai", "openvino_xai_tool:folder", "forward-int8.onnx"),
        }
        # Figures are only counted, so nothing is approximate.
        rivals += [
            Rival(f"{name}, {title}", environment, job, options={"form": form, "file": file}, models=INT8_MODELS)
            for name, (environment, job, file) in int8.items()
        ]
    return rivals


def _multi_pass(title: str, options: Mapping[str, Any], compare: Callable[..., Any], rival: Rival) -> Question:
    """Return the question of a multi-pass method, which is slow, for one image of one network."""
    return Question(
        title,
        (Rival(OURS, "seewhy", "seewhy_tool:multi_pass", options=options), rival),
        OURS,
        None,
        compare,
        models=("mobilenet_v2",),
        batches=(1,),
        rounds={1: 3},
    )


SMOOTHGRAD = {"samples": 25, "noise": 0.15}
STEPS = {"steps": 50}
MULTI_PASS: Mapping[str, Question] = {
    "smoothgrad": _multi_pass(
        "SmoothGrad",
        {"method": "smoothgrad", **SMOOTHGRAD},
        result_agreement.gradients,
        Rival("Captum", "captum", "captum_tool:smoothgrad", options=SMOOTHGRAD, compare=False),
    ),
    "integrated-gradients": _multi_pass(
        "Integrated gradients",
        {"method": "integrated-gradients", **STEPS},
        result_agreement.gradients,
        Rival("Captum", "captum", "captum_tool:integrated_gradients", options=STEPS),
    ),
    "scorecam": _multi_pass(
        "Score-CAM",
        {"method": "scorecam"},
        result_agreement.heatmaps,
        Rival(GRADCAM, "grad-cam", "gradcam_tool:scorecam"),
    ),
    "ablationcam": _multi_pass(
        "Ablation-CAM",
        {"method": "ablationcam"},
        result_agreement.heatmaps,
        Rival(GRADCAM, "grad-cam", "gradcam_tool:ablationcam"),
    ),
}

QUESTIONS: Mapping[str, Question] = {
    "forward": Question(
        "The forward pass alone",
        (
            Rival(FLOOR, "seewhy", "seewhy_tool:forward"),
            Rival("onnxruntime, a thread for each piece", "seewhy", "seewhy_tool:forward_pieces", batches=(8, 32)),
            _int8("onnxruntime int8", "seewhy", "seewhy_tool:forward", "forward-int8.onnx"),
            _torch("PyTorch eager", "torch", "torch_tool:forward"),
            _torch("torch.compile", "torch", "torch_tool:forward_compiled", batches=(1, 8), slow=True),
            Rival("OpenVINO", "openvino", "openvino_tool:forward"),
            Rival(
                "OpenVINO bf16",
                "openvino",
                "openvino_tool:forward",
                options={"precision": "bf16"},
                approximate=True,
            ),
            _int8("OpenVINO int8", "openvino", "openvino_tool:forward", "forward-int8.onnx"),
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
            _int8(OURS_INT8, "seewhy", "seewhy_tool:gradcam", "seewhy-int8.onnx"),
            _torch("PyTorch by hand", "torch", "torch_tool:gradcam"),
            Rival(COMPILED, "torch", "torch_tool:gradcam_compiled", models=_COMPILED, batches=(1, 8), slow=True),
            _torch("torch-cam", "torchcam", "torchcam_tool:gradcam"),
            _torch("Captum", "captum", "captum_tool:gradcam"),
            _torch(GRADCAM, "grad-cam", "gradcam_tool:gradcam"),
            _torch(f"{GRADCAM}, weights frozen", "grad-cam", "gradcam_tool:gradcam_frozen", batches=(1, 8)),
            Rival(RECIPROCAM, "openvino_xai", "openvino_xai_tool:gradcam", compare=False),
            _int8(RECIPROCAM_INT8, "openvino_xai", "openvino_xai_tool:gradcam", "forward-int8.onnx", compare=False),
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
            Rival(COMPILED, "torch", "torch_tool:guided_compiled", models=_COMPILED, batches=(1, 8), slow=True),
            Rival("Captum", "captum", "captum_tool:guided"),
            Rival(GRADCAM, "grad-cam", "gradcam_tool:guided"),
            Rival(f"{GRADCAM}, weights frozen", "grad-cam", "gradcam_tool:guided_frozen", batches=(1, 8)),
        ),
        OURS,
        FLOOR,
        result_agreement.gradients,
        models=TORCHVISION,
    ),
    "folder": _Folder(
        "A folder of images to a folder of overlays",
        (
            Rival(FLOOR, "seewhy", "seewhy_tool:forward_all", compare=False),
            *(rival for form in FORMS for rival in _folder_rivals(form)),
        ),
        f"{OURS}, {FORMS['jpeg']}",
        FLOOR,
        result_agreement.counts,
        models=INT8_MODELS,
        batches=(8,),
        rounds={8: 5},
    ),
    **MULTI_PASS,
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
}
# `compare_tools.py` also has the question `cold`, which starts a new process for each measurement, and `drift`, which
# reads what the quantised files of trained networks state.
COLD, DRIFT = "cold", "drift"
ALL = (*QUESTIONS, COLD, DRIFT)
ROUNDS = {1: 11, 8: 5, 32: 3}
