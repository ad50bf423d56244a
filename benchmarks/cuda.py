"""Grad-CAM and guided backprop on a GPU, beside PyTorch, torch.compile and pytorch-grad-cam on the same one.

    python benchmarks/cuda.py [--model resnet50 --model vgg16] [--batch 1 --batch 32 --batch 128] [--rounds 9] [--json]

Needs an NVIDIA GPU, onnxruntime-gpu instead of onnxruntime, a PyTorch with CUDA, and grad-cam. Everything takes one
array of preprocessed float32 pixels in the host's memory, and gives heatmaps (N,H,W) there; forward passes give logits.
All have the same weights, drawn at random, and explain the class that they predict. Rounds of all, in turns; before
each measurement one run that does not count. Medians, the slowest and quickest round, and the ratio to `onnxruntime
forward`, a plain `torch.onnx.export` of the untouched network, in the median of the rounds.

TF32 is left at everybody's default: on in onnxruntime and in cuDNN's convolutions, off in PyTorch's matrix products.

`--device cpu` runs the same on the CPU, to try the script; those figures say nothing about a GPU.
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
from seewhy.runtime.providers import CPU, CUDA, _parse

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
    """Something that is measured."""

    task: str
    """`forward`, or one of the methods."""
    name: str
    run: Run


# The rivals. Each takes a module in eval mode on its device and gives a function of a host array.


def target_layer(model: Any) -> str:
    """Return the name of the last layer with maps."""
    for name in ("layer4", "features"):
        if hasattr(model, name) and hasattr(model, "avgpool"):
            return name
    raise SystemExit(f"cuda.py: error: {type(model).__name__} is not a network that this script can take apart")


def torch_gradcam(trunk: Any, head: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """PyTorch's autograd, back to the layer and no further."""
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
    """PyTorch's autograd through a network whose ReLUs are guided."""
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
    """pytorch-grad-cam's takes one image at a time."""
    import torch
    from pytorch_grad_cam import GuidedBackpropReLUModel

    rule = GuidedBackpropReLUModel(model, device)

    def run(images: np.ndarray) -> np.ndarray:
        found = [rule(torch.from_numpy(image[None]).to(device)) for image in images]
        return np.stack([np.abs(gradient).max(-1) for gradient in found])

    return run


def forward(model: Any, device: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).to(device)).cpu().numpy()

    return run


def contenders(name: str, batch: int, size: int, device: str, compiled: bool, folder: Path) -> list[Contender]:
    """Everything, for one network and one batch size, with the same images."""
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
    session = onnxruntime.InferenceSession(plain, providers=[_parse(provider, [provider])])
    if session.get_providers()[0] != provider:
        raise SystemExit(f"cuda.py: error: onnxruntime could not start {provider} for {plain.name}")
    bound = DeviceBinding(session, device, 0)
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    model = model.to(device)
    # As the library's documentation has it: parameters keep their gradients; and hooks stay on what it was given.
    whole, other = copy.deepcopy(model), copy.deepcopy(model)
    freeze(model)
    rule = copy.deepcopy(model)
    guide(rule)
    layer = target_layer(model)
    trunk, head = halves(model, layer)
    rivals: list[tuple[str, str, Callable[[np.ndarray], Any]]] = [
        ("forward", "PyTorch", forward(model, device)),
        ("gradcam", "PyTorch, to the layer only", torch_gradcam(trunk, head, device)),
        ("gradcam", "pytorch-grad-cam", library_gradcam(whole, whole.get_submodule(layer), device)),
        ("guided-backprop", "PyTorch, rule by hand", torch_guided(rule, device)),
        ("guided-backprop", "pytorch-grad-cam", library_guided(other, device)),
    ]
    if compiled:
        rivals += [
            ("forward", "torch.compile", forward(torch.compile(model), device)),
            ("gradcam", "torch.compile", torch_gradcam(torch.compile(trunk), torch.compile(head), device)),
            ("guided-backprop", "torch.compile", torch_guided(torch.compile(rule), device)),
        ]
    return [
        Contender("forward", FORWARD, lambda: bound.run(outputs, {inputs[0]: images})),
        *(
            Contender(
                method, "SeeWhy", lambda method=method: explainer.explain(images, method, batch_size=batch).heatmaps
            )
            for method in AIMS
        ),
        *(Contender(task, rival, lambda run=run: run(images)) for task, rival, run in rivals),
    ]


