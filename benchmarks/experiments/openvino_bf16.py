"""What OpenVINO's bf16 does to speed and to the maps: `pip install onnxruntime-openvino`, in an environment of its own.

    python benchmarks/experiments/openvino_bf16.py MODEL.onnx [--images FOLDER] [--batch 1 8] [--threads 2]
        [--rounds 9] [--json]

Three ways in turns: onnxruntime's CPU provider, and its OpenVINO provider in float32 and in bf16. *forward* is the
pruned graph that gives the logits alone. Times are the least of the rounds. Attributions are compared with the CPU
provider's, each image's for the class that the CPU provider predicts: relative L2 distance, and the correlation of
pixels' ranks (Spearman), both in the median over the images; and how often the predicted class is the same. Without
`--images` the input is noise, and says nothing of maps.
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
    """Medians over the images; (N, ...)."""
    found, exact = (values.reshape(len(values), -1).astype(np.float64) for values in (found, exact))
    apart = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    alike = [np.corrcoef(one, other)[0, 1] for one, other in zip(ranks(found), ranks(exact), strict=True)]
    return {
        "relative_l2": float(np.median(apart)),
        "worst_relative_l2": float(apart.max()),
        "rank_correlation": float(np.median(alike)),
    }


def accuracy(explainers: dict[str, Explainer], images: Any) -> dict[str, dict[str, Any]]:
    """Of every way, beside the first."""
    found: dict[str, dict[str, Any]] = {}
    exact: dict[str, Any] = {}
    for way, explainer in explainers.items():
        predicted = explainer.explain(images, METHODS[0]).targets
        exact.setdefault("targets", predicted)
        answers = explainer.explain(images, list(METHODS), target=exact["targets"])
        found[way] = {"same_class": float(np.mean(predicted == exact["targets"]))}
        for method, answer in answers.items():
            found[way][method] = distance(answer.attributions, exact.setdefault(method, answer.attributions))
    return found


def times(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least milliseconds of each, in turns."""
    for call in calls.values():
        call()
    taken = in_turns({name: partial(seconds_after_pause, call) for name, call in calls.items()}, rounds)
    return {name: 1e3 * min(values) for name, values in taken.items()}


def run_forward(sessions: SessionCache, pixels: np.ndarray) -> object:
    return sessions.run(frozenset({contract.LOGITS}), {contract.IMAGES: pixels})


def explained(explainer: Explainer, pixels: np.ndarray, method: str) -> object:
    return explainer.explain(pixels, method).heatmaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, help="a folder of photographs to compare the maps of")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers():
        raise SystemExit("openvino_bf16: this onnxruntime has no OpenVINO provider; pip install onnxruntime-openvino")
    ways = providers(chosen.threads)
    explainers = {way: Explainer(chosen.model, asked, chosen.threads) for way, asked in ways.items()}
    forward = {way: SessionCache(ModelFile.read(chosen.model), asked, chosen.threads) for way, asked in ways.items()}
    metadata = explainers["CPU provider"].metadata
    shape = (max(8, *chosen.batch), metadata.channels, *metadata.image_size)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    images = sorted(chosen.images.iterdir()) if chosen.images else noise
    report: dict[str, Any] = {
        "onnxruntime": onnxruntime.__version__,
        "threads": chosen.threads,
        "accuracy": accuracy(explainers, images),
        "ms": {},
    }
    for batch in chosen.batch:
        pixels = noise[:batch]
        for what in (FORWARD, *METHODS):
            calls = {
                way: partial(run_forward, forward[way], pixels)
                if what == FORWARD
                else partial(explained, explainers[way], pixels, what)
                for way in ways
            }
            report["ms"][f"{what}, batch {batch}"] = times(calls, chosen.rounds)
    print(json.dumps(report, indent=1) if chosen.json else text(report))


def text(report: dict[str, Any]) -> str:
    lines = []
    for case, found in report["ms"].items():
        first = next(iter(found.values()))
        lines += [f"{case}: " + ", ".join(f"{way} {ms:.2f} ms ({ms / first:.2f})" for way, ms in found.items())]
    for way, found in report["accuracy"].items():
        lines.append(f"{way}: the same class for {found['same_class']:.0%}")
        for method in METHODS:
            values = ", ".join(f"{key} {value:.2g}" for key, value in found[method].items())
            lines.append(f"  {method}: {values}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
