"""Compare Grad-CAM and guided backpropagation with PyTorch, torch.compile and pytorch-grad-cam on one GPU.

    python benchmarks/cuda.py [--model resnet50 --model vgg16] [--batch 1 --batch 32 --batch 128] [--rounds 9] [--json]

The script needs an NVIDIA GPU, onnxruntime-gpu instead of onnxruntime, PyTorch with CUDA, and grad-cam. All tools take
an array of preprocessed float32 pixels in host memory and return heatmaps (N, H, W) in host memory; forward passes
return logits. All tools have the same random weights and explain the class that they predict.

The tools take turns in rounds, with one unmeasured call before each measurement. The table shows the median, the
fastest and the slowest round, and the median of the rounds' ratios to `onnxruntime forward`, a plain
`torch.onnx.export` of the unchanged network.

TF32 keeps the default of each library: on in onnxruntime and in cuDNN's convolutions, off in PyTorch's matrix products.

`--device cpu` runs the same on the CPU to test the script; its results do not apply to a GPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from seewhy import Explainer, __version__
from seewhy.runtime.device_binding import DeviceBinding
from seewhy.runtime.providers import CPU, CUDA, parse_provider

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.shared import markdown_tables
from benchmarks.shared.forward_pass import export_forward
from benchmarks.shared.machine_facts import processor_name
from benchmarks.shared.round_statistics import ratio
from benchmarks.shared.timing_in_turns import in_turns, seconds_after_pause

FORWARD = "onnxruntime forward"
AIMS = {"gradcam": 1.05, "guided-backprop": 2.2}
Run = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """One tool that is measured for one task."""

    task: str
    """`forward` or the name of a method."""
    name: str
    run: Run


# Other tools. Each function takes a module in evaluation mode on its device and returns a function of a host array.


def target_layer(model: Any) -> str:
    """Return the name of the last layer that returns maps."""
    for name in ("layer4", "features"):
        if hasattr(model, name) and hasattr(model, "avgpool"):
            return name
    raise SystemExit(
        f"cuda.py: error: {type(model).__name__} is not supported; choose a model with `layer4` or `features`"
    )


def torch_gradcam(trunk: Any, head: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return Grad-CAM by PyTorch's autograd, with a backward pass that ends at the target layer."""
    import torch

    from benchmarks.peers.workers.torch_by_hand import heatmaps

    def run(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).to(device)
        with torch.no_grad():
            activations = trunk(pixels)
        activations = activations.detach().requires_grad_()
        logits = head(activations)
        best = logits.max(1).values.sum()
        [gradients] = torch.autograd.grad(best, activations)
        with torch.no_grad():
            maps = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu()
            return heatmaps(maps, pixels.shape[2:]).cpu().numpy()

    return run