# Measuring.


def measure(
    found: Sequence[Contender], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds: for each contender one of each round."""
    for one in found:
        one.run()  # compiles, and looks for the ways to convolve
    measured = {number: partial(seconds_after_pause, one.run, 0, clock) for number, one in enumerate(found)}
    return list(in_turns(measured, rounds).values())


def rows(found: Sequence[Contender], times: Sequence[Sequence[float]], **facts: Any) -> list[dict[str, Any]]:
    [base] = [own for one, own in zip(found, times, strict=True) if one.name == FORWARD]
    return [
        {
            **facts,
            "task": one.task,
            "what": one.name,
            "ms": round(1000 * statistics.median(own), 3),
            "quickest_ms": round(1000 * min(own), 3),
            "slowest_ms": round(1000 * max(own), 3),
            "ratio": round(ratio(own, base), 3),
        }
        for one, own in zip(found, times, strict=True)
    ]


def agreement(found: Sequence[Contender]) -> dict[str, float]:
    """How far each rival's heatmaps are from ours, relative L2: whoever computes something else is no rival."""
    ours = {one.task: one.run() for one in found if one.name == "SeeWhy"}
    result = {}
    for one in found:
        if one.task in ours and one.name != "SeeWhy":
            mine, theirs = ours[one.task], np.asarray(one.run(), np.float32)
            high = theirs.reshape(len(theirs), -1).max(1)[:, None, None]
            low = theirs.reshape(len(theirs), -1).min(1)[:, None, None]
            theirs = (theirs - low) / np.maximum(high - low, 1e-30)
            result[f"{one.task}: {one.name}"] = round(float(np.linalg.norm(mine - theirs) / np.linalg.norm(mine)), 5)
    return result


def table(found: Sequence[Mapping[str, Any]]) -> str:
    keys = ("model", "batch", "task", "what", "ms", "quickest_ms", "slowest_ms", "ratio")
    head = ["model", "batch", "task", "what", "ms", "from", "to", "÷ onnxruntime forward"]
    return markdown_tables.table(head, ([row[key] for key in keys] for row in found))


def verdicts(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the aims are reached, and where torch.compile is ahead."""
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
    """Why this machine cannot measure anything."""
    if CUDA not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {CUDA}: install onnxruntime-gpu in place of onnxruntime"
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    return None if torch.cuda.is_available() else "PyTorch sees no CUDA device"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="cuda.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and (reason := no_gpu()) is not None:
        print(f"cuda.py: error: not measured: {reason}", file=sys.stderr)
        raise SystemExit(2)
    import torch

    found: list[dict[str, Any]] = []
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in chosen.model or ["resnet50", "vgg16"]:
            for batch in chosen.batch or [1, 32, 128]:
                each = contenders(model, batch, chosen.size, chosen.device, not chosen.no_compile, Path(folder))
                found += rows(each, measure(each, chosen.rounds), model=model, batch=batch)
                differences |= {f"{model}, batch {batch}, {what}": far for what, far in agreement(each).items()}
    device = torch.cuda.get_device_name() if chosen.device == "cuda" else processor_name()
    facts = {
        "device": device,
        "versions": {"seewhy": __version__, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__},
        "rows": found,
        "differences": differences,
    }
    print(json.dumps(facts, indent=2) if chosen.json else "\n".join([device, "", table(found), *verdicts(found)]))


if __name__ == "__main__":
    main()
