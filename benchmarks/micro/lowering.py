"""Measure the gain of each lowering rule, by guided gradients with all rules and with one rule left out.

    python benchmarks/micro/lowering.py [--models resnet50 mobilenet_v2] [--rounds 9] [--json]

Every variant is exported again from the same weights. The variants take turns in rounds with changing order, on one
thread and on all cores. The result is the median of the rounds' ratios to the variant with all rules. `reorders` is the
number of conversions to and from the blocked layout in onnxruntime's optimized graph.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from onnxscript import opset20

from seewhy._shared.cpu_count import usable_cores
from seewhy.runtime.graph_pruning import prune
from seewhy_export import export
from seewhy_export.backward import joint_graph
from seewhy_export.lowering import convolution, forward_operators, onnx_masks, pooling
from seewhy_export.lowering.shape_helpers import fit, put_zeros_between

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shared.forward_pass import cpu_session
from benchmarks.shared.markdown_tables import table
from benchmarks.shared.random_networks import live_network
from benchmarks.shared.round_statistics import order
from benchmarks.shared.timing_in_turns import in_turns, seconds_after_pause

OUTPUTS = ("logits", "guided_gradients")
aten: Any = torch.ops.aten


def _without(*strategies: Callable[..., Any]) -> dict[str, Any]:
    return {"_STRATEGIES": tuple(kept for kept in convolution._STRATEGIES if kept not in strategies)}


def _compared(x: Any) -> Any:
    return opset20.Cast(opset20.Greater(x, opset20.Constant(value_float=0.0)), to=1)


def _below(x: Any, bound: float) -> Any:
    return opset20.Cast(opset20.Less(x, opset20.Constant(value_float=bound)), to=1)


_COMPARISONS = {
    torch.ops.seewhy.is_positive.default: _compared,
    torch.ops.seewhy.is_below.default: _below,
}

# Rule that is left out -> replacements, as pairs of a module or table and its new values.
VARIANTS: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "everything": [],
    "norms folded into the weights, for the gradient too": [
        (joint_graph, {"find_foldable_norms": lambda nodes, kept: {}})
    ],
    "constants computed at export": [(joint_graph, {"compute_constants": lambda graph, weights: None})],
    "start from the head's row": [(joint_graph, {"_head": lambda logits: None})],
    "global means spread in blocks": [
        (
            forward_operators,
            {"mean": lambda x, dim, keepdim=False, dtype=None: aten.mean.dim(x, dim, keepdim, dtype=dtype)},
        )
    ],
    "back into blocks": [
        (convolution, {"to_blocked_layout": lambda x: x}),
        (pooling, {"to_blocked_layout": lambda x: x}),
    ],
    "stride 1 as a convolution": [(convolution, _without(convolution._unstrided))],
    "zeros between by ConvTranspose": [
        (convolution, {"_spread": lambda x, stride, sizes: fit(put_zeros_between(x, stride), sizes)})
    ],
    "strided depthwise as zeros and a convolution": [(convolution, _without(convolution._depthwise))],
    "stride 2 by phases": [(convolution, _without(convolution._by_phases))],
    "masks by HardSigmoid": [(onnx_masks.TRANSLATIONS, _COMPARISONS)],
}


@contextmanager
def _patched(changes: list[tuple[Any, dict[str, Any]]]) -> Iterator[None]:
    if not changes:
        yield
        return
    (target, values), *others = changes
    change = patch.dict(target, values) if isinstance(target, dict) else patch.multiple(target, **values)
    with change, _patched(others):
        yield


def export_variant(network: str, name: str, folder: Path) -> tuple[bytes, int]:
    """Export one variant and return its graph and the number of layout conversions in onnxruntime's graph."""
    path, optimized = folder / "model.onnx", folder / "optimized.onnx"
    mean = {aten.mean.dim: lambda *args, **options: forward_operators.mean(*args, **options)}
    with _patched(VARIANTS[name]), patch.dict(forward_operators.FORWARD_LOWERINGS, mean):
        export(live_network(f"torchvision:{network}")[0], path, outputs=list(OUTPUTS), verify=False)
    model = prune(onnx.load(path), OUTPUTS).SerializeToString()
    cpu_session(model, 1, optimized_model_filepath=str(optimized))
    nodes = onnx.load(optimized).graph.node
    return model, sum(node.op_type in ("ReorderInput", "ReorderOutput") for node in nodes)


def measure(network: str, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        variants = {name: export_variant(network, name, Path(folder)) for name in VARIANTS}
    feeds = {
        "images": np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32),
        "targets": np.array([-1]),
    }
    rows = [{"without": name, "reorders": reorders} for name, (_, reorders) in variants.items()]
    for threads in sorted({1, usable_cores()}):
        runs = {name: partial(cpu_session(model, threads).run, None, feeds) for name, (model, _) in variants.items()}
        times = in_turns({name: partial(seconds_after_pause, run) for name, run in runs.items()}, rounds, order)
        for row in rows:
            ratios = np.array(times[str(row["without"])]) / np.array(times["everything"])
            row[f"ratio, {threads} threads"] = round(float(np.median(ratios)), 3)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet_v2"], help="torchvision models")
    parser.add_argument("--rounds", type=int, default=11, help="number of rounds (default: 11)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {network: measure(network, options.rounds) for network in options.models}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for network, rows in found.items():
        first_column, *columns = rows[0]
        print("\n" + table([f"{network}, {first_column}", *columns], (row.values() for row in rows)), end="")


if __name__ == "__main__":
    main()
