"""Tests of exported graphs that count how often they leave onnxruntime's blocked layout on the CPU.

The bounds are the counts that were reached. A higher count means that whole maps are copied more often. Unlike times,
the counts are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest

from seewhy.runtime.graph_pruning import prune
from support.exporting.networks import torchvision_network

GRADCAM = ("logits", "activations", "gradients")
GUIDED = ("logits", "guided_gradients")
# Channels are multiples of 16 in these, so that the counts are the same with and without AVX-512.
BOUNDS = {
    # Each output that is a map leaves the blocks once, and the head's row enters them.
    ("resnet18", GRADCAM): {"ReorderInput": 1, "ReorderOutput": 2, "ConvTranspose": 0},
    # The stem's pool and gradient, the strided blocks' three residual paths, and four phases for each of their
    # convolutions.
    ("resnet18", GUIDED): {"ReorderInput": 13, "ReorderOutput": 23, "ConvTranspose": 7},
    # Each of the five pools leaves and enters the blocks, since onnxruntime finds winners only outside of them.
    ("vgg11", GUIDED): {"ReorderInput": 9, "ReorderOutput": 10, "ConvTranspose": 0},
}


CASES = [
    pytest.param(
        network, outputs, marks=[pytest.mark.slow] if network == "vgg11" else [], id=f"{network}-{outputs[-1]}"
    )
    for network, outputs in BOUNDS
]


@pytest.mark.parametrize(("network", "outputs"), CASES)
def test_the_graph_stays_in_blocks(
    exported: Callable[..., Path], tmp_path: Path, network: str, outputs: tuple[str, ...]
) -> None:
    path = exported(f"blocks_{network}", torchvision_network(network), image_size=(64, 64), verify=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    pruned = prune(onnx.load(path), outputs).SerializeToString()
    onnxruntime.InferenceSession(pruned, options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    if not counts["ReorderOutput"]:
        pytest.skip("onnxruntime has no blocked layout on this processor")
    found = {kind: counts[kind] for kind in BOUNDS[network, outputs]}
    assert all(found[kind] <= bound for kind, bound in BOUNDS[network, outputs].items()), found