def torch_guided(model: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return guided backpropagation by PyTorch's autograd, for a network with guided ReLUs."""
    import torch

    from benchmarks.peers.workers.torch_by_hand import scaled

    def run(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).to(device).requires_grad_()
        best = model(pixels).max(1).values.sum()
        [gradients] = torch.autograd.grad(best, pixels)
        return scaled(gradients.abs().amax(1)).cpu().numpy()

    return run


def library_gradcam(model: Any, layer: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(model, [layer])
    return lambda images: cam(torch.from_numpy(images).to(device), None)


def library_guided(model: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return guided backpropagation by pytorch-grad-cam, one image at a time."""
    import torch
    from pytorch_grad_cam import GuidedBackpropReLUModel

    guided_model = GuidedBackpropReLUModel(model, device)

    def run(images: np.ndarray) -> np.ndarray:
        found = [guided_model(torch.from_numpy(image[None]).to(device)) for image in images]
        return np.stack([np.abs(gradient).max(-1) for gradient in found])

    return run


def forward(model: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(device)).cpu().numpy()

    return run


def contenders(name: str, batch: int, size: int, device: str, compiled: bool, folder: Path) -> list[Contender]:
    """Return all tools for one network and one batch size, with the same images."""
    import torch

    from benchmarks.peers.workers.torch_by_hand import freeze, guide, halves
    from seewhy_export import export
    from seewhy_export.sources.torchvision_import import import_torchvision

    torchvision = import_torchvision()
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    ours, plain = folder / f"{name}.onnx", folder / f"{name}.plain.onnx"
    if not ours.exists():
        export(model, ours, image_size=(size, size), verify=False)
        export_forward(model, plain, (size, size))
    images = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)

    provider = {"cuda": CUDA, "cpu": CPU}[device]
    explainer = Explainer(ours, [provider])
    session = onnxruntime.InferenceSession(plain, providers=[parse_provider(provider, [provider])])
    if session.get_providers()[0] != provider:
        raise SystemExit(f"cuda.py: error: onnxruntime could not start {provider} for {plain.name}")
    bound = DeviceBinding(session, device, 0)
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    model = model.to(device)
    # pytorch-grad-cam gets its own copies: as in its documentation, parameters keep their gradients, and its hooks stay
    # on the module.
    gradcam_model, guided_library_model = copy.deepcopy(model), copy.deepcopy(model)
    freeze(model)
    guided_model = copy.deepcopy(model)
    guide(guided_model)
    layer = target_layer(model)
    trunk, head = halves(model, layer)
    others: list[tuple[str, str, Callable[[np.ndarray], Any]]] = [
        ("forward", "PyTorch", forward(model, device)),
        ("gradcam", "PyTorch, to the layer only", torch_gradcam(trunk, head, device)),
        ("gradcam", "pytorch-grad-cam", library_gradcam(gradcam_model, gradcam_model.get_submodule(layer), device)),
        ("guided-backprop", "PyTorch, rule by hand", torch_guided(guided_model, device)),
        ("guided-backprop", "pytorch-grad-cam", library_guided(guided_library_model, device)),
    ]
    if compiled:
        others += [
            ("forward", "torch.compile", forward(torch.compile(model), device)),
            ("gradcam", "torch.compile", torch_gradcam(torch.compile(trunk), torch.compile(head), device)),
            ("guided-backprop", "torch.compile", torch_guided(torch.compile(guided_model), device)),
        ]
    return [
        Contender("forward", FORWARD, lambda: bound.run(outputs, {inputs[0]: images})),
        *(
            Contender(
                method, "SeeWhy", lambda method=method: explainer.explain(images, method, batch_size=batch).heatmaps
            )
            for method in AIMS
        ),
        *(Contender(task, rival, lambda run=run: run(images)) for task, rival, run in others),
    ]


# Measurements.


def measure(
    found: Sequence[Contender], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Return the seconds of each contender in each round."""
    for contender in found:
        contender.run()  # compiles, and selects convolution algorithms
    measured = {number: partial(seconds_after_pause, contender.run, 0, clock) for number, contender in enumerate(found)}
    return list(in_turns(measured, rounds).values())


def rows(found: Sequence[Contender], times: Sequence[Sequence[float]], **facts: Any) -> list[dict[str, Any]]:
    [base] = [seconds for contender, seconds in zip(found, times, strict=True) if contender.name == FORWARD]
    return [
        {
            **facts,
            "task": contender.task,
            "what": contender.name,
            "ms": round(1000 * statistics.median(seconds), 3),
            "quickest_ms": round(1000 * min(seconds), 3),
            "slowest_ms": round(1000 * max(seconds), 3),
            "ratio": round(ratio(seconds, base), 3),
        }
        for contender, seconds in zip(found, times, strict=True)
    ]


def agreement(found: Sequence[Contender]) -> dict[str, float]:
    """Return the relative L2 distance of each tool's heatmaps from SeeWhy's, to show that all compute the same."""
    ours = {contender.task: contender.run() for contender in found if contender.name == "SeeWhy"}
    result = {}
    for contender in found:
        if contender.task in ours and contender.name != "SeeWhy":
            ours_for_task, theirs = ours[contender.task], np.asarray(contender.run(), np.float32)
            high = theirs.reshape(len(theirs), -1).max(1)[:, None, None]
            low = theirs.reshape(len(theirs), -1).min(1)[:, None, None]
            theirs = (theirs - low) / np.maximum(high - low, 1e-30)
            result[f"{contender.task}: {contender.name}"] = round(
                float(np.linalg.norm(ours_for_task - theirs) / np.linalg.norm(ours_for_task)), 5
            )
    return result


def table(found: Sequence[Mapping[str, Any]]) -> str:
    keys = ("model", "batch", "task", "what", "ms", "quickest_ms", "slowest_ms", "ratio")
    head = ["model", "batch", "task", "what", "ms", "from", "to", "÷ onnxruntime forward"]
    return markdown_tables.table(head, ([row[key] for key in keys] for row in found))


def verdicts(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per measurement of SeeWhy: its ratio, its aim, and the ratio of torch.compile."""
    lines = []
    for row in found:
        if row["what"] != "SeeWhy":
            continue
        aim = AIMS[row["task"]]
        lines.append(
            f"{row['model']}, batch {row['batch']}, {row['task']}: {row['ratio']:.3f} x forward, "
            f"{'within' if row['ratio'] <= aim else 'above'} the aim of {aim}"
        )
        key = {name: row[name] for name in ("model", "batch", "task")}
        for rival in found:
            if rival["what"] == "torch.compile" and key.items() <= rival.items():
                lines[-1] += f"; torch.compile takes {rival['ms'] / row['ms']:.2f} times as long"
    return lines


def no_gpu() -> str | None:
    """Return the reason why this machine cannot run the benchmark, or None."""
    if CUDA not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {CUDA}: install onnxruntime-gpu in place of onnxruntime"
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    return None if torch.cuda.is_available() else "PyTorch sees no CUDA device"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="cuda.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="torchvision model; repeatable (default: resnet50 and vgg16)")
    parser.add_argument("--batch", type=int, action="append", help="batch size; repeatable (default: 1, 32 and 128)")
    parser.add_argument("--size", type=int, default=224, help="side length of the images in pixels (default: 224)")
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default: 9)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="device (default: cuda)")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and (reason := no_gpu()) is not None:
        print(f"cuda.py: error: not measured: {reason}", file=sys.stderr)
        raise SystemExit(2)
    import torch

    found: list[dict[str, Any]] = []
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in options.model or ["resnet50", "vgg16"]:
            for batch in options.batch or [1, 32, 128]:
                group = contenders(model, batch, options.size, options.device, not options.no_compile, Path(folder))
                found += rows(group, measure(group, options.rounds), model=model, batch=batch)
                differences |= {
                    f"{model}, batch {batch}, {name}": distance for name, distance in agreement(group).items()
                }
    device = torch.cuda.get_device_name() if options.device == "cuda" else processor_name()
    facts = {
        "device": device,
        "versions": {"seewhy": __version__, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__},
        "rows": found,
        "differences": differences,
    }
    print(json.dumps(facts, indent=2) if options.json else "\n".join([device, "", table(found), *verdicts(found)]))


if __name__ == "__main__":
    main()
