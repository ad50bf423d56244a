"""Networks for onnx_sources.py, and the text of the page docs/reference/onnx-source.md."""

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

# (exporter, opset, any batch size). The files of the last variant are also exported and compared with autograd.
VARIANTS = (("script", 11, False), ("script", 17, True), ("dynamo", 20, True), ("dynamo", 18, False))

PEERS = ("onnx2torch", "onnx2pytorch")

HEAD = """# ONNX files as sources

    seewhy export model.onnx --labels labels.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

exports a network whose PyTorch source you do not have. The exporter converts the graph to a PyTorch module with one
child per node, and then treats it like every other source. ONNX files hold neither labels nor preprocessing, so options
set them.

The exporter first compares the module with onnxruntime on the original file, on noise and on an image with large areas
of one value. The relative L2 error may be at most 1e-4, or four times PyTorch's own float32 error if that is larger
(2e-2 for a file in half precision), on one of five draws.

Supported files have opset {opsets}, one floating-point input of images (N, C, H, W) or (N, H, W, C), and weights in the
file or beside it. `--head` chooses one of several outputs, or names a value inside the graph. `--size` sets sizes that
the file leaves open. `--layer` takes the name of a node or of a value, or the module path that `seewhy` prints. If the
file has a fixed batch size, the exported one accepts any: shapes that contain the file's batch size get the actual one.
A softmax or sigmoid at the end is removed as usual. Clip from 0 to 6 counts as ReLU6.

The exporter refuses these, and names the operator and the node: control flow (If, Loop, Scan), quantised arithmetic
(QuantizeLinear, QLinearConv, ...; weights that are merely stored in eight bits are accepted), operators of other
domains (com.microsoft, which onnxruntime writes into optimised files), random numbers, shapes that depend on pixels,
and sizes of more than 64 bits.

Weights beside the file must be regular files in its own folder, after links are followed. This applies to every tensor
in the file, including those in functions and in parts that the chosen output does not need. The size of a tensor must
match its type and shape and be at most 2 GiB. A value has at most 2^28 elements, and a value that is computed without
the images, such as a shape, at most 2^24.

These operators are converted:

{operators}

## Test results

`python benchmarks/compatibility/onnx_sources.py` writes this page. The networks have random weights that leave no
branch switched off. PyTorch's TorchScript exporter (`script`) and its current one (`dynamo`) wrote them for one image
at a time or for any number. The columns are:

- *conversion*: relative L2 difference of the converted network's output from onnxruntime's.
- *then*: every file was traced for any number of images, which is the exporter's first step, and one file of each
  network was exported.
- *logits*: difference between the logits of the exported file, for three images at once, and those of the original.
- *gradients*: largest error of any output against PyTorch's autograd in float64. PyTorch's own float32 error is in
  brackets where it mattered; [semantics.md](../concepts/semantics.md#parity) explains its role.

{summary}

"""

TAIL = """
## Other converters

The converters on PyPI were tested on the same files. The exporter needs a module that `torch.export` can trace for any
number of images.

{table}
Neither converter was built for tracing. A shape that is an input of a node is a tensor in their modules, and a trace
does not know its numbers. SeeWhy keeps such values apart from tensors, with symbolic sizes in them
(`onnx_import/values.py`).
"""


def label(spec: str, variant: tuple[str, int, bool]) -> str:
    """Return the key of a file's result."""
    exporter, opset, free = variant
    return f"{spec} {exporter} {opset} {'any' if free else 'one'}"


def page(results: dict[str, dict[str, Any]], oldest_opset: int, operators: Sequence[str]) -> str:
    """Return the whole page; `operators` are the names of the converted operators."""
    head = ["network", "written by", "opset", "batch", "nodes", "conversion", "then", "logits", "gradients"]
    rows = [row(spec, variant, results.get(label(spec, variant), {})) for spec in NETWORKS for variant in VARIANTS]
    text = HEAD.format(
        opsets=f"{oldest_opset} and later",
        operators=textwrap.fill(" ".join(f"`{name}`" for name in operators), 120),
        summary=summary(results),
    )
    return text + table(head, rows) + peers(results)


def summary(results: dict[str, dict[str, Any]]) -> str:
    records = [results.get(label(spec, variant), {}) for spec in NETWORKS for variant in VARIANTS]
    written = [record for record in records if record and "unwritten" not in record]
    good = sum("file" in record or "traced" in record for record in written)
    refused = sum("refused" in record for record in written)
    versions = next((record["versions"] for record in written if "versions" in record), {})
    names = ", ".join(f"{name} {number}" for name, number in versions.items())
    missing = sum(not record for record in records)
    text = (
        f"Of {len(written)} files that PyTorch could write, {good} were accepted and {refused} refused"
        + (f"; {missing} were not tested" if missing else "")
        + f". Versions: {names}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def row(spec: str, variant: tuple[str, int, bool], record: dict[str, Any]) -> list[Any]:
    exporter, opset, free = variant
    return [spec, exporter, opset, "any" if free else "one", record.get("nodes", ""), *outcome(record)]


def outcome(record: dict[str, Any]) -> list[str]:
    """Return the cells conversion, then, logits and gradients, or the reason of a failure."""
    for key, title in (("unwritten", "PyTorch cannot write it"), ("refused", "refused"), ("failed", "failed")):
        if key in record:
            reason = record[key].replace("|", "/")
            return [f"{title}: {reason}", "", "", ""]
    if not record:
        return ["not tested", "", "", ""]
    if "file" not in record:
        return [f"{record['conversion']:.1e}", "traced", "", ""]
    return [f"{record['conversion']:.1e}", "exported", f"{record['file']:.1e}", gradients(record["worst"])]


def gradients(worst: list[float | None] | None) -> str:
    if worst is None:
        return ""
    own = "" if worst[1] is None else f" ({worst[1]:.1e})"
    return f"{worst[0]:.1e}{own}"


def peers(results: dict[str, dict[str, Any]]) -> str:
    peer_results = {key.removeprefix("peers "): record for key, record in results.items() if key.startswith("peers ")}
    numbers = peer_results.pop("versions", {})
    if not peer_results:
        return ""
    rows = []
    for peer in PEERS:
        outcomes = [record[peer] for record in peer_results.values() if peer in record]
        traced = sum(text == "traces" for text in outcomes)
        converted = sum(not text.startswith("does not convert") for text in outcomes)
        reasons = Counter(reason(text) for text in outcomes if text != "traces").most_common(2)
        listed = "; ".join(f"{text} ({count})" for text, count in reasons)
        rows.append([f"{peer} {numbers.get(peer, '')}", len(outcomes), converted, traced, listed])
    head = ["converter", "files", "converted", "of these, traced", "most frequent reasons for failure"]
    return TAIL.format(table=table(head, rows))


def reason(text: str) -> str:
    """Return a failure without the parts that differ from file to file."""
    if "operation_type=" in text:
        operator, number = text.partition("operation_type='")[2].split("', version=")
        return f"no {operator} of opset {number.rstrip(')')}"
    if "data-dependent" in text:
        return "a shape that depends on data"
    return text.partition(": ")[2].split(":")[0] + (": a name of the file" if "no attribute" in text else "")
