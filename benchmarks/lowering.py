"""What each way of writing the backward pass is worth: guided gradients with all of them, and with one left out.

    python benchmarks/lowering.py [--models resnet50 mobilenet_v2] [--rounds 9] [--json]

Every variant is exported afresh, from the same weights. Rounds alternate between the variants, on one thread, so that
processor time counts and other processes disturb little; the least is kept. Reorders are onnxruntime's conversions to
and from its blocked layout, counted in the graph that it makes of the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript import opset20

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "export"))

from networks import torchvision_network

from seewhy.graph import prune
from seewhy_export import export, forward_lowering, joint, masks
from seewhy_export.lowering import convolution, pooling
from seewhy_export.lowering.shapes import fit, put_zeros_between

OUTPUTS = ("logits", "guided_gradients")
aten: Any = torch.ops.aten


def _without(*ways: Callable[..., Any]) -> dict[str, Any]:
    return {"_WAYS": tuple(way for way in convolution._WAYS if way not in ways)}


def _compared(x: Any) -> Any:
    return opset20.Cast(opset20.Greater(x, opset20.Constant(value_float=0.0)), to=1)


def _below(x: Any, bound: float) -> Any:
    return opset20.Cast(opset20.Less(x, opset20.Constant(value_float=bound)), to=1)


_COMPARISONS = {
    torch.ops.seewhy.is_positive.default: _compared,
    torch.ops.seewhy.is_below.default: _below,
}

# What is left out: what to put in its place, by the module that looks it up.
VARIANTS: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "everything": [],
    "norms folded into the weights, for the gradient too": [(joint, {"foldable": lambda nodes, kept: {}})],
    "constants computed at export": [(joint, {"compute_constants": lambda graph, weights: None})],
    "start from the head's row": [(joint, {"_head": lambda logits: None})],
    "global means spread in blocks": [
        (
            forward_lowering,
            {"mean": lambda x, dim, keepdim=False, dtype=None: aten.mean.dim(x, dim, keepdim, dtype=dtype)},
        )
    ],
    "back into blocks": [
        (convolution, {"blocked": lambda x: x}),
        (pooling, {"blocked": lambda x: x}),
    ],
    "stride 1 as a convolution": [(convolution, _without(convolution._unstrided))],
    "zeros between by ConvTranspose": [
        (convolution, {"_spread": lambda x, stride, sizes: fit(put_zeros_between(x, stride), sizes)})
    ],
    "strided depthwise as zeros and a convolution": [(convolution, _without(convolution._depthwise))],
    "stride 2 by phases": [(convolution, _without(convolution._by_phases))],
    "masks by HardSigmoid": [(masks.TRANSLATIONS, _COMPARISONS)],
}


@contextmanager
def _changed(changes: list[tuple[Any, dict[str, Any]]]) -> Iterator[None]:
    if not changes:
        yield
        return
    (where, values), *others = changes
    change = patch.dict(where, values) if isinstance(where, dict) else patch.multiple(where, **values)
    with change, _changed(others):
        yield


def make(network: str, name: str, folder: Path) -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    """Export one variant; its session on one thread, and how often onnxruntime's graph leaves its blocks."""
    path, optimized = folder / "model.onnx", folder / "optimized.onnx"
    mean = {aten.mean.dim: lambda *args, **options: forward_lowering.mean(*args, **options)}
    with _changed(VARIANTS[name]), patch.dict(forward_lowering.FORWARD_LOWERINGS, mean):
        export(torchvision_network(network), path, outputs=list(OUTPUTS), verify=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(
        prune(onnx.load(path), OUTPUTS).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    counts = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return session, {kind: counts[kind] for kind in ("ReorderInput", "ReorderOutput")}


def measure(network: str, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        made = {name: make(network, name, Path(folder)) for name in VARIANTS}
    feeds = {
        "images": np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32),
        "targets": np.array([-1]),
    }
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds + 1):  # the first is not counted
        for name, (session, _) in made.items():
            start = time.process_time()
            session.run(None, feeds)
            times[name].append(time.process_time() - start)
    whole = min(times["everything"][1:])
    return [
        {
            "without": name,
            "milliseconds": round(1e3 * min(times[name][1:]), 2),
            "ratio": round(min(times[name][1:]) / whole, 3),
            "reorders": sum(counts.values()),
        }
        for name, (_, counts) in made.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = {network: measure(network, chosen.rounds) for network in chosen.models}
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    for network, rows in found.items():
        print(f"\n| {network}, without | ms | ratio | reorders |\n| --- | --- | --- | --- |")
        for row in rows:
            print(f"| {row['without']} | {row['milliseconds']} | {row['ratio']} | {row['reorders']} |")


if __name__ == "__main__":
    main()
