"""Networks that onnx_sources.py tries, and the page docs/reference/onnx-source.md that it writes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.shared.markdown_tables import table

NETWORKS = """
    torchvision:squeezenet1_1 torchvision:mobilenet_v2 torchvision:mobilenet_v3_small torchvision:shufflenet_v2_x0_5
    torchvision:mnasnet0_5 torchvision:resnet18 torchvision:efficientnet_b0 torchvision:convnext_tiny
    torchvision:swin_t timm:deit_tiny_patch16_224 timm:edgenext_xx_small timm:mobilevit_xxs
""".split()

# (exporter, opset, whether the file takes any number of images). The last one is held to autograd as well.
WAYS = (("script", 11, False), ("script", 17, True), ("dynamo", 20, True), ("dynamo", 18, False))

PEERS = ("onnx2torch", "onnx2pytorch")

HEAD = """# ONNX files as sources

    seewhy export model.onnx --labels labels.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

is for networks whose PyTorch source nobody has. The graph becomes a PyTorch module, of one child a node, which goes the
way of every other source. Before that its output is compared with what onnxruntime computes from the file, on noise
and on a picture with large areas of one value: relative L2 error at most 1e-4, or four times PyTorch's own float32
error where that is more (2e-2 for a file in half precision), on one of five draws. Labels and preprocessing are not in
such a file, so flags say them.

What is taken: opsets {opsets}, one input of images (N, C, H, W) or (N, H, W, C) in floating point, weights in the
file or beside it. `--head` chooses among several outputs, or names a value inside the graph; `--size` says what a file
leaves open; `--layer` takes a node's name, a value's, or the module path that `seewhy` prints. Where the file is for a
fixed number of images, the exported one is for any: shapes that hold the file's own batch get the real one back. A
score at the end (softmax, sigmoid) is taken off as usual. Clip from 0 to 6 counts as ReLU6.

What is refused, by the names of operator and node: control flow (If, Loop, Scan), quantised arithmetic
(QuantizeLinear, QLinearConv, ...; weights that are only stored in eight bits are fine), operators of other domains
(com.microsoft, which onnxruntime writes into files that it has optimised), random numbers, shapes that depend on
pixels, and sizes of more than 64 bits.

Weights beside the file must be regular files in its own folder, links followed. This holds for every tensor in the
file, also in functions and in parts that the chosen output does not need. A tensor has the size that its type and
shape ask for, at most 2 GiB. One value has at most 2^28 elements, and one that is computed without the images, such as
a shape, at most 2^24.

These operators are converted:

{operators}

## What was tried

Written by `python benchmarks/compatibility/onnx_sources.py`, not by hand: networks with random weights that leave no
branch switched off, written by PyTorch's TorchScript exporter (`script`) and its present one (`dynamo`), for one image
at a time or for any number. *Conversion* is the relative L2 difference of the converted network's output from
onnxruntime's. Every file was then traced for any number of images, which is the exporter's first step, and one of each
network was exported: *logits* is the difference of the exported file's logits, for three images at once, from those of
the file that it came from, and *gradients* the largest error of any output against PyTorch's autograd in float64, with
PyTorch's own float32 error in brackets where it was needed ([semantics.md](../concepts/semantics.md#parity) says what
it is for).

{summary}

"""

TAIL = """
## Other converters

The converters on PyPI were tried first, on the same files. What matters here is whether `torch.export` can trace what
they make, for any number of images.

{table}
Neither was built to be traced: a shape that is an input of a node is a tensor there, whose numbers a trace does not
know. Here such values are kept apart from tensors, with symbolic sizes in them (`onnx_import/values.py`).
"""


def label(spec: str, way: tuple[str, int, bool]) -> str:
    """Return the key of a file's result."""
    exporter, opset, free = way
    return f"{spec} {exporter} {opset} {'any' if free else 'one'}"


def page(results: dict[str, dict[str, Any]], oldest_opset: int, operators: Sequence[str]) -> str:
    """Return the whole page; `operators` are the names of those that the exporter converts."""
    head = ["network", "written by", "opset", "batch", "nodes", "conversion", "then", "logits", "gradients"]
    rows = [row(spec, way, results.get(label(spec, way), {})) for spec in NETWORKS for way in WAYS]
    text = HEAD.format(
        opsets=f"{oldest_opset} and later",
        operators=textwrap.fill(" ".join(f"`{name}`" for name in operators), 120),
        summary=summary(results),
    )
    return text + table(head, rows) + peers(results)


def summary(results: dict[str, dict[str, Any]]) -> str:
    records = [results.get(label(spec, way), {}) for spec in NETWORKS for way in WAYS]
    written = [record for record in records if record and "unwritten" not in record]
    good = sum("file" in record or "traced" in record for record in written)
    refused = sum("refused" in record for record in written)
    of = next((record["versions"] for record in written if "versions" in record), {})
    names = ", ".join(f"{name} {number}" for name, number in of.items())
    missing = sum(not record for record in records)
    text = (
        f"Of {len(written)} files that PyTorch could write, {good} were taken and {refused} refused"
        + (f"; {missing} were not tried" if missing else "")
        + f". With {names}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def row(spec: str, way: tuple[str, int, bool], record: dict[str, Any]) -> list[Any]:
    exporter, opset, free = way
    return [spec, exporter, opset, "any" if free else "one", record.get("nodes", ""), *outcome(record)]


def outcome(record: dict[str, Any]) -> list[str]:
    """Conversion, what came then, logits, gradients; or what stopped it."""
    for key, told in (("unwritten", "PyTorch does not write it"), ("refused", "refused"), ("failed", "failed")):
        if key in record:
            reason = record[key].replace("|", "/")
            return [f"{told}: {reason}", "", "", ""]
    if not record:
        return ["not tried", "", "", ""]
    if "file" not in record:
        return [f"{record['conversion']:.1e}", "traced", "", ""]
    return [f"{record['conversion']:.1e}", "exported", f"{record['file']:.1e}", gradients(record["worst"])]


def gradients(worst: list[float | None] | None) -> str:
    if worst is None:
        return ""
    own = "" if worst[1] is None else f" ({worst[1]:.1e})"
    return f"{worst[0]:.1e}{own}"


def peers(results: dict[str, dict[str, Any]]) -> str:
    tried = {key.removeprefix("peers "): record for key, record in results.items() if key.startswith("peers ")}
    numbers = tried.pop("versions", {})
    if not tried:
        return ""
    rows = []
    for peer in PEERS:
        told = [record[peer] for record in tried.values() if peer in record]
        traced = sum(text == "traces" for text in told)
        converted = sum(not text.startswith("does not convert") for text in told)
        reasons = Counter(reason(text) for text in told if text != "traces").most_common(2)
        listed = "; ".join(f"{text} ({count})" for text, count in reasons)
        rows.append([f"{peer} {numbers.get(peer, '')}", len(told), converted, traced, listed])
    head = ["converter", "files", "converted", "of these, traced", "what stops it most often"]
    return TAIL.format(table=table(head, rows))


def reason(text: str) -> str:
    """A failure without what differs from file to file."""
    if "operation_type=" in text:
        operator, number = text.partition("operation_type='")[2].split("', version=")
        return f"no {operator} of opset {number.rstrip(')')}"
    if "data-dependent" in text:
        return "a shape that depends on data"
    return text.partition(": ")[2].split(":")[0] + (": a name of the file" if "no attribute" in text else "")
