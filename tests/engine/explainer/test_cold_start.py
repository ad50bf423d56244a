"""Tests of the memory that a new process takes until its first explanation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from support.tiny_model import Tiny
from support.tiny_model_files import write

_WEIGHT_BYTES = 2**27


def _output(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


_PEAK = """
import sys
import numpy as np
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
pixels = np.zeros((1, 3, 12, 16), np.float32)
if sys.argv[1] == "seewhy":
    import seewhy
    seewhy.Explainer(sys.argv[2], threads=1).explain(pixels)
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
    session.run(["logits", "activations", "gradients"], {"images": pixels, "targets": np.zeros(1, np.int64)})
print(peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_first_explanation_holds_no_weights_besides_those_of_onnxruntime(tiny: Tiny, tmp_path: Path) -> None:
    """One more copy of the weights would exceed the limit twice."""
    path = _with_large_weight(tiny, tmp_path / "large.onnx")
    ours, plain = (int(_output(_PEAK, kind, path)) for kind in ("seewhy", "onnxruntime"))
    assert plain > _WEIGHT_BYTES
    assert ours - plain < _WEIGHT_BYTES / 2


def _with_large_weight(tiny: Tiny, path: Path) -> Path:
    """Write a tiny model to whose logits the mean of a large weight, which is zero, is added."""
    model = tiny.proto()
    axes = numpy_helper.from_array(np.array([0, 1], np.int64), "axes")
    large = numpy_helper.from_array(np.zeros((1, _WEIGHT_BYTES // 4), np.float32), "large")
    model.graph.initializer.extend((large, axes))
    linear = next(node for node in model.graph.node if node.op_type == "Gemm")
    nodes = [
        helper.make_node("ReduceMean", ["large", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", [linear.input[2], "mean"], ["bias"]),
        *model.graph.node,
    ]
    linear.input[2] = "bias"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return write(path, model)
