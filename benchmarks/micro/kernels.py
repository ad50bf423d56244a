"""Measure the C++ kernels against a plain copy, and overlays against OpenCV, NumPy and PyTorch.

    python benchmarks/micro/kernels.py [--batch 8 --batch 32] [--size 224] [--rounds 40] [--alpha 0.5] [--json]

The first table lists every kernel with each instruction set of this processor, on one thread and on two. It shows GB/s,
where each argument counts as read one time and the result as written one time. In brackets is that speed divided by the
speed of a NumPy copy of as many bytes, on one thread and in warm memory. Kernels write their results to new memory.

The second table compares overlays, from maps (N, 7, 7) and images (N, H, W, 3) to overlays (N, H, W, 3). OpenCV, NumPy
and PyTorch compute the same if they are installed, and the table shows the largest pixel difference from SeeWhy. OpenCV
and PyTorch use one thread. OpenCV has no batches, so it runs image by image and writes into preallocated arrays.

Candidates take turns in rounds, so that other load on the machine affects them alike. All numbers are medians of the
rounds. The tables also use the CPU time of all threads, which other load affects less than the elapsed time. Speeds on
one thread are computed from CPU time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy import __version__, _core
from seewhy.visualization.colormaps import palette

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.machine_facts import describe
from benchmarks.shared.timing_in_turns import elapsed_and_cpu_seconds, in_turns

Run = Callable[[], Any]
_SHORTEST = 2e-3
"""Minimum seconds of one measurement; shorter calls are repeated."""
_MAP = 7
_CHANNELS, _CHANNELS_OF_ACTIVATIONS = 3, 2048
PALETTE = palette("jet")


def rounds(candidates: dict[str, Run], count: int) -> dict[str, dict[str, float]]:
    """Return the summaries of the seconds per call, from `count` rounds in which the candidates take turns."""
    repeats = {}
    for name, run in candidates.items():
        run()
        shortest = min(elapsed_and_cpu_seconds(run)[0] for _ in range(3))
        repeats[name] = max(1, round(_SHORTEST / shortest))
    measured = {name: partial(elapsed_and_cpu_seconds, run, repeats[name]) for name, run in candidates.items()}
    return {name: _summary(times) for name, times in in_turns(measured, count).items()}


def _summary(times: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, processors = zip(*times, strict=True)
    return {
        "median": statistics.median(elapsed),
        "least": min(elapsed),
        "processor": statistics.median(processors),
    }


def arguments(batch: int, size: int) -> dict[str, dict[str, Any]]:
    """Return arguments for each kernel, with the shapes of ResNet-50 for images of side `size` pixels."""
    random = np.random.default_rng(0)

    def floats(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, np.float32)

    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    gradients, heat = floats(batch, _CHANNELS, size, size), random.random((batch, size, size), np.float32)
    layer = {
        "activations": np.maximum(floats(batch, _CHANNELS_OF_ACTIVATIONS, _MAP, _MAP), np.float32(0)),
        "gradients": floats(batch, _CHANNELS_OF_ACTIVATIONS, _MAP, _MAP),
    }
    maps, style = floats(batch, _MAP, _MAP), {"palette": PALETTE, "alpha": 0.5}
    return {
        "normalize": {
            "pixels": images,
            "mean": np.array([0.485, 0.456, 0.406], np.float32),
            "std": np.array([0.229, 0.224, 0.225], np.float32),
        },
        "channel_means": {"gradients": layer["gradients"]},
        "weighted_sum": {"activations": layer["activations"], "weights": floats(batch, _CHANNELS_OF_ACTIVATIONS)},
        "gradcam_plus_plus_weights": layer,
        "xgradcam_weights": layer,
        "product_sum": layer,
        "upsample": {"maps": maps, "height": size, "width": size},
        "minmax": {"maps": heat},
        "max_abs": {"gradients": gradients},
        "gradient_rgb": {"gradients": gradients},
        "multiply_by_map": {"gradients": gradients, "maps": heat},
        "overlay": {"images": images, "heatmaps": heat, **style},
        "overlay_maps": {"images": images, "maps": maps, **style, "relu": True},
    }


def with_isa(isa: str, run: Run) -> Run:
    def work() -> Any:
        _core.use_isa(isa)
        return run()

    return work


def copy_of(size: int) -> Run:
    """Return a function that copies `size` / 2 bytes, so it reads and writes `size` bytes in total."""
    source, target = np.ones(size // 2, np.uint8), np.zeros(size // 2, np.uint8)
    return lambda: np.copyto(target, source)


def kernels(batch: int, size: int, count: int) -> list[dict[str, Any]]:
    found = []
    for name, keywords in arguments(batch, size).items():
        kernel = getattr(_core, name)

        def run(threads: int, kernel: Any = kernel, keywords: dict[str, Any] = keywords) -> Run:
            return lambda: kernel(**keywords, threads=threads)

        total_bytes = (
            sum(value.nbytes for value in keywords.values() if isinstance(value, np.ndarray)) + run(1)().nbytes
        )
        variants = [(isa, threads) for isa in _core.isas() for threads in (1, 2)]
        candidates = {f"{isa}, {threads}": with_isa(isa, run(threads)) for isa, threads in variants}
        times = rounds({"copy": copy_of(total_bytes), **candidates}, count)
        found.append({"kernel": name, "batch": batch, "bytes": total_bytes, "seconds": times})
    return found


# Other implementations of overlays. Each function returns a function (maps, images) -> overlays.


def step_by_step(alpha: float) -> Callable[..., Any]:
    def draw(maps: Any, images: Any) -> Any:
        heat = _core.minmax(_core.upsample(np.maximum(maps, np.float32(0)), *images.shape[1:3], 1), 1)
        return _core.overlay(images, heat, PALETTE, alpha, 1)

    return draw


def with_opencv(alpha: float, shape: tuple[int, ...], coarser: bool = False) -> Callable[..., Any]:
    """Return the same steps with functions of OpenCV.

    With `coarser`, the small map is quantized to 8 bits before it is resized, which is faster but loses levels.
    """
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    height, width = shape[1:3]
    large, heat = np.empty((height, width), np.float32), np.empty((height, width), np.uint8)
    colors, result = np.empty((height, width, 3), np.uint8), np.empty(shape, np.uint8)
    table = PALETTE.reshape(256, 1, 3)

    def draw(maps: Any, images: Any) -> Any:
        for overlay_map, image, target in zip(maps, images, result, strict=True):
            positive = cv2.max(overlay_map, 0.0)
            if coarser:
                small = cv2.normalize(positive, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
                cv2.resize(small, (width, height), dst=heat, interpolation=cv2.INTER_LINEAR)
            else:
                cv2.resize(positive, (width, height), dst=large, interpolation=cv2.INTER_LINEAR)
                cv2.normalize(large, heat, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
            cv2.applyColorMap(heat, table, colors)
            cv2.addWeighted(colors, alpha, image, 1 - alpha, 0, dst=target)
        return result

    return draw


def with_numpy(alpha: float, shape: tuple[int, ...]) -> Callable[..., Any]:
    """Return the same steps in NumPy, with the interpolation as two products with small matrices."""

    def matrix(size: int) -> NDArray[np.float32]:
        position = np.clip((np.arange(size) + 0.5) * _MAP / size - 0.5, 0, _MAP - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(_MAP))).astype(np.float32)

    rows, columns = matrix(shape[1]), matrix(shape[2]).T.copy()
    colors = PALETTE.astype(np.float32) * np.float32(alpha)
    rest = np.float32(1 - alpha)

    def draw(maps: Any, images: Any) -> Any:
        large = rows @ np.maximum(maps, np.float32(0)) @ columns
        low, high = large.min(axis=(1, 2), keepdims=True), large.max(axis=(1, 2), keepdims=True)
        entries = np.rint((large - low) * (np.float32(255) / (high - low))).astype(np.uint8)
        return np.rint(np.take(colors, entries, axis=0) + rest * images).astype(np.uint8)

    return draw


def with_torch(alpha: float, shape: tuple[int, ...]) -> Callable[..., Any]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    colors = torch.from_numpy(PALETTE.astype(np.float32) * np.float32(alpha))
    size = shape[1:3]

    def draw(maps: Any, images: Any) -> Any:
        small = torch.from_numpy(maps).relu()[:, None]
        large = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)[:, 0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        entries = ((large - low) * (255 / (high - low))).round().long()
        mixed = colors[entries].add_(torch.from_numpy(images), alpha=1 - alpha)
        return mixed.round_().to(torch.uint8).numpy()

    return draw


RIVALS: dict[str, Callable[[float, tuple[int, ...]], Callable[..., Any]]] = {
    "OpenCV": with_opencv,
    "OpenCV, coarser": partial(with_opencv, coarser=True),
    "NumPy": with_numpy,
    "PyTorch": with_torch,
}


def overlays(batch: int, size: int, alpha: float, count: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    maps = random.standard_normal((batch, _MAP, _MAP), np.float32)
    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)

    def ours(threads: int) -> Run:
        return lambda: _core.overlay_maps(images, maps, PALETTE, alpha, True, threads)

    candidates = {
        f"SeeWhy, {isa}, {threads}": with_isa(isa, ours(threads)) for isa in _core.isas() for threads in (1, 2)
    }
    best = _core.isas()[-1]
    steps = step_by_step(alpha)
    candidates["SeeWhy, step by step"] = with_isa(best, lambda: steps(maps, images))
    distances, missing = {}, []
    expected = ours(1)().astype(int)
    for name, make in RIVALS.items():
        try:
            draw = make(alpha, images.shape)
        except ImportError:
            missing.append(name)
            continue
        distances[name] = int(np.abs(draw(maps, images).astype(int) - expected).max())
        candidates[name] = lambda draw=draw: draw(maps, images)
    times = rounds({**candidates, "copy": copy_of(2 * images.nbytes)}, count)
    reference = times[f"SeeWhy, {best}, 1"]
    return {
        "batch": batch,
        "alpha": alpha,
        "seconds": times,
        "furthest from ours": distances,
        "not installed": missing,
        "ratios": {name: {key: times[name][key] / reference[key] for key in reference} for name in times},
    }


def machine() -> dict[str, Any]:
    versions = {"seewhy": __version__, "numpy": np.__version__}
    for name in ("cv2", "torch"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except ImportError:
            continue
    return {**describe(), "isas": _core.isas(), "versions": versions}


def print_kernels(found: list[dict[str, Any]]) -> None:
    variants = [name for name in found[0]["seconds"] if name != "copy"]
    print(f"\nKernels, batch {found[0]['batch']}: GB/s (share of a copy), by instruction set and threads")
    print(f"{'':26}{'MB':>7}{'copy':>8}" + "".join(f"{variant:>16}" for variant in variants))
    for row in found:
        speed = {
            name: row["bytes"] / times["median" if name.endswith(", 2") else "processor"] / 1e9
            for name, times in row["seconds"].items()
        }
        copied = speed["copy"]
        cells = [f"{speed[variant]:.1f} ({speed[variant] / copied:.2f})" for variant in variants]
        print(f"{row['kernel']:26}{row['bytes'] / 1e6:7.1f}{copied:8.1f}" + "".join(f"{cell:>16}" for cell in cells))


def print_overlays(found: dict[str, Any], size: int) -> None:
    print(f"\nOverlays of {size}x{size} from {_MAP}x{_MAP} maps, batch {found['batch']}, alpha {found['alpha']}")
    titles = {"median": "median", "least": "minimum", "processor": "CPU time"}
    columns = "".join(f"{title:>18}" for title in titles.values())
    print(f"{'us/image (÷ SeeWhy, one thread)':34}{columns}{'difference':>12}")
    for name, times in found["seconds"].items():
        cells = [f"{1e6 * times[key] / found['batch']:.1f} ({found['ratios'][name][key]:.2f})" for key in titles]
        distance = found["furthest from ours"].get(name, "")
        print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells) + f"{distance:>12}")
    if found["not installed"]:
        print(f"not installed: {', '.join(found['not installed'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append", help="batch size; repeatable (default: 8 and 32)")
    parser.add_argument("--size", type=int, default=224, help="side length of the images in pixels (default: 224)")
    parser.add_argument("--rounds", type=int, default=40, help="number of rounds (default: 40)")
    parser.add_argument(
        "--alpha", type=float, action="append", help="opacity of the overlays; repeatable (default: 0.5 and 0.4)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()

    batches, alphas = options.batch or [8, 32], options.alpha or [0.5, 0.4]
    before = _core.isa()
    overlay_results = [overlays(batch, options.size, alpha, options.rounds) for batch in batches for alpha in alphas]
    kernel_results = {batch: kernels(batch, options.size, options.rounds) for batch in batches}
    _core.use_isa(before)
    if options.json:
        rows = [row for found in kernel_results.values() for row in found]
        print(
            json.dumps(
                {"machine": machine(), "size": options.size, "overlays": overlay_results, "kernels": rows}, indent=2
            )
        )
        return
    print(machine())
    for found in kernel_results.values():
        print_kernels(found)
    for found in overlay_results:
        print_overlays(found, options.size)


if __name__ == "__main__":
    main()
