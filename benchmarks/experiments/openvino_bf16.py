"""Measure how bf16 in OpenVINO changes speed and attributions.

    python benchmarks/experiments/openvino_bf16.py MODEL.onnx [--images FOLDER] [--batch 1 8] [--threads 2]
        [--rounds 9] [--json]

The script needs onnxruntime-openvino instead of onnxruntime: `pip install onnxruntime-openvino` in a separate
environment. Three providers take turns: onnxruntime's CPU provider, and its OpenVINO provider in float32 and in bf16.
*forward* is the graph pruned to the logits. Times are the minimum of the rounds.

Attributions are compared with those of the CPU provider, for the class that the CPU provider predicts. The results are
the median over the images of the relative L2 distance and of the rank correlation of the pixels (Spearman), and the
share of images with the same predicted class. Without `--images` the input is noise, for which the comparison of
attributions means nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from seewhy import Explainer
from seewhy.contract import constants as contract
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import SessionCache

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.timing_in_turns import in_turns, seconds_after_pause

METHODS = ("gradcam", "guided-backprop")
FORWARD = "forward"


def providers(threads: int) -> dict[str, list[Any] | None]:
    def openvino(precision: str) -> list[Any]:
        hint = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": precision}})
        return [("openvino", {"device_type": "CPU", "num_of_threads": str(threads), "load_config": hint})]

    return {"CPU provider": None, "OpenVINO, float32": openvino("f32"), "OpenVINO, bf16": openvino("bf16")}


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, axis=-1), axis=-1).astype(np.float64)


def distance(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return distances between two arrays (N, ...), as medians over the N images."""
    found, exact = (values.reshape(len(values), -1).astype(np.float64) for values in (found, exact))
    distances = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    correlations = [np.corrcoef(one, other)[0, 1] for one, other in zip(ranks(found), ranks(exact), strict=True)]
    return {
        "relative_l2": float(np.median(distances)),
        "worst_relative_l2": float(distances.max()),
        "rank_correlation": float(np.median(correlations)),
    }


def accuracy(explainers: dict[str, Explainer], images: Any) -> dict[str, dict[str, Any]]:
    """Compare the attributions of every provider with those of the first one."""
    found: dict[str, dict[str, Any]] = {}
    exact: dict[str, Any] = {}
    for provider, explainer in explainers.items():
        predicted = explainer.explain(images, METHODS[0]).targets
        exact.setdefault("targets", predicted)
        explanations = explainer.explain(images, list(METHODS), target=exact["targets"])
        found[provider] = {"same_class": float(np.mean(predicted == exact["targets"]))}
        for method, explanation in explanations.items():
            found[provider][method] = distance(
                explanation.attributions, exact.setdefault(method, explanation.attributions)
            )
    return found


def times(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the minimum milliseconds of each call, measured in turns."""
    for call in calls.values():
        call()
    seconds = in_turns({name: partial(seconds_after_pause, call) for name, call in calls.items()}, rounds)
    return {name: 1e3 * min(values) for name, values in seconds.items()}


def run_forward(sessions: SessionCache, pixels: np.ndarray) -> object:
    return sessions.run(frozenset({contract.LOGITS}), {contract.IMAGES: pixels})


def run_explanation(explainer: Explainer, pixels: np.ndarray, method: str) -> object:
    return explainer.explain(pixels, method).heatmaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model file")
    parser.add_argument("--images", type=Path, help="folder of images for the comparison of attributions")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes (default: 1 8)")
    parser.add_argument("--threads", type=int, default=1, help="number of threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default: 9)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args()
    if "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers():
        raise SystemExit("openvino_bf16: this onnxruntime has no OpenVINO provider; pip install onnxruntime-openvino")
    provider_options = providers(options.threads)
    explainers = {
        provider: Explainer(options.model, requested, options.threads)
        for provider, requested in provider_options.items()
    }
    forward = {
        provider: SessionCache(ModelFile.read(options.model), requested, options.threads)
        for provider, requested in provider_options.items()
    }
    metadata = explainers["CPU provider"].metadata
    shape = (max(8, *options.batch), metadata.channels, *metadata.image_size)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    images = sorted(options.images.iterdir()) if options.images else noise
    report: dict[str, Any] = {
        "onnxruntime": onnxruntime.__version__,
        "threads": options.threads,
        "accuracy": accuracy(explainers, images),
        "ms": {},
    }
    for batch in options.batch:
        pixels = noise[:batch]
        for task in (FORWARD, *METHODS):
            calls = {
                provider: partial(run_forward, forward[provider], pixels)
                if task == FORWARD
                else partial(run_explanation, explainers[provider], pixels, task)
                for provider in provider_options
            }
            report["ms"][f"{task}, batch {batch}"] = times(calls, options.rounds)
    print(json.dumps(report, indent=1) if options.json else text(report))


def text(report: dict[str, Any]) -> str:
    lines = []
    for case, found in report["ms"].items():
        first = next(iter(found.values()))
        lines += [
            f"{case}: " + ", ".join(f"{provider} {ms:.2f} ms ({ms / first:.2f})" for provider, ms in found.items())
        ]
    for provider, found in report["accuracy"].items():
        lines.append(f"{provider}: the same class for {found['same_class']:.0%} of the images")
        for method in METHODS:
            values = ", ".join(f"{key} {value:.2g}" for key, value in found[method].items())
            lines.append(f"  {method}: {values}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
